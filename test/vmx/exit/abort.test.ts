/** MSR areas (SDM §29.4, §30.4, §30.6), VMX aborts (§30.7) and VM-entry failures (§29.8, §29.9). */
import { describe, expect, it } from 'vitest';
import type { FieldName } from '../../../src/index.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';
import {
  ENTRY_AREA,
  Guest,
  type GuestOptions,
  LINK,
  type MsrEntry,
  REGION,
  STORE_AREA,
  VMXON_REGION,
} from './guest.ts';

const STAR = 0xc000_0081;
const LSTAR = 0xc000_0082;
const EFER = 0xc000_0080;
const TSC_AUX = 0xc000_0103;
const NON_CANONICAL = 0x8000_0000_0000_0000n;

/** Entries that break a rule of loading: SDM §29.4 and §30.6 bar the same ones. */
const BAD_LOADS: readonly (readonly [string, MsrEntry])[] = [
  ['IA32_FS_BASE', { index: 0xc000_0100 }],
  ['IA32_GS_BASE', { index: 0xc000_0101 }],
  ['first x2APIC MSR', { index: 0x800 }],
  ['last x2APIC MSR', { index: 0x8ff }],
  ['IA32_SMM_MONITOR_CTL', { index: 0x9b }],
  ['IA32_SMBASE', { index: 0x9e }],
  ['microcode update', { index: 0x79 }],
  ['lowest reserved bit', { index: STAR, reserved: 1 }],
  ['highest reserved bit', { index: STAR, reserved: 0x8000_0000 }],
  ['an MSR that does not exist', { index: 0x1234_5678 }],
  ['a VMX capability MSR', { index: 0x480 }],
  ['a value with reserved bits', { index: TSC_AUX, data: 1n << 32n }],
  ['a value that is not canonical', { index: LSTAR, data: NON_CANONICAL }],
  ['a bad memory type', { index: 0x277, data: 2n }],
  ['EFER.LME changed under paging', { index: EFER, data: 0n }],
];

const BAD_STORES: readonly (readonly [string, MsrEntry])[] = [
  ['first x2APIC MSR', { index: 0x800 }],
  ['last x2APIC MSR', { index: 0x8ff }],
  ['IA32_SMBASE', { index: 0x9e }],
  ['lowest reserved bit', { index: STAR, reserved: 1 }],
  ['highest reserved bit', { index: STAR, reserved: 0x8000_0000 }],
  ['an MSR that does not exist', { index: 0x1234_5678 }],
  ['an MSR that cannot be read', { index: 0x79 }],
];

/** The abort has happened, is visible in memory, and only RESET ends it. */
function expectAborted(guest: Guest, indicator: number): void {
  const { cpu } = guest;
  const shutdown = { kind: 'notExecuted', because: 'shutdown' };
  expect(guest.abortIndicator).toBe(indicator);
  expect(cpu.vmread('exitReason').outcome).toEqual(shutdown);
  expect(cpu.vmwrite('guestRip', 1n)).toEqual(shutdown);
  expect(cpu.vmlaunch()).toEqual(shutdown);
  expect(cpu.vmresume()).toEqual(shutdown);
  expect(cpu.vmxoff()).toEqual(shutdown);
  expect(cpu.vmexit({ reason: 10 })).toEqual(shutdown);
  cpu.reset();
  cpu.enterLongMode();
  expect(cpu.operation).toBe('outside');
  expect(cpu.vmxon(BigInt(VMXON_REGION)).kind).toBe('VMsucceed');
  // The processor never clears the indicator.
  expect(guest.abortIndicator).toBe(indicator);
}

describe('VM-exit MSR-store area', () => {
  it('stores what RDMSR would read, in order, indexes untouched', () => {
    const guest = new Guest()
      .area('exitStore', [{ index: STAR }, { index: 0xc000_0100 }, { index: EFER }, { index: 0x480 }])
      .fields({ guestFsBase: 0x1234_5678_9000n })
      .launch();
    expect(guest.cpu.wrmsr(STAR, 0x1111_2222_3333_4444n)).toBe('ok');
    guest.cpu.vmexit({ reason: 10 });
    const { memory } = guest.machine;
    const values = [0, 1, 2, 3].map((i) => memory.read64(STORE_AREA + 16 * i + 8));
    expect(values).toEqual([0x1111_2222_3333_4444n, 0x1234_5678_9000n, 0x500n, guest.cpu.rdmsr(0x480)]);
    expect(memory.read32(STORE_AREA)).toBe(STAR);
    expect(guest.abortIndicator).toBe(0);
  });

  it.each(BAD_STORES)('%s: abort 1, earlier entries stored, later ones not', (_, bad) => {
    const guest = new Guest().area('exitStore', [{ index: STAR }, bad, { index: STAR }]).launch();
    guest.cpu.wrmsr(STAR, 7n);
    expect(guest.cpu.vmexit({ reason: 10 })).toEqual({ kind: 'VMXabort', indicator: 1 });
    expect(guest.machine.memory.read64(STORE_AREA + 8)).toBe(7n);
    expect(guest.machine.memory.read64(STORE_AREA + 0x28)).toBe(0n);
    expectAborted(guest, 1);
  });
});

describe('VM-exit MSR-load area', () => {
  it('loads after host state, in order', () => {
    const guest = new Guest()
      .area('exitLoad', [
        { index: STAR, data: 1n },
        { index: STAR, data: 2n },
        { index: 0x174, data: 0xffff_ffff_0000_0055n },
        { index: 0x1d9, data: 1n },
      ])
      .fields({ hostIa32SysenterCs: 0x99n })
      .launch();
    guest.cpu.vmexit({ reason: 10 });
    expect(guest.cpu.rdmsr(STAR)).toBe(2n);
    expect(guest.cpu.rdmsr(0x174)).toBe(0x55n);
    expect(guest.cpu.rdmsr(0x1d9)).toBe(1n);
  });

  it.each(BAD_LOADS)('%s: abort 4, earlier entries loaded, later ones not', (_, bad) => {
    const guest = new Guest()
      .area('exitLoad', [{ index: STAR, data: 5n }, bad, { index: STAR, data: 6n }])
      .launch();
    expect(guest.cpu.vmexit({ reason: 10 })).toEqual({ kind: 'VMXabort', indicator: 4 });
    expect(guest.cpu.rdmsr(STAR)).toBe(5n);
    expectAborted(guest, 4);
  });

  it('IA32_EFER: LMA is not written, LME may be repeated', () => {
    const guest = new Guest().area('exitLoad', [{ index: EFER, data: 0x901n }]).launch();
    expect(guest.cpu.vmexit({ reason: 10 }).kind).toBe('VMexit');
    expect(guest.cpu.get('IA32_EFER')).toBe(0xd01n);
  });
});

describe('VM-entry MSR-load area', () => {
  it('loads after guest state, in order, and wins over the fields', () => {
    const guest = new Guest()
      .on('entry.loadIa32Pat')
      .area('entryLoad', [
        { index: STAR, data: 1n },
        { index: STAR, data: 2n },
        { index: 0x277, data: 6n },
        { index: EFER, data: 0x901n },
      ])
      .fields({ guestIa32Pat: 4n })
      .launch();
    expect(guest.cpu.rdmsr(STAR)).toBe(2n);
    expect(guest.cpu.get('IA32_PAT')).toBe(6n);
    expect(guest.cpu.get('IA32_EFER')).toBe(0xd01n);
  });

  it.each(BAD_LOADS)('%s: entry failure 34 with the number of the entry', (_, bad) => {
    for (const position of [1, 3]) {
      const good = Array.from({ length: position - 1 }, (): MsrEntry => ({ index: STAR, data: 5n }));
      const guest = new Guest().area('entryLoad', [...good, bad, { index: STAR, data: 6n }]);
      expect(guest.tryLaunch()).toEqual({ kind: 'VMentryFailure', reason: 34 });
      expect(guest.read('exitReason')).toBe(0x8000_0022n);
      expect(guest.read('exitQualification')).toBe(BigInt(position));
      expect(guest.cpu.rdmsr(STAR)).toBe(position === 1 ? 0n : 5n);
    }
  });

  it('the paging that decides about EFER.LME is the guest’s', () => {
    const guest = new Guest()
      .guest32()
      .on('proc2.enableEpt', 'proc2.unrestrictedGuest')
      .fields({ guestCr0: 0x31n })
      .area('entryLoad', [{ index: EFER, data: 0x100n }])
      .launch();
    expect(guest.cpu.get('IA32_EFER')).toBe(0x100n);
  });
});

describe('hazards of MSR areas', () => {
  const long = (bad: MsrEntry): MsrEntry[] => [
    ...Array.from({ length: 512 }, (_, i): MsrEntry => ({ index: STAR, data: BigInt(i) })),
    bad,
  ];
  it.each(['exitLoad', 'exitStore', 'entryLoad'] as const)(
    '%s: too long a list is reported and cut',
    (area) => {
      const guest = new Guest().area(area, long({ index: 0x800 })).launch();
      expect(guest.cpu.vmexit({ reason: 10 }).kind).toBe('VMexit');
      const reports = guest.machine.hazards.filter((h) => h.id === 'msr-area.too-long');
      expect(reports.length).toBeGreaterThan(0);
      expect(reports[0]?.address).toBe(REGION);
      expect(reports[0]?.detail).toContain('513 entries; 512');
      if (area !== 'exitStore') expect(guest.cpu.rdmsr(STAR)).toBe(511n);
    },
  );

  it('512 entries are not too many', () => {
    const guest = new Guest().area('entryLoad', long({ index: STAR }).slice(0, 512)).launch();
    expect(guest.machine.hazards.filter((h) => h.id === 'msr-area.too-long')).toEqual([]);
  });

  it.each(['exitLoad', 'exitStore', 'entryLoad'] as const)(
    '%s: IA32_SPEC_CTRL while it is virtualized',
    (area) => {
      const reported = (guest: Guest) => {
        guest
          .area(area, [{ index: 0x48 }])
          .launch()
          .cpu.vmexit({ reason: 10 });
        return guest.machine.hazards.some((h) => h.id === 'msr-area.spec-ctrl');
      };
      expect(reported(new Guest().on('proc3.virtualizeIa32SpecCtrl'))).toBe(true);
      expect(reported(new Guest())).toBe(false);
    },
  );
});

describe('VMX aborts', () => {
  const PAE = 0x2020n;
  const host32 = (options: GuestOptions = {}) => new Guest({ host32: true, ...options });

  it('2: a host PDPTE is invalid', () => {
    const guest = host32().fields({ hostCr3: 0x5000n, hostCr4: PAE }).launch();
    guest.machine.memory.write64(0x5010, 0x3n);
    expect(guest.cpu.vmexit({ reason: 10 })).toEqual({ kind: 'VMXabort', indicator: 2 });
    expectAborted(guest, 2);
  });

  it.each([1n, 2n, 5n, 6n, 7n, 8n, 52n, 63n])('2: reserved bit %i of a present host PDPTE', (position) => {
    const guest = host32().fields({ hostCr3: 0x5000n, hostCr4: PAE }).launch();
    guest.machine.memory.write64(0x5018, (1n << position) | 1n);
    expect(guest.cpu.vmexit({ reason: 10 }).kind).toBe('VMXabort');
  });

  it.each([0xe18n, 0xffff_ffff_ffff_fffen, 0xf_ffff_ffff_fe19n])('valid host PDPTE %i is loaded', (pdpte) => {
    const guest = host32().fields({ hostCr3: 0x5000n, hostCr4: PAE }).launch();
    guest.machine.memory.write64(0x5008, pdpte);
    expect(guest.cpu.vmexit({ reason: 10 }).kind).toBe('VMexit');
    expect(guest.cpu.get('PDPTE1')).toBe(pdpte);
  });

  it('2 does not happen to a host without PAE paging', () => {
    const guest = host32().fields({ hostCr3: 0x5000n, hostCr4: 0x2000n, guestCr4: 0x2000n }).launch();
    guest.machine.memory.write64(0x5000, 3n);
    expect(guest.cpu.vmexit({ reason: 10 }).kind).toBe('VMexit');
    const wide = new Guest().fields({ hostCr3: 0x5000n }).launch();
    wide.machine.memory.write64(0x5000, 3n);
    expect(wide.cpu.vmexit({ reason: 10 }).kind).toBe('VMexit');
  });

  it('6: a guest that went to IA-32e mode and a 32-bit host', () => {
    const guest = host32().launch();
    guest.cpu.set('IA32_EFER', 0x500n);
    expect(guest.cpu.vmexit({ reason: 10 })).toEqual({ kind: 'VMXabort', indicator: 6 });
    expectAborted(guest, 6);
  });

  it('a VM-entry failure can abort as well: 2 and 4', () => {
    const pdpte = host32().fields({ hostCr3: 0x5000n, hostCr4: PAE, guestRflags: 0n });
    pdpte.machine.memory.write64(0x5000, 3n);
    expect(pdpte.tryLaunch()).toEqual({ kind: 'VMXabort', indicator: 2 });
    expectAborted(pdpte, 2);
    const msr = new Guest().fields({ guestRflags: 0n }).area('exitLoad', [{ index: 0x800 }]);
    expect(msr.tryLaunch()).toEqual({ kind: 'VMXabort', indicator: 4 });
    expectAborted(msr, 4);
  });
});

describe('VM-entry failures', () => {
  const SENTINELS: Partial<Record<FieldName, bigint>> = {
    guestLinearAddress: 0x2222n,
    guestPhysicalAddress: 0x3333n,
    vmExitInstructionLength: 0x44n,
    vmExitInstructionInformation: 0x55n,
    exitingEventIdentification: 0x8000_0b0en,
    exitingEventErrorCode: 0x66n,
    originalEventIdentification: 0x8000_0b0en,
    originalEventErrorCode: 0x77n,
    originalEventData: 0x88n,
    msrData: 0x99n,
    vmInstructionError: 0x12n,
  };
  const CASES: readonly (readonly [string, 33 | 34 | 41, bigint, FieldValues, (g: Guest) => void])[] = [
    ['guest state', 33, 0n, { guestRflags: 0n }, () => {}],
    [
      'PDPTEs',
      33,
      2n,
      { guestPdpte2: 3n },
      (g) => {
        g.guest32().on('proc2.enableEpt');
      },
    ],
    [
      'NMI with blocking by STI',
      33,
      3n,
      { injectedEventIdentification: 0x8000_0202n, guestInterruptibilityState: 1n, guestRflags: 0x202n },
      () => {},
    ],
    ['link pointer', 33, 4n, { vmcsLinkPointer: 0x1n }, () => {}],
    [
      'MSR loading',
      34,
      1n,
      {},
      (g) => {
        g.area('entryLoad', [{ index: 0x800 }]);
      },
    ],
    [
      'machine check',
      41,
      0n,
      {},
      (g) => {
        g.cpu.raiseMachineCheckAtEntry();
      },
    ],
  ];

  it.each(CASES)(
    '%s: %i with qualification %i; nothing else of the VMCS changes',
    (_, reason, qualification, bad, prepare) => {
      for (const nmi of [0n, 1n]) {
        const guest = new Guest()
          .area('exitStore', [{ index: STAR }])
          .area('exitLoad', [{ index: LSTAR, data: 0x77n }]);
        prepare(guest);
        guest.fields({
          injectedEventIdentification: 0x8000_0306n,
          guestInterruptibilityState: nmi === 1n ? 0n : 8n,
          hostRip: 0xabcdn,
          hostRsp: 0x1234n,
          ...SENTINELS,
          ...bad,
        });
        const { cpu } = guest.write();
        cpu.set('blockingByNmi', nmi);
        cpu.set('IA32_DEBUGCTL', 1n);
        cpu.set('monitorArmed', 1n);
        cpu.wrmsr(STAR, 9n);
        const area = guest.guestArea();
        const { vmEntryControls: controls } = guest.values;
        expect(cpu.vmlaunch()).toEqual({ kind: 'VMentryFailure', reason });

        expect(cpu.operation).toBe('root');
        expect(guest.read('exitReason')).toBe(0x8000_0000n | BigInt(reason));
        expect(guest.read('exitQualification')).toBe(qualification);
        for (const [name, value] of Object.entries(SENTINELS))
          expect([name, guest.read(name as FieldName)]).toEqual([name, value]);
        expect(guest.guestArea()).toEqual(area);
        expect(guest.read('vmEntryControls')).toBe(controls);
        expect(guest.read('injectedEventIdentification') >> 31n).toBe(1n);

        expect(cpu.get('RIP')).toBe(0xabcdn);
        expect(cpu.get('RSP')).toBe(0x1234n);
        expect(cpu.get('RFLAGS')).toBe(2n);
        expect(cpu.get('DR7')).toBe(0x400n);
        expect(cpu.get('IA32_DEBUGCTL')).toBe(0n);
        expect(cpu.get('IA32_EFER') & 0x500n).toBe(0x500n);
        expect(cpu.get('GDTR.limit')).toBe(0xffffn);
        expect(cpu.get('monitorArmed')).toBe(0n);
        expect(cpu.get('blockingByNmi')).toBe(nmi);
        expect(cpu.rdmsr(LSTAR)).toBe(0x77n);
        expect(guest.machine.memory.read64(STORE_AREA + 8)).toBe(0n);

        // Still clear: VMRESUME fails, and VMLAUNCH works once the cause is gone.
        expect(cpu.vmresume()).toEqual({ kind: 'VMfailValid', error: 5 });
        guest
          .fields({
            ...new Guest().values,
            vmEntryMsrLoadCount: 0n,
            injectedEventIdentification: 0n,
            guestInterruptibilityState: 0n,
          })
          .launch();
        expect(cpu.operation).toBe('non-root');
      }
    },
  );

  it('a launched VMCS stays launched when VMRESUME fails', () => {
    const guest = new Guest().launch();
    guest.cpu.vmexit({ reason: 10 });
    guest.cpu.vmwrite('guestRflags', 0n);
    expect(guest.cpu.vmresume()).toEqual({ kind: 'VMentryFailure', reason: 33 });
    guest.cpu.vmwrite('guestRflags', 2n);
    expect(guest.cpu.vmlaunch()).toEqual({ kind: 'VMfailValid', error: 4 });
    expect(guest.cpu.vmresume()).toEqual({ kind: 'VMentry' });
  });

  it('machine check strikes once, and only an entry that passes its checks', () => {
    const guest = new Guest().fields({ guestRflags: 0n });
    guest.cpu.raiseMachineCheckAtEntry();
    expect(guest.tryLaunch()).toEqual({ kind: 'VMentryFailure', reason: 33 });
    guest.cpu.vmwrite('guestRflags', 2n);
    expect(guest.cpu.vmlaunch()).toEqual({ kind: 'VMentryFailure', reason: 41 });
    expect(guest.cpu.vmlaunch()).toEqual({ kind: 'VMentry' });
  });

  it('a shadow VMCS at the link pointer is not active after a failure', () => {
    const guest = new Guest().on('proc2.vmcsShadowing').fields({ vmcsLinkPointer: BigInt(LINK) });
    guest.machine.memory.write32(LINK, (guest.cpu.capabilities.revision | 0x8000_0000) >>> 0);
    guest.area('entryLoad', [{ index: 0x800 }]);
    expect(guest.tryLaunch()).toEqual({ kind: 'VMentryFailure', reason: 34 });
    expect(guest.cpu.activeVmcss).toEqual([REGION]);
    expect(guest.machine.memory.read32(ENTRY_AREA)).toBe(0x800);
  });
});
