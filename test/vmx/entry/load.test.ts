/** Loading guest state and non-register state at VM entry (SDM §29.3.2, §29.7). */
import { describe, expect, it } from 'vitest';
import { REGISTERS } from '../../../src/cpu/registers.ts';
import type { FieldName, RegisterName } from '../../../src/index.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';
import { Guest, INT_80H, INT1, INT3, INTERRUPT, LINK, NMI, REGION, VIRTUAL_APIC } from '../exit/guest.ts';

const ONES = 0xffff_ffff_ffff_ffffn;
type Registers = Partial<Record<RegisterName, bigint>>;

/** Writes the fields, gives the host's registers values, and launches. */
function entered(
  fields: FieldValues = {},
  host: Registers = {},
  controls: ControlId[] = [],
  guest = new Guest(),
): Guest {
  guest
    .on(...controls)
    .fields(fields)
    .write();
  for (const [name, value] of Object.entries(host)) guest.cpu.set(name as RegisterName, value as bigint);
  const outcome = guest.cpu.vmlaunch();
  if (outcome.kind !== 'VMentry')
    throw new Error(
      guest.cpu
        .explain()
        .failures.map((f) => f.id)
        .join() || outcome.kind,
    );
  expect(guest.cpu.operation).toBe('non-root');
  return guest;
}

describe('control and debug registers', () => {
  it('CR0: ET, 15:6, 17, 28:19, NW, CD and 63:32 keep the host’s value', () => {
    const kept = 0xffff_ffff_7ffa_ffd0n;
    for (const [field, host] of [
      [0x8000_0021n, 0xffff_ffffn],
      [0x8005_003fn, 0x8000_0021n],
      [0xe005_0031n, 0x8000_0021n],
    ] as const) {
      expect(entered({ guestCr0: field }, { CR0: host }).cpu.get('CR0')).toBe(
        (host & kept) | (field & ~kept),
      );
    }
  });

  it('CR3 and CR4 are the fields', () => {
    const { cpu } = entered({ guestCr3: 0xf_0000_1234_5018n, guestCr4: 0x2620a0n });
    expect([cpu.get('CR3'), cpu.get('CR4')]).toEqual([0xf_0000_1234_5018n, 0x2620a0n]);
  });

  it('DR7 and IA32_DEBUGCTL under "load debug controls"; DR7 bits 15, 14, 12 and 10 are forced', () => {
    const fields = { guestDr7: 0xffff_dbffn, guestIa32Debugctl: 3n };
    const host = { DR7: 0x455n, IA32_DEBUGCTL: 1n };
    const on = entered(fields, host, ['entry.loadDebugControls']);
    expect([on.cpu.get('DR7'), on.cpu.get('IA32_DEBUGCTL')]).toEqual([0xffff_0fffn, 3n]);
    const high = entered(fields, { DR7: 0x1234_5678_0000_0455n }, ['entry.loadDebugControls']);
    expect(high.cpu.get('DR7')).toBe(0xffff_0fffn);
    const off = entered(fields, host, [], new Guest().off('entry.loadDebugControls'));
    expect([off.cpu.get('DR7'), off.cpu.get('IA32_DEBUGCTL')]).toEqual([0x455n, 1n]);
  });

  it('registers that no field has keep the host’s value', () => {
    const kept = REGISTERS.filter((r) =>
      /^(R[A-D]X|R[BD][PI]|RSI|R\d+|CR2|CR8|DR[0-36]|XCR0|IA32_(KERNEL_GS_BASE|STAR|LSTAR|CSTAR|FMASK|TSC_AUX|XSS|U_CET|PL\d_SSP|FRED_RSP0))$/.test(
        r,
      ),
    );
    // CR8 has the four bits of a priority class.
    const hostValue = (r: RegisterName) => (r === 'CR8' ? 9n : 0x1234_5678_9abc_def0n);
    const { cpu } = entered({}, Object.fromEntries(kept.map((r) => [r, hostValue(r)])));
    for (const r of kept) expect([r, cpu.get(r)]).toEqual([r, hostValue(r)]);
  });
});

describe('MSRs', () => {
  it('SYSENTER always; SYSENTER_CS has 32 bits', () => {
    const { cpu } = entered(
      {
        guestIa32SysenterCs: 0x8765_4321n,
        guestIa32SysenterEsp: 0xff12_3456_789a_bcden,
        guestIa32SysenterEip: 0x12_3456_789a_bcden,
      },
      { IA32_SYSENTER_CS: ONES },
    );
    expect(cpu.get('IA32_SYSENTER_CS')).toBe(0x8765_4321n);
    expect(cpu.get('IA32_SYSENTER_ESP')).toBe(0xff12_3456_789a_bcden);
    expect(cpu.get('IA32_SYSENTER_EIP')).toBe(0x12_3456_789a_bcden);
  });

  const LOADED: readonly (readonly [ControlId, readonly (readonly [FieldName, RegisterName, bigint])[]])[] = [
    ['entry.loadIa32PerfGlobalCtrl', [['guestIa32PerfGlobalCtrl', 'IA32_PERF_GLOBAL_CTRL', 0x1_0000_0003n]]],
    ['entry.loadIa32Pat', [['guestIa32Pat', 'IA32_PAT', 0x0706_0504_0100_0606n]]],
    ['entry.loadIa32Bndcfgs', [['guestIa32Bndcfgs', 'IA32_BNDCFGS', 0x1003n]]],
    ['entry.loadIa32RtitCtl', [['guestIa32RtitCtl', 'IA32_RTIT_CTL', 0x2000n]]],
    ['entry.loadGuestIa32LbrCtl', [['guestIa32LbrCtl', 'IA32_LBR_CTL', 0x1_0003n]]],
    ['entry.loadPkrs', [['guestIa32Pkrs', 'IA32_PKRS', 0xfedc_ba98n]]],
    ['entry.loadIa32SpecCtrl', [['guestIa32SpecCtrl', 'IA32_SPEC_CTRL', 5n]]],
    [
      'entry.loadCetState',
      [
        ['guestIa32SCet', 'IA32_S_CET', 0xff00_0000_0000_1004n],
        ['guestIa32InterruptSspTableAddr', 'IA32_INTERRUPT_SSP_TABLE_ADDR', 0xff00_0000_0000_2000n],
        ['guestSsp', 'SSP', 0xff00_0000_0000_3000n],
      ],
    ],
    [
      'entry.loadFred',
      [
        ['guestIa32FredConfig', 'IA32_FRED_CONFIG', 0x1000n],
        ['guestIa32FredRsp1', 'IA32_FRED_RSP1', 0x1040n],
        ['guestIa32FredRsp2', 'IA32_FRED_RSP2', 0x2040n],
        ['guestIa32FredRsp3', 'IA32_FRED_RSP3', 0x3040n],
        ['guestIa32FredStklvls', 'IA32_FRED_STKLVLS', 0x4444n],
        ['guestIa32FredSsp1', 'IA32_FRED_SSP1', 0x1008n],
        ['guestIa32FredSsp2', 'IA32_FRED_SSP2', 0x2008n],
        ['guestIa32FredSsp3', 'IA32_FRED_SSP3', 0x3008n],
      ],
    ],
  ];
  it.each(LOADED)('%s loads; without it the host’s values stay', (control, rows) => {
    const fields = Object.fromEntries(rows.map(([field, , value]) => [field, value]));
    const on = entered(fields, {}, [control]);
    expect(rows.map(([, r]) => on.cpu.get(r))).toEqual(rows.map(([, , value]) => value));
    const host = Object.fromEntries(rows.map(([, r], i) => [r, BigInt(i + 2) << 8n]));
    const off = entered(fields, host, [], new Guest().off(control));
    expect(rows.map(([, r]) => off.cpu.get(r))).toEqual(Object.values(host));
  });

  it('UINV: 8 bits of IA32_UINTR_MISC', () => {
    const host = { IA32_UINTR_MISC: 0x1234_5678_9abc_def0n };
    expect(entered({ guestUinv: 0xa5n }, host, ['entry.loadUinv']).cpu.get('IA32_UINTR_MISC')).toBe(
      0x1234_56a5_9abc_def0n,
    );
    expect(entered({ guestUinv: 0xa5n }, host).cpu.get('IA32_UINTR_MISC')).toBe(0x1234_5678_9abc_def0n);
  });

  it('EFER with "load IA32_EFER" is the field', () => {
    expect(
      entered({ guestIa32Efer: 0xd00n }, { IA32_EFER: 0x501n }, ['entry.loadIa32Efer']).cpu.get('IA32_EFER'),
    ).toBe(0xd00n);
  });

  it('EFER without it: LMA follows the control, LME too if paging will be on, the rest stays', () => {
    const host = { IA32_EFER: 0xd01n };
    expect(entered({}, host).cpu.get('IA32_EFER')).toBe(0xd01n);
    expect(entered({}, host, [], new Guest().guest32()).cpu.get('IA32_EFER')).toBe(0x801n);
    const unpaged = entered(
      { guestCr0: 0x31n },
      host,
      ['proc2.enableEpt', 'proc2.unrestrictedGuest'],
      new Guest().guest32(),
    );
    expect(unpaged.cpu.get('IA32_EFER')).toBe(0x901n);
  });
});

describe('segments, RIP, RSP, RFLAGS', () => {
  const read = (guest: Guest, name: string) =>
    ['selector', 'base', 'limit', 'accessRights'].map((part) =>
      guest.cpu.get(`${name}.${part}` as RegisterName),
    );

  it('usable registers are loaded whole', () => {
    const fields: FieldValues = {};
    const expected: Record<string, bigint[]> = {};
    for (const [i, name] of ['Es', 'Ss', 'Ds', 'Fs', 'Gs'].entries()) {
      const values = [BigInt(0x20 + 8 * i), BigInt(0x1000 * (i + 1)), 0xf_ffffn, 0x4093n];
      for (const [j, part] of ['Selector', 'Base', 'Limit', 'AccessRights'].entries()) {
        fields[`guest${name}${part}` as FieldName] = values[j] as bigint;
      }
      expected[name.toUpperCase()] = values;
    }
    Object.assign(fields, {
      guestLdtrSelector: 0x50n,
      guestLdtrBase: 0x5000n,
      guestLdtrLimit: 0xffn,
      guestLdtrAccessRights: 0x82n,
    });
    Object.assign(fields, { guestTrBase: 0xff00_0000_0000_6000n });
    const guest = entered(fields);
    for (const [name, values] of Object.entries(expected))
      expect([name, read(guest, name)]).toEqual([name, values]);
    expect(read(guest, 'LDTR')).toEqual([0x50n, 0x5000n, 0xffn, 0x82n]);
    expect(read(guest, 'TR')).toEqual([0x18n, 0xff00_0000_0000_6000n, 0x67n, 0x8bn]);
    expect(read(guest, 'CS')).toEqual([8n, 0n, 0xffff_ffffn, 0xa09bn]);
  });

  it('unusable registers: SS base 3:0 and high bases cleared, SS.B set, FS and GS bases loaded', () => {
    const base = 0x0123_4567_89ab_cdefn;
    const guest = entered({
      guestSsBase: base,
      guestDsBase: base,
      guestEsBase: base,
      guestFsBase: 0xff12_3456_789a_bcdfn,
      guestGsBase: 0x12_3456_789a_bcdfn,
      guestSsSelector: 0x21n & ~3n,
    });
    expect(guest.cpu.get('SS.base')).toBe(0x89ab_cde0n);
    expect(guest.cpu.get('DS.base') >> 32n).toBe(0n);
    expect(guest.cpu.get('ES.base') >> 32n).toBe(0n);
    expect(guest.cpu.get('FS.base')).toBe(0xff12_3456_789a_bcdfn);
    expect(guest.cpu.get('GS.base')).toBe(0x12_3456_789a_bcdfn);
    expect(guest.cpu.get('SS.accessRights') & 0x1_4000n).toBe(0x1_4000n);
    expect(guest.cpu.get('SS.selector')).toBe(0x20n);
  });

  it('a usable SS keeps base and D/B', () => {
    const fields = {
      guestSsSelector: 0x10n,
      guestSsBase: 0x1234_5677n,
      guestSsLimit: 0xffffn,
      guestSsAccessRights: 0x93n,
    };
    expect(read(entered(fields), 'SS')).toEqual([0x10n, 0x1234_5677n, 0xffffn, 0x93n]);
  });

  it('CPL is SS.DPL of the field', () => {
    const guest = entered({
      guestCsAccessRights: 0xa0fbn,
      guestCsSelector: 0xbn,
      guestSsSelector: 0x13n,
      guestSsAccessRights: 0x1_0060n,
    });
    expect(guest.cpu.cpl).toBe(3);
  });

  it('GDTR, IDTR, RIP, RSP, RFLAGS', () => {
    const { cpu } = entered({
      guestGdtrBase: 0xff00_0000_0000_1000n,
      guestGdtrLimit: 0x7fn,
      guestIdtrBase: 0xff00_0000_0000_2000n,
      guestIdtrLimit: 0xfffn,
      guestRip: 0xff00_0000_1234_5678n,
      guestRsp: ONES,
      guestRflags: 0xed7n,
    });
    expect([cpu.get('GDTR.base'), cpu.get('GDTR.limit')]).toEqual([0xff00_0000_0000_1000n, 0x7fn]);
    expect([cpu.get('IDTR.base'), cpu.get('IDTR.limit')]).toEqual([0xff00_0000_0000_2000n, 0xfffn]);
    expect([cpu.get('RIP'), cpu.get('RSP'), cpu.get('RFLAGS')]).toEqual([
      0xff00_0000_1234_5678n,
      ONES,
      0xed7n,
    ]);
  });
});

describe('PDPTEs', () => {
  const pdptes = (guest: Guest) => [0, 1, 2, 3].map((i) => guest.cpu.get(`PDPTE${i}` as RegisterName));
  const inMemory = () => {
    const guest = new Guest().guest32().fields({ guestCr3: 0x7_0020n });
    for (let i = 0; i < 4; i++)
      guest.machine.memory.write64(0x7_0020 + 8 * i, BigInt(0x1001 * (i + 1)) & ~0x1e6n);
    return guest.fields({
      guestPdpte0: 0xa001n,
      guestPdpte1: 0xb001n,
      guestPdpte2: 0xcn,
      guestPdpte3: 0xd001n,
    });
  };

  it('from memory without EPT, from the fields with EPT', () => {
    expect(pdptes(entered({}, {}, [], inMemory()))).toEqual([0x1001n, 0x2000n, 0x3001n, 0x4000n]);
    expect(pdptes(entered({}, {}, ['proc2.enableEpt'], inMemory()))).toEqual([
      0xa001n,
      0xb001n,
      0xcn,
      0xd001n,
    ]);
  });

  it('and no register besides', () => {
    for (const controls of [[], ['proc2.enableEpt']] as ControlId[][]) {
      const guest = inMemory().fields({ guestGdtrBase: 0x1230n });
      guest.machine.memory.write64(0x7_0040, 0x5001n);
      expect(entered({}, {}, controls, guest).cpu.get('GDTR.base')).toBe(0x1230n);
    }
  });

  it('not without PAE paging', () => {
    const host = { PDPTE0: 5n };
    expect(pdptes(entered({ guestCr4: 0x2000n }, host, [], inMemory()))[0]).toBe(5n);
    expect(pdptes(entered({ guestCr3: 0x7_0020n }, host))[0]).toBe(5n);
  });
});

describe('interruptibility, activity, pending debug exceptions', () => {
  const state = (guest: Guest) =>
    (
      [
        'blockingBySti',
        'blockingByMovSs',
        'blockingByNmi',
        'activityState',
        'pendingDebugExceptions',
      ] as const
    ).map((r) => guest.cpu.get(r));
  const MTF = 0x8000_0700n;
  const event = (identification: number | bigint): FieldValues => ({
    injectedEventIdentification: BigInt(identification),
    vmEntryInstructionLength: 1n,
  });

  it('not injecting: as the fields say', () => {
    const host = { blockingByNmi: 1n, monitorArmed: 1n };
    expect(state(entered({ guestInterruptibilityState: 1n, guestRflags: 0x202n }, host))).toEqual([
      1n,
      0n,
      0n,
      0n,
      0n,
    ]);
    const guest = entered({ guestInterruptibilityState: 0xan, guestPendingDebugExceptions: 0x1001n }, host);
    expect(state(guest)).toEqual([0n, 1n, 1n, 0n, 0x1001n]);
    expect(guest.cpu.get('monitorArmed')).toBe(0n);
    expect(state(entered({ guestActivityState: 1n, guestPendingDebugExceptions: 0x1001n }))).toEqual([
      0n,
      0n,
      0n,
      1n,
      0x1001n,
    ]);
  });

  it.each([2n, 3n])('nothing is pending in activity state %i', (activity) => {
    const fields = { guestActivityState: activity, guestPendingDebugExceptions: 0x1001n };
    expect(state(entered(fields))).toEqual([0n, 0n, 0n, activity, 0n]);
  });

  it.each([
    ['external interrupt', INTERRUPT, false],
    ['NMI', NMI, false],
    ['hardware exception', 0x8000_0306, false],
    ['software interrupt', INT_80H, true],
    ['INT1', INT1, false],
    ['INT3', INT3, true],
  ] as const)(
    'injecting %s: active, unblocked; pending exceptions only under MOV SS',
    (_, identification, keeps) => {
      const flags = { guestRflags: 0x202n, guestPendingDebugExceptions: 0x1001n };
      expect(state(entered({ ...event(identification), ...flags }))).toEqual([0n, 0n, 0n, 0n, 0n]);
      const blocks = identification !== NMI && identification !== INTERRUPT;
      if (blocks) {
        const guest = entered({ ...event(identification), ...flags, guestInterruptibilityState: 2n });
        expect(state(guest)).toEqual([0n, 0n, 0n, 0n, keeps ? 0x1001n : 0n]);
      }
      if (identification === INTERRUPT || identification === NMI) {
        expect(state(entered({ ...event(identification), ...flags, guestActivityState: 1n }))).toEqual([
          0n,
          0n,
          0n,
          0n,
          0n,
        ]);
      }
    },
  );

  it('FRED event delivery leaves nothing pending', () => {
    const guest = entered({
      ...event(INT3),
      guestCr4: 0x1_0000_2020n,
      guestInterruptibilityState: 2n,
      guestPendingDebugExceptions: 0x1001n,
    });
    expect(guest.cpu.get('pendingDebugExceptions')).toBe(0n);
  });

  it('a pending MTF exit is no injection', () => {
    const guest = entered({
      ...event(MTF),
      guestInterruptibilityState: 2n,
      guestPendingDebugExceptions: 0x1001n,
    });
    expect(state(guest)).toEqual([0n, 1n, 0n, 0n, 0x1001n]);
    expect([guest.cpu.unit.vmx.mtfPending, guest.cpu.unit.vmx.injectedEvent]).toEqual([true, undefined]);
  });

  it('the injected event waits for delivery', () => {
    const guest = entered({
      injectedEventIdentification: 0x8000_0b0dn,
      injectedEventErrorCode: 0x52n,
      vmEntryInstructionLength: 3n,
    });
    expect(guest.cpu.unit.vmx.injectedEvent).toMatchObject({
      identification: 0x8000_0b0d,
      errorCode: 0x52,
      instructionLength: 3,
    });
    expect(guest.cpu.unit.vmx.mtfPending).toBe(false);
    expect(entered({ injectedEventIdentification: 0xb0dn }).cpu.unit.vmx.injectedEvent).toBeUndefined();
  });

  it.each([
    ['external interrupt', 0x8000_0000n],
    ['divide error', 0x8000_0300n],
    ['SYSCALL', 0x8000_0701n],
    ['SYSENTER', 0x8000_0702n],
  ])('injecting %s is no pending MTF exit', (_, identification) => {
    const fred = { guestCr4: 0x1_0000_2020n, guestRflags: 0x202n };
    const { vmx } = entered({ ...event(identification), ...fred }).cpu.unit;
    expect(vmx.injectedEvent).toMatchObject({ identification: Number(identification) });
    expect(vmx.mtfPending).toBe(false);
  });

  it('without a valid event nothing is pending, whatever its other bits', () => {
    for (const identification of [0n, 0x700n, 0x20n, 0x202n]) {
      const { vmx } = entered(event(identification)).cpu.unit;
      expect([vmx.mtfPending, vmx.injectedEvent]).toEqual([false, undefined]);
    }
  });

  it('enclave interruption is as the field says', () => {
    const set = entered({ guestInterruptibilityState: 0x10n });
    expect(set.cpu.get('enclaveInterruption')).toBe(1n);
    expect(state(set)).toEqual([0n, 0n, 0n, 0n, 0n]);
    expect(entered({}, { enclaveInterruption: 1n }).cpu.get('enclaveInterruption')).toBe(0n);
  });

  it('virtual NMIs: bit 3 and an injected NMI block virtual NMIs, not NMIs', () => {
    const controls: ControlId[] = ['pin.nmiExiting', 'pin.virtualNmis'];
    const blocking = (fields: FieldValues) => {
      const guest = entered(fields, { blockingByNmi: 1n }, controls);
      return [guest.cpu.get('blockingByNmi'), guest.cpu.unit.vmx.virtualNmiBlocking];
    };
    expect(blocking({ guestInterruptibilityState: 8n })).toEqual([0n, true]);
    expect(blocking({})).toEqual([0n, false]);
    expect(blocking(event(NMI))).toEqual([0n, true]);
    expect(blocking(event(0x8000_0306))).toEqual([0n, false]);
  });
});

describe('VPID, timers, virtual interrupts, shadow VMCS', () => {
  it('the VPID of the field or 0', () => {
    expect(entered({ vpid: 7n }, {}, ['proc2.enableVpid']).cpu.unit.vmx.vpid).toBe(7);
    expect(entered({ vpid: 7n }).cpu.unit.vmx.vpid).toBe(0);
  });

  it('the preemption timer starts at the field', () => {
    const tsc = { IA32_TIME_STAMP_COUNTER: 0x1234n };
    const on = entered({ vmxPreemptionTimerValue: 9n }, tsc, ['pin.activateVmxPreemptionTimer']);
    expect(on.cpu.unit.vmx.preemptionTimer).toEqual({ value: 9, tsc: 0x1234n });
    expect(entered({ vmxPreemptionTimerValue: 9n }).cpu.unit.vmx.preemptionTimer).toBeUndefined();
  });

  it.each([
    // RVI, SVI, VTPR, VPPR afterwards, recognised
    [0x51, 0x31, 0x20, 0x30, true],
    [0x51, 0x31, 0x3f, 0x3f, true],
    [0x51, 0x31, 0x4f, 0x4f, true],
    [0x51, 0x51, 0x20, 0x50, false],
    [0x51, 0x00, 0x5f, 0x5f, false],
    [0x00, 0x00, 0x00, 0x00, false],
  ])('RVI %i, SVI %i, VTPR %i', (rvi, svi, vtpr, vppr, recognised) => {
    const controls: ControlId[] = [
      'pin.externalInterruptExiting',
      'proc.useTprShadow',
      'proc2.virtualInterruptDelivery',
    ];
    for (const window of [false, true]) {
      const guest = new Guest();
      guest.machine.memory.write32(VIRTUAL_APIC + 0x80, 0xffff_ff00 | vtpr);
      guest.machine.memory.write32(VIRTUAL_APIC + 0xa0, 0xffff_ffff);
      const fields = {
        virtualApicAddress: BigInt(VIRTUAL_APIC),
        guestInterruptStatus: BigInt((svi << 8) | rvi),
      };
      entered(fields, {}, window ? [...controls, 'proc.interruptWindowExiting'] : controls, guest);
      const { vmx } = guest.cpu.unit;
      expect([vmx.rvi, vmx.svi]).toEqual([rvi, svi]);
      expect(guest.machine.memory.read32(VIRTUAL_APIC + 0xa0)).toBe(vppr);
      expect(vmx.virtualInterruptPending).toBe(recognised && !window);
    }
  });

  it('RVI, SVI and the virtual-APIC page stay alone without "virtual-interrupt delivery"', () => {
    const fields = { virtualApicAddress: BigInt(VIRTUAL_APIC), guestInterruptStatus: 0x3151n };
    const guest = new Guest();
    guest.machine.memory.write32(VIRTUAL_APIC + 0x80, 0x20);
    entered(fields, {}, ['proc.useTprShadow'], guest);
    const { vmx } = guest.cpu.unit;
    expect([vmx.rvi, vmx.svi, vmx.virtualInterruptPending]).toEqual([0, 0, false]);
    expect(guest.machine.memory.read32(VIRTUAL_APIC + 0xa0)).toBe(0);
  });

  it.each([
    // Controls besides "virtualize APIC accesses", VTPR, whether it is below the threshold of 5
    [['proc.useTprShadow'], 0x4f, true],
    [['proc.useTprShadow'], 0x50, false],
    [[], 0x4f, false],
    [['proc.useTprShadow', 'pin.externalInterruptExiting', 'proc2.virtualInterruptDelivery'], 0x4f, false],
  ] as const)('the APIC-access page with %j, VTPR %i', (controls, vtpr, below) => {
    const guest = new Guest();
    guest.machine.memory.write32(VIRTUAL_APIC + 0x80, vtpr);
    const fields = {
      virtualApicAddress: BigInt(VIRTUAL_APIC),
      apicAccessAddress: 0x12_3000n,
      tprThreshold: 5n,
    };
    entered(fields, {}, ['proc2.virtualizeApicAccesses', ...controls], guest);
    const { vmx, cpu } = guest.cpu.unit;
    expect([vmx.apicAccessPage, cpu.apicAccessPage]).toEqual([0x12_3000, 0x12_3000]);
    expect(vmx.tprBelowThreshold).toBe(below);
    expect(guest.cpu.vmexit({ reason: 12 }).kind).toBe('VMexit');
    expect([vmx.apicAccessPage, cpu.apicAccessPage, vmx.tprBelowThreshold]).toEqual([-1, -1, false]);
  });

  it('without "virtualize APIC accesses" there is no such page', () => {
    const guest = new Guest();
    entered({ apicAccessAddress: 0x12_3000n }, {}, [], guest);
    expect(guest.cpu.unit.cpu.apicAccessPage).toBe(-1);
  });

  it('a shadow VMCS becomes active, the current VMCS stays current', () => {
    const guest = new Guest();
    guest.machine.memory.write32(LINK, (guest.cpu.capabilities.revision | 0x8000_0000) >>> 0);
    entered({ vmcsLinkPointer: BigInt(LINK) }, {}, ['proc2.vmcsShadowing'], guest);
    expect([...guest.cpu.activeVmcss].sort()).toEqual([REGION, LINK]);
    expect(guest.cpu.currentVmcs).toBe(REGION);
  });

  it('the guest deadline under "APIC-timer virtualization", saved by the exit and then disarmed', () => {
    const controls: ControlId[] = [
      'pin.externalInterruptExiting',
      'proc.useTprShadow',
      'proc2.virtualInterruptDelivery',
      'proc3.apicTimerVirtualization',
    ];
    const fields = {
      virtualApicAddress: BigInt(VIRTUAL_APIC),
      virtualTimerVector: 0x40n,
      guestDeadline: 0x1234_5678_9abc_def0n,
    };
    const guest = entered(fields, {}, controls);
    expect(guest.cpu.unit.vmx.guestDeadline).toBe(0x1234_5678_9abc_def0n);
    guest.cpu.vmexit({ reason: 10 });
    expect(guest.read('guestDeadline')).toBe(0x1234_5678_9abc_def0n);
    expect(guest.cpu.unit.vmx.guestDeadline).toBeUndefined();
    expect(entered({ guestDeadline: 5n }).cpu.unit.vmx.guestDeadline).toBeUndefined();
  });

  it('INIT is no longer blocked', () => {
    expect(entered().cpu.unit.vmx.initBlocked).toBe(false);
  });
});
