import { describe, expect, it } from 'vitest';
import type { RegisterName } from '../../../src/cpu/registers.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import type { FieldName } from '../../../src/vmcs/fields.ts';
import { loadHostState } from '../../../src/vmx/exit/host-state.ts';
import { type GuestOptions, type GuestProcessor, guestProcessor } from '../../support/vmx-processor.ts';

function loaded(options: GuestOptions = {}): GuestProcessor {
  const p = guestProcessor(options);
  expect(loadHostState(p, p.copy)).toBe(true);
  return p;
}

/** A host in 32-bit protected mode without PAE paging, and a guest likewise. */
const HOST_32: GuestOptions = {
  off: ['exit.hostAddressSpaceSize', 'entry.ia32eModeGuest'],
  fields: { hostCr4: 0x2000n },
  registers: { IA32_EFER: 0n },
};

describe('control registers and MSRs (SDM §30.5.1)', () => {
  it('CR0 keeps ET, CD, NW, 28:19, 17, 15:6 and 63:32', () => {
    const kept = 0x7ffa_ffd0n;
    expect(loaded({ registers: { CR0: kept }, fields: { hostCr0: 0n } }).cpu.read('CR0')).toBe(kept);
    const all = loaded({ registers: { CR0: 0n }, fields: { hostCr0: 0xffff_ffffn } });
    expect(all.cpu.read('CR0')).toBe(0xffff_ffffn & ~kept);
    expect(loaded({ registers: { CR0: 5n << 32n } }).cpu.read('CR0') >> 32n).toBe(5n);
  });

  it('an unrestricted guest without PE and PG leaves both 1', () => {
    expect(loaded({ registers: { CR0: 0x30n } }).cpu.read('CR0') & 0x8000_0001n).toBe(0x8000_0001n);
  });

  it('CR3 keeps bits 63:MAXPHYADDR', () => {
    const options = { registers: { CR3: (1n << 63n) | 0x1000n }, fields: { hostCr3: 0x3f_0000_2000n } };
    expect(loaded(options).cpu.read('CR3')).toBe((1n << 63n) | 0x3f_0000_2000n);
    const narrow = { ...options, features: { physicalAddressBits: 32 } };
    expect(loaded(narrow).cpu.read('CR3')).toBe((1n << 63n) | 0x2000n);
    // IA32_TME_ACTIVATE takes 6 bits away.
    const tme = { CR3: 0n, IA32_TME_ACTIVATE: 0x60_0000_0001n };
    const fields = { hostCr3: (1n << 40n) | 0x2000n };
    expect(loaded({ registers: tme, fields, features: { physicalAddressBits: 46 } }).cpu.read('CR3')).toBe(
      0x2000n,
    );
    // Never less than 32 bits.
    const most = { CR3: 0xff_0000_0000n, IA32_TME_ACTIVATE: 0xf0_0000_0001n };
    const narrowed = { registers: most, fields: { hostCr3: 0x2000n }, features: { physicalAddressBits: 39 } };
    expect(loaded(narrowed).cpu.read('CR3')).toBe(0xff_0000_2000n);
  });

  it('CR4: PAE forced to 1 for a 64-bit host, PCIDE and FRED to 0 for a 32-bit host', () => {
    const hostCr4 = 0x1_0002_2000n;
    expect(loaded({ fields: { hostCr4 } }).cpu.read('CR4')).toBe(0x1_0002_2020n);
    expect(loaded({ ...HOST_32, fields: { hostCr4 } }).cpu.read('CR4')).toBe(0x2000n);
  });

  it('DR7, IA32_DEBUGCTL and RFLAGS have fixed values', () => {
    const p = loaded({ registers: { DR7: ~0n & 0xffffn, IA32_DEBUGCTL: 3n, RFLAGS: 0xfffn } });
    expect([p.cpu.read('DR7'), p.cpu.read('IA32_DEBUGCTL'), p.cpu.read('RFLAGS')]).toEqual([0x400n, 0n, 2n]);
  });

  it.each(['CR2', 'CR8', 'DR0', 'DR3', 'DR6', 'XCR0', 'RAX', 'R15', 'IA32_LSTAR', 'IA32_U_CET'] as const)(
    '%s is left alone',
    (register) => {
      expect(loaded({ registers: { [register]: 0x1234n } }).cpu.read(register)).toBe(0x1234n);
    },
  );

  const ADDRESSES: [FieldName, RegisterName][] = [
    ['hostIa32SysenterEsp', 'IA32_SYSENTER_ESP'],
    ['hostIa32SysenterEip', 'IA32_SYSENTER_EIP'],
    ['hostFsBase', 'FS.base'],
    ['hostGsBase', 'GS.base'],
    ['hostTrBase', 'TR.base'],
    ['hostGdtrBase', 'GDTR.base'],
    ['hostIdtrBase', 'IDTR.base'],
  ];
  it.each(ADDRESSES)('%s: bits 63:N equal to bit N−1', (field, register) => {
    const fields = { [field]: 0x00ff_8000_0000_1000n };
    expect(loaded({ profile: 'penryn', fields }).cpu.read(register)).toBe(0xffff_8000_0000_1000n);
    expect(loaded({ fields }).cpu.read(register)).toBe(0x00ff_8000_0000_1000n);
    expect(loaded({ fields: { [field]: 0x0100_0000_0000_1000n } }).cpu.read(register)).toBe(
      0xff00_0000_0000_1000n,
    );
    const narrow = { intel64: false, linearAddressBits: 32 };
    const p = loaded({ ...HOST_32, features: narrow, fields: { [field]: 0x8000_1000n } });
    expect(p.cpu.read(register)).toBe(0x8000_1000n);
  });

  it('IA32_SYSENTER_CS: the field, 32 bits; RIP and RSP whole', () => {
    const fields = {
      hostIa32SysenterCs: 0x8000_0010n,
      hostRip: 0xffff_8000_0000_1000n,
      hostRsp: ~0n & 0xfff8n,
    };
    const p = loaded({ fields, registers: { IA32_SYSENTER_CS: ~0n & 0xffff_ffff_ffffn } });
    expect(p.cpu.read('IA32_SYSENTER_CS')).toBe(0x8000_0010n);
    expect(p.cpu.read('RIP')).toBe(0xffff_8000_0000_1000n);
    expect(p.cpu.read('RSP')).toBe(0xfff8n);
  });

  it('IA32_EFER: LMA and LME follow "host address-space size", the rest only the control', () => {
    const efer = (options: GuestOptions) => loaded(options).cpu.read('IA32_EFER');
    expect(efer({ registers: { IA32_EFER: 0x801n } })).toBe(0xd01n);
    expect(efer({ ...HOST_32, registers: { IA32_EFER: 0xd01n } })).toBe(0x801n);
    const load = { controls: ['exit.loadIa32Efer'] as const, registers: { IA32_EFER: 0x801n } };
    expect(efer({ ...load, fields: { hostIa32Efer: 0x500n } })).toBe(0x500n);
    expect(efer({ ...HOST_32, ...load, fields: { hostIa32Efer: 0x800n, hostCr4: 0x2000n } })).toBe(0x800n);
    const narrow = { ...HOST_32, features: { intel64: false, linearAddressBits: 32 } };
    expect(efer({ ...narrow, registers: { IA32_EFER: 0x800n } })).toBe(0x800n);
  });

  const CONTROLLED: [ControlId, FieldName, RegisterName][] = [
    ['exit.loadIa32PerfGlobalCtrl', 'hostIa32PerfGlobalCtrl', 'IA32_PERF_GLOBAL_CTRL'],
    ['exit.loadIa32Pat', 'hostIa32Pat', 'IA32_PAT'],
    ['exit.loadPkrs', 'hostIa32Pkrs', 'IA32_PKRS'],
    ['exit2.loadIa32SpecCtrl', 'hostIa32SpecCtrl', 'IA32_SPEC_CTRL'],
    ['exit.loadCetState', 'hostSsp', 'SSP'],
    ['exit.loadCetState', 'hostIa32SCet', 'IA32_S_CET'],
    ['exit.loadCetState', 'hostIa32InterruptSspTableAddr', 'IA32_INTERRUPT_SSP_TABLE_ADDR'],
    ['exit2.loadFred', 'hostIa32FredConfig', 'IA32_FRED_CONFIG'],
    ['exit2.loadFred', 'hostIa32FredRsp1', 'IA32_FRED_RSP1'],
    ['exit2.loadFred', 'hostIa32FredRsp2', 'IA32_FRED_RSP2'],
    ['exit2.loadFred', 'hostIa32FredRsp3', 'IA32_FRED_RSP3'],
    ['exit2.loadFred', 'hostIa32FredStklvls', 'IA32_FRED_STKLVLS'],
    ['exit2.loadFred', 'hostIa32FredSsp1', 'IA32_FRED_SSP1'],
    ['exit2.loadFred', 'hostIa32FredSsp2', 'IA32_FRED_SSP2'],
    ['exit2.loadFred', 'hostIa32FredSsp3', 'IA32_FRED_SSP3'],
  ];
  it.each(CONTROLLED)('%s loads %s', (control, field, register) => {
    const options = { fields: { [field]: 0x6000n }, registers: { [register]: 0x7000n } };
    expect(loaded({ ...options, controls: [control] }).cpu.read(register)).toBe(0x6000n);
    expect(loaded({ ...options, off: [control] }).cpu.read(register)).toBe(0x7000n);
  });

  it.each([
    ['exit.clearIa32Bndcfgs', 'IA32_BNDCFGS', 0n],
    ['exit.clearIa32RtitCtl', 'IA32_RTIT_CTL', 0n],
    ['exit.clearIa32LbrCtl', 'IA32_LBR_CTL', 0n],
    ['exit.clearUinv', 'IA32_UINTR_MISC', 0x8000_0005n],
  ] as const)('%s clears in %s', (control, register, cleared) => {
    const registers = { [register]: 0xec_8000_0005n };
    expect(loaded({ registers, controls: [control] }).cpu.read(register)).toBe(cleared);
    expect(loaded({ registers, off: [control] }).cpu.read(register)).toBe(0xec_8000_0005n);
  });
});

describe('segment and descriptor-table registers (SDM §30.5.2)', () => {
  const SELECTORS = {
    hostCsSelector: 0x8n,
    hostSsSelector: 0x10n,
    hostDsSelector: 0x18n,
    hostEsSelector: 0x20n,
    hostFsSelector: 0x28n,
    hostGsSelector: 0x30n,
    hostTrSelector: 0x38n,
  } as const;
  const GUEST = Object.fromEntries(
    ['CS', 'SS', 'DS', 'ES', 'FS', 'GS', 'LDTR', 'TR'].flatMap((s) => [
      [`${s}.selector`, 0x77n],
      [`${s}.base`, 0x7777_7777_7777n],
      [`${s}.limit`, 0x777n],
      [`${s}.accessRights`, 0x6077n],
    ]),
  ) as Partial<Record<RegisterName, bigint>>;
  const parts = (p: GuestProcessor, s: 'CS' | 'SS' | 'DS' | 'ES' | 'FS' | 'GS' | 'TR' | 'LDTR') =>
    (['selector', 'base', 'limit', 'accessRights'] as const).map((part) => p.cpu.read(`${s}.${part}`));

  it('selectors and fixed attributes', () => {
    const p = loaded({
      fields: { ...SELECTORS, hostFsBase: 0x1000n, hostGsBase: 0x2000n, hostTrBase: 0x3000n },
      registers: GUEST,
    });
    expect(parts(p, 'CS')).toEqual([0x8n, 0n, 0xffff_ffffn, 0xa09bn]);
    expect(parts(p, 'SS')).toEqual([0x10n, 0n, 0xffff_ffffn, 0xc093n]);
    expect(parts(p, 'DS')).toEqual([0x18n, 0n, 0xffff_ffffn, 0xc093n]);
    expect(parts(p, 'ES')).toEqual([0x20n, 0n, 0xffff_ffffn, 0xc093n]);
    expect(parts(p, 'FS')).toEqual([0x28n, 0x1000n, 0xffff_ffffn, 0xc093n]);
    expect(parts(p, 'GS')).toEqual([0x30n, 0x2000n, 0xffff_ffffn, 0xc093n]);
    expect(parts(p, 'TR')).toEqual([0x38n, 0x3000n, 0x67n, 0x8bn]);
    expect(parts(p, 'LDTR')).toEqual([0n, 0n, 0n, 0x1_0000n]);
    expect([p.cpu.read('GDTR.limit'), p.cpu.read('IDTR.limit')]).toEqual([0xffffn, 0xffffn]);
  });

  it('CS of a 32-bit host: D is 1, L is 0', () => {
    expect(loaded(HOST_32).cpu.read('CS.accessRights')).toBe(0xc09bn);
  });

  it('null selectors make registers unusable; SS.B stays 1, FS and GS bases are loaded', () => {
    const none = Object.fromEntries(
      ['Ss', 'Ds', 'Es', 'Fs', 'Gs'].map((s) => [`host${s}Selector`, 0n]),
    ) as Partial<Record<FieldName, bigint>>;
    const p = loaded({ fields: { ...none, hostFsBase: 0x1000n, hostGsBase: 0x2000n }, registers: GUEST });
    for (const s of ['SS', 'DS', 'ES', 'FS', 'GS'] as const) {
      expect(p.cpu.read(`${s}.accessRights`) & 0x1_4060n).toBe(0x1_4000n);
    }
    expect([p.cpu.read('FS.base'), p.cpu.read('GS.base')]).toEqual([0x1000n, 0x2000n]);
  });
});

describe('PDPTEs (SDM §30.5.4)', () => {
  const PAE: GuestOptions = { ...HOST_32, fields: { hostCr4: 0x2020n, hostCr3: 0x9020n } };
  const withEntry = (entry: bigint, options: GuestOptions = PAE) => {
    const p = guestProcessor(options);
    p.cpu.memory.write64(0x9020 + 8, entry);
    p.cpu.memory.write64(0x9020 + 24, 0x4001n);
    return { ok: loadHostState(p, p.copy), p };
  };

  it('are loaded from host CR3', () => {
    const { ok, p } = withEntry(0xf_ffff_ffff_ee19n & ~0x1e6n);
    expect(ok).toBe(true);
    expect(p.cpu.read('PDPTE1')).toBe(0xf_ffff_ffff_ee19n & ~0x1e6n);
    expect(p.cpu.read('PDPTE3')).toBe(0x4001n);
  });

  it.each([1, 2, 5, 6, 7, 8, 52, 63])('reserved bit %i of a present entry is wrong', (position) => {
    expect(withEntry(1n | (1n << BigInt(position))).ok).toBe(false);
    expect(withEntry(1n << BigInt(position)).ok).toBe(true);
  });

  it('the physical-address width counts, reduced by IA32_TME_ACTIVATE', () => {
    const registers = { IA32_EFER: 0n, IA32_TME_ACTIVATE: 0x40_0000_0001n };
    expect(withEntry(1n | (1n << 50n), { ...PAE, registers }).ok).toBe(false);
    expect(withEntry(1n | (1n << 50n)).ok).toBe(true);
  });

  it('are not looked at by other hosts', () => {
    expect(withEntry(3n, { ...HOST_32, fields: { hostCr4: 0x2000n, hostCr3: 0x9020n } }).ok).toBe(true);
    expect(withEntry(3n, { fields: { hostCr3: 0x9020n } }).ok).toBe(true);
  });
});

describe('non-register state (SDM §30.5.5, §30.5.6)', () => {
  it('active, nothing blocked or pending, no monitoring; blocking by NMI and SMI as it was', () => {
    const names = [
      ...['activityState', 'blockingBySti', 'blockingByMovSs', 'pendingDebugExceptions'],
      ...['monitorArmed', 'enclaveInterruption', 'blockingByNmi', 'blockingBySmi'],
    ] as const;
    const p = loaded({ registers: Object.fromEntries(names.map((name) => [name, 1n])) });
    expect(names.map((name) => p.cpu.read(name as RegisterName))).toEqual([0n, 0n, 0n, 0n, 0n, 0n, 1n, 1n]);
  });
});
