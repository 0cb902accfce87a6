import { describe, expect, it } from 'vitest';
import { PhysicalMemory } from '../../src/cpu/physical-memory.ts';
import { Mode, Processor } from '../../src/cpu/processor.ts';
import {
  ARITHMETIC_FLAGS,
  CHECKS_NEEDED,
  CR0,
  CR4,
  EFER,
  REGISTER_COUNT,
  REGISTERS,
  Register,
  RFLAGS,
  SEGMENT_NAMES,
} from '../../src/cpu/registers.ts';
import { findProfile } from '../../src/vmx/capabilities/profiles.ts';

const FULL = findProfile('full')!.features;
const processor = (index = 0) => new Processor(index, FULL, new PhysicalMemory());
const at = (...positions: number[]) => positions.reduce((m, p) => m | (1n << BigInt(p)), 0n);

describe('reset (SDM vol. 3A Table 11-1)', () => {
  it.each([
    ['RFLAGS', 2n],
    ['RIP', 0xfff0n],
    ['CR0', 0x6000_0010n],
    ['CR4', 0n],
    ['CS.selector', 0xf000n],
    ['CS.base', 0xffff_0000n],
    ['CS.limit', 0xffffn],
    ['SS.selector', 0n],
    ['DS.limit', 0xffffn],
    ['GDTR.limit', 0xffffn],
    ['IDTR.base', 0n],
    ['DR6', 0xffff_0ff0n],
    ['DR7', 0x400n],
    ['XCR0', 1n],
    ['IA32_EFER', 0n],
    ['IA32_PAT', 0x0007_0406_0007_0406n],
    ['IA32_FEATURE_CONTROL', 0n],
  ] as const)('sets %s to 0x%i', (name, value) => {
    const cpu = processor();
    cpu.quads.fill(0x5555_5555_5555_5555n);
    cpu.reset();
    expect(cpu.read(name)).toBe(value);
  });

  it('leaves every segment usable and the data segments writable', () => {
    const cpu = processor();
    for (const name of SEGMENT_NAMES) {
      const rights = cpu.read(`${name}.accessRights`);
      expect(rights & 0x1_0080n, name).toBe(0x80n);
    }
    expect(cpu.read('CS.accessRights')).toBe(0x9bn);
    expect(cpu.read('TR.accessRights')).toBe(0x8bn);
    expect(cpu.read('SS.accessRights') & 0x12n).toBe(0x12n);
  });

  it('marks the first processor as the bootstrap processor', () => {
    expect(processor(0).read('IA32_APIC_BASE')).toBe(0xfee0_0900n);
    expect(processor(1).read('IA32_APIC_BASE')).toBe(0xfee0_0800n);
  });

  it('returns to real mode at CPL 0', () => {
    const cpu = processor();
    cpu.write('SS.accessRights', 0xf3n);
    cpu.write('CR0', at(CR0.PE));
    expect([cpu.mode, cpu.cpl]).toEqual([Mode.Protected, 3]);
    cpu.reset();
    expect([cpu.mode, cpu.cpl]).toEqual([Mode.Real, 0]);
  });
});

describe('operating mode', () => {
  const PE = at(CR0.PE);
  const LMA = at(EFER.LMA);
  const VM = at(RFLAGS.VM);
  const L = at(13);

  it.each([
    ['real mode', 0n, 0n, 0n, 0n, Mode.Real],
    ['real mode, whatever CS.L, RFLAGS.VM and EFER.LMA', 0n, LMA, VM, L, Mode.Real],
    ['protected mode', PE, 0n, 0n, 0n, Mode.Protected],
    ['protected mode, whatever CS.L', PE, 0n, 0n, L, Mode.Protected],
    ['protected mode, with LME alone', PE, at(EFER.LME), 0n, 0n, Mode.Protected],
    ['virtual-8086 mode', PE, 0n, VM, 0n, Mode.Virtual8086],
    ['compatibility mode', PE, LMA, 0n, 0n, Mode.Compatibility],
    ['64-bit mode', PE, LMA, 0n, L, Mode.Bit64],
    ['64-bit mode, where RFLAGS.VM means nothing', PE, LMA, VM, L, Mode.Bit64],
  ])('%s', (_, cr0, efer, rflags, cs, mode) => {
    const cpu = processor();
    cpu.write('IA32_EFER', efer);
    cpu.write('RFLAGS', 2n | rflags);
    cpu.write('CS.accessRights', 0x9bn | cs);
    cpu.write('CR0', cr0);
    expect(cpu.mode).toBe(mode);
  });

  it('has a CPL that is SS.DPL, and 0 in real mode', () => {
    const cpu = processor();
    cpu.write('CR0', PE);
    for (const dpl of [0, 1, 2, 3]) {
      cpu.write('SS.accessRights', 0x93n | (BigInt(dpl) << 5n));
      expect(cpu.cpl).toBe(dpl);
    }
    cpu.write('CR0', 0n);
    expect(cpu.cpl).toBe(0);
  });

  it('follows a direct write to the registers only when told', () => {
    const cpu = processor();
    cpu.quads[Register.CR0] = PE;
    expect(cpu.mode).toBe(Mode.Real);
    cpu.updateMode();
    expect(cpu.mode).toBe(Mode.Protected);
  });

  it('asks for checks after every register written and every update', () => {
    const cpu = processor();
    for (const change of [() => cpu.write('RAX', 1n), () => cpu.write('CR0', PE), () => cpu.updateMode()]) {
      cpu.i32[CHECKS_NEEDED] = 0;
      change();
      expect(cpu.i32[CHECKS_NEEDED]).toBe(1);
    }
  });
});

describe('paging modes', () => {
  it('is IA-32e mode by EFER.LMA alone', () => {
    const cpu = processor();
    expect(cpu.ia32eMode).toBe(false);
    cpu.write('IA32_EFER', at(EFER.LME));
    expect(cpu.ia32eMode).toBe(false);
    cpu.write('IA32_EFER', at(EFER.LMA));
    expect(cpu.ia32eMode).toBe(true);
  });

  it('is PAE paging with CR0.PG and CR4.PAE outside IA-32e mode', () => {
    const cpu = processor();
    const paging = (pg: boolean, pae: boolean, lma: boolean) => {
      cpu.write('CR0', at(CR0.PE) | (pg ? at(CR0.PG) : 0n));
      cpu.write('CR4', pae ? at(CR4.PAE) : 0n);
      cpu.write('IA32_EFER', lma ? at(EFER.LMA) : 0n);
      return cpu.paePaging;
    };
    expect(paging(true, true, false)).toBe(true);
    expect(paging(false, true, false)).toBe(false);
    expect(paging(true, false, false)).toBe(false);
    expect(paging(true, true, true)).toBe(false);
  });
});

describe('the register table', () => {
  it('gives every name a slot of its own, general registers first', () => {
    expect(new Set(REGISTERS).size).toBe(REGISTER_COUNT);
    for (const [slot, name] of REGISTERS.entries()) expect(Register[name]).toBe(slot);
    expect([Register.RAX, Register.RSP, Register.R15]).toEqual([0, 4, 15]);
  });

  it('shows a register as one 64-bit value and as two words, low first', () => {
    const cpu = processor();
    cpu.write('RBX', 0x1122_3344_5566_7788n);
    expect(cpu.words[2 * Register.RBX]).toBe(0x5566_7788);
    expect(cpu.words[2 * Register.RBX + 1]).toBe(0x1122_3344);
    expect(cpu.read('RBX')).toBe(0x1122_3344_5566_7788n);
  });

  it('knows the arithmetic flags', () => {
    const { CF, PF, AF, ZF, SF, OF } = RFLAGS;
    expect(BigInt(ARITHMETIC_FLAGS)).toBe(at(CF, PF, AF, ZF, SF, OF));
  });
});
