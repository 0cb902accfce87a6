import { describe, expect, it } from 'vitest';
import { Next } from '../../../src/cpu/instruction.ts';
import { CODE, execute } from '../../support/code.ts';
import { SingleInstruction } from '../../support/single-instruction.ts';

const STACK = 0x8000;

describe('CALL and RET', () => {
  it.each([64, 32, 16] as const)('call a subroutine in %i-bit code and return', (bits) => {
    const cpu = execute('call there\nmov bx, 5\nhere: jmp here\nthere: mov ax, 7\nret', 4, { bits });
    expect(cpu.get('RAX')).toBe(7n);
    expect(cpu.get('RBX')).toBe(5n);
    expect(cpu.get('RSP')).toBe(bits === 16 ? 0xf000n : 0x9_0000n);
  });

  it('pushes the address of the next instruction', () => {
    const one = new SingleInstruction();
    one.run(Uint8Array.of(0xe8, 0x10, 0, 0, 0), { RSP: BigInt(STACK) });
    expect(one.get('RIP')).toBe(BigInt(CODE + 5 + 0x10));
    expect(one.value(STACK - 8, 8)).toBe(BigInt(CODE + 5));
  });

  it('calls through a register and through memory with RSP as base', () => {
    const one = new SingleInstruction();
    one.run('call rax', { RSP: BigInt(STACK), RAX: 0x1234n });
    expect(one.get('RIP')).toBe(0x1234n);
    one.store(STACK, 8, 0x5678n);
    one.run('call [rsp]', { RSP: BigInt(STACK), RIP: BigInt(CODE) });
    expect(one.get('RIP')).toBe(0x5678n);
    expect(one.value(STACK - 8, 8)).toBe(BigInt(CODE + 3));
  });

  it('ignores an operand-size prefix in 64-bit mode', () => {
    const one = new SingleInstruction();
    one.store(STACK, 8, 0x12_3456n);
    one.run(Uint8Array.of(0x66, 0xc3), { RSP: BigInt(STACK) });
    expect(one.get('RIP')).toBe(0x12_3456n);
    expect(one.get('RSP')).toBe(BigInt(STACK + 8));
  });

  it('pushes nothing if the target is not canonical', () => {
    const one = new SingleInstruction();
    const result = one.run('call rax', { RSP: BigInt(STACK), RAX: 1n << 60n });
    expect(result).toMatchObject({ next: Next.Fault, vector: 13, errorCode: 0 });
    expect(one.get('RSP')).toBe(BigInt(STACK));
    expect(one.value(STACK - 8, 8)).toBe(0n);
  });

  it('RET to a target beyond the limit of CS leaves RSP', () => {
    const one = new SingleInstruction({ bits: 32 });
    one.store(STACK, 4, 0x20_0000n);
    const result = one.run('ret', { RSP: BigInt(STACK), 'CS.limit': 0x1f_ffffn });
    expect(result).toMatchObject({ vector: 13, errorCode: 0 });
    expect(one.get('RSP')).toBe(BigInt(STACK));
  });

  it('releases the bytes RET names', () => {
    const one = new SingleInstruction();
    one.store(STACK, 8, 0x4000n);
    one.run('ret 0xfff8', { RSP: BigInt(STACK) });
    expect(one.get('RSP')).toBe(BigInt(STACK + 8 + 0xfff8));
    expect(one.get('RIP')).toBe(0x4000n);
  });

  it('truncates the target to the operand size', () => {
    const one = new SingleInstruction({ bits: 32 });
    one.run(Uint8Array.of(0x66, 0xe8, 0x00, 0x80), { RSP: BigInt(STACK), RIP: 0x1_9000n });
    expect(one.get('RIP')).toBe(0x1004n);
    expect(one.value(STACK - 2, 2)).toBe(0x9004n);
  });
});

describe('LOOP and JCXZ', () => {
  const jumps = (one: SingleInstruction) => one.get('RIP') !== BigInt(CODE + 2);
  it.each([
    ['LOOP counts down', 0xe2, 2n, 0, true, 1n],
    ['LOOP ends at 0', 0xe2, 1n, 0, false, 0n],
    ['LOOP goes on from 0', 0xe2, 0n, 0, true, 0xffff_ffff_ffff_ffffn],
    ['LOOPE needs ZF', 0xe1, 2n, 0, false, 1n],
    ['LOOPE with ZF', 0xe1, 2n, 0x40, true, 1n],
    ['LOOPNE without ZF', 0xe0, 2n, 0, true, 1n],
    ['LOOPNE with ZF', 0xe0, 2n, 0x40, false, 1n],
    ['JRCXZ with 0', 0xe3, 0n, 0, true, 0n],
    ['JRCXZ looks at all bits', 0xe3, 1n << 32n, 0, false, 1n << 32n],
  ] as const)('%s', (_, opcode, RCX, flags, taken, left) => {
    const one = new SingleInstruction();
    one.run(Uint8Array.of(opcode, 0x10), { RCX, RFLAGS: BigInt(2 | flags) });
    expect(jumps(one)).toBe(taken);
    expect(one.get('RCX')).toBe(left);
  });

  it('counts by the address size', () => {
    const one = new SingleInstruction();
    one.run(Uint8Array.of(0x67, 0xe2, 0x10), { RCX: 0x5_0000_0000n });
    expect(one.get('RCX')).toBe(0xffff_ffffn);
    const real = new SingleInstruction({ bits: 16 });
    real.run(Uint8Array.of(0xe2, 0x10), { RCX: 0x7_0001n });
    expect(real.get('RCX')).toBe(0x7_0000n);
    expect(real.get('RIP')).toBe(2n);
  });

  it('leaves the count if the branch faults', () => {
    const one = new SingleInstruction({ bits: 32 });
    const result = one.run(Uint8Array.of(0xe2, 0x7f), { RCX: 5n, 'CS.limit': BigInt(CODE + 0x10) });
    expect(result).toMatchObject({ vector: 13 });
    expect(one.get('RCX')).toBe(5n);
  });
});
