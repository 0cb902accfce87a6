import { describe, expect, it } from 'vitest';
import type { RegisterName } from '../../../src/cpu/registers.ts';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { type GuestOptions, guestMachine, runToExit } from '../../support/guest.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';

const NOWHERE = 0x7f00_0000_0000n;
const DATA = 0x6_0000n;
const TSS = 0x6_4000;
/** A guest at CPL 3. */
const USER: FieldValues = {
  guestCsSelector: 0xbn,
  guestCsAccessRights: 0xa0fbn,
  guestSsSelector: 0x13n,
  guestSsAccessRights: 0xc0f3n,
  guestDsSelector: 0x13n,
  guestDsAccessRights: 0xc0f3n,
  guestEsSelector: 0x13n,
  guestEsAccessRights: 0xc0f3n,
};
const BITMAPS = { msrBitmapAddress: 0x8_2000n };
const ALL: readonly ControlId[] = [
  'proc.hltExiting',
  'proc.invlpgExiting',
  'proc.mwaitExiting',
  'proc.monitorExiting',
  'proc.rdpmcExiting',
  'proc.rdtscExiting',
  'proc.cr3LoadExiting',
  'proc.cr3StoreExiting',
  'proc.cr8LoadExiting',
  'proc.cr8StoreExiting',
  'proc.movDrExiting',
  'proc.unconditionalIoExiting',
  'proc2.descriptorTableExiting',
  'proc2.wbinvdExiting',
  'proc2.enableInvpcid',
  'proc2.enableRdtscp',
  'proc2.enableUserWaitAndPause',
  'proc2.enableXsavesXrstors',
  'proc2.rdrandExiting',
  'proc2.rdseedExiting',
];
/** CR0 and CR4 belong to the host, and every bit that software might write differs from what it sees. */
const OWNED: FieldValues = {
  cr0GuestHostMask: 0xen,
  cr0ReadShadow: 0xen,
  cr4GuestHostMask: 0x80n,
  cr4ReadShadow: 0x80n,
  xssExitingBitmap: 0x1800n,
  exceptionBitmap: 0xffff_ffffn,
};

interface Setting {
  readonly user?: true;
  readonly fields?: FieldValues;
  readonly controls?: readonly ControlId[];
  readonly registers?: Partial<Record<RegisterName, bigint>>;
  readonly prepare?: (cpu: LogicalProcessor) => void;
}

/** What the first instruction comes to: the reason of its exit, `#` and the vector of an exception, or `executed`. */
function leave(code: string, { user, fields, controls = ALL, registers, prepare }: Setting = {}): string {
  const options: GuestOptions = {
    level: 'complete',
    controls,
    fields: { ...BITMAPS, ...OWNED, ...(user ? USER : {}), ...fields },
  };
  const cpu = guestMachine(`${code}\nvmcall`, options).cpu(0);
  const all = { RAX: DATA, RBX: DATA, RCX: 0n, RDX: 0n, RSI: DATA, RDI: DATA, ...registers };
  for (const [name, value] of Object.entries(all)) cpu.set(name as RegisterName, value);
  prepare?.(cpu);
  cpu.run(1);
  if (cpu.operation === 'non-root') return 'executed';
  const reason = Number(cpu.vmread('exitReason').value);
  return reason === 0 ? `#${cpu.vmread('exitingEventIdentification').value & 0xffn}` : `${reason}`;
}

const GP = '#13';
const UD = '#6';

/** Instruction, what it comes to at CPL 0, and at CPL 3. */
const PRIVILEGED: readonly (readonly [code: string, reason: number, user: string])[] = [
  ['invd', 13, GP],
  ['clts', 28, GP],
  ['hlt', 12, GP],
  ['invlpg [rax]', 14, GP],
  ['invpcid rax, [rbx]', 58, GP],
  ['lgdt [rax]', 46, GP],
  ['lidt [rax]', 46, GP],
  ['sgdt [rax]', 46, '46'],
  ['sidt [rax]', 46, '46'],
  ['lldt ax', 47, GP],
  ['ltr word ptr [rax]', 47, GP],
  ['sldt eax', 47, '47'],
  ['str word ptr [rax]', 47, '47'],
  ['lmsw bx', 28, GP],
  ['monitor', 39, UD],
  ['mwait', 36, UD],
  ['mov rax, cr3', 28, GP],
  ['mov rax, cr8', 28, GP],
  ['mov cr0, rax', 28, GP],
  ['mov cr3, rax', 28, GP],
  ['mov cr4, rax', 28, GP],
  ['mov cr8, rax', 28, GP],
  ['mov rax, dr7', 29, '29'],
  ['mov dr7, rax', 29, '29'],
  ['rdmsr', 31, GP],
  ['wrmsr', 32, GP],
  ['.byte 0x0f, 0x01, 0xc6', 32, GP],
  ['rdpmc', 15, GP],
  ['rdrand eax', 57, '57'],
  ['rdseed eax', 61, '61'],
  ['rdtsc', 16, '16'],
  ['rdtscp', 51, '51'],
  ['tpause eax', 68, '68'],
  ['umwait eax', 67, '67'],
  ['wbinvd', 54, GP],
  ['.byte 0xf3, 0x0f, 0x09', 54, GP],
  ['vmcall', 18, '18'],
  ['vmclear [rax]', 19, '19'],
  ['vmlaunch', 20, '20'],
  ['vmptrld [rax]', 21, '21'],
  ['vmptrst [rax]', 22, '22'],
  ['vmread rax, rbx', 23, '23'],
  ['vmresume', 24, '24'],
  ['vmwrite rax, rbx', 25, '25'],
  ['vmxoff', 26, '26'],
  ['vmxon [rax]', 27, '27'],
  ['invept rax, [rbx]', 50, '50'],
  ['invvpid rax, [rbx]', 53, '53'],
  ['cpuid', 10, '10'],
];

/** TPAUSE and UMWAIT, for which the assembler has no names. */
const CODE: Readonly<Record<string, string>> = {
  'tpause eax': '.byte 0x66, 0x0f, 0xae, 0xf0',
  'umwait eax': '.byte 0xf2, 0x0f, 0xae, 0xf0',
};
const bytes = (code: string) => CODE[code] ?? code;

describe('faults of privilege and VM exits (SDM §28.1.1, §28.1.3)', () => {
  for (const [code, reason, user] of PRIVILEGED) {
    it(`${code}: exit ${reason} at CPL 0, at CPL 3 ${user}`, () => {
      expect(leave(bytes(code))).toBe(`${reason}`);
      expect(leave(bytes(code), { user: true })).toBe(user);
    });
  }

  it.each([
    ['sgdt [rax]', 1n << 11n, GP],
    ['sidt [rax]', 1n << 11n, GP],
    ['sldt eax', 1n << 11n, GP],
    ['str eax', 1n << 11n, GP],
    ['rdtsc', 1n << 2n, GP],
    ['rdtscp', 1n << 2n, GP],
    ['tpause eax', 1n << 2n, GP],
    ['umwait eax', 1n << 2n, GP],
    ['rdpmc', 1n << 8n, '15'],
  ])('%s at CPL 3 with CR4 bit %d: %s', (code, bit, result) => {
    const prepare = (cpu: LogicalProcessor) => cpu.set('CR4', cpu.get('CR4') | bit);
    expect(leave(bytes(code), { user: true, prepare })).toBe(result);
  });

  it('XSETBV: #UD without CR4.OSXSAVE, #GP at CPL 3, and its exit whatever its operands', () => {
    const osxsave = (cpu: LogicalProcessor) => cpu.set('CR4', cpu.get('CR4') | (1n << 18n));
    expect(leave('xsetbv')).toBe(UD);
    expect(leave('xsetbv', { prepare: osxsave, user: true })).toBe(GP);
    expect(leave('xsetbv', { prepare: osxsave, registers: { RCX: 5n, RAX: 0n } })).toBe('55');
  });

  it.each(['xsaves [rbx]', 'xrstors [rbx]'])('%s: #UD without CR4.OSXSAVE, #GP at CPL 3', (code) => {
    const prepare = (cpu: LogicalProcessor) => {
      cpu.set('CR4', cpu.get('CR4') | (1n << 18n));
      cpu.set('IA32_XSS', 0x800n);
    };
    const registers = { RAX: 0x800n };
    expect(leave(code, { registers })).toBe(UD);
    expect(leave(code, { registers, prepare, user: true })).toBe(GP);
    expect(leave(code, { registers, prepare })).toBe(code.startsWith('xsaves') ? '63' : '64');
  });

  it('I/O at CPL 3: the permission bitmap of the TSS first', () => {
    const allow = (byte: number) => (cpu: LogicalProcessor) => {
      cpu.set('TR.base', BigInt(TSS));
      cpu.set('TR.limit', 0x2068n);
      cpu.processor.memory.write16(TSS + 0x66, 0x68);
      cpu.processor.memory.write8(TSS + 0x68 + (0x71 >> 3), byte);
    };
    expect(leave('in al, 0x71', { user: true, prepare: allow(2) })).toBe(GP);
    expect(leave('in al, 0x71', { user: true, prepare: allow(0) })).toBe('30');
    expect(leave('outsb', { user: true, prepare: allow(2), registers: { RDX: 0x71n } })).toBe(GP);
    expect(leave('in al, 0x71', { user: true, fields: { guestRflags: 0x3002n } })).toBe('30');
  });
});

describe('faults that come before an exit', () => {
  it.each([
    // LLDT and the like of a register are valid; these forms are not.
    ['.byte 0x0f, 0x01, 0xd5', UD],
    ['lmsw word ptr [rbx]', '#14'],
    ['.byte 0x44, 0x0f, 0x21, 0xc0', UD],
    ['.byte 0x0f, 0xc7, 0xf0, 0xf0, 0x0f, 0x31', '57'],
    ['.byte 0xf0, 0x0f, 0x31', UD],
    ['.byte 0x0f, 0x22, 0xc8', UD],
  ])('%s: %s', (code, result) => {
    expect(leave(code, { registers: { RBX: NOWHERE } })).toBe(result);
  });

  it.each([
    'rdtscp',
    '.byte 0xf3, 0x0f, 0xc7, 0xf8',
    'invpcid rax, [rbx]',
    'xsaves [rbx]',
    'xrstors [rbx]',
    'tpause eax',
    'umwait eax',
    '.byte 0xf3, 0x0f, 0xae, 0xf0',
  ])('%s: #UD without its control, ahead of everything', (code) => {
    const controls = ['proc.rdtscExiting', 'proc.invlpgExiting'] as const;
    expect(leave(bytes(code), { controls, user: true, registers: { RBX: NOWHERE } })).toBe(UD);
    expect(leave(bytes(code), { controls, registers: { RBX: NOWHERE } })).toBe(UD);
  });

  it('an instruction breakpoint', () => {
    const prepare = (cpu: LogicalProcessor) => {
      cpu.set('DR0', cpu.get('RIP'));
      cpu.set('DR7', 0x402n);
    };
    expect(leave('cpuid', { prepare })).toBe('#1');
  });

  it('a fault of the fetch', () => {
    const registers = { RIP: NOWHERE };
    expect(leave('cpuid', { registers })).toBe('#14');
  });
});

describe('exits that come before other faults', () => {
  const canonical = 1n << 60n;
  it.each([
    ['vmclear [rax]', '19', { RAX: canonical }],
    ['vmptrld [rax]', '21', { RAX: NOWHERE }],
    ['vmptrst [rax]', '22', { RAX: NOWHERE }],
    ['vmxon [rax]', '27', { RAX: canonical }],
    ['vmread [rax], rbx', '23', { RAX: NOWHERE }],
    ['vmwrite rbx, [rax]', '25', { RAX: canonical }],
    ['invept rax, [rbx]', '50', { RBX: NOWHERE, RAX: 77n }],
    ['invvpid rax, [rbx]', '53', { RBX: canonical, RAX: 77n }],
    ['invpcid rax, [rbx]', '58', { RBX: canonical, RAX: 77n }],
    ['lgdt [rax]', '46', { RAX: NOWHERE }],
    ['sidt [rax]', '46', { RAX: canonical }],
    ['lldt word ptr [rax]', '47', { RAX: NOWHERE }],
    ['ltr ax', '47', { RAX: 0xfff8n }],
    ['str word ptr [rax]', '47', { RAX: canonical }],
    ['invlpg [rax]', '14', { RAX: canonical }],
    ['rdmsr', '31', { RCX: 0x1234_5678n }],
    ['wrmsr', '32', { RCX: 0xc000_0080n, RAX: 0xffff_ffffn }],
    ['mov cr0, rax', '28', { RAX: 0x8000_0000n }],
    ['mov cr3, rax', '28', { RAX: (1n << 62n) | (1n << 58n) }],
    ['mov cr4, rax', '28', { RAX: 1n << 40n }],
    ['mov cr8, rax', '28', { RAX: 0x100n }],
    ['monitor', '39', { RCX: 1n, RAX: canonical }],
    ['mwait', '36', { RCX: 0xffn }],
    ['rdpmc', '15', { RCX: 0x7777n }],
    ['tpause eax', '68', { RAX: 0xffff_ffffn }],
    ['insb', '30', { RDI: canonical }],
    ['outsw', '30', { RSI: NOWHERE }],
    ['mov dr7, rax', '29', { RAX: -1n & 0xffff_ffff_ffff_ffffn }],
  ] as const)('%s: exit %s', (code, reason, registers) => {
    expect(leave(bytes(code), { registers })).toBe(reason);
  });

  it('INS and OUTS: unusable segments, limits and alignment', () => {
    // In compatibility mode segments have limits.
    const compatibility = (name: 'ES' | 'DS', rights: bigint, limit: bigint, flags = 2n): Setting => ({
      user: true,
      fields: { guestRflags: 0x3000n | flags, guestCr0: 0x8005_0031n, guestCsAccessRights: 0xc0fbn },
      registers: { RDI: DATA + 1n, RSI: DATA + 1n },
      prepare: (cpu) => {
        cpu.set(`${name}.accessRights`, rights);
        cpu.set(`${name}.limit`, limit);
      },
    });
    expect(leave('insd', compatibility('ES', 0x1_0000n, 0n))).toBe('30');
    expect(leave('insd', compatibility('ES', 0xc0f3n, 0xfffn))).toBe('30');
    expect(leave('outsd', compatibility('DS', 0x1_0000n, 0n))).toBe('30');
    expect(leave('outsd', compatibility('DS', 0xc0f3n, 0xfffn))).toBe('30');
    expect(leave('insd', compatibility('ES', 0xc0f3n, 0xffff_ffffn, 0x4_0002n))).toBe('30');
  });

  it('MOV DR: also DR4 with CR4.DE, and with DR7.GD', () => {
    const prepare = (cpu: LogicalProcessor) => {
      cpu.set('CR4', cpu.get('CR4') | 8n);
      cpu.set('DR7', 0x2400n);
    };
    expect(leave('mov rax, dr4', { prepare })).toBe('29');
    expect(leave('mov rax, dr4', { prepare, controls: [] })).toBe(UD);
    expect(leave('mov rax, dr6', { prepare, controls: [] })).toBe('#1');
  });
});

describe('modes', () => {
  const compatibility = { fields: { guestCsAccessRights: 0xc09bn } };

  it('VMX instructions other than VMCALL are undefined in compatibility mode', () => {
    for (const [code, reason] of [
      ['vmlaunch', UD],
      ['vmxoff', UD],
      ['.byte 0x0f, 0xc7, 0x38', UD],
      ['.byte 0x66, 0x0f, 0x38, 0x80, 0x03', UD],
      ['vmcall', '18'],
      ['cpuid', '10'],
    ] as const) {
      expect(leave(code, compatibility), code).toBe(reason);
    }
  });

  it('in virtual-8086 mode privileged instructions are faults, CPUID and VMCALL exit', () => {
    const v86 = (cpu: LogicalProcessor) => {
      cpu.set('IA32_EFER', 0n);
      cpu.set('RFLAGS', 0x2_3002n);
      for (const name of ['CS', 'SS', 'DS', 'ES'] as const) {
        cpu.set(`${name}.accessRights`, 0xf3n);
        cpu.set(`${name}.limit`, 0xffffn);
        cpu.set(`${name}.base`, cpu.get(`${name}.selector`) << 4n);
      }
      cpu.set('CS.selector', 0x1000n);
      cpu.set('CS.base', 0x1_0000n);
      cpu.set('RIP', 0n);
      // Without paging: the tables are those of 64-bit mode.
      cpu.set('CR0', cpu.get('CR0') & ~(1n << 31n));
    };
    for (const [code, result] of [
      ['hlt', GP],
      ['mov rax, cr3', UD],
      ['.byte 0x0f, 0x20, 0xd8', GP],
      ['invd', GP],
      ['.byte 0x0f, 0x32', GP],
      ['.byte 0x0f, 0x01, 0xc2', UD],
      ['.byte 0x0f, 0x00, 0xd0', UD],
      ['vmcall', '18'],
      ['cpuid', '10'],
      ['in al, 0x80', '30'],
      ['.byte 0x0f, 0x21, 0xf8', '29'],
    ] as const) {
      const setting = { prepare: v86 };
      // A REX prefix is DEC EAX there.
      if (code === 'mov rax, cr3') expect(leave('.byte 0x0f, 0x20, 0xc8', setting)).toBe(result);
      else expect(leave(code, setting), code).toBe(result);
    }
  });
});

describe('conditions (SDM §28.1.3)', () => {
  it('secondary controls count only with their activator', () => {
    const cpu = guestMachine('sldt eax\nvmcall', {
      fields: { secondaryProcessorBasedControls: 1n << 2n },
    }).cpu(0);
    runToExit(cpu);
    expect(cpu.vmread('exitReason').value).toBe(18n);
  });

  it.each([
    // source, mask, shadow: bits 3:0.
    [0x1, 0x1, 0x0, true],
    [0x0, 0x1, 0x1, false],
    [0x1, 0x1, 0x1, false],
    [0x3, 0x2, 0x2, false],
    [0x1, 0x2, 0x2, true],
    [0xffff, 0xfff0, 0, false],
  ])('LMSW of %d with mask %d and shadow %d exits: %s', (value, mask, shadow, exits) => {
    const fields = { cr0GuestHostMask: BigInt(mask), cr0ReadShadow: BigInt(shadow), exceptionBitmap: 0n };
    expect(leave('lmsw bx', { fields, registers: { RBX: BigInt(value) }, controls: [] }) === '28').toBe(
      exits,
    );
  });

  it('MOV to CR3 compares all bits with the first targets of the count', () => {
    const target = { cr3TargetValue0: 1n, cr3TargetValue1: 0x30_0000n };
    const setting = (cr3TargetCount: bigint, RAX: bigint): Setting => ({
      fields: { ...target, cr3TargetCount },
      registers: { RAX },
    });
    expect(leave('mov cr3, rax\nnop', setting(1n, 0x30_0000n))).toBe('28');
    expect(leave('mov cr3, rax', setting(2n, 0x30_0001n))).toBe('28');
    expect(leave('mov cr3, rax', setting(2n, 0x30_0000n))).toBe('executed');
  });

  it('MWAIT tells whether the monitor is armed', () => {
    const cpu = guestMachine('monitor\nmwait', {
      controls: ['proc.mwaitExiting'],
    }).cpu(0);
    cpu.set('RAX', DATA);
    cpu.set('RCX', 0n);
    cpu.set('RDX', 0n);
    runToExit(cpu);
    expect(cpu.vmread('exitReason').value).toBe(36n);
    expect(cpu.vmread('exitQualification').value).toBe(1n);
  });

  it('PAUSE-loop exiting is no matter of CPL 3', () => {
    const code = 'mov ecx, 100\nagain: pause\nsub ecx, 1\njne again\nvmcall';
    const fields = { ...USER, pleGap: 10n, pleWindow: 50n };
    const cpu = guestMachine(code, { controls: ['proc2.pauseLoopExiting'], fields }).cpu(0);
    runToExit(cpu);
    expect(cpu.vmread('exitReason').value).toBe(18n);
  });
});
