import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { DATA, Ept, type EptGuestOptions, eptGuest, FRAME } from '../../support/ept.ts';
import { exitFields, GUEST, runToExit } from '../../support/guest.ts';
import { eventGuest, eventId } from '../../support/guest-events.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';

const NMI = 8n;
const UNBLOCKING = 0x1000n;
const VIRTUAL: readonly ControlId[] = ['pin.nmiExiting', 'pin.virtualNmis'];
const IRETQ = Uint8Array.of(0x48, 0xcf);
/** Where nothing is mapped. */
const NOWHERE = 0x80_0000_0000n;

interface Seen {
  event: bigint;
  errorCode: bigint;
  interruptibility: bigint;
  original: bigint;
}

function look(cpu: LogicalProcessor): Seen {
  const fields = exitFields(
    cpu,
    'exitReason',
    'exitingEventIdentification',
    'exitingEventErrorCode',
    'guestInterruptibilityState',
    'originalEventIdentification',
  );
  expect(fields.exitReason).toBe(0n);
  return {
    event: fields.exitingEventIdentification,
    errorCode: fields.exitingEventErrorCode,
    interruptibility: fields.guestInterruptibilityState,
    original: fields.originalEventIdentification,
  };
}

/** An IRET with NMIs blocked, whose stack is not there. */
function iret(controls: readonly ControlId[], fields: FieldValues = {}): LogicalProcessor {
  return eventGuest(IRETQ, {
    controls,
    fields: { guestInterruptibilityState: NMI, guestRsp: NOWHERE, exceptionBitmap: 1n << 14n, ...fields },
  }).cpu(0);
}

const PAGE_FAULT = eventId(3, 14, 1);

describe('NMI unblocking due to IRET (SDM §28.3, §30.1, §30.2.3)', () => {
  it.each([
    ['NMIs', []],
    ['virtual NMIs', VIRTUAL],
  ] as const)('an IRET that faults has ended blocking of %s, and the exit says so', (_, controls) => {
    const cpu = iret(controls);
    runToExit(cpu);
    expect(look(cpu)).toEqual({
      event: PAGE_FAULT | UNBLOCKING,
      errorCode: 0n,
      interruptibility: 0n,
      original: 0n,
    });
    expect(cpu.vmread('guestRip').value).toBe(BigInt(GUEST));
  });

  it('is not reported if nothing was blocked', () => {
    for (const controls of [[], VIRTUAL]) {
      const cpu = iret(controls, { guestInterruptibilityState: 0n });
      runToExit(cpu);
      expect(look(cpu).event).toBe(PAGE_FAULT);
    }
  });

  it('with "NMI exiting" alone there is none: blocking stays', () => {
    const cpu = iret(['pin.nmiExiting']);
    runToExit(cpu);
    expect(look(cpu)).toMatchObject({ event: PAGE_FAULT, interruptibility: NMI });
  });

  it('is reported with every fault of IRET: a selector that is not there', () => {
    const frame = `
      push 0x10
      push 0x50000
      push 2
      push 0x70
      push ${GUEST}
      iretq`;
    const cpu = eventGuest(frame, {
      fields: { guestInterruptibilityState: NMI, exceptionBitmap: 1n << 13n },
    }).cpu(0);
    runToExit(cpu);
    expect(look(cpu)).toEqual({
      event: eventId(3, 13, 1) | UNBLOCKING,
      errorCode: 0x70n,
      interruptibility: 0n,
      original: 0n,
    });
  });

  it('is not reported by an exit while the fault is delivered', () => {
    // The page fault of IRET is delivered on the same stack, and its page fault becomes a double fault.
    const cpu = iret([], { exceptionBitmap: 1n << 8n });
    runToExit(cpu);
    expect(look(cpu)).toMatchObject({ event: eventId(3, 8, 1), interruptibility: 0n, original: 0n });
  });

  it('is reported where the page-modification log is full, not where EPT is misconfigured', () => {
    const iretOn = (options: EptGuestOptions) => {
      // The first store takes the last entry of the log.
      const guest = eptGuest(`mov [${DATA + 0x1000}], rax\niretq`, {
        ...options,
        fields: { guestInterruptibilityState: NMI, guestRsp: BigInt(DATA), ...options.fields },
      });
      runToExit(guest.cpu);
      const names = ['exitReason', 'exitQualification', 'guestRip', 'guestInterruptibilityState'] as const;
      return exitFields(guest.cpu, ...names);
    };
    const atIret = { guestRip: BigInt(GUEST + 10), guestInterruptibilityState: 0n };
    const full = iretOn({
      controls: ['proc2.enablePml'],
      eptpFlags: 0x40n,
      fields: { pmlAddress: 0x28_0000n, pmlIndex: 3n },
    });
    expect(full).toEqual({ exitReason: 62n, exitQualification: UNBLOCKING, ...atIret });
    const misconfigured = iretOn({ prepare: (tables) => tables.map(DATA, FRAME, Ept.W) });
    expect(misconfigured).toEqual({ exitReason: 49n, exitQualification: 0n, ...atIret });
  });

  it('is not reported by later exits', () => {
    const frame = `
      push 0x10
      push 0x50000
      push 2
      push 8
      push ${GUEST + 0x40}
      iretq`;
    const cpu = eventGuest(frame, {
      fields: { guestInterruptibilityState: NMI, exceptionBitmap: 1n << 6n },
    }).cpu(0);
    cpu.processor.memory.writeBytes(GUEST + 0x40, Uint8Array.of(0x0f, 0x0b));
    runToExit(cpu);
    expect(look(cpu)).toMatchObject({ event: eventId(3, 6), interruptibility: 0n });
  });

  it('nor by a fault that is handled: the handler of the guest may fault too', () => {
    const cpu = eventGuest(
      IRETQ,
      { fields: { guestInterruptibilityState: NMI, guestRsp: 0x4_0000n, exceptionBitmap: 1n << 6n } },
      'ud2',
    ).cpu(0);
    runToExit(cpu);
    expect(look(cpu)).toMatchObject({ event: eventId(3, 6), interruptibility: 0n, original: 0n });
  });
});
