/** What a VM exit records: exit reason, the information fields, and the VM-entry controls (SDM §30.2). */
import { describe, expect, it } from 'vitest';
import { ExitReason, type ExitRequest, type FieldName } from '../../../src/index.ts';
import { sectionTitle } from '../../../src/sdm/sections.ts';
import { EXIT_REASONS, exitReasonSpec } from '../../../src/vmx/exit/exit-reasons.ts';
import { checkExitRequest } from '../../../src/vmx/exit/exit-request.ts';
import { INSTRUCTION_INFORMATION, QUALIFICATIONS } from '../../../src/vmx/exit/qualifications.ts';
import { exception, Guest, INT_80H, INT1, INT3, INTERRUPT, NMI } from './guest.ts';

const ALL = 0xffff_ffff_ffff_ffffn;
const REASONS = Object.values(ExitReason);
const ENTRY_FAILURES: readonly number[] = [33, 34, 41];
/** SMM VM exits and ENCLV: no request may have them. */
const NEVER: readonly number[] = [5, 6, 70];
const EXITS = REASONS.filter((r) => !ENTRY_FAILURES.includes(r) && !NEVER.includes(r));

const table = <T>(...rows: readonly (readonly [T, ...number[]])[]): Readonly<Record<number, T>> =>
  Object.fromEntries(rows.flatMap(([value, ...reasons]) => reasons.map((r) => [r, value])));

/** Defined bits of the exit qualification (SDM §30.2.1, Tables 30-1 to 30-7); 0 for every other reason. */
const QUALIFICATION = table<bigint>(
  [ALL, 0, 14, 19, 21, 22, 23, 25, 27, 46, 47, 50, 53, 58, 63, 64],
  [0xffn, 4, 45],
  [0xffff_007fn, 5, 30],
  [0xc000_ffffn, 9],
  [0xffff_0f7fn, 28],
  [0xf17n, 29],
  [1n, 32, 36, 54],
  [0x1_ffffn, 44, 48],
  [0xfffn, 56],
  [0x1_1000n, 62],
  [0x1_1800n, 66],
  [0xf_ffffn, 72],
  [0xffff_ffffn, 73, 78, 79, 80, 81, 84, 85],
  [0x1001n, 75],
);
/** Defined bits of the instruction information (SDM §30.2.5, Tables 30-8 to 30-16). */
const INFORMATION = table<number>(
  [0x0fff_8383, 19, 21, 22, 27, 63, 64],
  [0xffff_87fb, 23, 25],
  [0x0003_8380, 30],
  [0x3fff_8b83, 46],
  [0x3fff_87fb, 47],
  [0xffff_8383, 50, 53, 58],
  [0x1878, 57, 61],
  [0x78, 67, 68, 80, 81, 84, 85],
  [0xf000_0078, 69],
);
const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i);
/** Exits whose instruction length is that of an instruction: defined whatever the qualification. */
const BY_INSTRUCTION: readonly number[] = [
  ...[...range(10, 32), 36, 39, 40, 46, 47, 50, 51, 53, 54, 55, ...range(57, 61), 63, 64, 65],
  ...[67, 68, 69, 72, 73, ...range(76, 81), 84, 85],
];
/** Exits that may have an original event, and with a software event then an instruction length. */
const DURING_DELIVERY: readonly number[] = [0, 9, 44, 48, 49, 62, 66];
const LINEAR_ADDRESS: readonly number[] = [5, 28, 30, 48, 49, 62, 66, 75];
const PHYSICAL_ADDRESS: readonly number[] = [48, 49, 66];
const BUSY_SHADOW_STACK: readonly number[] = [49, 62, 75];

const SENTINELS = {
  guestLinearAddress: 0x2222_3333_4444_5555n,
  guestPhysicalAddress: 0x3333_4444_5555_6666n,
  vmExitInstructionLength: 0x4444_5555n,
  vmExitInstructionInformation: 0x5555_6666n,
  exitingEventErrorCode: 0x6666_7777n,
  originalEventErrorCode: 0x7777_8888n,
  originalEventData: 0x8888_9999_aaaa_bbbbn,
  msrData: 0x9999_aaaa_bbbb_ccccn,
  ioRcx: 0xaaaan,
  ioRsi: 0xbbbbn,
  ioRdi: 0xccccn,
  ioRip: 0xddddn,
  vmInstructionError: 0x1234n,
} as const satisfies Partial<Record<FieldName, bigint>>;

function sentinels(guest = new Guest()): Guest {
  return guest
    .fields({
      ...SENTINELS,
      exitQualification: ALL,
      exitingEventIdentification: 0x8000_0b0en,
      originalEventIdentification: 0x8000_0b0en,
    })
    .launch();
}

const read = (guest: Guest) =>
  Object.fromEntries(Object.keys(SENTINELS).map((name) => [name, guest.read(name as FieldName)]));

/** The request that says the least. */
function least(reason: ExitReason): ExitRequest {
  return reason === 0 ? { reason, event: exception(6) } : { reason };
}

/** A request that says everything exits for its reason can say. */
function most(reason: ExitReason): ExitRequest {
  const when = <T extends object>(condition: boolean, value: T) => (condition ? value : {});
  const qualification = reason === 44 ? 0xffff_ffff_ffff_3fffn : ALL;
  return {
    reason,
    ...when(reason in QUALIFICATION, { qualification }),
    ...when(reason === 0, { event: exception(14, true), eventErrorCode: 0xffff_fffe }),
    ...when(reason === 1, { event: INTERRUPT }),
    ...when(BUSY_SHADOW_STACK.includes(reason), { prematurelyBusyShadowStack: true }),
    ...when(LINEAR_ADDRESS.includes(reason), { guestLinearAddress: 0xdead_0001_0002n }),
    ...when(PHYSICAL_ADDRESS.includes(reason), { guestPhysicalAddress: 0xd_ead0_0003n }),
    ...when(DURING_DELIVERY.includes(reason), { originalEvent: INT_80H }),
    ...when(recordsLength(reason), { instructionLength: 15 }),
    ...when(reason in INFORMATION, { instructionInformation: 0xffff_ffff }),
    ...when(reason === 79, { msrData: 0xbeef_0000_0000_0002n }),
  };
}

const recordsLength = (reason: number) => BY_INSTRUCTION.includes(reason) || DURING_DELIVERY.includes(reason);

describe('the table of exit reasons', () => {
  it('has a spec for every reason, and none besides', () => {
    expect(Object.keys(EXIT_REASONS).map(Number)).toEqual([...REASONS].sort((a, b) => a - b));
    expect(new Set(REASONS).size).toBe(REASONS.length);
    for (const hole of [35, 38, 42, 71, 82, 83, 86, 127]) expect(exitReasonSpec(hole)).toBeUndefined();
  });

  it.each(REASONS)('reason %i: name, section, qualification and instruction information', (reason) => {
    const spec = EXIT_REASONS[reason];
    expect(spec.name).not.toBe('');
    expect(sectionTitle(spec.sdm)).not.toBe('');
    expect(spec.class === 'entry-failure').toBe(ENTRY_FAILURES.includes(reason));
    expect(spec.apiCausable).toBe(EXITS.includes(reason));
    const { qualification: rule, instructionInformation: information } = spec;
    if (rule === 'of-event') expect(reason).toBe(0);
    else if (spec.class !== 'entry-failure') {
      expect(rule === 'cleared' ? undefined : QUALIFICATIONS[rule].mask).toBe(QUALIFICATION[reason]);
    }
    const mask = information && Number(INSTRUCTION_INFORMATION[information].mask);
    expect(mask).toBe(INFORMATION[reason]);
    expect(spec.instructionLength === 'instruction').toBe(BY_INSTRUCTION.includes(reason) || reason === 70);
    expect(spec.originalEvent !== 'never').toBe(DURING_DELIVERY.includes(reason));
    expect(spec.guestPhysicalAddress).toBe(PHYSICAL_ADDRESS.includes(reason));
    expect(spec.guestLinearAddress !== 'never').toBe(LINEAR_ADDRESS.includes(reason));
    expect(spec.msrData).toBe(reason === 79);
  });

  it('keeps pending debug exceptions for INIT, SMI, MTF and the trap-like exits only', () => {
    const kept = REASONS.filter((r) => EXIT_REASONS[r].pendingDebug === 'kept');
    expect(kept).toEqual([3, 5, 6, 37, 43, 45, 56, 74]);
  });
});

describe('what a request may say', () => {
  const EXTRA: Readonly<Record<string, Omit<ExitRequest, 'reason'>>> = {
    qualification: { qualification: 1n },
    guestLinearAddress: { guestLinearAddress: 1n },
    guestPhysicalAddress: { guestPhysicalAddress: 1n },
    instructionLength: { instructionLength: 1 },
    instructionInformation: { instructionInformation: 1 },
    event: { event: exception(6) },
    eventErrorCode: { eventErrorCode: 1 },
    originalEvent: { originalEvent: INT_80H },
    originalEventErrorCode: { originalEventErrorCode: 1 },
    originalEventData: { originalEventData: 1n },
    msrData: { msrData: 1n },
  };

  it.each(EXITS)('reason %i: the least, the most, and nothing it does not record', (reason) => {
    expect(checkExitRequest(least(reason))).toBeUndefined();
    const full = most(reason);
    expect(checkExitRequest(full)).toBeUndefined();
    for (const [key, value] of Object.entries(EXTRA)) {
      if (key in full || (key === 'originalEventData' && 'originalEvent' in full)) continue;
      expect([key, checkExitRequest({ ...full, ...value })]).toEqual([key, expect.any(String)]);
    }
  });

  it.each([...ENTRY_FAILURES, ...NEVER])('reason %i cannot be asked for', (reason) => {
    expect(checkExitRequest({ reason: reason as ExitReason })).toContain(`exit reason ${reason}`);
  });

  const REFUSED: readonly (readonly [string, ExitRequest])[] = [
    ['a number that is no reason', { reason: 35 as ExitReason }],
    ['length 0', { reason: 10, instructionLength: 0 }],
    ['length 16', { reason: 10, instructionLength: 16 }],
    ['length 1.5', { reason: 10, instructionLength: 1.5 }],
    ['a qualification of 65 bits', { reason: 14, qualification: 1n << 64n }],
    ['a negative linear address', { reason: 66, guestLinearAddress: -1n }],
    ['no exception', { reason: 0 }],
    ['an event that is not valid', { reason: 0, event: 0x306 }],
    ['reserved bits of an event', { reason: 0, event: 0x8000_4306 }],
    ['event type 1', { reason: 0, event: 0x8000_0100 }],
    ['an NMI with vector 3', { reason: 0, event: 0x8000_0203 }],
    ['a hardware exception with vector 32', { reason: 0, event: exception(32) }],
    ['INT1 with vector 3', { reason: 0, event: 0x8000_0503 }],
    ['INT3 with vector 1', { reason: 0, event: 0x8000_0601 }],
    ['a software interrupt that exits', { reason: 0, event: INT_80H }],
    ['an external interrupt as an exception', { reason: 0, event: INTERRUPT }],
    ['an exception as an external interrupt', { reason: 1, event: exception(6) }],
    ['an error code of #UD', { reason: 0, event: exception(6, true) }],
    ['an error code without bit 11', { reason: 0, event: exception(6), eventErrorCode: 0 }],
    ['an original event of #DF', { reason: 0, event: exception(8, true), originalEvent: INT_80H }],
    ['an original event of an NMI', { reason: 0, event: NMI, originalEvent: INT_80H }],
    ['a task gate without original event', { reason: 9, qualification: 0xc000_0000n }],
    ['a CALL with an original event', { reason: 9, originalEvent: INT_80H }],
    ['an APIC access of delivery without original event', { reason: 44, qualification: 0x3000n }],
    ['an APIC read with an original event', { reason: 44, qualification: 0n, originalEvent: INT_80H }],
    ['#UD with a qualification', { reason: 0, event: exception(6), qualification: 1n }],
    ['EPT violation: bit 8 without bit 7', { reason: 48, qualification: 0x100n }],
    ['EPT violation: linear address without bit 7', { reason: 48, guestLinearAddress: 1n }],
    ['MOV to CR with a linear address', { reason: 28, qualification: 0n, guestLinearAddress: 1n }],
    ['LMSW from a register with one', { reason: 28, qualification: 0x30n, guestLinearAddress: 1n }],
    ['IN with a linear address', { reason: 30, qualification: 8n, guestLinearAddress: 1n }],
    ['IN with instruction information', { reason: 30, qualification: 8n, instructionInformation: 0 }],
    ['#UD with a length', { reason: 0, event: exception(6), instructionLength: 3 }],
    ['RF of an instruction', { reason: 10, resumeFlag: true }],
    ['trace access of CPUID', { reason: 10, traceAccess: true }],
  ];
  it.each(REFUSED)('refused: %s', (_, request) => {
    expect(checkExitRequest(request)).toEqual(expect.any(String));
  });

  it('vmexit refuses such requests and changes nothing; it also needs non-root operation', () => {
    const { cpu } = new Guest().launch();
    const before = cpu.snapshot();
    expect(() => cpu.vmexit({ reason: 10, qualification: 1n })).toThrow(RangeError);
    expect(() => cpu.vmexit({ reason: 33 })).toThrow(RangeError);
    expect(cpu.snapshot()).toEqual(before);
    expect(cpu.vmexit({ reason: 10 })).toEqual({ kind: 'VMexit', reason: 10 });
    expect(() => cpu.vmexit({ reason: 10 })).toThrow('non-root');
  });

  it.each([
    ['bus lock', { reason: 10, busLock: true }, 'proc2.vmmBusLockDetection'],
    [
      'prematurely busy shadow stack',
      { reason: 49, prematurelyBusyShadowStack: true },
      'exit2.prematurelyBusyShadowStack',
    ],
    ['acknowledged interrupt', { reason: 1, event: INTERRUPT }, 'exit.acknowledgeInterruptOnExit'],
  ] as const)('%s needs its control', (_, request, control) => {
    const prepared = () => new Guest().on('pin.externalInterruptExiting');
    expect(checkExitRequest(request, prepared().on(control).launch().cpu.unit)).toBeUndefined();
    expect(checkExitRequest(request, prepared().launch().cpu.unit)).toEqual(expect.any(String));
  });
});

describe('information fields, reason by reason', () => {
  it.each(EXITS)('reason %i with the least to say', (reason) => {
    const guest = sentinels();
    expect(guest.cpu.vmexit(least(reason))).toEqual({ kind: 'VMexit', reason });
    expect(guest.read('exitReason')).toBe(BigInt(reason));
    expect(guest.read('exitQualification')).toBe(0n);
    expect(guest.read('exitingEventIdentification')).toBe(reason === 0 ? 0x8000_0306n : 0n);
    expect(guest.read('originalEventIdentification')).toBe(0n);
    const fields = read(guest);
    const expected: Record<string, unknown> = { ...SENTINELS };
    // What is defined but was not given is 0; an instruction has some length.
    if (reason === 66) expected['guestLinearAddress'] = 0n;
    if (PHYSICAL_ADDRESS.includes(reason)) expected['guestPhysicalAddress'] = 0n;
    if (reason in INFORMATION && reason !== 30) expected['vmExitInstructionInformation'] = 0n;
    if (reason === 79) expected['msrData'] = 0n;
    if (BY_INSTRUCTION.includes(reason) || reason === 9) {
      expect(fields['vmExitInstructionLength']).toBeGreaterThanOrEqual(1n);
      expect(fields['vmExitInstructionLength']).toBeLessThanOrEqual(15n);
      expected['vmExitInstructionLength'] = fields['vmExitInstructionLength'];
    }
    expect(fields).toEqual(expected);
  });

  it.each(EXITS)('reason %i with the most to say', (reason) => {
    const controls = ['pin.externalInterruptExiting', 'exit2.prematurelyBusyShadowStack'] as const;
    const guest = new Guest().on(...controls);
    sentinels(reason === 1 ? guest.on('exit.acknowledgeInterruptOnExit') : guest);
    const request = most(reason);
    guest.cpu.vmexit(request);
    const expected: Record<string, bigint> = { ...SENTINELS };
    if (LINEAR_ADDRESS.includes(reason)) expected['guestLinearAddress'] = 0xdead_0001_0002n;
    if (PHYSICAL_ADDRESS.includes(reason)) expected['guestPhysicalAddress'] = 0xd_ead0_0003n;
    if (recordsLength(reason)) expected['vmExitInstructionLength'] = 15n;
    if (reason in INFORMATION)
      expected['vmExitInstructionInformation'] = BigInt(INFORMATION[reason] as number);
    if (reason === 0) expected['exitingEventErrorCode'] = 0xffff_fffen;
    if (reason === 79) expected['msrData'] = 0xbeef_0000_0000_0002n;
    expect(read(guest)).toEqual(expected);
    expect(guest.read('exitQualification')).toBe(
      (QUALIFICATION[reason] ?? 0n) & (request.qualification ?? 0n),
    );
    expect(guest.read('exitingEventIdentification')).toBe(
      { 0: 0x8000_0b0en, 1: BigInt(INTERRUPT) }[reason as number] ?? 0n,
    );
    expect(guest.read('originalEventIdentification')).toBe(
      DURING_DELIVERY.includes(reason) ? BigInt(INT_80H) : 0n,
    );
  });

  it.each([
    ['#DB', exception(1), 0x1_680fn],
    ['INT1', INT1, 0x1_680fn],
    ['#PF', exception(14, true), ALL],
  ])('qualification of %s', (_, event, mask) => {
    const guest = sentinels();
    guest.cpu.vmexit({ reason: 0, event, qualification: ALL });
    // Bit 11 is BLD, 13 BD, 14 BS, 16 RTM.
    expect(guest.read('exitQualification')).toBe(mask);
  });

  it('error code of the exiting event only with bit 11, of the original event likewise', () => {
    const without = sentinels();
    without.cpu.vmexit({ reason: 48, originalEvent: exception(6) });
    expect(read(without)).toMatchObject({
      originalEventErrorCode: SENTINELS.originalEventErrorCode,
      exitingEventErrorCode: SENTINELS.exitingEventErrorCode,
    });
    const withCode = sentinels();
    withCode.cpu.vmexit({ reason: 48, originalEvent: exception(13, true), originalEventErrorCode: 0x52 });
    expect(withCode.read('originalEventErrorCode')).toBe(0x52n);
    expect(withCode.read('originalEventIdentification')).toBe(0x8000_0b0dn);
  });

  it('the injected event is the original event: its error code and instruction length', () => {
    const code = sentinels(
      new Guest().fields({ injectedEventIdentification: 0x8000_0b0dn, injectedEventErrorCode: 0x7fn }),
    );
    code.cpu.vmexit({ reason: 48, originalEvent: exception(13, true) });
    expect(code.read('originalEventErrorCode')).toBe(0x7fn);
    const length = sentinels(
      new Guest().fields({ injectedEventIdentification: BigInt(INT3), vmEntryInstructionLength: 7n }),
    );
    length.cpu.vmexit({ reason: 48, originalEvent: INT3 });
    expect(length.read('vmExitInstructionLength')).toBe(7n);
  });

  it('software exceptions have an instruction length', () => {
    const guest = sentinels();
    guest.cpu.vmexit({ reason: 0, event: INT3, instructionLength: 1 });
    expect(guest.read('vmExitInstructionLength')).toBe(1n);
  });

  it('a task gate met by a software interrupt has a length, one met by an exception has none', () => {
    for (const [originalEvent, length] of [
      [INT_80H, 2n],
      [exception(6), SENTINELS.vmExitInstructionLength],
    ] as const) {
      const guest = sentinels();
      guest.cpu.vmexit({ reason: 9, qualification: 0xc000_0008n, originalEvent });
      expect(guest.read('vmExitInstructionLength')).toBe(length);
    }
  });

  it('enclave mode: no page offsets, no instruction length and information', () => {
    const guest = sentinels();
    guest.cpu.vmexit({
      reason: 48,
      enclaveMode: true,
      qualification: 0x181n,
      guestLinearAddress: 0x1234_5678n,
      guestPhysicalAddress: 0x9abc_def0n,
    });
    expect(read(guest)).toMatchObject({
      guestLinearAddress: 0x1234_5000n,
      guestPhysicalAddress: 0x9abc_d000n,
      vmExitInstructionLength: 0n,
      vmExitInstructionInformation: 0n,
    });
    const fault = sentinels();
    fault.cpu.vmexit({
      reason: 0,
      event: exception(14, true),
      qualification: 0x1234_5678n,
      enclaveMode: true,
    });
    expect(fault.read('exitQualification')).toBe(0x1234_5000n);
  });

  it('I/O RCX, RSI, RDI and RIP are cleared in enclave mode and left alone otherwise', () => {
    const IO = ['ioRcx', 'ioRsi', 'ioRdi', 'ioRip'] as const;
    for (const [enclaveMode, expected] of [
      [true, 0n],
      [false, 0x77n],
    ] as const) {
      const guest = new Guest();
      for (const field of IO) guest.cpu.vmwrite(field, 0x77n);
      guest.launch().cpu.vmexit({ reason: 10, enclaveMode });
      for (const field of IO) expect(guest.read(field), field).toBe(expected);
    }
  });

  it('no debug exception stays pending while one is delivered', () => {
    for (const [vector, expected] of [
      [1, 0n],
      [6, 0x4000n],
    ] as const) {
      const guest = sentinels();
      guest.cpu.set('pendingDebugExceptions', 0x4000n);
      guest.cpu.vmexit({ reason: 0, event: exception(18), originalEvent: exception(vector) });
      expect(guest.read('guestPendingDebugExceptions')).toBe(expected);
    }
  });

  it('SYSCALL and SYSENTER delivered through FRED are software events: length, and RF as 0', () => {
    const SYSCALL = 0x8000_0701;
    const entered = () =>
      sentinels(
        new Guest().fields({
          guestCr4: 0x1_0000_2020n,
          injectedEventIdentification: BigInt(SYSCALL),
          vmEntryInstructionLength: 7n,
        }),
      );
    for (const reason of [48, 62, 66] as const) {
      const injected = entered();
      injected.cpu.set('RFLAGS', 0x1_0002n);
      injected.cpu.vmexit({ reason, originalEvent: SYSCALL });
      expect(injected.read('vmExitInstructionLength')).toBe(7n);
      expect(injected.read('guestRflags')).toBe(2n);
    }
    const executed = entered();
    executed.cpu.vmexit({ reason: 0, event: exception(13, true), originalEvent: SYSCALL + 1 });
    expect(executed.read('vmExitInstructionLength')).toBe(2n);
  });
});

describe('bits of the exit reason', () => {
  it('bit 26 after a bus lock, and for the bus-lock exit itself', () => {
    const on = () => new Guest().on('proc2.vmmBusLockDetection').launch();
    const guest = on();
    guest.cpu.vmexit({ reason: 10, busLock: true });
    expect(guest.read('exitReason')).toBe(0x0400_000an);
    const bare = on();
    bare.cpu.vmexit({ reason: 10 });
    expect(bare.read('exitReason')).toBe(10n);
    const lock = on();
    lock.cpu.vmexit({ reason: 74 });
    expect(lock.read('exitReason')).toBe(0x0400_004an);
  });

  it('bit 25 for a prematurely busy shadow stack', () => {
    const guest = new Guest().on('exit2.prematurelyBusyShadowStack').launch();
    guest.cpu.vmexit({ reason: 48, prematurelyBusyShadowStack: true });
    expect(guest.read('exitReason')).toBe(0x0200_0030n);
  });

  it('bit 27 and interruptibility bit 4 in enclave mode', () => {
    const guest = new Guest().launch();
    guest.cpu.vmexit({ reason: 12, enclaveMode: true });
    expect(guest.read('exitReason')).toBe(0x0800_000cn);
    expect(guest.read('guestInterruptibilityState')).toBe(0x10n);
  });

  it('so it is while an event injected with interruptibility bit 4 is delivered, and not after', () => {
    const entered = () =>
      new Guest()
        .fields({ guestInterruptibilityState: 0x10n, injectedEventIdentification: 0x8000_0306n })
        .launch();
    const during = entered();
    during.cpu.vmexit({ reason: 48, originalEvent: exception(6) });
    expect(during.read('exitReason')).toBe(0x0800_0030n);
    expect(during.read('guestInterruptibilityState')).toBe(0x10n);
    const later = entered();
    later.cpu.vmexit({ reason: 10 });
    expect(later.read('exitReason')).toBe(10n);
    expect(later.read('guestInterruptibilityState')).toBe(0n);
  });
});

describe('updates of VM-entry controls', () => {
  it('the valid bit of the injected event is cleared, its other bits are not', () => {
    const guest = new Guest().fields({ injectedEventIdentification: 0x8000_0306n }).launch();
    guest.cpu.vmexit({ reason: 10 });
    expect(guest.read('injectedEventIdentification')).toBe(0x306n);
  });

  it.each([
    [0x500n, true],
    [0n, false],
    [0x100n, false],
  ])('"IA-32e mode guest" becomes EFER.LMA: EFER %i', (efer, expected) => {
    for (const guest of [new Guest(), new Guest().guest32()]) {
      guest.launch().cpu.set('IA32_EFER', efer);
      guest.cpu.vmexit({ reason: 10 });
      expect(guest.control('entry.ia32eModeGuest')).toBe(expected);
    }
  });
});
