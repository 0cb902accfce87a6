import { describe, expect, it } from 'vitest';
import { EVENT_ERROR_CODE, EVENT_VALID, EventType } from '../../../src/vmcs/formats.ts';
import { EXIT_REASONS, type ExitReason } from '../../../src/vmx/exit/exit-reasons.ts';
import { checkExitRequest, type ExitRequest } from '../../../src/vmx/exit/exit-request.ts';
import { type GuestOptions, guestProcessor } from '../../support/vmx-processor.ts';

const event = (type: number, vector: number, more = 0) => (EVENT_VALID | (type << 8) | vector | more) >>> 0;
const exception = (vector: number, more = 0) => event(EventType.HardwareException, vector, more);
const NMI = event(EventType.Nmi, 2);
const INTERRUPT = event(EventType.ExternalInterrupt, 0x20);
const INT_80H = event(EventType.SoftwareInterrupt, 0x80);
const GP = exception(13, EVENT_ERROR_CODE);
const NESTED = 1 << 13;

const wrong = (request: ExitRequest) => {
  const { name } = EXIT_REASONS[request.reason];
  const text = checkExitRequest(request);
  return text?.replace(`exit reason ${request.reason} (${name}): `, '');
};
const wrongOn = (options: GuestOptions, request: ExitRequest) => {
  const { name } = EXIT_REASONS[request.reason];
  const text = checkExitRequest(request, guestProcessor(options));
  return text?.replace(`exit reason ${request.reason} (${name}): `, '');
};

describe('requests that no processor can perform', () => {
  const WRONG: [string, ExitRequest][] = [
    ['only a VM entry that fails has it', { reason: 33 }],
    ['nothing on this processor causes it', { reason: 6 }],
    ['qualification is a 64-bit value, not -1', { reason: 14, qualification: -1n }],
    [
      'guestLinearAddress is a 64-bit value, not 18446744073709551616',
      { reason: 66, guestLinearAddress: 1n << 64n },
    ],
    ['event is a 32-bit value, not -1', { reason: 0, event: -1 }],
    ['instructionInformation is a 32-bit value, not 0.5', { reason: 19, instructionInformation: 0.5 }],
    ['an instruction has 1 to 15 bytes, not 0', { reason: 10, instructionLength: 0 }],
    ['an instruction has 1 to 15 bytes, not 16', { reason: 10, instructionLength: 16 }],
    ['an instruction has 1 to 15 bytes, not 1.5', { reason: 10, instructionLength: 1.5 }],
    // Exiting events (SDM §30.2.2)
    ['it has an exiting event', { reason: 0 }],
    ['an error code needs an event', { reason: 10, eventErrorCode: 0 }],
    ['it has no exiting event', { reason: 9, event: NMI }],
    ['the valid bit of the exiting event is 0', { reason: 0, event: 0x306 }],
    ['bits 30:14 of the exiting event are 0', { reason: 0, event: exception(6, 1 << 14) }],
    ['no event has type 1', { reason: 0, event: event(EventType.Reserved, 1) }],
    ['the vector of an NMI is 2, not 3', { reason: 0, event: event(EventType.Nmi, 3) }],
    ['no hardware exception has vector 2', { reason: 0, event: exception(2) }],
    ['no hardware exception has vector 32', { reason: 0, event: exception(32) }],
    ['INT1 has vector 1', { reason: 0, event: event(EventType.PrivilegedSoftwareException, 3) }],
    ['INT3 and INTO have vectors 3 and 4', { reason: 0, event: event(EventType.SoftwareException, 1) }],
    ['no exiting event has type 4', { reason: 0, event: INT_80H }],
    ['no exiting event has type 7', { reason: 0, event: event(EventType.Other, 1) }],
    ['its exiting event is an exception or NMI', { reason: 0, event: INTERRUPT }],
    ['its exiting event is an external interrupt', { reason: 1, event: NMI }],
    ['the exiting event has no error code', { reason: 0, event: exception(6, EVENT_ERROR_CODE) }],
    ['an error code needs bit 11 of the event', { reason: 0, event: exception(6), eventErrorCode: 0 }],
    [
      'bit 13 of the exiting event is 1 only for an exception met during FRED event delivery',
      { reason: 0, event: exception(8, EVENT_ERROR_CODE | NESTED) },
    ],
    // Original events (SDM §30.2.4)
    ['it has no original event', { reason: 10, originalEvent: GP }],
    ['it has no original event', { reason: 0, event: exception(8, EVENT_ERROR_CODE), originalEvent: GP }],
    ['it has no original event', { reason: 0, event: NMI, originalEvent: GP }],
    ['it has no original event', { reason: 9, qualification: 0n, originalEvent: GP }],
    ['it has no original event', { reason: 44, qualification: 0x1000n, originalEvent: GP }],
    ['it has an original event', { reason: 44, qualification: 0x3000n }],
    ['it has an original event', { reason: 44, qualification: 0xa000n }],
    ['it has an original event', { reason: 9, qualification: 0xc000_0000n }],
    ['an error code or event data need an original event', { reason: 48, originalEventErrorCode: 0 }],
    ['an error code or event data need an original event', { reason: 48, originalEventData: 0n }],
    [
      'an error code needs bit 11 of the original event',
      { reason: 48, originalEvent: NMI, originalEventErrorCode: 0 },
    ],
    ['the valid bit of the original event is 0', { reason: 48, originalEvent: 0x20 }],
    // Exit qualifications (SDM §30.2.1)
    ['its exit qualification is 0', { reason: 10, qualification: 1n }],
    ['its exit qualification is 0', { reason: 49, qualification: 1n }],
    ['its exit qualification is 0', { reason: 0, event: NMI, qualification: 1n }],
    ['its exit qualification is 0', { reason: 0, event: GP, qualification: 1n }],
    ['bit 8 of the exit qualification is 0 if bit 7 is 0', { reason: 48, qualification: 0x101n }],
    // Addresses
    ['it records no guest-linear address', { reason: 48, qualification: 1n, guestLinearAddress: 0n }],
    ['it records no guest-linear address', { reason: 28, qualification: 0x30n, guestLinearAddress: 0n }],
    ['it records no guest-linear address', { reason: 28, qualification: 0x40n, guestLinearAddress: 0n }],
    ['it records no guest-linear address', { reason: 30, qualification: 8n, guestLinearAddress: 0n }],
    ['it records no guest-linear address', { reason: 62, guestLinearAddress: 0n }],
    ['it records no guest-linear address', { reason: 14, guestLinearAddress: 0n }],
    ['it records no guest-physical address', { reason: 62, guestPhysicalAddress: 0n }],
    // Instructions (SDM §30.2.5)
    ['it records no instruction length', { reason: 1, instructionLength: 1 }],
    ['it records no instruction length', { reason: 0, event: GP, instructionLength: 1 }],
    [
      'it records no instruction length',
      { reason: 9, qualification: 0xc000_0000n, originalEvent: GP, instructionLength: 1 },
    ],
    ['it records no instruction length', { reason: 43, instructionLength: 1 }],
    ['it records no instruction information', { reason: 10, instructionInformation: 0 }],
    ['it records no instruction information', { reason: 30, qualification: 8n, instructionInformation: 0 }],
    ['it records no MSR data', { reason: 78, msrData: 0n }],
    ['no trace or PEBS access causes it', { reason: 10, traceAccess: true }],
    ['RFLAGS.RF is not that of an event delivery or a task switch', { reason: 10, resumeFlag: true }],
    ['RFLAGS.RF is not that of an event delivery or a task switch', { reason: 48, resumeFlag: true }],
  ];
  it.each(WRONG)('%s', (text, request) => {
    expect(wrong(request)).toBe(text);
  });

  it('a number that is no reason', () => {
    expect(checkExitRequest({ reason: 35 as ExitReason })).toBe('35 is no basic exit reason');
  });

  it('the line names the reason', () => {
    expect(checkExitRequest({ reason: 10, qualification: 1n })).toBe(
      'exit reason 10 (CPUID): its exit qualification is 0',
    );
  });
});

describe('requests that a processor in this state cannot perform', () => {
  const ACKNOWLEDGE = { controls: ['exit.acknowledgeInterruptOnExit'] } as const;
  const REAL = { registers: { CR0: 0x30n, IA32_EFER: 0n } } as const;
  const COMPATIBILITY = { registers: { 'CS.accessRights': 0xc09bn } } as const;
  const FRED = { registers: { CR4: 0x1_0000_2020n } } as const;
  const WRONG: [string, GuestOptions, ExitRequest][] = [
    ['with "acknowledge interrupt on exit" it has an exiting event', ACKNOWLEDGE, { reason: 1 }],
    ['without "acknowledge interrupt on exit" it has no exiting event', {}, { reason: 1, event: INTERRUPT }],
    [
      'bit 11 of the exiting event is 1: the exception pushes an error code',
      {},
      { reason: 0, event: exception(13) },
    ],
    ['bit 11 of the exiting event is 0: the exception pushes no error code', REAL, { reason: 0, event: GP }],
    [
      'bit 13 of the exiting event is 1 only for an exception met during FRED event delivery',
      {},
      { reason: 0, event: exception(6, NESTED) },
    ],
    [
      'SYSCALL and SYSENTER are events only with FRED',
      {},
      { reason: 48, originalEvent: event(EventType.Other, 1) },
    ],
    ['event data exist only with FRED', {}, { reason: 48, originalEvent: NMI, originalEventData: 0n }],
    [
      'linear address 0x100000000 has bits 63:32 outside 64-bit mode',
      COMPATIBILITY,
      { reason: 14, qualification: 1n << 32n },
    ],
    [
      'linear address 0x100000000 has bits 63:32 outside 64-bit mode',
      COMPATIBILITY,
      { reason: 0, event: exception(14, EVENT_ERROR_CODE), qualification: 1n << 32n },
    ],
    [
      'linear address 0x100000000 has bits 63:32 outside 64-bit mode',
      COMPATIBILITY,
      { reason: 66, guestLinearAddress: 1n << 32n },
    ],
    [
      'guest-physical address 0x8000000000 is beyond the physical-address width',
      { profile: 'ice-lake' },
      { reason: 48, guestPhysicalAddress: 1n << 39n },
    ],
    [
      'this processor has no guest-physical address field',
      { profile: 'penryn' },
      { reason: 48, guestPhysicalAddress: 0n },
    ],
    [
      'it records no instruction information',
      { msrs: { IA32_VMX_BASIC: 0n } },
      { reason: 30, qualification: 0x10n, instructionInformation: 0 },
    ],
    [
      'it records no guest-linear address',
      {},
      { reason: 49, prematurelyBusyShadowStack: true, guestLinearAddress: 0n },
    ],
    [
      'the "prematurely busy shadow stack" VM-exit control is 0',
      {},
      { reason: 48, prematurelyBusyShadowStack: true },
    ],
    ['"VMM bus-lock detection" is 0', {}, { reason: 10, busLock: true }],
    ['this processor has no enclave mode', { profile: 'penryn' }, { reason: 10, enclaveMode: true }],
  ];
  it.each(WRONG)('%s', (text, options, request) => {
    expect(wrongOn(options, request)).toBe(text);
    expect(checkExitRequest(request)).toBeUndefined();
  });

  const RIGHT: [GuestOptions, ExitRequest][] = [
    [{}, { reason: 10 }],
    [{}, { reason: 10, instructionLength: 15 }],
    [{}, { reason: 1 }],
    [ACKNOWLEDGE, { reason: 1, event: INTERRUPT }],
    [{}, { reason: 0, event: NMI }],
    [{}, { reason: 0, event: GP, eventErrorCode: 0x10 }],
    [REAL, { reason: 0, event: exception(13) }],
    [{}, { reason: 0, event: exception(14, EVENT_ERROR_CODE), qualification: 1n << 63n }],
    [{}, { reason: 0, event: exception(1), qualification: 0x4001n }],
    [{}, { reason: 0, event: exception(6, 1 << 12) }],
    [{}, { reason: 0, event: GP, originalEvent: INT_80H, instructionLength: 2 }],
    [{}, { reason: 0, event: GP, originalEvent: exception(8, EVENT_ERROR_CODE), originalEventErrorCode: 0 }],
    [
      FRED,
      {
        reason: 0,
        event: exception(6, NESTED),
        originalEvent: event(EventType.Other, 1),
        originalEventData: 5n,
      },
    ],
    [{}, { reason: 9, qualification: 0x28n, instructionLength: 7 }],
    [
      {},
      {
        reason: 9,
        qualification: 0xc000_0028n,
        originalEvent: INT_80H,
        instructionLength: 2,
        resumeFlag: true,
      },
    ],
    [{}, { reason: 28, qualification: 0x70n, guestLinearAddress: 1n << 40n }],
    [{}, { reason: 30, qualification: 0x10n, guestLinearAddress: 1n, instructionInformation: 0x100 }],
    [{}, { reason: 44, qualification: 0x3000n, originalEvent: INTERRUPT }],
    [{}, { reason: 44, qualification: 0xf000n }],
    [
      {},
      { reason: 48, qualification: 0x181n, guestLinearAddress: 1n << 47n, guestPhysicalAddress: 1n << 51n },
    ],
    [COMPATIBILITY, { reason: 48, qualification: 0x81n, guestLinearAddress: 0xffff_ffffn }],
    [{}, { reason: 62, traceAccess: true }],
    [
      { controls: ['exit2.prematurelyBusyShadowStack'] },
      { reason: 49, prematurelyBusyShadowStack: true, guestLinearAddress: 8n, guestPhysicalAddress: 0n },
    ],
    [{ controls: ['proc2.vmmBusLockDetection'] }, { reason: 10, busLock: true }],
    [{}, { reason: 79, qualification: 0x10n, msrData: 5n }],
    [{}, { reason: 10, enclaveMode: true }],
  ];
  it.each(RIGHT)('%o: %o is right', (options, request) => {
    expect(wrongOn(options, request)).toBeUndefined();
    expect(checkExitRequest(request)).toBeUndefined();
  });

  it('without a current VMCS its controls are not asked', () => {
    const p = guestProcessor();
    p.vmx.current = undefined;
    expect(checkExitRequest({ reason: 1, event: INTERRUPT }, p)).toBeUndefined();
    expect(checkExitRequest({ reason: 1 }, p)).toBeUndefined();
    expect(checkExitRequest({ reason: 10, busLock: true }, p)).toBeUndefined();
    expect(
      checkExitRequest({ reason: 49, prematurelyBusyShadowStack: true, guestLinearAddress: 0n }, p),
    ).toContain('no guest-linear address');
  });
});
