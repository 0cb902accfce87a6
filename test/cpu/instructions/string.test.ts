import { describe, expect, it } from 'vitest';
import { codeMachine, execute, loadCode } from '../../support/code.ts';
import { SingleInstruction } from '../../support/single-instruction.ts';

const FROM = 0x2000;
const TO = 0x4000;
const pattern = (length: number) => Uint8Array.from({ length }, (_, n) => (n * 7 + 1) & 0xff);

describe('one iteration', () => {
  it.each([
    ['movsb', 1, [0xa4]],
    ['movsw', 2, [0x66, 0xa5]],
    ['movsd', 4, [0xa5]],
    ['movsq', 8, [0x48, 0xa5]],
  ])('%s copies and advances by %i', (_, bytes, code) => {
    for (const down of [false, true]) {
      const one = new SingleInstruction();
      one.store(FROM, 8, 0x8877_6655_4433_2211n);
      const RFLAGS = down ? 0x402n : 2n;
      one.run(Uint8Array.from(code), { RSI: BigInt(FROM), RDI: BigInt(TO), RCX: 9n, RFLAGS });
      const value = BigInt.asUintN(8 * bytes, 0x8877_6655_4433_2211n);
      expect(one.value(TO, 8)).toBe(value);
      const step = down ? -bytes : bytes;
      expect(one.get('RSI')).toBe(BigInt(FROM + step));
      expect(one.get('RDI')).toBe(BigInt(TO + step));
      expect(one.get('RCX')).toBe(9n);
    }
  });

  it('STOS, LODS, SCAS and CMPS use the accumulator and flags', () => {
    const one = new SingleInstruction();
    one.run('stosw', { RAX: 0x1122_3344n, RDI: BigInt(TO) });
    expect(one.value(TO, 4)).toBe(0x3344n);
    one.run('lodsd', { RAX: -1n & 0xffff_ffff_ffff_ffffn, RSI: BigInt(TO), RIP: 0x1_0000n });
    expect(one.get('RAX')).toBe(0x3344n);
    one.run('lodsb', { RAX: 0xffffn, RSI: BigInt(TO), RIP: 0x1_0000n });
    expect(one.get('RAX')).toBe(0xff44n);
    one.run('scasb', { RAX: 0x43n, RDI: BigInt(TO), RIP: 0x1_0000n });
    expect(one.flags() & 0x8d5).toBe(0x95);
    one.store(FROM, 2, 0x3345n);
    one.run('cmpsw', { RSI: BigInt(FROM), RDI: BigInt(TO), RIP: 0x1_0000n });
    expect(one.flags() & 0x8d5).toBe(0);
    one.run('cmpsb', { RSI: BigInt(TO + 1), RDI: BigInt(FROM + 1), RIP: 0x1_0000n });
    expect(one.flags() & 0x8d5).toBe(0x44);
  });

  it('takes the source from an overridden segment and the destination from ES', () => {
    const one = new SingleInstruction({ bits: 16 });
    one.store(0x3_0010, 1, 0x5an);
    const state = { 'FS.base': 0x3_0000n, 'ES.base': 0x4_0000n, RSI: 0x7_0010n, RDI: 0xffffn };
    one.run(Uint8Array.of(0x64, 0xa4), state);
    expect(one.value(0x4_ffff, 1)).toBe(0x5an);
    expect(one.get('RSI')).toBe(0x7_0011n);
    expect(one.get('RDI')).toBe(0n);
  });
});

describe('REP', () => {
  it.each([0, 1, 3, 5, 100, 4096, 9000])('MOVSB copies %i bytes', (length) => {
    const machine = codeMachine();
    const data = pattern(length);
    machine.memory.writeBytes(FROM + 5, data);
    const to = 0x8003;
    loadCode(machine, 'rep movsb');
    const cpu = machine.cpu(0);
    cpu.set('RSI', BigInt(FROM + 5));
    cpu.set('RDI', BigInt(to));
    cpu.set('RCX', BigInt(length));
    const before = cpu.processor.executed;
    cpu.run(Math.max(length, 1));
    expect(cpu.processor.executed - before).toBe(Math.max(length, 1));
    expect(cpu.get('RIP')).toBe(0x1_0002n);
    expect([cpu.get('RCX'), cpu.get('RSI'), cpu.get('RDI')]).toEqual([
      0n,
      BigInt(FROM + 5 + length),
      BigInt(to + length),
    ]);
    expect(Buffer.from(machine.memory.readBytes(to, length)).equals(Buffer.from(data))).toBe(true);
    expect(machine.memory.readBytes(to + length, 1)[0]).toBe(0);
  });

  it.each([
    ['stosb', 1],
    ['stosw', 2],
    ['stosd', 4],
    ['stosq', 8],
  ])('%s fills', (code, bytes) => {
    const one = new SingleInstruction();
    const value = 0x1122_3344_5566_7788n;
    one.run(`rep ${code}`, { RDI: BigInt(TO + 1), RCX: 700n, RAX: value });
    for (let n = 0; n < 700; n++) {
      expect(one.value(TO + 1 + n * bytes, bytes)).toBe(BigInt.asUintN(8 * bytes, value));
    }
    expect(one.value(TO, 1)).toBe(0n);
    expect(one.value(TO + 1 + 700 * bytes, 8)).toBe(0n);
  });

  it('repeats a pattern where the destination overlaps the source from above', () => {
    const one = new SingleInstruction();
    one.store(FROM, 3, 0x030201n);
    one.run('rep movsb', { RSI: BigInt(FROM), RDI: BigInt(FROM + 3), RCX: 60n });
    expect(one.bytes(FROM, 63)).toEqual(Array.from({ length: 63 }, (_, n) => (n % 3) + 1));
  });

  it('copies downwards with DF', () => {
    const one = new SingleInstruction();
    one.machine.memory.writeBytes(FROM, pattern(64));
    one.run(Uint8Array.of(0xf3, 0xa5), {
      RSI: BigInt(FROM + 60),
      RDI: BigInt(TO + 60),
      RCX: 16n,
      RFLAGS: 0x402n,
    });
    expect(one.bytes(TO, 64)).toEqual(Array.from(pattern(64)));
    expect(one.get('RDI')).toBe(BigInt(TO - 4));
  });

  it('stops at any iteration and goes on from there', () => {
    const machine = codeMachine();
    loadCode(machine, 'nop\nrep stosb\nmov ebx, 1');
    const cpu = machine.cpu(0);
    cpu.set('RDI', BigInt(TO));
    cpu.set('RCX', 100n);
    cpu.set('RAX', 0xaan);
    for (const [n, left] of [
      [1, 100n],
      [1, 99n],
      [9, 90n],
      [50, 40n],
    ] as const) {
      cpu.run(n);
      expect(cpu.get('RCX')).toBe(left);
      expect(cpu.get('RDI')).toBe(BigInt(TO) + 100n - left);
      expect(cpu.get('RIP')).toBe(0x1_0001n);
    }
    cpu.run(41);
    expect(cpu.get('RCX')).toBe(0n);
    expect(cpu.get('RBX')).toBe(1n);
    expect(cpu.processor.executed).toBe(102);
  });

  it('keeps the iterations before a fault', () => {
    const one = new SingleInstruction({ bits: 32 });
    const result = one.run('rep stosb', { RDI: 0x2000n, RCX: 20n, 'ES.limit': 0x2009n, RAX: 1n });
    expect(result).toMatchObject({ vector: 13, errorCode: 0 });
    expect(one.get('RCX')).toBe(10n);
    expect(one.get('RDI')).toBe(0x200an);
    expect(one.get('RIP')).toBe(0x1_0000n);
  });

  it('REPE CMPS stops at a difference, REPNE SCAS at a match', () => {
    const one = new SingleInstruction();
    one.machine.memory.writeBytes(FROM, pattern(100));
    one.machine.memory.writeBytes(TO, pattern(100));
    one.store(TO + 50, 1, 0n);
    one.run('repe cmpsb', { RSI: BigInt(FROM), RDI: BigInt(TO), RCX: 100n });
    expect(one.get('RCX')).toBe(49n);
    expect(one.flags() & 0x40).toBe(0);
    one.run('repne scasb', { RAX: 0n, RDI: BigInt(TO), RCX: 100n, RIP: 0x1_0000n });
    expect(one.get('RCX')).toBe(49n);
    expect(one.flags() & 0x40).toBe(0x40);
    one.run('repe cmpsb', { RCX: 0n, RFLAGS: 0x8d7n, RIP: 0x1_0000n });
    expect(one.flags()).toBe(0x8d7);
  });

  it('counts by the address size', () => {
    const one = new SingleInstruction();
    const state = { RDI: 0xf_0000_4000n, RCX: 0x5_0000_0003n, RAX: 0x77n };
    one.run(Uint8Array.of(0x67, 0xf3, 0xaa), state);
    expect(one.get('RCX')).toBe(0n);
    expect(one.get('RDI')).toBe(0x4003n);
    expect(one.value(0x4000, 4)).toBe(0x77_7777n);
  });

  it('sees code that it writes over', () => {
    const cpu = execute(
      'lea rdi, [target]\nmov ecx, 8\nmov al, 0x90\ncall target\ncld\nrep stosb\ncall target\nhere: jmp here\ntarget: mov bl, 7\nmov bh, 7\nnop\nnop\nnop\nnop\nret'.replace(
        'lea rdi, [target]',
        'call next\nnext: pop rdi\nadd rdi, target - next',
      ),
      8 + 7 + 2,
    );
    expect(cpu.get('RBX')).toBe(0x707n);
  });
});
