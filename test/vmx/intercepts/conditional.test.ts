import { describe, expect, it } from 'vitest';
import type { RegisterName } from '../../../src/cpu/registers.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { exitFields, GUEST, GUEST_STACK, guestMachine, runToExit } from '../../support/guest.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';

interface Row {
  readonly code: string;
  /** Controls that make the instruction possible and are on in both runs. */
  readonly also?: readonly ControlId[];
  readonly fields?: FieldValues;
  /** Turned on in the second run. */
  readonly control?: ControlId;
  /** Fields of the second run instead of a control. */
  readonly exitFields?: FieldValues;
  readonly registers?: Partial<Record<RegisterName, bigint>>;
  readonly reason: number;
  readonly length: number;
  readonly qualification?: bigint;
  readonly information?: bigint;
  readonly linear?: bigint;
}

const BITMAPS = { ioBitmapAAddress: 0x8_0000n, ioBitmapBAddress: 0x8_1000n, msrBitmapAddress: 0x8_2000n };
/** 64-bit address size, segment DS. */
const DS_64 = (2n << 7n) | (3n << 15n);
const NO_INDEX = 1n << 22n;
const base = (n: bigint) => n << 23n;

/** One row an instruction of SDM §28.1.3: without the control it executes, with it exactly this exit. */
const ROWS: readonly Row[] = [
  { code: 'hlt', control: 'proc.hltExiting', reason: 12, length: 1 },
  {
    code: 'invlpg [rax + 0x10]',
    control: 'proc.invlpgExiting',
    registers: { RAX: 0x1_0000n },
    reason: 14,
    length: 4,
    qualification: 0x1_0010n,
  },
  { code: 'rdpmc', control: 'proc.rdpmcExiting', registers: { RCX: 0n }, reason: 15, length: 2 },
  { code: 'rdtsc', control: 'proc.rdtscExiting', reason: 16, length: 2 },
  { code: 'rdtscp', also: ['proc2.enableRdtscp'], control: 'proc.rdtscExiting', reason: 51, length: 3 },
  { code: 'mov rbx, cr3', control: 'proc.cr3StoreExiting', reason: 28, length: 3, qualification: 0x313n },
  {
    code: 'mov cr3, r9',
    control: 'proc.cr3LoadExiting',
    registers: { R9: 0x30_0000n },
    reason: 28,
    length: 4,
    qualification: 0x903n,
  },
  { code: 'mov rdx, cr8', control: 'proc.cr8StoreExiting', reason: 28, length: 4, qualification: 0x218n },
  {
    code: 'mov cr8, rdx',
    control: 'proc.cr8LoadExiting',
    registers: { RDX: 3n },
    reason: 28,
    length: 4,
    qualification: 0x208n,
  },
  {
    code: 'mov cr0, rax',
    exitFields: { cr0GuestHostMask: 8n, cr0ReadShadow: 0n },
    registers: { RAX: 0x8000_0039n },
    reason: 28,
    length: 3,
    qualification: 0n,
  },
  {
    code: 'mov cr4, rax',
    exitFields: { cr4GuestHostMask: 0x80n, cr4ReadShadow: 0x80n },
    registers: { RAX: 0x2020n },
    reason: 28,
    length: 3,
    qualification: 4n,
  },
  {
    code: 'clts',
    exitFields: { cr0GuestHostMask: 8n, cr0ReadShadow: 8n },
    reason: 28,
    length: 2,
    qualification: 0x20n,
  },
  {
    code: 'lmsw bx',
    exitFields: { cr0GuestHostMask: 2n, cr0ReadShadow: 0n },
    registers: { RBX: 3n },
    reason: 28,
    length: 3,
    qualification: 0x3_0030n,
  },
  {
    code: 'lmsw word ptr [rbx]',
    exitFields: { cr0GuestHostMask: 8n, cr0ReadShadow: 8n },
    registers: { RBX: 0x6_0000n },
    reason: 28,
    length: 3,
    qualification: 0x70n,
    linear: 0x6_0000n,
  },
  {
    code: 'mov dr7, rsi',
    control: 'proc.movDrExiting',
    registers: { RSI: 0x400n },
    reason: 29,
    length: 3,
    qualification: 0x607n,
  },
  { code: 'mov rdi, dr6', control: 'proc.movDrExiting', reason: 29, length: 3, qualification: 0x716n },
  {
    code: 'in al, 0x71',
    control: 'proc.unconditionalIoExiting',
    reason: 30,
    length: 2,
    qualification: 0x71_0048n,
  },
  {
    code: 'out dx, eax',
    control: 'proc.unconditionalIoExiting',
    registers: { RDX: 0x1234n },
    reason: 30,
    length: 1,
    qualification: 0x1234_0003n,
  },
  {
    code: 'rep outsb',
    control: 'proc.unconditionalIoExiting',
    registers: { RDX: 0xe9n, RCX: 2n, RSI: 0x6_0000n },
    reason: 30,
    length: 2,
    qualification: 0xe9_0030n,
    information: DS_64,
    linear: 0x6_0000n,
  },
  {
    code: 'insd',
    control: 'proc.unconditionalIoExiting',
    registers: { RDX: 0x1f0n, RDI: 0x6_0000n },
    reason: 30,
    length: 1,
    qualification: 0x1f0_001bn,
    information: 2n << 7n,
    linear: 0x6_0000n,
  },
  { code: 'pause', control: 'proc.pauseExiting', reason: 40, length: 2 },
  {
    code: 'monitor',
    control: 'proc.monitorExiting',
    registers: { RAX: 0x6_0000n, RCX: 0n },
    reason: 39,
    length: 3,
  },
  {
    code: 'mwait',
    control: 'proc.mwaitExiting',
    registers: { RCX: 0n },
    reason: 36,
    length: 3,
    qualification: 0n,
  },
  { code: 'wbinvd', control: 'proc2.wbinvdExiting', reason: 54, length: 2, qualification: 0n },
  {
    code: '.byte 0xf3, 0x0f, 0x09',
    control: 'proc2.wbinvdExiting',
    reason: 54,
    length: 3,
    qualification: 1n,
  },
  {
    code: 'rdrand r10d',
    control: 'proc2.rdrandExiting',
    reason: 57,
    length: 4,
    information: (10n << 3n) | (1n << 11n),
  },
  { code: 'rdseed rax', control: 'proc2.rdseedExiting', reason: 61, length: 4, information: 2n << 11n },
  {
    code: 'invpcid rdi, [rbx]',
    also: ['proc2.enableInvpcid'],
    control: 'proc.invlpgExiting',
    registers: { RDI: 2n, RBX: 0x6_0000n },
    reason: 58,
    length: 5,
    qualification: 0n,
    information: DS_64 | NO_INDEX | base(3n) | (7n << 28n),
  },
  {
    code: 'lgdt [rax + 8]',
    control: 'proc2.descriptorTableExiting',
    registers: { RAX: 0x6_0000n },
    reason: 46,
    length: 4,
    qualification: 8n,
    information: DS_64 | NO_INDEX | (2n << 28n),
  },
  {
    code: 'sidt [rax + 2 * rcx]',
    control: 'proc2.descriptorTableExiting',
    registers: { RAX: 0x6_0000n, RCX: 0n },
    reason: 46,
    length: 4,
    qualification: 0n,
    information: DS_64 | 1n | (1n << 18n) | (1n << 28n),
  },
  {
    code: 'sldt ebx',
    control: 'proc2.descriptorTableExiting',
    reason: 47,
    length: 3,
    qualification: 0n,
    information: (3n << 3n) | (1n << 10n),
  },
  {
    code: 'str ebx',
    control: 'proc2.descriptorTableExiting',
    reason: 47,
    length: 3,
    qualification: 0n,
    information: (3n << 3n) | (1n << 10n) | (1n << 28n),
  },
];

function guest(row: Row, exits: boolean) {
  const controls = [...(row.also ?? []), ...(exits && row.control ? [row.control] : [])];
  const fields = { ...BITMAPS, ...row.fields, ...(exits ? row.exitFields : {}) };
  // MSR bitmaps keep RDMSR and WRMSR from exiting in both runs.
  const machine = guestMachine(`${row.code}\nvmcall`, {
    controls: [...controls, 'proc.useMsrBitmaps'],
    fields,
  });
  const cpu = machine.cpu(0);
  for (const [name, value] of Object.entries(row.registers ?? {})) cpu.set(name as RegisterName, value);
  return cpu;
}

describe('instructions that exit by a control (SDM §28.1.3)', () => {
  for (const row of ROWS) {
    it(`${row.code}: executes without, exits with ${row.control ?? Object.keys(row.exitFields ?? {}).join()}`, () => {
      const without = guest(row, false);
      if (row.reason === 12) {
        without.run(2);
        expect(without.get('activityState')).toBe(1n);
      } else {
        runToExit(without);
        expect(exitFields(without, 'exitReason', 'guestRip')).toEqual({
          exitReason: 18n,
          guestRip: BigInt(GUEST + row.length),
        });
      }
      const cpu = guest(row, true);
      runToExit(cpu);
      expect(
        exitFields(cpu, 'exitReason', 'exitQualification', 'vmExitInstructionLength', 'guestRip', 'guestRsp'),
      ).toEqual({
        exitReason: BigInt(row.reason),
        exitQualification: row.qualification ?? 0n,
        vmExitInstructionLength: BigInt(row.length),
        guestRip: BigInt(GUEST),
        guestRsp: BigInt(GUEST_STACK),
      });
      if (row.information !== undefined) {
        expect(cpu.vmread('vmExitInstructionInformation').value).toBe(row.information);
      }
      if (row.linear !== undefined) expect(cpu.vmread('guestLinearAddress').value).toBe(row.linear);
    });
  }
});

describe('bitmaps (SDM §27.6.4, §27.6.9)', () => {
  it('I/O: the bits of all bytes of the access, in both bitmaps; a wrap always exits', () => {
    for (const [port, bytes, set, exits] of [
      [0x71, 1, [0x71], true],
      [0x71, 1, [0x70, 0x72], false],
      [0x6e, 4, [0x71], true],
      [0x7fff, 2, [0x8000], true],
      [0x8000, 1, [0x8000], true],
      [0x8000, 1, [0], false],
      [0xffff, 2, [], true],
      [0xffff, 1, [], false],
    ] as const) {
      const code = bytes === 1 ? 'in al, dx' : bytes === 2 ? 'in ax, dx' : 'in eax, dx';
      const machine = guestMachine(`${code}\nvmcall`, { controls: ['proc.useIoBitmaps'], fields: BITMAPS });
      for (const p of set) machine.memory.write8(0x8_0000 + (p >> 3), 1 << (p & 7));
      const cpu = machine.cpu(0);
      cpu.set('RDX', BigInt(port));
      runToExit(cpu);
      expect(cpu.vmread('exitReason').value, `port ${port}`).toBe(exits ? 30n : 18n);
    }
  });

  it('MSR: low and high, reads and writes each with their bit; what they do not cover exits', () => {
    for (const [code, index, offset, exits] of [
      ['rdmsr', 0x10, 0x10 >> 3, true],
      ['rdmsr', 0x10, 2048 + (0x10 >> 3), false],
      ['rdmsr', 0xc000_0082, 1024 + (0x82 >> 3), true],
      ['wrmsr', 0xc000_0082, 3072 + (0x82 >> 3), true],
      ['wrmsr', 0x174, 2048 + (0x174 >> 3), true],
      ['rdmsr', 0x4000_0000, 0, true],
    ] as const) {
      const machine = guestMachine(`${code}\nvmcall`, { controls: ['proc.useMsrBitmaps'], fields: BITMAPS });
      machine.memory.write8(0x8_2000 + offset, 1 << (index & 7));
      const cpu = machine.cpu(0);
      cpu.set('RCX', BigInt(index));
      cpu.set('RAX', 0n);
      cpu.set('RDX', 0n);
      runToExit(cpu);
      expect(cpu.vmread('exitReason').value, `${code} ${index.toString(16)}`).toBe(
        exits ? (code === 'rdmsr' ? 31n : 32n) : 18n,
      );
    }
  });
});

describe('instructions that do something else in non-root operation (SDM §28.3)', () => {
  const finish = (code: string, controls: readonly ControlId[], fields: FieldValues) => {
    const cpu = guestMachine(`${code}\nvmcall`, {
      controls: [...controls, 'proc.useMsrBitmaps'],
      fields: { ...BITMAPS, ...fields },
    }).cpu(0);
    runToExit(cpu);
    return cpu;
  };

  it('MOV from CR0 and CR4 and SMSW read through mask and shadow', () => {
    const cpu = finish('mov rax, cr0\nmov rbx, cr4\nsmsw ecx', [], {
      cr0GuestHostMask: 0x6n,
      cr0ReadShadow: 0x4n,
      cr4GuestHostMask: 0x2000n,
      cr4ReadShadow: 0n,
    });
    expect(cpu.get('RAX')).toBe(0x8000_0035n);
    expect(cpu.get('RBX') & 0x2000n).toBe(0n);
    expect(cpu.get('RCX')).toBe(0x8000_0035n);
  });

  it('MOV to CR0 leaves the bits of the host, CLTS does nothing to a TS that the guest sees as 0', () => {
    const cpu = finish('mov rax, cr0\nor rax, 2\nmov cr0, rax\nclts', [], {
      guestCr0: 0x8000_0039n,
      cr0GuestHostMask: 8n,
      cr0ReadShadow: 0n,
    });
    expect(cpu.vmread('guestCr0').value).toBe(0x8000_003bn);
  });

  it('a CR3-target value lets MOV to CR3 pass', () => {
    const cpu = finish('mov rax, cr3\nmov cr3, rax', ['proc.cr3LoadExiting'], {
      cr3TargetCount: 2n,
      cr3TargetValue1: 0x30_0000n,
    });
    expect(cpu.vmread('exitReason').value).toBe(18n);
  });

  it('RDTSC, RDTSCP and RDMSR of the TSC: offset and multiplier', () => {
    for (const [controls, fields, expected] of [
      [['proc.useTscOffsetting'], { tscOffset: 1000n }, (tsc: bigint) => tsc + 1000n],
      [
        ['proc.useTscOffsetting', 'proc2.useTscScaling'],
        { tscOffset: 1000n, tscMultiplier: 3n << 47n },
        (tsc: bigint) => (tsc * 3n) / 2n + 1000n,
      ],
      [[], { tscOffset: 1000n }, (tsc: bigint) => tsc],
    ] as const) {
      for (const read of ['rdtsc', 'rdtscp', 'mov ecx, 0x10\nrdmsr']) {
        const machine = guestMachine(`${read}\nvmcall`, {
          controls: [...controls, 'proc2.enableRdtscp', 'proc.useMsrBitmaps'],
          fields: { ...BITMAPS, ...fields },
        });
        const cpu = machine.cpu(0);
        const before = read.includes('rdmsr') ? 1n : 0n;
        const tsc = cpu.get('IA32_TIME_STAMP_COUNTER') + before;
        runToExit(cpu);
        expect(cpu.get('RAX'), read).toBe(expected(tsc));
      }
    }
  });

  it('RDTSCP, INVPCID and RDPID raise #UD without their control', () => {
    for (const code of ['rdtscp', 'invpcid rax, [rbx]', '.byte 0xf3, 0x0f, 0xc7, 0xf8']) {
      const cpu = guestMachine(code, { fields: { exceptionBitmap: 1n << 6n } }).cpu(0);
      runToExit(cpu);
      expect(cpu.vmread('exitReason').value, code).toBe(0n);
    }
  });

  describe.each([
    ['xsaves [rbx]', 63n],
    ['xrstors [rbx]', 64n],
  ] as const)('%s', (code, reason) => {
    const area = 0x6_0000;
    const leave = (controls: readonly ControlId[], fields: FieldValues, registers: Row['registers'] = {}) => {
      const machine = guestMachine(`${code}\nvmcall`, {
        controls,
        fields: { exceptionBitmap: 1n << 6n, ...fields },
      });
      const cpu = machine.cpu(0);
      // A header of the compacted format without components.
      machine.memory.write64(area + 520, 1n << 63n);
      const set = {
        CR4: cpu.get('CR4') | (1n << 18n),
        XCR0: 3n,
        IA32_XSS: 0x1800n,
        RBX: BigInt(area),
        ...registers,
      };
      for (const [name, value] of Object.entries(set)) cpu.set(name as RegisterName, value);
      runToExit(cpu);
      return exitFields(
        cpu,
        'exitReason',
        'exitQualification',
        'vmExitInstructionLength',
        'vmExitInstructionInformation',
      );
    };
    const asks = { RAX: 0x800n, RDX: 0n };

    it('raises #UD without its control', () => {
      expect(leave([], {}, asks).exitReason).toBe(0n);
    });

    it('exits if it is asked for a component of IA32_XSS and of the bitmap, and not otherwise', () => {
      const control = ['proc2.enableXsavesXrstors'] as const;
      expect(leave(control, { xssExitingBitmap: 0x800n }, asks)).toEqual({
        exitReason: reason,
        exitQualification: 0n,
        vmExitInstructionLength: 3n,
        vmExitInstructionInformation: DS_64 | NO_INDEX | base(3n),
      });
      expect(leave(control, { xssExitingBitmap: 0x1000n }, asks).exitReason).toBe(18n);
      expect(leave(control, { xssExitingBitmap: 0x800n }, { RAX: 3n, RDX: 0n }).exitReason).toBe(18n);
    });

    it('exits before its operand and CR0.TS are looked at', () => {
      const control = ['proc2.enableXsavesXrstors'] as const;
      const fields = { xssExitingBitmap: 0x800n };
      expect(leave(control, fields, { ...asks, RBX: 1n << 60n, CR0: 0x8000_0039n }).exitReason).toBe(reason);
    });
  });

  it('PAUSE-loop exiting: a long loop at CPL 0 exits, one with gaps does not', () => {
    const loop = (body: string) => `mov ecx, 100\nagain: pause\n${body}\nsub ecx, 1\njne again\nvmcall`;
    const controls = ['proc2.pauseLoopExiting'] as const;
    const tight = guestMachine(loop('nop'), { controls, fields: { pleGap: 10n, pleWindow: 50n } }).cpu(0);
    runToExit(tight);
    expect(tight.vmread('exitReason').value).toBe(40n);
    const wide = guestMachine(loop('nop\n'.repeat(20)), {
      controls,
      fields: { pleGap: 10n, pleWindow: 50n },
    }).cpu(0);
    runToExit(wide, 10_000);
    expect(wide.vmread('exitReason').value).toBe(18n);
  });

  it('faults by privilege come before the exit', () => {
    for (const code of ['rdmsr', 'mov rax, cr3', 'hlt', 'wbinvd', 'invlpg [rax]']) {
      const cpu = guestMachine(code, {
        controls: ['proc.hltExiting', 'proc.cr3StoreExiting', 'proc2.wbinvdExiting', 'proc.invlpgExiting'],
        fields: {
          exceptionBitmap: 1n << 13n,
          guestCsAccessRights: 0xa0fbn,
          guestSsAccessRights: 0xc0f3n,
          guestCsSelector: 0xbn,
          guestSsSelector: 0x13n,
          guestDsAccessRights: 0xc0f3n,
          guestDsSelector: 0x13n,
          guestEsAccessRights: 0xc0f3n,
          guestEsSelector: 0x13n,
        },
      }).cpu(0);
      runToExit(cpu);
      expect(cpu.vmread('exitReason').value, code).toBe(0n);
    }
  });
});
