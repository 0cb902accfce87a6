import { describe, expect, it } from 'vitest';
import { CHECKS_NEEDED } from '../../../src/cpu/registers.ts';
import { FIELDS, Field, type FieldName } from '../../../src/vmcs/fields.ts';
import { EVENT_ERROR_CODE, EVENT_VALID, EventType } from '../../../src/vmcs/formats.ts';
import type { ExitRequest } from '../../../src/vmx/exit/exit-request.ts';
import { failEntry, performExit } from '../../../src/vmx/exit/vm-exit.ts';
import { loadMsrArea, MSR_LOAD_CHECKS, MSR_STORE_CHECKS, storeMsrArea } from '../../../src/vmx/msr-area.ts';
import { Operation } from '../../../src/vmx/vmx-state.ts';
import {
  type GuestOptions,
  type GuestProcessor,
  guestProcessor,
  VMCS_ADDRESS,
} from '../../support/vmx-processor.ts';

const event = (type: number, vector: number, more = 0) => (EVENT_VALID | (type << 8) | vector | more) >>> 0;
const exception = (vector: number, more = 0) => event(EventType.HardwareException, vector, more);
const NMI = event(EventType.Nmi, 2);

function exited(options: GuestOptions, request: ExitRequest): GuestProcessor {
  const p = guestProcessor(options);
  expect(performExit(p, request)).toEqual({ kind: 'VMexit', reason: request.reason });
  return p;
}

describe('state before a VM exit (SDM §30.1)', () => {
  const BLOCKED = { blockingBySti: 1n, blockingByMovSs: 1n, activityState: 1n };

  it.each([
    ['an event being delivered', { reason: 48, originalEvent: exception(6) }, 0n, 0n],
    ['#MC', { reason: 0, event: exception(18) }, 0n, 1n],
    ['#MF', { reason: 0, event: exception(16) }, 0n, 1n],
    ['#UD', { reason: 0, event: exception(6) }, 3n, 1n],
    ['an interrupt', { reason: 1 }, 3n, 1n],
  ] as const)('%s: blocking by STI and MOV SS, activity', (_, request, blocking, activity) => {
    const p = exited({ registers: BLOCKED }, request);
    expect(p.field('guestInterruptibilityState')).toBe(blocking);
    expect(p.field('guestActivityState')).toBe(activity);
  });

  const VIRTUAL_NMIS = ['pin.nmiExiting', 'pin.virtualNmis'] as const;
  it('an NMI being delivered has blocked NMIs, or virtual NMIs', () => {
    const request = { reason: 48, originalEvent: NMI } as const;
    const p = exited({}, request);
    expect([p.field('guestInterruptibilityState'), p.cpu.read('blockingByNmi')]).toEqual([8n, 1n]);
    const virtual = exited({ controls: VIRTUAL_NMIS }, request);
    expect([virtual.field('guestInterruptibilityState'), virtual.cpu.read('blockingByNmi')]).toEqual([
      8n,
      0n,
    ]);
  });

  const UNBLOCKING: [string, ExitRequest, boolean][] = [
    ['a fault', { reason: 0, event: exception(13, EVENT_ERROR_CODE | (1 << 12)) }, true],
    ['a fault without the bit', { reason: 0, event: exception(13, EVENT_ERROR_CODE) }, false],
    ['#DF', { reason: 0, event: exception(8, EVENT_ERROR_CODE | (1 << 12)) }, false],
    ['an EPT violation', { reason: 48, qualification: 0x1001n }, true],
    ['a page-modification log full', { reason: 62, qualification: 0x1000n }, true],
    ['an SPP event', { reason: 66, qualification: 0x1000n }, true],
    [
      'an EPT violation of event delivery',
      { reason: 48, qualification: 0x1000n, originalEvent: exception(6) },
      false,
    ],
    ['an instruction timeout', { reason: 75, qualification: 0x1000n }, true],
    ['an EPT violation without the bit', { reason: 48, qualification: 1n }, false],
    ['an I/O instruction with that bit', { reason: 30, qualification: 0x1000n }, false],
    ['a vector with that bit', { reason: 1 }, false],
    ['#PF with that address', { reason: 0, event: exception(14), qualification: 0x1000n }, false],
  ];
  it.each(UNBLOCKING)('an IRET that %s ended unblocks NMIs', (_, request, unblocks) => {
    const left = unblocks ? 0n : 1n;
    const p = exited({ registers: { blockingByNmi: 1n } }, request);
    expect([p.field('guestInterruptibilityState') >> 3n, p.cpu.read('blockingByNmi')]).toEqual([left, left]);
    const virtual = guestProcessor({ controls: VIRTUAL_NMIS });
    virtual.vmx.virtualNmiBlocking = true;
    performExit(virtual, request);
    expect(virtual.field('guestInterruptibilityState') >> 3n).toBe(left);
  });

  it('with "NMI exiting" alone that bit is undefined and unblocks nothing', () => {
    const p = exited(
      { controls: ['pin.nmiExiting'], registers: { blockingByNmi: 1n } },
      { reason: 48, qualification: 0x1000n },
    );
    expect(p.cpu.read('blockingByNmi')).toBe(1n);
  });
});

describe('recording (SDM §30.2)', () => {
  it.each([
    ['bit 26 by a request', { reason: 10, busLock: true }, 0x0400_000an],
    ['bit 26 of the bus-lock exit', { reason: 74 }, 0x0400_004an],
    ['bit 25', { reason: 48, prematurelyBusyShadowStack: true }, 0x0200_0030n],
    ['bit 27', { reason: 10, enclaveMode: true }, 0x0800_000an],
  ] as const)('%s', (_, request, reason) => {
    const controls = ['proc2.vmmBusLockDetection', 'exit2.prematurelyBusyShadowStack'] as const;
    expect(exited({ controls }, request).field('exitReason')).toBe(reason);
    if (!('enclaveMode' in request)) {
      expect(exited({}, request).field('exitReason')).toBe(reason & 0xffn);
    }
  });

  it('undefined bits of qualification and instruction information are 0', () => {
    const all = 0xffff_ffff_ffff_ffffn;
    const p = exited({}, { reason: 46, qualification: all, instructionInformation: 0xffff_ffff });
    expect(p.field('exitQualification')).toBe(all);
    expect(p.field('vmExitInstructionInformation')).toBe(0x3fff_8b83n);
    expect(exited({}, { reason: 4, qualification: all }).field('exitQualification')).toBe(0xffn);
    expect(exited({}, { reason: 10, qualification: all }).field('exitQualification')).toBe(0n);
    expect(exited({}, { reason: 0, event: NMI, qualification: all }).field('exitQualification')).toBe(0n);
  });

  it.each([
    ['given', { reason: 10, instructionLength: 3 }, 3n],
    ['the shortest encoding', { reason: 10 }, 2n],
    ['INT3', { reason: 0, event: event(EventType.SoftwareException, 3) }, 1n],
    ['INT n', { reason: 48, originalEvent: event(EventType.SoftwareInterrupt, 0x21) }, 2n],
    ['INT1 through a task gate', { reason: 9, qualification: 3n << 30n, originalEvent: event(5, 1) }, 2n],
    ['undefined', { reason: 48 }, 9n],
  ] as const)('instruction length: %s', (_, request, length) => {
    expect(
      exited({ fields: { vmExitInstructionLength: 9n } }, request).field('vmExitInstructionLength'),
    ).toBe(length);
  });

  it('what VM entry injected is known of the original event', () => {
    const options = { registers: { CR4: 0x1_0000_2020n } };
    const p = guestProcessor(options);
    const identification = exception(13, EVENT_ERROR_CODE);
    p.vmx.injectedEvent = {
      identification,
      errorCode: 0x52,
      instructionLength: 0,
      activity: 0,
      data: 0x77n,
      blockedBySti: false,
    };
    performExit(p, { reason: 48, originalEvent: identification });
    expect(p.field('originalEventIdentification')).toBe(BigInt(identification));
    expect(p.field('originalEventErrorCode')).toBe(0x52n);
    expect(p.field('originalEventData')).toBe(0x77n);

    const q = guestProcessor({ fields: { originalEventData: 5n } });
    const int3 = event(EventType.SoftwareException, 3);
    q.vmx.injectedEvent = {
      identification: int3,
      errorCode: 0,
      instructionLength: 4,
      activity: 0,
      data: 0x77n,
      blockedBySti: false,
    };
    performExit(q, { reason: 48, originalEvent: int3 });
    expect(q.field('vmExitInstructionLength')).toBe(4n);
    expect(q.field('originalEventData')).toBe(5n);

    const other = guestProcessor({ fields: { originalEventErrorCode: 5n } });
    other.vmx.injectedEvent = {
      identification: int3,
      errorCode: 9,
      instructionLength: 4,
      activity: 0,
      data: 0n,
      blockedBySti: false,
    };
    performExit(other, { reason: 48, originalEvent: exception(6) });
    expect(other.field('originalEventErrorCode')).toBe(5n);
  });

  it('given error code and data of the original event', () => {
    const p = exited(
      {},
      {
        reason: 0,
        event: exception(14, EVENT_ERROR_CODE),
        qualification: 0x1234n,
        eventErrorCode: 2,
        originalEvent: exception(13, EVENT_ERROR_CODE),
        originalEventErrorCode: 0x18,
        originalEventData: 3n,
      },
    );
    expect(p.field('exitQualification')).toBe(0x1234n);
    expect(p.field('exitingEventErrorCode')).toBe(2n);
    expect(p.field('originalEventErrorCode')).toBe(0x18n);
    expect(p.field('originalEventData')).toBe(3n);
  });

  it('addresses and MSR data that are defined but not given are 0', () => {
    const fields = { guestLinearAddress: 5n, guestPhysicalAddress: 5n, msrData: 5n };
    const p = exited({ fields }, { reason: 66 });
    expect([p.field('guestLinearAddress'), p.field('guestPhysicalAddress')]).toEqual([0n, 0n]);
    expect(exited({ fields }, { reason: 79 }).field('msrData')).toBe(0n);
    expect(exited({ fields }, { reason: 79, msrData: 8n }).field('msrData')).toBe(8n);
    expect(exited({ profile: 'penryn' }, { reason: 79 }).copy.written[Field.msrData]).toBe(0);
    expect(exited({ profile: 'penryn' }, { reason: 48 }).copy.written[Field.guestPhysicalAddress]).toBe(0);
  });

  it('an exit from enclave mode hides page offsets and the instruction', () => {
    const fields = { vmExitInstructionLength: 5n, vmExitInstructionInformation: 5n };
    const address = 0x1234_5678n;
    const violation = exited(
      { fields },
      {
        reason: 48,
        qualification: 0x181n,
        enclaveMode: true,
        guestLinearAddress: address,
        guestPhysicalAddress: address,
      },
    );
    expect(violation.field('guestLinearAddress')).toBe(0x1234_5000n);
    expect(violation.field('guestPhysicalAddress')).toBe(0x1234_5000n);
    expect(violation.field('exitQualification')).toBe(0x181n);
    expect(violation.field('vmExitInstructionLength')).toBe(0n);
    expect(violation.field('vmExitInstructionInformation')).toBe(0n);
    const fault = { reason: 0, event: exception(14), qualification: address, enclaveMode: true } as const;
    expect(exited({}, fault).field('exitQualification')).toBe(0x1234_5000n);
    const nested = { ...fault, originalEvent: exception(6) };
    expect(exited({}, nested).field('exitQualification')).toBe(address);
    const access = { reason: 44, qualification: 0x1_0123n, enclaveMode: true } as const;
    expect(exited({}, access).field('exitQualification')).toBe(0x1_0000n);
  });

  it('the injected event loses its valid bit; "IA-32e mode guest" becomes IA32_EFER.LMA', () => {
    const fields = { injectedEventIdentification: 0x8000_0b0dn };
    const p = exited({ fields, off: ['entry.ia32eModeGuest'] }, { reason: 10 });
    expect(p.field('injectedEventIdentification')).toBe(0xb0dn);
    expect((p.field('vmEntryControls') >> 9n) & 1n).toBe(1n);
    const cleared = exited({ registers: { IA32_EFER: 0n } }, { reason: 10 });
    expect((cleared.field('vmEntryControls') >> 9n) & 1n).toBe(0n);
    const without = exited({ off: ['entry.ia32eModeGuest'], msrs: { IA32_VMX_MISC: 0n } }, { reason: 10 });
    expect((without.field('vmEntryControls') >> 9n) & 1n).toBe(0n);
  });
});

describe('after a VM exit', () => {
  it('VMX root operation with nothing left of non-root operation', () => {
    const p = guestProcessor();
    Object.assign(p.vmx, {
      rvi: 1,
      svi: 2,
      vpid: 3,
      mtfPending: true,
      virtualNmiBlocking: true,
      guestDeadline: 4n,
    });
    p.cpu.i32[CHECKS_NEEDED] = 0;
    performExit(p, { reason: 10 });
    expect(p.vmx).toMatchObject({
      operation: Operation.Root,
      initBlocked: true,
      rvi: 0,
      svi: 0,
      vpid: 0,
      mtfPending: false,
      virtualNmiBlocking: false,
      guestDeadline: undefined,
      controls: undefined,
      shutdown: 'no',
      current: p.copy,
    });
    expect(p.cpu.i32[CHECKS_NEEDED]).toBe(1);
  });

  it('only an NMI that exits directly blocks NMIs, and only afterwards', () => {
    const p = exited({}, { reason: 0, event: NMI });
    expect([p.field('guestInterruptibilityState'), p.cpu.read('blockingByNmi')]).toEqual([0n, 1n]);
    for (const request of [{ reason: 8 }, { reason: 0, event: exception(6) }, { reason: 1 }] as const) {
      expect(exited({}, request).cpu.read('blockingByNmi')).toBe(0n);
      expect(exited({ registers: { blockingByNmi: 1n } }, request).cpu.read('blockingByNmi')).toBe(1n);
    }
  });

  it('the region in memory follows under the policy "write-through" only', () => {
    const slot = Field.exitReason;
    const stored = (policy: 'write-through' | 'at-vmclear') => {
      const p = exited({ policy }, { reason: 12 });
      return p.cpu.memory.read32(VMCS_ADDRESS + (p.capabilities.format.offsets[slot] as number));
    };
    expect(stored('write-through')).toBe(12);
    expect(stored('at-vmclear')).toBe(0);
  });

  it('an evicted VMCS is read again first', () => {
    const p = guestProcessor();
    p.active.resident(p.copy).writeBack(p.cpu.memory.page(VMCS_ADDRESS));
    p.copy.resident = false;
    p.copy.words.fill(0);
    expect(performExit(p, { reason: 10 })).toEqual({ kind: 'VMexit', reason: 10 });
    expect(p.cpu.read('CS.selector')).toBe(8n);
  });
});

const AREA = 0x2_0000n;
type Entry = readonly [index: number, data: bigint, reserved?: number];

function withArea(entries: readonly Entry[], options: GuestOptions = {}): GuestProcessor {
  const p = guestProcessor(options);
  entries.forEach(([index, data, reserved = 0], i) => {
    const at = Number(AREA) + 16 * i;
    p.cpu.memory.write32(at, index);
    p.cpu.memory.write32(at + 4, reserved);
    p.cpu.memory.write64(at + 8, data);
  });
  return p;
}

const AREAS: Record<'store' | 'load', [FieldName, FieldName]> = {
  store: ['vmExitMsrStoreAddress', 'vmExitMsrStoreCount'],
  load: ['vmExitMsrLoadAddress', 'vmExitMsrLoadCount'],
};
const areaFields = (which: 'store' | 'load', count: bigint) => ({
  [AREAS[which][0]]: AREA,
  [AREAS[which][1]]: count,
});

const indicator = (p: GuestProcessor) => p.cpu.memory.read32(VMCS_ADDRESS + 4);
function expectAbort(p: GuestProcessor, request: ExitRequest, number: number): void {
  const { words } = p.copy;
  expect(performExit(p, request)).toEqual({ kind: 'VMXabort', indicator: number });
  expect(indicator(p)).toBe(number);
  expect(p.vmx).toMatchObject({ shutdown: 'vmx-abort', operation: Operation.Root, current: p.copy });
  expect(p.copy.words).toBe(words);
}

describe('MSR areas (SDM §29.4, §30.4, §30.6)', () => {
  const BAD_LOADS: [id: (typeof MSR_LOAD_CHECKS)[number]['id'], Entry][] = [
    ['msrload.not-fs-base', [0xc000_0100, 0n]],
    ['msrload.not-gs-base', [0xc000_0101, 0n]],
    ['msrload.not-x2apic', [0x800, 0n]],
    ['msrload.not-x2apic', [0x8ff, 0n]],
    ['msrload.not-smm-only', [0x9b, 0n]],
    ['msrload.not-smbase', [0x9e, 0n]],
    ['msrload.model-specific', [0x79, 0n]],
    ['msrload.reserved-63-32', [0x174, 0n, 1]],
    ['msrload.wrmsr-ok', [0x277, 2n]],
    ['msrload.wrmsr-ok', [0x900, 0n]],
    ['msrload.wrmsr-ok', [0xc000_0080, 0n]],
  ];

  it('every rule has a witness, in the order of the rules', () => {
    expect([...new Set(BAD_LOADS.map(([id]) => id))]).toEqual(MSR_LOAD_CHECKS.map((check) => check.id));
    expect([...new Set(BAD_STORES.map(([id]) => id))]).toEqual(MSR_STORE_CHECKS.map((check) => check.id));
  });

  it.each(BAD_LOADS)('%s stops a load at %o', (id, bad) => {
    const p = withArea([[0x174, 8n], bad, [0x174, 16n]]);
    const entry = { index: bad[0], data: bad[1], reserved: bad[2] ?? 0 };
    expect(MSR_LOAD_CHECKS.find((check) => !check.holds(entry, p))?.id).toBe(id);
    expect(loadMsrArea(p, AREA, 3, 'VM entry')).toBe(2);
    expect(p.cpu.read('IA32_SYSENTER_CS')).toBe(8n);
    expectAbort(withArea([bad], { fields: areaFields('load', 1n) }), { reason: 10 }, 4);
  });

  const BAD_STORES: [id: (typeof MSR_STORE_CHECKS)[number]['id'], Entry][] = [
    ['msrstore.not-x2apic', [0x800, 0n]],
    ['msrstore.not-x2apic', [0x8ff, 0n]],
    ['msrstore.not-smm-only', [0x9e, 0n]],
    ['msrstore.reserved-63-32', [0x174, 0n, 0x8000_0000]],
    ['msrstore.rdmsr-ok', [0x79, 0n]],
    ['msrstore.rdmsr-ok', [0x900, 0n]],
  ];
  it.each(BAD_STORES)('%s stops a store at %o', (id, bad) => {
    const p = withArea([[0x174, 0n], bad], { registers: { IA32_SYSENTER_CS: 8n } });
    const entry = { index: bad[0], data: bad[1], reserved: bad[2] ?? 0 };
    expect(MSR_STORE_CHECKS.find((check) => !check.holds(entry, p))?.id).toBe(id);
    expect(storeMsrArea(p, AREA, 2)).toBe(2);
    expect(p.cpu.memory.read64(Number(AREA) + 8)).toBe(8n);
    expectAbort(withArea([bad], { fields: areaFields('store', 1n) }), { reason: 10 }, 1);
  });

  it('stores guest values before host state is loaded and loads host values after it', () => {
    const fields = { ...areaFields('store', 3n), hostIa32SysenterCs: 0x30n, hostFsBase: 0x9000n };
    const entries: Entry[] = [
      [0x174, 0n],
      [0xc000_0100, 0n],
      [0xc000_0101, 0n],
    ];
    const registers = { IA32_SYSENTER_CS: 0x18n, 'FS.base': 0x4000n, 'GS.base': 0x5000n };
    const p = withArea(entries, { fields, registers });
    performExit(p, { reason: 10 });
    const data = entries.map((_, i) => p.cpu.memory.read64(Number(AREA) + 16 * i + 8));
    expect(data).toEqual([0x18n, 0x4000n, 0x5000n]);
    const q = withArea([[0x174, 0x77n]], {
      fields: { ...areaFields('load', 1n), hostIa32SysenterCs: 0x30n },
    });
    performExit(q, { reason: 10 });
    expect(q.cpu.read('IA32_SYSENTER_CS')).toBe(0x77n);
  });

  it('an area beyond the physical-address space fails where it leaves it', () => {
    const p = guestProcessor();
    const end = 1n << 52n;
    for (let at = Number(end) - 32; at < Number(end); at += 16) p.cpu.memory.write32(at, 0x174);
    expect(loadMsrArea(p, end - 32n, 3, 'VM exit')).toBe(3);
    expect(storeMsrArea(p, end - 32n, 3)).toBe(3);
    expect(storeMsrArea(p, 0xffff_ffff_ffff_fff0n, 1)).toBe(1);
  });

  it.each(['VM entry', 'VM exit', 'store'] as const)(
    'of too many entries the recommended number counts: %s',
    (which) => {
      const p = guestProcessor();
      for (let i = 0; i < 513; i++) p.cpu.memory.write32(Number(AREA) + 16 * i, i < 512 ? 0x174 : 0x800);
      const run = (count: number) =>
        which === 'store' ? storeMsrArea(p, AREA, count) : loadMsrArea(p, AREA, count, which);
      expect(run(512)).toBe(0);
      expect(p.hazards.hazards).toEqual([]);
      expect(run(0xffff_ffff)).toBe(0);
      expect(p.hazards.hazards).toMatchObject([{ id: 'msr-area.too-long', cpu: 0, address: VMCS_ADDRESS }]);
    },
  );

  it('IA32_SPEC_CTRL in an area while it is virtualised', () => {
    const p = withArea([[0x48, 1n]], { controls: ['proc3.virtualizeIa32SpecCtrl'] });
    loadMsrArea(p, AREA, 1, 'VM entry');
    storeMsrArea(p, AREA, 1);
    expect(p.hazards.hazards.map((h) => [h.id, h.instruction])).toEqual([
      ['msr-area.spec-ctrl', 'VM-entry MSR-load'],
      ['msr-area.spec-ctrl', 'VM-exit MSR-store'],
    ]);
    const q = withArea([[0x48, 1n]]);
    storeMsrArea(q, AREA, 1);
    expect(q.hazards.hazards).toEqual([]);
  });
});

describe('VMX aborts (SDM §30.7)', () => {
  const HOST_32 = { off: ['exit.hostAddressSpaceSize'] } as const;

  it('2: an invalid host PDPTE', () => {
    const p = guestProcessor({
      ...HOST_32,
      fields: { hostCr4: 0x2020n, hostCr3: 0x9000n },
      registers: { IA32_EFER: 0n },
    });
    p.cpu.memory.write64(0x9000, 3n);
    expectAbort(p, { reason: 10 }, 2);
  });

  it('6: a guest in IA-32e mode and a 32-bit host', () => {
    expectAbort(guestProcessor(HOST_32), { reason: 10 }, 6);
  });
});

describe('VM-entry failures (SDM §29.8)', () => {
  it.each([
    [33, 4n],
    [34, 7n],
    [41, 0n],
  ] as const)('reason %i', (reason, qualification) => {
    const p = guestProcessor({ registers: { blockingByNmi: 1n } });
    for (const { slot } of FIELDS)
      if (p.field(FIELDS[slot]?.key as FieldName) === 0n) p.copy.quads[slot] = 0x55n;
    p.copy.quads[Field.vmExitMsrStoreCount] = 0xffffn;
    p.copy.quads[Field.vmExitMsrLoadCount] = 0n;
    p.copy.quads[Field.injectedEventIdentification] = 0x8000_0000n;
    const before = p.copy.words.slice();
    expect(failEntry(p, reason, qualification)).toEqual({ kind: 'VMentryFailure', reason });
    const changed = FIELDS.filter(({ slot }) => p.copy.words[2 * slot] !== before[2 * slot]).map(
      (f) => f.key,
    );
    expect(changed.sort()).toEqual(['exitQualification', 'exitReason']);
    expect(p.field('exitReason')).toBe(0x8000_0000n | BigInt(reason));
    expect(p.field('exitQualification')).toBe(qualification);
    expect(p.cpu.read('blockingByNmi')).toBe(1n);
    expect(p.cpu.read('RFLAGS')).toBe(2n);
    expect(p.cpu.read('CS.selector')).toBe(8n);
    expect(p.vmx).toMatchObject({ operation: Operation.Root, initBlocked: true });
  });

  it('loads the VM-exit MSR-load area, which can abort', () => {
    const ok = withArea([[0x174, 5n]], { fields: areaFields('load', 1n) });
    expect(failEntry(ok, 33, 0n).kind).toBe('VMentryFailure');
    expect(ok.cpu.read('IA32_SYSENTER_CS')).toBe(5n);
    const bad = withArea([[0x800, 5n]], { fields: areaFields('load', 1n) });
    expect(failEntry(bad, 33, 0n)).toEqual({ kind: 'VMXabort', indicator: 4 });
    expect(indicator(bad)).toBe(4);
  });
});
