/** Loading host state (SDM §30.5). */
import { describe, expect, it } from 'vitest';
import { REGISTERS } from '../../../src/cpu/registers.ts';
import type { ExitRequest, FieldName, RegisterName } from '../../../src/index.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';
import { exception, Guest, type GuestOptions, NMI } from './guest.ts';

const ONES = 0xffff_ffff_ffff_ffffn;

/** Launches, gives registers the values the guest left in them, and exits. */
function afterExit(
  fields: FieldValues = {},
  registers: Partial<Record<RegisterName, bigint>> = {},
  controls: ControlId[] = [],
  options: GuestOptions = {},
): Guest {
  const guest = new Guest(options)
    .on(...controls)
    .fields(fields)
    .launch();
  for (const [name, value] of Object.entries(registers)) guest.cpu.set(name as RegisterName, value as bigint);
  expect(guest.cpu.vmexit({ reason: 10 })).toEqual({ kind: 'VMexit', reason: 10 });
  expect(guest.cpu.operation).toBe('root');
  return guest;
}

describe('control and debug registers', () => {
  it('CR0: ET, CD, NW, 63:32, 28:19, 17 and 15:6 keep their value', () => {
    const kept = 0xffff_ffff_7ffa_ffd0n;
    for (const [field, before] of [
      [0x8000_0021n, ONES],
      [0x8005_003fn, 0x31n],
      [0xe005_0031n, 0x8000_0021n],
    ] as const) {
      const { cpu } = afterExit({ hostCr0: field }, { CR0: before });
      expect(cpu.get('CR0')).toBe((before & kept) | (field & ~kept));
    }
  });

  it('CR0.PE and PG become 1 after an unrestricted guest without them', () => {
    const guest = new Guest()
      .guest32()
      .on('proc2.enableEpt', 'proc2.unrestrictedGuest')
      .fields({ guestCr0: 0x30n, guestCsAccessRights: 0x9bn, guestCsLimit: 0xffffn })
      .launch();
    expect(guest.cpu.mode).not.toBe(afterExit().cpu.mode);
    guest.cpu.vmexit({ reason: 10 });
    expect(guest.cpu.get('CR0') & 0x8000_0001n).toBe(0x8000_0001n);
  });

  it('CR3 below the physical-address width; bits above are not modified', () => {
    const { cpu } = afterExit({ hostCr3: 0xf_ffff_ffff_ffffn }, { CR3: 0xabc0_0000_0000_0000n });
    expect(cpu.get('CR3')).toBe(0x8bcf_ffff_ffff_ffffn);
  });

  it('of CR3, LAM_U57 and LAM_U48 are loaded where the processor has linear-address masking', () => {
    const LAM = 3n << 61n;
    expect(afterExit({ hostCr3: LAM | 0x1000n }, { CR3: 0n }).cpu.get('CR3')).toBe(LAM | 0x1000n);
    expect(afterExit({ hostCr3: 0x1000n }, { CR3: LAM }).cpu.get('CR3')).toBe(0x1000n);
    const without = new Guest({ profile: 'skylake-x' }).fields({ hostCr3: 0x1000n }).launch();
    without.cpu.set('CR3', LAM);
    without.cpu.vmexit({ reason: 10 });
    expect(without.cpu.get('CR3')).toBe(LAM | 0x1000n);
  });

  it('CR4 is the field: what the guest had is gone', () => {
    const { cpu } = afterExit({ hostCr4: 0x20a0n }, { CR4: ONES });
    expect(cpu.get('CR4')).toBe(0x20a0n);
    expect(afterExit({}, { CR4: 0x2000n }).cpu.get('CR4') & 0x20n).toBe(0x20n);
  });

  it('a 32-bit host has CR4.PCIDE = CR4.FRED = 0', () => {
    const { cpu } = afterExit({ hostCr4: 0x2020n }, { CR4: 0x1_0002_2020n }, [], { host32: true });
    expect(cpu.get('CR4')).toBe(0x2020n);
  });

  it('DR7 = 400H and IA32_DEBUGCTL = 0, with and without "save debug controls"', () => {
    for (const controls of [[], ['exit.saveDebugControls']] as ControlId[][]) {
      const { cpu } = afterExit({}, { DR7: ONES, IA32_DEBUGCTL: ONES }, controls);
      expect([cpu.get('DR7'), cpu.get('IA32_DEBUGCTL')]).toEqual([0x400n, 0n]);
    }
  });

  it('registers of which the manual says nothing keep their value', () => {
    // CR8 has four bits.
    const mark = (r: RegisterName) => (r === 'CR8' ? 9n : 0x1234_5678_9abc_def0n);
    const untouched = REGISTERS.filter((r) =>
      /^(R[A-DS][XI]|R[BD][PI]|R\d+|CR2|CR8|DR[0-36]|XCR0|IA32_(K|STAR|LSTAR|CSTAR|FMASK|TSC_AUX|XSS|U_CET|PL\d_SSP|FRED_RSP0|MISC_ENABLE|BNDCFGS|RTIT_CTL|LBR_CTL|PKRS|SPEC_CTRL|PAT|PERF_GLOBAL_CTRL|S_CET|UINTR_MISC)|SSP)$/.test(
        r,
      ),
    );
    expect(untouched.length).toBeGreaterThan(40);
    const { cpu } = afterExit({}, Object.fromEntries(untouched.map((r) => [r, mark(r)])));
    for (const r of untouched) expect([r, cpu.get(r)]).toEqual([r, mark(r)]);
  });
});

describe('MSRs', () => {
  it('SYSENTER_CS has 32 bits, SYSENTER addresses are canonical', () => {
    const { cpu } = afterExit(
      {
        hostIa32SysenterCs: 0x1234_5678n,
        hostIa32SysenterEsp: 0xff12_3456_789a_bcden,
        hostIa32SysenterEip: 0x0012_3456_789a_bcden,
      },
      { IA32_SYSENTER_CS: ONES, IA32_SYSENTER_ESP: ONES, IA32_SYSENTER_EIP: ONES },
    );
    expect(cpu.get('IA32_SYSENTER_CS')).toBe(0x1234_5678n);
    expect(cpu.get('IA32_SYSENTER_ESP')).toBe(0xff12_3456_789a_bcden);
    expect(cpu.get('IA32_SYSENTER_EIP')).toBe(0x0012_3456_789a_bcden);
  });

  it.each([0n, 0x801n, 0xd01n])(
    'EFER without "load IA32_EFER": LMA and LME follow the host, guest had %i',
    (efer) => {
      expect(afterExit({}, { IA32_EFER: efer }).cpu.get('IA32_EFER')).toBe(efer | 0x500n);
      const legacy = afterExit({}, { IA32_EFER: efer & 0x901n }, [], { host32: true });
      expect(legacy.cpu.get('IA32_EFER')).toBe(efer & 0x801n);
    },
  );

  it('EFER with "load IA32_EFER"', () => {
    expect(
      afterExit({ hostIa32Efer: 0xd00n }, { IA32_EFER: 0x501n }, ['exit.loadIa32Efer']).cpu.get('IA32_EFER'),
    ).toBe(0xd00n);
  });

  const LOADED: readonly (readonly [ControlId, readonly (readonly [FieldName, RegisterName, bigint])[]])[] = [
    ['exit.loadIa32PerfGlobalCtrl', [['hostIa32PerfGlobalCtrl', 'IA32_PERF_GLOBAL_CTRL', 0x1_0000_0003n]]],
    ['exit.loadIa32Pat', [['hostIa32Pat', 'IA32_PAT', 0x0706_0504_0100_0606n]]],
    ['exit.loadPkrs', [['hostIa32Pkrs', 'IA32_PKRS', 0xfedc_ba98n]]],
    ['exit2.loadIa32SpecCtrl', [['hostIa32SpecCtrl', 'IA32_SPEC_CTRL', 5n]]],
    [
      'exit.loadCetState',
      [
        ['hostIa32SCet', 'IA32_S_CET', 0xff00_0000_0000_1004n],
        ['hostIa32InterruptSspTableAddr', 'IA32_INTERRUPT_SSP_TABLE_ADDR', 0xff00_0000_0000_2000n],
        ['hostSsp', 'SSP', 0xffff_8000_0000_3000n],
      ],
    ],
    [
      'exit2.loadFred',
      [
        ['hostIa32FredConfig', 'IA32_FRED_CONFIG', 0x1000n],
        ['hostIa32FredRsp1', 'IA32_FRED_RSP1', 0x1040n],
        ['hostIa32FredRsp2', 'IA32_FRED_RSP2', 0x2040n],
        ['hostIa32FredRsp3', 'IA32_FRED_RSP3', 0x3040n],
        ['hostIa32FredStklvls', 'IA32_FRED_STKLVLS', 0x4444n],
        ['hostIa32FredSsp1', 'IA32_FRED_SSP1', 0x1008n],
        ['hostIa32FredSsp2', 'IA32_FRED_SSP2', 0x2008n],
        ['hostIa32FredSsp3', 'IA32_FRED_SSP3', 0x3008n],
      ],
    ],
  ];
  it.each(LOADED)('%s loads; without it the guest’s values stay', (control, rows) => {
    const fields = Object.fromEntries(rows.map(([field, , value]) => [field, value]));
    const guestHas = Object.fromEntries(rows.map(([, register], i) => [register, BigInt(i + 1) << 60n]));
    const on = afterExit(fields, guestHas, [control]);
    expect(rows.map(([, r]) => on.cpu.get(r))).toEqual(rows.map(([, , value]) => value));
    const off = afterExit(fields, guestHas);
    expect(rows.map(([, r]) => off.cpu.get(r))).toEqual(Object.values(guestHas));
  });

  it.each([
    ['exit.clearIa32Bndcfgs', 'IA32_BNDCFGS', 0n],
    ['exit.clearIa32RtitCtl', 'IA32_RTIT_CTL', 0n],
    ['exit.clearIa32LbrCtl', 'IA32_LBR_CTL', 0n],
    ['exit.clearUinv', 'IA32_UINTR_MISC', 0x1234_5600_89ab_cdefn],
  ] as const)('%s clears', (control, register, cleared) => {
    const before = { [register]: 0x1234_5678_89ab_cdefn };
    expect(afterExit({}, before, [control]).cpu.get(register)).toBe(cleared);
    expect(afterExit({}, before).cpu.get(register)).toBe(0x1234_5678_89ab_cdefn);
  });
});

describe('segments and descriptor tables', () => {
  const trashed = Object.fromEntries(
    REGISTERS.filter((r) => /^(ES|CS|SS|DS|FS|GS|LDTR|TR|GDTR|IDTR)\./.test(r)).map((r) => [r, ONES]),
  );
  // CS must tell the guest's mode, SS its privilege level.
  const left = { ...trashed, 'CS.accessRights': 0xa09bn, 'SS.accessRights': 0xc093n };
  const segment = (guest: Guest, name: string) =>
    ['selector', 'base', 'limit', 'accessRights'].map((part) =>
      guest.cpu.get(`${name}.${part}` as RegisterName),
    );

  it('64-bit host', () => {
    const guest = afterExit(
      {
        hostCsSelector: 0x10n,
        hostSsSelector: 0x18n,
        hostDsSelector: 0x20n,
        hostEsSelector: 0x28n,
        hostFsSelector: 0x30n,
        hostGsSelector: 0x38n,
        hostTrSelector: 0x40n,
        hostFsBase: 0xff12_0000_0000_1000n,
        hostGsBase: 0x0012_0000_0000_2000n,
        hostTrBase: 0xff12_0000_0000_3000n,
        hostGdtrBase: 0xff12_0000_0000_4000n,
        hostIdtrBase: 0x0012_0000_0000_5000n,
      },
      left,
    );
    const flat = 0xffff_ffffn;
    expect(segment(guest, 'CS')).toEqual([0x10n, 0n, flat, 0xa09bn]);
    expect(segment(guest, 'SS')).toEqual([0x18n, 0n, flat, 0xc093n]);
    expect(segment(guest, 'DS')).toEqual([0x20n, 0n, flat, 0xc093n]);
    expect(segment(guest, 'ES')).toEqual([0x28n, 0n, flat, 0xc093n]);
    expect(segment(guest, 'FS')).toEqual([0x30n, 0xff12_0000_0000_1000n, flat, 0xc093n]);
    expect(segment(guest, 'GS')).toEqual([0x38n, 0x0012_0000_0000_2000n, flat, 0xc093n]);
    expect(segment(guest, 'TR')).toEqual([0x40n, 0xff12_0000_0000_3000n, 0x67n, 0x8bn]);
    expect(guest.cpu.get('LDTR.selector')).toBe(0n);
    expect(guest.cpu.get('LDTR.accessRights') & 0x1_0000n).toBe(0x1_0000n);
    expect(guest.cpu.get('GDTR.base')).toBe(0xff12_0000_0000_4000n);
    expect(guest.cpu.get('IDTR.base')).toBe(0x0012_0000_0000_5000n);
    expect([guest.cpu.get('GDTR.limit'), guest.cpu.get('IDTR.limit')]).toEqual([0xffffn, 0xffffn]);
    expect(guest.cpu.cpl).toBe(0);
  });

  it('a 32-bit host has CS.D instead of CS.L', () => {
    const guest = afterExit({}, {}, [], { host32: true });
    expect(guest.cpu.get('CS.accessRights')).toBe(0xc09bn);
  });

  it('null selectors are unusable; SS.B stays 1, FS and GS have their base', () => {
    const guest = afterExit({ hostSsSelector: 0n, hostFsBase: 0x1000n, hostGsBase: 0x2000n }, left);
    for (const name of ['SS', 'DS', 'ES', 'FS', 'GS'] as const) {
      expect(guest.cpu.get(`${name}.selector`)).toBe(0n);
      expect(guest.cpu.get(`${name}.accessRights`) & 0x1_0000n).toBe(0x1_0000n);
    }
    expect(guest.cpu.get('SS.accessRights') & 0x4060n).toBe(0x4000n);
    expect([guest.cpu.get('FS.base'), guest.cpu.get('GS.base')]).toEqual([0x1000n, 0x2000n]);
  });
});

describe('RIP, RSP, RFLAGS and non-register state', () => {
  it('RIP and RSP are the fields, RFLAGS is 2', () => {
    const { cpu } = afterExit(
      { hostRip: 0xffff_8456_789a_bcden, hostRsp: 0xff00_0000_0000_0008n },
      { RFLAGS: 0x3f_7fd7n },
    );
    expect([cpu.get('RIP'), cpu.get('RSP'), cpu.get('RFLAGS')]).toEqual([
      0xffff_8456_789a_bcden,
      0xff00_0000_0000_0008n,
      2n,
    ]);
  });

  it('active, unblocked, nothing pending, no monitor armed', () => {
    const state = [
      'activityState',
      'blockingBySti',
      'blockingByMovSs',
      'enclaveInterruption',
      'monitorArmed',
    ] as const;
    const { cpu } = afterExit(
      {},
      { ...Object.fromEntries(state.map((r) => [r, 1n])), pendingDebugExceptions: 0x5000n },
    );
    for (const r of state) expect([r, cpu.get(r)]).toEqual([r, 0n]);
    expect(cpu.get('pendingDebugExceptions')).toBe(0n);
    expect(cpu.vmread('exitReason').value).toBe(10n);
  });

  const NMI_BLOCKING: readonly (readonly [string, ExitRequest, bigint, bigint])[] = [
    ['NMI', { reason: 0, event: NMI }, 0n, 1n],
    ['NMI, already blocked', { reason: 0, event: NMI }, 1n, 1n],
    ['an exception', { reason: 0, event: exception(6) }, 0n, 0n],
    ['an exception, already blocked', { reason: 0, event: exception(6) }, 1n, 1n],
    ['vector 2 as an interrupt would have it', { reason: 7 }, 0n, 0n],
    ['CPUID, already blocked', { reason: 10 }, 1n, 1n],
  ];
  it.each(NMI_BLOCKING)('NMI blocking after %s', (_, request, before, after) => {
    const guest = new Guest().on('pin.nmiExiting').launch();
    guest.cpu.set('blockingByNmi', before);
    guest.cpu.vmexit(request);
    expect(guest.cpu.get('blockingByNmi')).toBe(after);
  });

  it('INIT is blocked in root operation only; what belongs to non-root operation is gone', () => {
    const guest = new Guest().on('proc2.enableVpid', 'pin.activateVmxPreemptionTimer').launch();
    const { vmx } = guest.cpu.unit;
    expect([vmx.initBlocked, vmx.vpid]).toEqual([false, 1]);
    guest.cpu.vmexit({ reason: 10 });
    expect([vmx.initBlocked, vmx.vpid, vmx.preemptionTimer, vmx.injectedEvent]).toEqual([
      true,
      0,
      undefined,
      undefined,
    ]);
  });

  it('the guest resumes with what was saved', () => {
    const guest = new Guest().launch();
    guest.cpu.set('RIP', 0x1234_5000n);
    guest.cpu.set('RAX', 7n);
    guest.cpu.vmexit({ reason: 10, instructionLength: 2 });
    guest.cpu.vmwrite('guestRip', guest.read('guestRip') + guest.read('vmExitInstructionLength'));
    expect(guest.cpu.vmresume()).toEqual({ kind: 'VMentry' });
    expect([guest.cpu.get('RIP'), guest.cpu.get('RAX')]).toEqual([0x1234_5002n, 7n]);
  });
});
