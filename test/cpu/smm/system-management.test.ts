import { describe, expect, it } from 'vitest';
import { REGISTERS, type RegisterName, SEGMENT_NAMES } from '../../../src/cpu/registers.ts';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import type { Machine } from '../../../src/machine/machine.ts';
import { assemble } from '../../support/assemble.ts';
import { CODE, codeMachine, loadCode } from '../../support/code.ts';
import { delivered, handler, type World, world } from '../../support/tables.ts';

const SMBASE = 0x3_0000;
const AREA = SMBASE + 0x8000;
const RSM = '.byte 0x0f, 0xaa';
const [ACTIVE, HLT, SHUTDOWN] = [0n, 1n, 2n];

/** Puts the SMI handler, 16-bit code, where an SMI finds it. */
function smiHandler(machine: Machine, code: string, base = SMBASE): void {
  machine.memory.writeBytes(base + 0x8000, assemble(code, 16, 0x8000));
}

function smi(w: World, code = RSM): LogicalProcessor {
  smiHandler(w.machine, code);
  w.cpu.processor.requestSmi();
  return w.cpu;
}

const registers = (cpu: LogicalProcessor, names: readonly RegisterName[]) =>
  Object.fromEntries(names.map((name) => [name, cpu.get(name)]));

/** Registers that only the executing processor works with, and those that count what happened. */
const OTHERS = new Set<RegisterName>(['IA32_TIME_STAMP_COUNTER', 'attention', 'before', 'smiPending']);
const ARCHITECTURAL = REGISTERS.slice(0, REGISTERS.indexOf('ZERO')).filter((name) => !OTHERS.has(name));

describe('delivery of an SMI (SDM §34.4, §34.5.1)', () => {
  it('starts at SMBASE + 8000H in 16-bit code with 4-GByte limits, caches as they were', () => {
    const w = world('nop');
    w.cpu.set('CR0', 0x2005_003bn | (w.cpu.get('CR0') & 0x8000_0000n));
    w.cpu.set('DR7', 0x455n);
    const cpu = smi(w);
    cpu.run(1);
    expect(
      registers(cpu, ['RIP', 'RFLAGS', 'CR0', 'CR4', 'DR7', 'IA32_EFER', 'CS.selector', 'CS.base', 'inSmm']),
    ).toEqual({
      RIP: 0x8000n,
      RFLAGS: 2n,
      CR0: 0x2005_0032n,
      CR4: 0n,
      DR7: 0x400n,
      IA32_EFER: 0n,
      'CS.selector': 0x3000n,
      'CS.base': 0x3_0000n,
      inSmm: 1n,
    });
    for (const name of ['SS', 'DS', 'ES', 'FS', 'GS'] as const) {
      expect([cpu.get(`${name}.selector`), cpu.get(`${name}.base`), cpu.get(`${name}.limit`)]).toEqual([
        0n,
        0n,
        0xffff_ffffn,
      ]);
    }
    expect([cpu.mode, cpu.processor.codeBits, cpu.get('blockingByNmi')]).toEqual([0, 16, 1n]);
  });

  it('waits for the next instruction boundary, and for the end of blocking by STI and MOV SS', () => {
    for (const [code, steps] of [
      ['nop\nnop', 1],
      ['sti\nnop\nnop', 2],
    ] as const) {
      const w = world(code);
      smiHandler(w.machine, RSM);
      w.cpu.run(1);
      w.cpu.processor.requestSmi();
      w.cpu.run(steps - 1);
      expect(w.cpu.get('inSmm')).toBe(0n);
      w.cpu.run(1);
      expect([w.cpu.get('inSmm'), w.machine.memory.read32(AREA + 0x7fd8)]).toEqual([1n, CODE + steps]);
    }
  });

  it('comes before INIT, debug traps, NMIs and interrupts, which wait or are kept', () => {
    const w = world('nop\nnop');
    const { processor } = w.cpu;
    w.cpu.set('RFLAGS', 0x302n);
    w.cpu.run(1);
    expect(w.cpu.get('pendingDebugExceptions')).toBe(0x4000n);
    processor.requestNmi();
    processor.requestInit();
    processor.interrupts = { requested: () => true, acknowledge: () => 0x40 };
    smi(w, `nop\nnop\n${RSM}`).run(3);
    expect([w.cpu.get('inSmm'), w.cpu.get('RIP')]).toEqual([1n, 0x8002n]);
    w.cpu.run(1);
    expect([w.cpu.get('inSmm'), w.cpu.get('RIP'), w.cpu.get('initPending')]).toEqual([
      0n,
      BigInt(CODE + 1),
      1n,
    ]);
    expect(w.cpu.get('pendingDebugExceptions')).toBe(0x4000n);
    w.cpu.run(1);
    expect(w.cpu.get('RIP')).toBe(0xfff0n);
  });

  it('the debug trap that it kept follows RSM', () => {
    const w = world('nop\nnop');
    w.cpu.set('RFLAGS', 0x102n);
    w.cpu.run(1);
    smi(w).run(3);
    expect(delivered(w)).toEqual({ vector: 1, rip: CODE + 1 });
  });
});

describe('the state-save map (SDM §34.4.1)', () => {
  it('is that of Table 34-3 on a processor with Intel 64', () => {
    const w = world('nop');
    const { cpu, machine } = w;
    const general = ['RDI', 'RSI', 'RBP', 'RSP', 'RBX', 'RDX', 'RCX', 'RAX'] as const;
    const high = ['R8', 'R9', 'R10', 'R11', 'R12', 'R13', 'R14', 'R15'] as const;
    [...general, ...high].forEach((name, n) => {
      if (name !== 'RSP') cpu.set(name, 0x1111_2222_0000_0000n + BigInt(n));
    });
    cpu.set('LDTR.base', 0xffff_8000_1234_5678n);
    const at = (offset: number) => machine.memory.read64(AREA + offset);
    const at32 = (offset: number) => machine.memory.read32(AREA + offset);
    const before = registers(cpu, ARCHITECTURAL);
    smi(w).run(1);
    expect(at(0x7ff8)).toBe(before['CR0']);
    expect(at(0x7ff0)).toBe(before['CR3']);
    expect(at(0x7fe8)).toBe(before['RFLAGS']);
    expect(at(0x7fe0)).toBe(before['IA32_EFER']);
    expect(at(0x7fd8)).toBe(BigInt(CODE));
    expect(at(0x7fd0)).toBe(before['DR6']);
    expect(at(0x7fc8)).toBe(before['DR7']);
    expect(at(0x7e40)).toBe((before['CR4'] as bigint) & ~0x2000n);
    (['TR', 'LDTR', 'GS', 'FS', 'DS', 'SS', 'CS', 'ES'] as const).forEach((name, n) => {
      expect(BigInt(at32(0x7fc4 - 4 * n)), name).toBe(before[`${name}.selector`]);
    });
    general.forEach((name, n) => {
      expect(at(0x7f94 - 8 * n), name).toBe(before[name]);
    });
    high.forEach((name, n) => {
      expect(at(0x7f54 - 8 * n), name).toBe(before[name]);
    });
    for (const [name, low, upper] of [
      ['LDTR', 0x7e9c, 0x7dd4],
      ['IDTR', 0x7e94, 0x7dd8],
      ['GDTR', 0x7e8c, 0x7dd0],
    ] as const) {
      expect((BigInt(at32(upper)) << 32n) | BigInt(at32(low)), name).toBe(before[`${name}.base`]);
    }
    expect([at32(0x7ef8), at32(0x7efc), at32(0x7f00), at32(0x7fa4), at32(0x7ee0)]).toEqual([
      SMBASE,
      0x2_0100,
      0,
      0,
      0,
    ]);
  });
});

describe('RSM (SDM §34.3.2)', () => {
  it.each([16, 32, 64] as const)('brings back every register of %i-bit code', (bits) => {
    const w = world('nop', { bits });
    const { cpu } = w;
    cpu.set('DR6', 0xffff_4ff3n);
    cpu.set('RFLAGS', 0xad7n | (bits === 64 ? 0x20_0000n : 0x3000n));
    cpu.set('GS.base', bits === 64 ? 0xffff_8000_0000_1234n : 0x1234n);
    for (const name of SEGMENT_NAMES) if (name !== 'CS') cpu.set(`${name}.limit`, 0x1_2fffn);
    cpu.set('RIP', cpu.get('RIP'));
    const before = registers(cpu, ARCHITECTURAL);
    smi(w).run(1);
    expect(registers(cpu, ARCHITECTURAL)).not.toEqual(before);
    cpu.run(1);
    expect(registers(cpu, ARCHITECTURAL)).toEqual(before);
    expect(cpu.processor.codeBits).toBe(bits);
  });

  it('leaves what the handler changed of the rest, and takes what it wrote to SMRAM', () => {
    const w = world('nop');
    const cpu = smi(
      w,
      `mov dword ptr cs:[0xff5c], 0x12345678\nmov dword ptr cs:[0xffd8], ${CODE + 0x20}\n${RSM}`,
    );
    cpu.run(4);
    expect([cpu.get('RAX'), cpu.get('RIP')]).toEqual([0x1234_5678n, BigInt(CODE + 0x20)]);
  });

  it('relocates SMBASE', () => {
    const w = world('nop');
    const cpu = smi(w, `mov dword ptr cs:[0xfef8], 0x50000\n${RSM}`);
    smiHandler(w.machine, `mov ax, cs\n${RSM}`, 0x5_0000);
    cpu.run(3);
    cpu.processor.requestSmi();
    cpu.run(2);
    expect([cpu.get('CS.base'), cpu.get('RAX') & 0xffffn]).toEqual([0x5_0000n, 0x5000n]);
    expect(w.machine.memory.read32(0x5_fef8)).toBe(0x5_0000);
    cpu.processor.requestInit();
    cpu.run(2);
    expect(cpu.get('IA32_SMBASE')).toBe(0x5_0000n);
    cpu.reset();
    expect(cpu.get('IA32_SMBASE')).toBe(0x3_0000n);
  });

  it('returns to HLT unless the handler says otherwise', () => {
    const w = world('hlt\nnop\nnop');
    w.cpu.run(1);
    smi(w).run(2);
    expect([w.cpu.get('activityState'), w.cpu.get('RIP')]).toEqual([HLT, BigInt(CODE + 1)]);
    smi(w, `mov word ptr cs:[0xff02], 0\n${RSM}`).run(4);
    expect([w.cpu.get('activityState'), w.cpu.get('RIP')]).toEqual([ACTIVE, BigInt(CODE + 2)]);
  });

  it('returns to shutdown', () => {
    const w = world('nop');
    w.cpu.set('activityState', SHUTDOWN);
    smi(w).run(2);
    expect([w.cpu.get('activityState'), w.cpu.get('inSmm')]).toEqual([SHUTDOWN, 0n]);
  });

  it.each([
    ['reserved bits of CR4', 'mov dword ptr cs:[0xfe44], 0x80000000'],
    ['CR4.VMXE', 'or dword ptr cs:[0xfe40], 0x2000'],
    ['CR0.PG without PE', 'mov dword ptr cs:[0xfff8], 0x80000010'],
    ['CR0.NW without CD', 'mov dword ptr cs:[0xfff8], 0x20000011'],
    ['CR4.PCIDE outside IA-32e mode', 'mov dword ptr cs:[0xfe40], 0x20000'],
    ['IA-32e mode without CR4.PAE', 'mov dword ptr cs:[0xffe0], 0x500'],
    ['CR4.CET without CR0.WP', 'mov dword ptr cs:[0xfe40], 0x800000'],
  ])('shuts down if the saved state has %s', (_, code) => {
    const machine = codeMachine({ bits: 32 });
    const cpu = machine.cpu(0);
    loadCode(machine, 'nop\nnop', 32);
    smiHandler(machine, `${code}\n${RSM}`);
    cpu.processor.requestSmi();
    cpu.run(3);
    expect([cpu.get('activityState'), cpu.get('inSmm')]).toEqual([SHUTDOWN, 1n]);
    // Nothing but RESET helps.
    cpu.processor.requestNmi();
    cpu.processor.requestSmi();
    cpu.processor.requestInit();
    cpu.run(3);
    expect(cpu.get('activityState')).toBe(SHUTDOWN);
  });

  it('outside SMM is undefined', () => {
    const w = world(Uint8Array.of(0x0f, 0xaa));
    w.cpu.run(1);
    expect(delivered(w)).toEqual({ vector: 6, rip: CODE });
  });
});

describe('events in SMM (SDM §34.2, §34.8)', () => {
  it('a further SMI is held until RSM', () => {
    const w = world('nop\nnop');
    const cpu = smi(w, `nop\n${RSM}`);
    cpu.run(1);
    cpu.processor.requestSmi();
    cpu.processor.requestSmi();
    cpu.run(2);
    expect([cpu.get('inSmm'), cpu.get('smiPending')]).toEqual([0n, 1n]);
    cpu.run(1);
    expect([cpu.get('inSmm'), cpu.get('smiPending')]).toEqual([1n, 0n]);
    cpu.run(3);
    expect([cpu.get('inSmm'), cpu.get('RIP')]).toEqual([0n, BigInt(CODE + 1)]);
  });

  it('NMIs are blocked until RSM, which restores what was before', () => {
    for (const blocked of [0n, 1n]) {
      const w = world('nop\nnop');
      w.cpu.set('blockingByNmi', blocked);
      const cpu = smi(w, `nop\nnop\n${RSM}`);
      cpu.run(1);
      cpu.processor.requestNmi();
      cpu.run(3);
      expect([cpu.get('inSmm'), cpu.get('blockingByNmi')]).toEqual([0n, blocked]);
      cpu.run(1);
      expect(cpu.get('RIP')).toBe(BigInt(blocked === 0n ? handler(2) : CODE + 1));
    }
  });

  it('exceptions go through the interrupt vectors of real-address mode', () => {
    const w = world('nop');
    w.cpu.set('IDTR.base', 0n);
    w.machine.memory.write32(6 * 4, 0x2000_0100);
    smi(w, 'ud2').run(2);
    expect([w.cpu.get('CS.base'), w.cpu.get('RIP')]).toEqual([0x2_0000n, 0x100n]);
  });

  it('is kept by a snapshot', () => {
    const w = world('nop\nnop');
    const cpu = smi(w, `nop\n${RSM}`);
    const before = registers(cpu, ARCHITECTURAL);
    cpu.run(2);
    const snapshot = w.machine.snapshot();
    cpu.run(10);
    w.machine.restore(snapshot);
    expect(cpu.get('inSmm')).toBe(1n);
    cpu.run(1);
    expect(registers(cpu, ARCHITECTURAL)).toEqual(before);
  });
});
