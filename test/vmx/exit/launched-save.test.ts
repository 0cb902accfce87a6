/** Saving guest state (SDM §30.1, §30.3). */
import { describe, expect, it } from 'vitest';
import type { ExitReason, ExitRequest, FieldName, RegisterName } from '../../../src/index.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';
import { exception, Guest, INT_80H, INT1, INT3, INTERRUPT, NMI, VIRTUAL_APIC } from './guest.ts';

type Pairs = readonly (readonly [FieldName, RegisterName])[];
const RF = 0x1_0000n;
/** Differs in every byte and in every register; fits no address width. */
const value = (i: number) => 0xf1e2_d3c4_b5a6_9700n + BigInt(i) * 0x0101_0101_0101_0101n;

const ALWAYS: Pairs = [
  ['guestCr0', 'CR0'],
  ['guestCr3', 'CR3'],
  ['guestCr4', 'CR4'],
  ['guestRsp', 'RSP'],
  ['guestRip', 'RIP'],
  ['guestIa32SysenterEsp', 'IA32_SYSENTER_ESP'],
  ['guestIa32SysenterEip', 'IA32_SYSENTER_EIP'],
  ['guestGdtrBase', 'GDTR.base'],
  ['guestIdtrBase', 'IDTR.base'],
];
const WHERE_SUPPORTED: readonly (readonly [ControlId, Pairs])[] = [
  ['entry.loadIa32Bndcfgs', [['guestIa32Bndcfgs', 'IA32_BNDCFGS']]],
  ['entry.loadIa32RtitCtl', [['guestIa32RtitCtl', 'IA32_RTIT_CTL']]],
  ['entry.loadGuestIa32LbrCtl', [['guestIa32LbrCtl', 'IA32_LBR_CTL']]],
  ['entry.loadPkrs', [['guestIa32Pkrs', 'IA32_PKRS']]],
  ['entry.loadIa32SpecCtrl', [['guestIa32SpecCtrl', 'IA32_SPEC_CTRL']]],
  [
    'entry.loadCetState',
    [
      ['guestIa32SCet', 'IA32_S_CET'],
      ['guestIa32InterruptSspTableAddr', 'IA32_INTERRUPT_SSP_TABLE_ADDR'],
      ['guestSsp', 'SSP'],
    ],
  ],
];
const CONTROLLED: readonly (readonly [ControlId, Pairs])[] = [
  [
    'exit.saveDebugControls',
    [
      ['guestDr7', 'DR7'],
      ['guestIa32Debugctl', 'IA32_DEBUGCTL'],
    ],
  ],
  ['exit.saveIa32Pat', [['guestIa32Pat', 'IA32_PAT']]],
  ['exit.saveIa32Efer', [['guestIa32Efer', 'IA32_EFER']]],
  ['exit.saveIa32PerfGlobalCtrl', [['guestIa32PerfGlobalCtrl', 'IA32_PERF_GLOBAL_CTRL']]],
  [
    'exit2.saveFred',
    [
      ['guestIa32FredConfig', 'IA32_FRED_CONFIG'],
      ['guestIa32FredRsp1', 'IA32_FRED_RSP1'],
      ['guestIa32FredRsp2', 'IA32_FRED_RSP2'],
      ['guestIa32FredRsp3', 'IA32_FRED_RSP3'],
      ['guestIa32FredStklvls', 'IA32_FRED_STKLVLS'],
      ['guestIa32FredSsp1', 'IA32_FRED_SSP1'],
      ['guestIa32FredSsp2', 'IA32_FRED_SSP2'],
      ['guestIa32FredSsp3', 'IA32_FRED_SSP3'],
    ],
  ],
];

function exited(guest: Guest, request: ExitRequest = { reason: 10 }): Guest {
  expect(guest.cpu.vmexit(request).kind).toBe('VMexit');
  return guest;
}

function set(guest: Guest, registers: Partial<Record<RegisterName, bigint>>): Guest {
  for (const [name, v] of Object.entries(registers)) guest.cpu.set(name as RegisterName, v as bigint);
  return guest;
}

describe('registers and MSRs', () => {
  it('control registers, RSP, RIP, SYSENTER and table bases: always, all 64 bits', () => {
    const guest = new Guest().launch();
    for (const [i, [, register]] of ALWAYS.entries()) guest.cpu.set(register, value(i));
    exited(guest);
    for (const [i, [field]] of ALWAYS.entries())
      expect([field, guest.read(field)]).toEqual([field, value(i)]);
  });

  it('the real control registers, not the read shadows', () => {
    const guest = exited(
      new Guest().fields({ cr0GuestHostMask: 0xffff_ffffn, cr0ReadShadow: 0x1n }).launch(),
    );
    expect(guest.read('guestCr0')).toBe((guest.values.guestCr0 as bigint) | 0x10n);
  });

  it('IA32_SYSENTER_CS and table limits: 32 bits', () => {
    const guest = set(new Guest().launch(), {
      IA32_SYSENTER_CS: 0xffff_fffe_1234_5678n,
      'GDTR.limit': 0xffff_1111n,
      'IDTR.limit': 0x2222n,
    });
    exited(guest);
    expect(guest.read('guestIa32SysenterCs')).toBe(0x1234_5678n);
    expect(guest.read('guestGdtrLimit')).toBe(0xffff_1111n);
    expect(guest.read('guestIdtrLimit')).toBe(0x2222n);
  });

  it.each(WHERE_SUPPORTED)('supported with %s: saved though the control is 0', (control, pairs) => {
    const guest = new Guest().off(control).launch();
    for (const [i, [, register]] of pairs.entries()) guest.cpu.set(register, value(i));
    exited(guest);
    for (const [i, [field]] of pairs.entries()) expect([field, guest.read(field)]).toEqual([field, value(i)]);
  });

  it.each(CONTROLLED)('%s: saved with it, left alone without', (control, pairs) => {
    for (const on of [true, false]) {
      const guest = new Guest();
      (on ? guest.on(control) : guest.off(control)).fields(Object.fromEntries(pairs.map(([f]) => [f, 0n])));
      const values = pairs.map((_, i) => (control === 'exit.saveIa32Efer' ? 0xd01n : value(i)));
      guest.launch();
      const before = pairs.map(([field]) => guest.values[field]);
      for (const [i, [, register]] of pairs.entries()) guest.cpu.set(register, values[i] as bigint);
      exited(guest);
      expect(pairs.map(([field]) => guest.read(field))).toEqual(on ? values : before);
    }
  });

  it('UINV: bits 39:32 of IA32_UINTR_MISC', () => {
    const guest = set(new Guest().launch(), { IA32_UINTR_MISC: 0xffff_ffa5_1234_5678n });
    expect(exited(guest).read('guestUinv')).toBe(0xa5n);
  });

  it('a processor without the features leaves no field to save', () => {
    const guest = exited(new Guest({ profile: 'penryn' }).launch());
    expect(guest.cpu.vmread('guestIa32Pkrs').outcome).toEqual({ kind: 'VMfailValid', error: 12 });
    expect(guest.read('guestRip')).toBe(0n);
  });
});

describe('segments', () => {
  const SEGMENTS = ['ES', 'CS', 'SS', 'DS', 'FS', 'GS', 'LDTR', 'TR'] as const;
  const fieldOf = (segment: string, part: string) =>
    `guest${segment[0]}${segment.slice(1).toLowerCase()}${part}` as FieldName;

  it.each(SEGMENTS)('%s, usable: as it is, without bits 31:17 and 11:8 of the access rights', (segment) => {
    const guest = set(new Guest().launch(), {
      [`${segment}.selector`]: 0xfff8n,
      [`${segment}.base`]: 0xffff_8123_4567_89abn,
      [`${segment}.limit`]: 0xfedc_ba98n,
      [`${segment}.accessRights`]: 0xfffe_ff9fn,
    });
    exited(guest);
    expect(guest.read(fieldOf(segment, 'Selector'))).toBe(0xfff8n);
    expect(guest.read(fieldOf(segment, 'Base'))).toBe(0xffff_8123_4567_89abn);
    expect(guest.read(fieldOf(segment, 'Limit'))).toBe(0xfedc_ba98n);
    expect(guest.read(fieldOf(segment, 'AccessRights'))).toBe(0xf09fn);
  });

  it.each(SEGMENTS.filter((s) => s !== 'TR'))('%s, unusable: bit 16; what is defined', (segment) => {
    const guest = set(new Guest().launch(), {
      [`${segment}.selector`]: 0xfff8n,
      [`${segment}.base`]: 0x0123_4567_89ab_cdefn,
      [`${segment}.limit`]: 0xfedc_ba98n,
      [`${segment}.accessRights`]: 0x1_f093n,
    });
    exited(guest);
    expect(guest.read(fieldOf(segment, 'Selector'))).toBe(0xfff8n);
    const rights = guest.read(fieldOf(segment, 'AccessRights'));
    expect(rights & 0xfffe_0f00n).toBe(0n);
    expect((rights >> 16n) & 1n).toBe(1n);
    const base = guest.read(fieldOf(segment, 'Base'));
    if (segment === 'CS') {
      expect([base, guest.read(fieldOf(segment, 'Limit')), rights & 0xe000n]).toEqual([
        0x0123_4567_89ab_cdefn,
        0xfedc_ba98n,
        0xe000n,
      ]);
    } else if (segment === 'FS' || segment === 'GS') expect(base).toBe(0x0123_4567_89ab_cdefn);
    else if (segment === 'LDTR') expect(BigInt.asIntN(57, base)).toBe(BigInt.asIntN(64, base));
    else expect(base >> 32n).toBe(0n);
  });

  it('SS.DPL is CPL, also of an unusable SS', () => {
    const guest = set(new Guest().launch(), { 'SS.accessRights': 0x1_0060n, 'CS.accessRights': 0xa0fbn });
    expect((exited(guest).read('guestSsAccessRights') >> 5n) & 3n).toBe(3n);
  });
});

describe('RFLAGS.RF', () => {
  const saved = (request: ExitRequest, before: boolean) =>
    (exited(set(new Guest().launch(), { RFLAGS: before ? RF | 0x246n : 0x246n }), request).read(
      'guestRflags',
    ) &
      RF) !==
    0n;

  it('the other flags are saved as they are', () => {
    expect(
      exited(set(new Guest().launch(), { RFLAGS: 0x3f_7fd7n }), { reason: 52 }).read('guestRflags'),
    ).toBe(0x3f_7fd7n);
  });

  const INSTRUCTIONS: readonly ExitReason[] = [10, 12, 14, 18, 24, 28, 30, 31, 36, 46, 54, 59, 72, 78, 84];
  it.each(INSTRUCTIONS)('instruction exit %i: 0', (reason) => {
    expect([saved({ reason }, false), saved({ reason }, true)]).toEqual([false, false]);
  });

  it.each([44, 48, 49, 62, 66] as const)('access exit %i: 1 outside event delivery', (reason) => {
    expect([saved({ reason }, false), saved({ reason }, true)]).toEqual([true, true]);
    const delivery = { reason, ...(reason === 44 && { qualification: 0x3000n }) };
    for (const resumeFlag of [false, true]) {
      expect(saved({ ...delivery, originalEvent: INTERRUPT, resumeFlag }, !resumeFlag)).toBe(resumeFlag);
    }
    expect(saved({ ...delivery, originalEvent: INTERRUPT }, true)).toBe(true);
    expect(saved({ ...delivery, originalEvent: INTERRUPT }, false)).toBe(false);
    expect(saved({ ...delivery, originalEvent: INT_80H }, true)).toBe(false);
    expect(saved({ ...delivery, originalEvent: exception(6) }, false)).toBe(true);
  });

  it.each([2, 3, 4, 7, 8, 37, 43, 45, 52, 56, 74, 75] as const)('exit %i: as it is', (reason) => {
    expect([saved({ reason }, false), saved({ reason }, true)]).toEqual([false, true]);
  });

  it.each([
    ['a fault', exception(6), true, true],
    ['#DB, a trap', exception(1), false, true],
    ['NMI', NMI, false, true],
    ['INT3', INT3, false, false],
    ['INT1', INT1, false, false],
  ] as const)('%s: as its delivery would have pushed it', (_, event, without, with_) => {
    expect([saved({ reason: 0, event }, false), saved({ reason: 0, event }, true)]).toEqual([without, with_]);
    for (const resumeFlag of [false, true])
      expect(saved({ reason: 0, event, resumeFlag }, !resumeFlag)).toBe(resumeFlag);
  });

  it('a task switch by an instruction: 0; enclave mode: 0', () => {
    expect(saved({ reason: 9 }, true)).toBe(false);
    expect(saved({ reason: 9, resumeFlag: true }, false)).toBe(true);
    expect(saved({ reason: 48, enclaveMode: true }, true)).toBe(false);
  });
});

describe('interruptibility and activity', () => {
  const saved = (
    registers: Partial<Record<RegisterName, bigint>>,
    request?: ExitRequest,
    controls: ControlId[] = [],
  ) => {
    const guest = exited(set(new Guest().on(...controls).launch(), registers), request);
    return [guest.read('guestInterruptibilityState'), guest.read('guestActivityState')];
  };

  it('bits 0, 1 and 3 as before the exit; bit 2 is 0', () => {
    expect(saved({ blockingBySti: 1n })).toEqual([1n, 0n]);
    expect(saved({ blockingByMovSs: 1n })).toEqual([2n, 0n]);
    expect(saved({ blockingBySmi: 1n })).toEqual([0n, 0n]);
    expect(saved({ blockingByNmi: 1n })).toEqual([8n, 0n]);
  });

  it.each([1n, 2n, 3n])('activity state %i stays what it was', (activityState) => {
    expect(saved({ activityState }, { reason: 3 })).toEqual([0n, activityState]);
  });

  it('an exit during event delivery finds the processor active and without blocking', () => {
    const registers = { blockingBySti: 1n, blockingByMovSs: 1n, activityState: 1n };
    expect(saved(registers, { reason: 48, originalEvent: INTERRUPT })).toEqual([0n, 0n]);
    expect(saved({ blockingByNmi: 0n }, { reason: 48, originalEvent: NMI })).toEqual([8n, 0n]);
  });

  it.each([16, 18])('exception %i ends blocking by STI and MOV SS', (vector) => {
    expect(saved({ blockingBySti: 1n }, { reason: 0, event: exception(vector) })).toEqual([0n, 0n]);
    expect(saved({ blockingByMovSs: 1n }, { reason: 0, event: exception(vector) })).toEqual([0n, 0n]);
    expect(saved({ blockingBySti: 1n }, { reason: 0, event: exception(6) })).toEqual([1n, 0n]);
  });

  it('an NMI that exits directly does not show as blocking yet', () => {
    expect(saved({}, { reason: 0, event: NMI }, ['pin.nmiExiting'])).toEqual([0n, 0n]);
  });

  const UNBLOCKED: readonly (readonly [string, ExitRequest])[] = [
    ['a fault', { reason: 0, event: exception(13, true) | 0x1000 }],
    ['an EPT violation', { reason: 48, qualification: 0x1000n }],
    ['a full page-modification log', { reason: 62, qualification: 0x1000n }],
    ['an SPP event', { reason: 66, qualification: 0x1000n }],
    ['an instruction timeout', { reason: 75, qualification: 0x1000n }],
  ];
  it.each(UNBLOCKED)('NMI unblocking due to IRET: %s', (_, request) => {
    const event = request.event === undefined ? {} : { event: request.event >>> 0 };
    expect(saved({ blockingByNmi: 1n }, { ...request, ...event })[0]).toBe(0n);
    expect(saved({ blockingByNmi: 1n }, { ...request, ...event }, ['pin.nmiExiting'])[0]).toBe(8n);
  });

  it('virtual NMIs: bit 3 is virtual-NMI blocking', () => {
    const launch = (fields: FieldValues) =>
      new Guest().on('pin.virtualNmis', 'pin.nmiExiting').fields(fields).launch();
    const set3 = launch({ guestInterruptibilityState: 8n });
    expect(exited(set3).read('guestInterruptibilityState')).toBe(8n);
    const clear = set(launch({}), { blockingByNmi: 1n });
    expect(exited(clear).read('guestInterruptibilityState')).toBe(0n);
    const injected = launch({ injectedEventIdentification: BigInt(NMI) });
    expect(exited(injected, { reason: 48, originalEvent: NMI }).read('guestInterruptibilityState')).toBe(8n);
    const iret = launch({ guestInterruptibilityState: 8n });
    expect(exited(iret, { reason: 48, qualification: 0x1000n }).read('guestInterruptibilityState')).toBe(0n);
  });
});

describe('pending debug exceptions', () => {
  const PENDING = 0xffff_ffff_ffff_ffffn;
  const DEFINED = 0x1_580fn;
  const saved = (request: ExitRequest, registers: Partial<Record<RegisterName, bigint>> = {}) =>
    exited(set(new Guest().launch(), { pendingDebugExceptions: PENDING, ...registers }), request).read(
      'guestPendingDebugExceptions',
    );

  it.each([3, 37, 43, 45, 56, 74] as const)('exit %i keeps them, reserved bits saved as 0', (reason) => {
    expect(saved({ reason })).toBe(DEFINED);
  });

  const CLEARING: readonly ExitReason[] = [1, 2, 4, 7, 8, 9, 10, 14, 30, 44, 48, 49, 52, 62, 66, 75, 85];
  it.each(CLEARING)('exit %i clears them', (reason) => {
    expect(saved({ reason })).toBe(0n);
  });

  it('a machine check keeps them, other exceptions clear them', () => {
    expect(saved({ reason: 0, event: exception(18) })).toBe(DEFINED);
    for (const event of [exception(1), exception(6), NMI, INT1, INT3])
      expect(saved({ reason: 0, event })).toBe(0n);
  });

  it.each([44, 48, 49, 62, 66] as const)('exit %i by a trace or PEBS access keeps them', (reason) => {
    expect(saved({ reason, traceAccess: true })).toBe(DEFINED);
  });

  it('blocking by MOV SS keeps them, but for debug exceptions; BS only for a single step', () => {
    const held = { blockingByMovSs: 1n };
    expect(saved({ reason: 10 }, { ...held, RFLAGS: 0x102n })).toBe(DEFINED);
    expect(saved({ reason: 10 }, { ...held, RFLAGS: 0x2n })).toBe(DEFINED & ~0x4000n);
    expect(saved({ reason: 10 }, { ...held, RFLAGS: 0x102n, IA32_DEBUGCTL: 2n })).toBe(DEFINED & ~0x4000n);
    expect(saved({ reason: 0, event: exception(1) }, { ...held, RFLAGS: 0x102n })).toBe(0n);
    expect(saved({ reason: 0, event: INT1 }, { ...held, RFLAGS: 0x102n })).toBe(0n);
  });
});

describe('timer, PDPTEs, interrupt status, deadline', () => {
  const TIMER: ControlId[] = ['pin.activateVmxPreemptionTimer', 'exit.saveVmxPreemptionTimerValue'];
  const RATE = 5n;

  it('the timer counts changes of TSC bit 5 and stops at 0', () => {
    for (const [ticks, left] of [
      [0n, 100n],
      [31n, 100n],
      [32n, 99n],
      [99n << RATE, 1n],
      [100n << RATE, 0n],
      [1n << 40n, 0n],
    ] as const) {
      const guest = new Guest().on(...TIMER).fields({ vmxPreemptionTimerValue: 100n });
      expect(guest.cpu.capabilities.misc & 0x1fn).toBe(RATE);
      guest.launch().cpu.advance(ticks);
      expect(exited(guest).read('vmxPreemptionTimerValue')).toBe(left);
    }
  });

  it('it counts across a wrap of the TSC', () => {
    const guest = new Guest().on(...TIMER).fields({ vmxPreemptionTimerValue: 100n });
    guest.cpu.set('IA32_TIME_STAMP_COUNTER', 0xffff_ffff_ffff_ffffn);
    guest.launch().cpu.advance(1n);
    expect(exited(guest).read('vmxPreemptionTimerValue')).toBe(99n);
  });

  it('its exit saves 0; without the control the field is left alone', () => {
    const expired = new Guest()
      .on(...TIMER)
      .fields({ vmxPreemptionTimerValue: 100n })
      .launch();
    expect(exited(expired, { reason: 52 }).read('vmxPreemptionTimerValue')).toBe(0n);
    const kept = new Guest()
      .on('pin.activateVmxPreemptionTimer')
      .fields({ vmxPreemptionTimerValue: 100n })
      .launch();
    kept.cpu.advance(1n << 20n);
    expect(exited(kept).read('vmxPreemptionTimerValue')).toBe(100n);
  });

  it('PDPTEs with EPT and PAE paging only', () => {
    const prepare = (guest: Guest) => {
      for (const i of [0, 1, 2, 3] as const) guest.fields({ [`guestPdpte${i}`]: 0n });
      guest.launch();
      for (const i of [0, 1, 2, 3] as const) guest.cpu.set(`PDPTE${i}`, BigInt(i + 1) << 12n);
      exited(guest);
      return [0, 1, 2, 3].map((i) => guest.read(`guestPdpte${i}` as FieldName));
    };
    expect(prepare(new Guest().guest32().on('proc2.enableEpt'))).toEqual([
      0x1000n,
      0x2000n,
      0x3000n,
      0x4000n,
    ]);
    expect(prepare(new Guest().guest32())).toEqual([0n, 0n, 0n, 0n]);
    expect(prepare(new Guest().on('proc2.enableEpt'))).toEqual([0n, 0n, 0n, 0n]);
    expect(prepare(new Guest().guest32().on('proc2.enableEpt').fields({ guestCr4: 0x2000n }))).toEqual([
      0n,
      0n,
      0n,
      0n,
    ]);
  });

  it('guest interrupt status with virtual-interrupt delivery', () => {
    const guest = new Guest()
      .on('pin.externalInterruptExiting', 'proc.useTprShadow', 'proc2.virtualInterruptDelivery')
      .fields({ virtualApicAddress: BigInt(VIRTUAL_APIC), guestInterruptStatus: 0x3151n })
      .launch();
    guest.cpu.unit.vmx.rvi = 0x62;
    expect(exited(guest).read('guestInterruptStatus')).toBe(0x3162n);
    const off = new Guest().fields({ guestInterruptStatus: 0x3151n }).launch();
    expect(exited(off).read('guestInterruptStatus')).toBe(0x3151n);
  });
});
