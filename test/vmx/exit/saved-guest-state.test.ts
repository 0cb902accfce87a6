import { describe, expect, it } from 'vitest';
import type { RegisterName } from '../../../src/cpu/registers.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { FIELD_COUNT, Field, type FieldName } from '../../../src/vmcs/fields.ts';
import { EVENT_VALID, EventType } from '../../../src/vmcs/formats.ts';
import { EXIT_REASONS, ExitReason } from '../../../src/vmx/exit/exit-reasons.ts';
import type { ExitRequest } from '../../../src/vmx/exit/exit-request.ts';
import { saveGuestState } from '../../../src/vmx/exit/save-guest-state.ts';
import { type GuestOptions, type GuestProcessor, guestProcessor } from '../../support/vmx-processor.ts';

const CPUID: ExitRequest = { reason: ExitReason.Cpuid };
const event = (type: number, vector: number) => (EVENT_VALID | (type << 8) | vector) >>> 0;
const exception = (vector: number) => event(EventType.HardwareException, vector);

function saved(options: GuestOptions = {}, request: ExitRequest = CPUID): GuestProcessor {
  const p = guestProcessor(options);
  saveGuestState(p, p.copy, request, EXIT_REASONS[request.reason]);
  return p;
}

describe('registers and MSRs (SDM §30.3.1)', () => {
  const ALWAYS: [FieldName, RegisterName][] = [
    ['guestCr0', 'CR0'],
    ['guestCr3', 'CR3'],
    ['guestCr4', 'CR4'],
    ['guestRsp', 'RSP'],
    ['guestRip', 'RIP'],
    ['guestIa32SysenterEsp', 'IA32_SYSENTER_ESP'],
    ['guestIa32SysenterEip', 'IA32_SYSENTER_EIP'],
    ['guestGdtrBase', 'GDTR.base'],
    ['guestIdtrBase', 'IDTR.base'],
    // With a control of theirs supported:
    ['guestIa32Bndcfgs', 'IA32_BNDCFGS'],
    ['guestIa32RtitCtl', 'IA32_RTIT_CTL'],
    ['guestIa32LbrCtl', 'IA32_LBR_CTL'],
    ['guestIa32Pkrs', 'IA32_PKRS'],
    ['guestIa32SpecCtrl', 'IA32_SPEC_CTRL'],
    ['guestIa32SCet', 'IA32_S_CET'],
    ['guestIa32InterruptSspTableAddr', 'IA32_INTERRUPT_SSP_TABLE_ADDR'],
    ['guestSsp', 'SSP'],
  ];
  it.each(ALWAYS)('%s is saved whole', (field, register) => {
    const value = 0xfedc_ba98_8005_0033n;
    expect(saved({ registers: { [register]: value } }).field(field)).toBe(value);
  });

  it.each(ALWAYS.slice(9))('%s is not saved by a processor without the field', (field, register) => {
    const p = saved({ profile: 'penryn', registers: { [register]: 5n } });
    expect(p.field(field)).toBe(0n);
    expect(p.copy.written[Field[field]]).toBe(0);
  });

  const CONTROLLED: [ControlId, FieldName, RegisterName][] = [
    ['exit.saveDebugControls', 'guestDr7', 'DR7'],
    ['exit.saveDebugControls', 'guestIa32Debugctl', 'IA32_DEBUGCTL'],
    ['exit.saveIa32Pat', 'guestIa32Pat', 'IA32_PAT'],
    ['exit.saveIa32Efer', 'guestIa32Efer', 'IA32_EFER'],
    ['exit.saveIa32PerfGlobalCtrl', 'guestIa32PerfGlobalCtrl', 'IA32_PERF_GLOBAL_CTRL'],
    ['exit2.saveFred', 'guestIa32FredConfig', 'IA32_FRED_CONFIG'],
    ['exit2.saveFred', 'guestIa32FredRsp1', 'IA32_FRED_RSP1'],
    ['exit2.saveFred', 'guestIa32FredRsp2', 'IA32_FRED_RSP2'],
    ['exit2.saveFred', 'guestIa32FredRsp3', 'IA32_FRED_RSP3'],
    ['exit2.saveFred', 'guestIa32FredStklvls', 'IA32_FRED_STKLVLS'],
    ['exit2.saveFred', 'guestIa32FredSsp1', 'IA32_FRED_SSP1'],
    ['exit2.saveFred', 'guestIa32FredSsp2', 'IA32_FRED_SSP2'],
    ['exit2.saveFred', 'guestIa32FredSsp3', 'IA32_FRED_SSP3'],
  ];
  it.each(CONTROLLED)('%s saves %s', (control, field, register) => {
    const registers = { [register]: 0x1_0000_0d01n };
    expect(saved({ registers, controls: [control] }).field(field)).toBe(0x1_0000_0d01n);
    const off = saved({ registers, off: [control], fields: { [field]: 7n } });
    expect(off.field(field)).toBe(7n);
    expect(off.copy.written[Field[field]]).toBe(0);
  });

  it('IA32_SYSENTER_CS and the limits have 32 bits, UINV 8', () => {
    const p = saved({
      registers: {
        IA32_SYSENTER_CS: 0x1_8000_0010n,
        'GDTR.limit': 0x7fn,
        'IDTR.limit': 0xfffn,
        IA32_UINTR_MISC: 0xff_0000_12ecn << 4n,
      },
    });
    expect(p.field('guestIa32SysenterCs')).toBe(0x8000_0010n);
    expect(p.field('guestGdtrLimit')).toBe(0x7fn);
    expect(p.field('guestIdtrLimit')).toBe(0xfffn);
    expect(p.field('guestUinv')).toBe(0xf0n);
    expect(saved({ profile: 'penryn' }).copy.written[Field.guestUinv]).toBe(0);
  });

  it('changed fields are marked for VM entry, all saved fields as written', () => {
    const p = guestProcessor();
    saveGuestState(p, p.copy, CPUID, EXIT_REASONS[10]);
    p.copy.unverified = 0;
    saveGuestState(p, p.copy, CPUID, EXIT_REASONS[10]);
    expect(p.copy.unverified).toBe(0);
    p.cpu.write('RIP', 0x42n);
    p.copy.written = new Uint8Array(FIELD_COUNT);
    saveGuestState(p, p.copy, CPUID, EXIT_REASONS[10]);
    expect(p.copy.unverified).toBe(p.copy.dependents[Field.guestRip]);
    for (const field of ['guestRip', 'guestCr0', 'guestCsBase', 'guestActivityState'] as const) {
      expect(p.copy.written[Field[field]]).toBe(1);
    }
  });
});

describe('segment registers (SDM §30.3.2)', () => {
  it.each(['Es', 'Cs', 'Ss', 'Ds', 'Fs', 'Gs', 'Ldtr', 'Tr'] as const)('%s, usable', (name) => {
    const segment = name.toUpperCase() as 'ES';
    const p = saved({
      registers: {
        [`${segment}.selector`]: 0x1_002bn,
        [`${segment}.base`]: 0xffff_8000_1234_5678n,
        [`${segment}.limit`]: 0xf_ffffn,
        [`${segment}.accessRights`]: 0xfffe_df93n,
      },
    });
    expect(p.field(`guest${name}Selector`)).toBe(0x2bn);
    expect(p.field(`guest${name}Base`)).toBe(0xffff_8000_1234_5678n);
    expect(p.field(`guest${name}Limit`)).toBe(0xf_ffffn);
    expect(p.field(`guest${name}AccessRights`)).toBe(0xd093n);
  });

  it.each([
    ['Es', 0x1234_5678n],
    ['Ss', 0x1234_5678n],
    ['Ds', 0x1234_5678n],
    ['Cs', 0x0080_0000_1234_5678n],
    ['Fs', 0x0080_0000_1234_5678n],
    ['Gs', 0x0080_0000_1234_5678n],
    ['Ldtr', 0x0080_0000_1234_5678n],
  ] as const)('%s, unusable: base %d', (name, base) => {
    const segment = name.toUpperCase() as 'ES';
    const p = saved({
      registers: { [`${segment}.base`]: 0x0080_0000_1234_5678n, [`${segment}.accessRights`]: 0x1_e0f3n },
    });
    expect(p.field(`guest${name}Base`)).toBe(base);
    expect(p.field(`guest${name}AccessRights`) & 0x1_e000n).toBe(0x1_e000n);
  });

  it('an unusable LDTR has a canonical base', () => {
    const registers = { 'LDTR.base': 0x0100_8000_0000_0000n, 'LDTR.accessRights': 0x1_0000n };
    expect(saved({ registers }).field('guestLdtrBase')).toBe(0xff00_8000_0000_0000n | (1n << 56n));
    const narrow = saved({ registers, profile: 'penryn' });
    expect(narrow.field('guestLdtrBase')).toBe(0xffff_8000_0000_0000n);
    const none = saved({
      registers: { 'LDTR.base': 0x8000_0000n, 'LDTR.accessRights': 0x1_0000n },
      features: { linearAddressBits: 32 },
    });
    expect(none.field('guestLdtrBase')).toBe(0xffff_ffff_8000_0000n);
  });

  it.each([
    ['real-address mode', { CR0: 0x30n, IA32_EFER: 0n, 'SS.accessRights': 0xf3n }, 0x93n],
    ['64-bit mode', { 'SS.accessRights': 0xf3n }, 0xf3n],
    ['64-bit mode, unusable', { 'SS.accessRights': 0x1_0060n }, 0x1_0060n],
  ] as const)('SS.DPL is CPL: %s', (_, registers, rights) => {
    expect(saved({ registers }).field('guestSsAccessRights')).toBe(rights);
  });
});

describe('RFLAGS (SDM §30.3.3)', () => {
  const RF = 1n << 16n;
  const interrupt = event(EventType.ExternalInterrupt, 0x20);
  /** Request and RF saved where RF was 0 and where it was 1. */
  const CASES: [string, ExitRequest, boolean, boolean][] = [
    ['an instruction', CPUID, false, false],
    ['an MTF exit', { reason: 37 }, false, true],
    ['a triple fault', { reason: 2 }, false, true],
    ['an interrupt', { reason: 1 }, false, true],
    ['an acknowledged interrupt', { reason: 1, event: interrupt }, false, true],
    ['an interrupt in a REP string', { reason: 1, resumeFlag: true }, true, true],
    ['an NMI', { reason: 0, event: event(EventType.Nmi, 2) }, false, true],
    ['a fault', { reason: 0, event: exception(13) }, true, true],
    ['#MC', { reason: 0, event: exception(18) }, false, true],
    ['#DB', { reason: 0, event: exception(1), qualification: 1n }, false, true],
    ['#DB of general detect', { reason: 0, event: exception(1), qualification: 0x2000n }, true, true],
    ['INT1', { reason: 0, event: event(EventType.PrivilegedSoftwareException, 1) }, false, false],
    ['INT3', { reason: 0, event: event(EventType.SoftwareException, 3) }, false, false],
    ['#DB, as its image has it', { reason: 0, event: exception(1), resumeFlag: true }, true, true],
    ['an EPT violation', { reason: 48 }, true, true],
    ['an EPT violation delivering an interrupt', { reason: 48, originalEvent: interrupt }, false, true],
    ['an EPT violation delivering #PF', { reason: 48, originalEvent: exception(14) }, true, true],
    ['… with another image', { reason: 48, originalEvent: exception(14), resumeFlag: false }, false, false],
    [
      'an APIC access delivering INT n',
      { reason: 44, qualification: 0x3000n, originalEvent: event(EventType.SoftwareInterrupt, 0x80) },
      false,
      false,
    ],
    ['a task switch by JMP', { reason: 9, qualification: 2n << 30n }, false, false],
    [
      'a task switch by #DF',
      { reason: 9, qualification: 3n << 30n, originalEvent: exception(8) },
      false,
      true,
    ],
    ['a task switch with a given image', { reason: 9, resumeFlag: true }, true, true],
    ['an exit from enclave mode', { reason: 37, enclaveMode: true }, false, false],
  ];
  it.each(CASES)('RF of %s', (_, request, ifClear, ifSet) => {
    expect(saved({ registers: { RFLAGS: 0x246n } }, request).field('guestRflags')).toBe(
      0x246n | (ifClear ? RF : 0n),
    );
    expect(saved({ registers: { RFLAGS: 0x246n | RF } }, request).field('guestRflags')).toBe(
      0x246n | (ifSet ? RF : 0n),
    );
  });
});

describe('non-register state (SDM §30.3.4)', () => {
  it.each([0n, 1n, 2n, 3n])('activity state %i', (activityState) => {
    expect(saved({ registers: { activityState } }, { reason: 3 }).field('guestActivityState')).toBe(
      activityState,
    );
  });

  it('interruptibility: blocking by STI, MOV SS and NMI, never by SMI', () => {
    const registers = { blockingBySti: 1n, blockingByMovSs: 1n, blockingBySmi: 1n, blockingByNmi: 1n };
    expect(saved({ registers }).field('guestInterruptibilityState')).toBe(0b1011n);
    expect(saved().field('guestInterruptibilityState')).toBe(0n);
  });

  it('"virtual NMIs": virtual-NMI blocking instead of blocking by NMI', () => {
    const p = guestProcessor({
      controls: ['pin.nmiExiting', 'pin.virtualNmis'],
      registers: { blockingByNmi: 1n },
    });
    saveGuestState(p, p.copy, CPUID, EXIT_REASONS[10]);
    expect(p.field('guestInterruptibilityState')).toBe(0n);
    p.vmx.virtualNmiBlocking = true;
    p.cpu.write('blockingByNmi', 0n);
    saveGuestState(p, p.copy, CPUID, EXIT_REASONS[10]);
    expect(p.field('guestInterruptibilityState')).toBe(8n);
  });

  it('enclave interruption: from enclave mode, and with an event that had it', () => {
    expect(saved({}, { reason: 1, enclaveMode: true }).field('guestInterruptibilityState')).toBe(16n);
    const registers = { enclaveInterruption: 1n };
    expect(saved({ registers }).field('guestInterruptibilityState')).toBe(0n);
    const delivering = { reason: 48, originalEvent: exception(6) } as const;
    expect(saved({ registers }, delivering).field('guestInterruptibilityState')).toBe(16n);
    const debug = { reason: 0, event: exception(1) } as const;
    expect(saved({ registers }, debug).field('guestInterruptibilityState')).toBe(16n);
  });

  const PENDING = 0xffff_ffffn;
  const DEFINED = 0x1_580fn;
  const KEPT: [string, ExitRequest, bigint][] = [
    ['INIT', { reason: 3 }, DEFINED],
    ['TPR below threshold', { reason: 43 }, DEFINED],
    ['virtualized EOI', { reason: 45 }, DEFINED],
    ['APIC write', { reason: 56 }, DEFINED],
    ['MTF', { reason: 37 }, DEFINED],
    ['bus lock', { reason: 74 }, DEFINED],
    ['#MC', { reason: 0, event: exception(18) }, DEFINED],
    ['an access of PEBS', { reason: 48, traceAccess: true }, DEFINED],
    ['an ordinary access', { reason: 48 }, 0n],
    ['#DB', { reason: 0, event: exception(1) }, 0n],
    ['#GP', { reason: 0, event: exception(13) }, 0n],
    ['an instruction', CPUID, 0n],
    ['an interrupt', { reason: 1 }, 0n],
  ];
  it.each(KEPT)('pending debug exceptions: %s', (_, request, expected) => {
    const p = saved({ registers: { pendingDebugExceptions: PENDING } }, request);
    expect(p.field('guestPendingDebugExceptions')).toBe(expected);
  });

  it('pending debug exceptions under blocking by MOV SS: all but a debug exception keep them', () => {
    const registers = { pendingDebugExceptions: 0x5001n, blockingByMovSs: 1n };
    const pending = (request: ExitRequest, more: Partial<Record<RegisterName, bigint>> = {}) =>
      saved({ registers: { ...registers, ...more } }, request).field('guestPendingDebugExceptions');
    expect(pending(CPUID, { RFLAGS: 0x102n })).toBe(0x5001n);
    expect(pending(CPUID)).toBe(0x1001n);
    expect(pending(CPUID, { RFLAGS: 0x102n, IA32_DEBUGCTL: 2n })).toBe(0x1001n);
    expect(pending({ reason: 0, event: exception(1) })).toBe(0n);
    expect(pending({ reason: 0, event: event(EventType.PrivilegedSoftwareException, 1) })).toBe(0n);
    expect(pending({ reason: 0, event: event(EventType.SoftwareException, 3) })).toBe(0x1001n);
  });

  const TIMER = ['pin.activateVmxPreemptionTimer', 'exit.saveVmxPreemptionTimerValue'] as const;
  // IA32_VMX_MISC[4:0] is 5: the timer counts at every change of TSC bit 5.
  it.each([
    ['not a tick', 100, 31n, 31n, 100n],
    ['one tick across a boundary', 100, 31n, 32n, 99n],
    ['ticks', 100, 0n, 32n * 40n, 60n],
    ['the last tick', 1, 0n, 63n, 0n],
    ['expired', 3, 0n, 1n << 40n, 0n],
    ['the TSC wraps', 100, 0xffff_ffff_ffff_ffe0n, 0n, 99n],
  ] as const)('preemption timer: %s', (_, value, then, now, left) => {
    const p = guestProcessor({ controls: TIMER, registers: { IA32_TIME_STAMP_COUNTER: now } });
    p.vmx.preemptionTimer = { value, tsc: then };
    saveGuestState(p, p.copy, CPUID, EXIT_REASONS[10]);
    expect(p.field('vmxPreemptionTimerValue')).toBe(left);
  });

  it('preemption timer: 0 when it caused the exit, left alone without the control', () => {
    const p = guestProcessor({ controls: TIMER, fields: { vmxPreemptionTimerValue: 9n } });
    saveGuestState(p, p.copy, CPUID, EXIT_REASONS[10]);
    expect(p.field('vmxPreemptionTimerValue')).toBe(9n);
    p.vmx.preemptionTimer = { value: 5, tsc: 0n };
    saveGuestState(p, p.copy, { reason: 52 }, EXIT_REASONS[52]);
    expect(p.field('vmxPreemptionTimerValue')).toBe(0n);
    const off = guestProcessor({ controls: [TIMER[0]], fields: { vmxPreemptionTimerValue: 9n } });
    off.vmx.preemptionTimer = { value: 5, tsc: 0n };
    saveGuestState(off, off.copy, CPUID, EXIT_REASONS[10]);
    expect(off.field('vmxPreemptionTimerValue')).toBe(9n);
  });

  it('PDPTEs: with EPT and PAE paging only', () => {
    const pae = { IA32_EFER: 0n, 'CS.accessRights': 0xc09bn, PDPTE0: 1n, PDPTE3: 0x3001n } as const;
    const fields = { guestPdpte0: 7n, guestPdpte1: 7n, guestPdpte3: 7n } as const;
    const ept = { controls: ['proc2.enableEpt'] as const, fields };
    const p = saved({ ...ept, registers: pae });
    expect([p.field('guestPdpte0'), p.field('guestPdpte1'), p.field('guestPdpte3')]).toEqual([
      1n,
      0n,
      0x3001n,
    ]);
    expect(saved({ fields, registers: pae }).field('guestPdpte0')).toBe(7n);
    expect(saved({ ...ept, registers: { ...pae, IA32_EFER: 0x500n } }).field('guestPdpte0')).toBe(7n);
    expect(saved({ ...ept, registers: { ...pae, CR4: 0x2000n } }).field('guestPdpte0')).toBe(7n);
    expect(saved({ ...ept, registers: { ...pae, CR0: 0x31n } }).field('guestPdpte0')).toBe(7n);
  });

  it('guest interrupt status with "virtual-interrupt delivery", guest deadline where the field exists', () => {
    for (const [controls, status] of [
      [['proc2.virtualInterruptDelivery'], 0x4130n],
      [[], 7n],
    ] as const) {
      const p = guestProcessor({ controls, fields: { guestInterruptStatus: 7n } });
      Object.assign(p.vmx, { rvi: 0x30, svi: 0x41, guestDeadline: 0x1_2345_6789n });
      saveGuestState(p, p.copy, CPUID, EXIT_REASONS[10]);
      expect(p.field('guestInterruptStatus')).toBe(status);
      expect(p.field('guestDeadline')).toBe(0x1_2345_6789n);
    }
    const p = guestProcessor({ profile: 'penryn' });
    p.vmx.guestDeadline = 5n;
    saveGuestState(p, p.copy, CPUID, EXIT_REASONS[10]);
    expect(p.field('guestDeadline')).toBe(0n);
  });
});
