import { describe, expect, it } from 'vitest';
import { Next } from '../../../src/cpu/instruction.ts';
import { execute } from '../../support/code.ts';
import { SingleInstruction } from '../../support/single-instruction.ts';

const STACK = 0x8000;
const DATA = 0x2000;

describe('PUSH', () => {
  it.each([
    [64, 'push rbx', 8, 0x1122334455667788n],
    [64, 'push bx', 2, 0x7788n],
    [64, 'push r8', 8, 0x8888n],
    [64, 'push -2', 8, 0xffff_ffff_ffff_fffen],
    [64, 'push 0x12345678', 8, 0x12345678n],
    [64, 'push qword ptr [0x2000]', 8, 0xcafe_babe_dead_beefn],
    [64, 'push fs', 8, 0x53n],
    [32, 'push ebx', 4, 0x55667788n],
    [32, 'push -2', 4, 0xffff_fffen],
    [32, 'push word ptr [0x2000]', 2, 0xbeefn],
    [16, 'push bx', 2, 0x7788n],
    [16, 'push ebx', 4, 0x55667788n],
  ] as const)('%i-bit %s', (bits, code, bytes, value) => {
    const one = new SingleInstruction({ bits });
    one.store(DATA, 8, 0xcafe_babe_dead_beefn);
    one.store(STACK - 8, 8, 0xaaaa_aaaa_aaaa_aaaan);
    one.run(code, { RSP: BigInt(STACK), RBX: 0x1122334455667788n, R8: 0x8888n, 'FS.selector': 0x53n });
    expect(one.get('RSP')).toBe(BigInt(STACK - bytes));
    expect(one.value(STACK - bytes, bytes)).toBe(value);
  });

  it('pushes RSP as it was before', () => {
    const one = new SingleInstruction();
    one.run('push rsp', { RSP: BigInt(STACK) });
    expect(one.value(STACK - 8, 8)).toBe(BigInt(STACK));
  });

  it('stores only the selector of a segment register with 32 bits', () => {
    const one = new SingleInstruction({ bits: 32 });
    one.store(STACK - 4, 4, 0xaaaa_aaaan);
    one.run(Uint8Array.of(0x1e), { RSP: BigInt(STACK) });
    expect(one.get('RSP')).toBe(BigInt(STACK - 4));
    expect(one.value(STACK - 4, 4)).toBe(0xaaaa_0018n);
  });

  it('faults with #SS(0) beyond the limit, and leaves RSP', () => {
    const one = new SingleInstruction({ bits: 32 });
    const result = one.run('push eax', { RSP: 0x102n, 'SS.limit': 0xfdn });
    expect(result).toMatchObject({ next: Next.Fault, vector: 12, errorCode: 0 });
    expect(one.get('RSP')).toBe(0x102n);
  });

  it('wraps SP within 16 bits', () => {
    const one = new SingleInstruction({ bits: 16 });
    one.run('push bx', { RSP: 0x7_0000n, RBX: 0x1234n });
    expect(one.get('RSP')).toBe(0x7_fffen);
    expect(one.value(0xfffe, 2)).toBe(0x1234n);
  });
});

describe('POP', () => {
  it.each([
    [64, 'pop rbx', 8, 'RBX', 0xcafe_babe_dead_beefn],
    [64, 'pop bx', 2, 'RBX', 0x1111_1111_1111_beefn],
    [64, 'pop r9', 8, 'R9', 0xcafe_babe_dead_beefn],
    [32, 'pop ebx', 4, 'RBX', 0xdead_beefn],
    [16, 'pop bx', 2, 'RBX', 0x1111_1111_1111_beefn],
  ] as const)('%i-bit %s', (bits, code, bytes, register, value) => {
    const one = new SingleInstruction({ bits });
    one.store(STACK, 8, 0xcafe_babe_dead_beefn);
    one.run(code, { RSP: BigInt(STACK), RBX: 0x1111_1111_1111_1111n });
    expect(one.get(register)).toBe(value);
    expect(one.get('RSP')).toBe(BigInt(STACK + bytes));
  });

  it('leaves in RSP what POP RSP popped', () => {
    const one = new SingleInstruction();
    one.store(STACK, 8, 0x1234n);
    one.run('pop rsp', { RSP: BigInt(STACK) });
    expect(one.get('RSP')).toBe(0x1234n);
  });

  it('computes an address with RSP as base after RSP has moved', () => {
    const one = new SingleInstruction();
    one.store(STACK, 8, 0x77n);
    one.run('pop qword ptr [rsp + 16]', { RSP: BigInt(STACK) });
    expect(one.value(STACK + 24, 8)).toBe(0x77n);
    expect(one.get('RSP')).toBe(BigInt(STACK + 8));
  });

  it('leaves RSP if the destination faults', () => {
    const one = new SingleInstruction();
    const result = one.run('pop qword ptr [rax]', { RSP: BigInt(STACK), RAX: 1n << 62n });
    expect(result).toMatchObject({ vector: 13, errorCode: 0 });
    expect(one.get('RSP')).toBe(BigInt(STACK));
  });
});

describe('PUSHA and POPA', () => {
  const registers = { RAX: 1n, RCX: 2n, RDX: 3n, RBX: 4n, RBP: 6n, RSI: 7n, RDI: 8n };

  it.each([
    ['pusha', 2],
    ['pushad', 4],
  ] as const)('%s stores the general registers in order', (code, bytes) => {
    const one = new SingleInstruction({ bits: 32 });
    const prefix = bytes === 2 ? [0x66] : [];
    one.run(Uint8Array.from([...prefix, 0x60]), { RSP: BigInt(STACK), ...registers });
    const pushed = [8, 7, 6, 0, 4, 3, 2, 1].map((value) => BigInt(value || STACK));
    for (const [n, value] of pushed.entries()) {
      expect(one.value(STACK - 8 * bytes + n * bytes, bytes), `${code} ${n}`).toBe(value);
    }
    expect(one.get('RSP')).toBe(BigInt(STACK - 8 * bytes));
  });

  it.each([2, 4])('POPA of %i bytes restores all but SP', (bytes) => {
    const one = new SingleInstruction({ bits: 32 });
    for (let n = 0; n < 8; n++) one.store(STACK + n * bytes, bytes, BigInt(0x10 + n));
    const prefix = bytes === 2 ? [0x66] : [];
    one.run(Uint8Array.from([...prefix, 0x61]), {
      RSP: BigInt(STACK),
      ...Object.fromEntries(Object.keys(registers).map((name) => [name, 0n])),
    });
    const names = ['RDI', 'RSI', 'RBP', undefined, 'RBX', 'RDX', 'RCX', 'RAX'] as const;
    for (const [n, name] of names.entries()) if (name) expect(one.get(name), name).toBe(BigInt(0x10 + n));
    expect(one.get('RSP')).toBe(BigInt(STACK + 8 * bytes));
  });

  it('POPA changes nothing if the last element is beyond the limit', () => {
    const one = new SingleInstruction({ bits: 32 });
    const result = one.run(Uint8Array.of(0x61), { RSP: 0x100n, 'SS.limit': 0x11en, RDI: 5n });
    expect(result).toMatchObject({ vector: 12 });
    expect(one.get('RDI')).toBe(5n);
    expect(one.get('RSP')).toBe(0x100n);
  });

  it('is undefined in 64-bit mode', () => {
    const one = new SingleInstruction();
    expect(one.run(Uint8Array.of(0x60)).vector).toBe(6);
    expect(one.run(Uint8Array.of(0x61)).vector).toBe(6);
    expect(one.run(Uint8Array.of(0x06)).vector).toBe(6);
  });
});

describe('ENTER and LEAVE', () => {
  it('makes a frame and takes it down again', () => {
    const cpu = execute('enter 0x20, 0\nmov qword ptr [rbp - 8], 5\nleave', 1);
    expect(cpu.get('RBP')).toBe(0x9_0000n - 8n);
    expect(cpu.get('RSP')).toBe(0x9_0000n - 8n - 0x20n);
    cpu.run(2);
    expect(cpu.get('RSP')).toBe(0x9_0000n);
    expect(cpu.get('RBP')).toBe(0n);
  });

  it('copies the frame pointers of outer levels', () => {
    const one = new SingleInstruction({ bits: 32 });
    one.store(0x7ffc, 4, 0xaaaan);
    one.store(0x7ff8, 4, 0xbbbbn);
    one.run('enter 0x10, 3', { RSP: 0x7000n, RBP: 0x8000n });
    expect([1, 2, 3, 4].map((n) => one.value(0x7000 - 4 * n, 4))).toEqual([
      0x8000n,
      0xaaaan,
      0xbbbbn,
      0x6ffcn,
    ]);
    expect(one.get('RBP')).toBe(0x6ffcn);
    expect(one.get('RSP')).toBe(0x7000n - 16n - 0x10n);
  });

  it('takes the level modulo 32', () => {
    const one = new SingleInstruction();
    one.run(Uint8Array.of(0xc8, 8, 0, 32), { RSP: 0x7000n, RBP: 0x8000n });
    expect(one.get('RSP')).toBe(0x7000n - 8n - 8n);
  });

  it('faults if a store at the final top of the stack would', () => {
    const one = new SingleInstruction({ bits: 32 });
    const state = { RSP: 0x108n, RBP: 0x8000n, 'SS.limit': 0x107n };
    expect(one.run('enter 0x200, 0', state)).toMatchObject({ vector: 12, errorCode: 0 });
    expect(one.get('RSP')).toBe(0x108n);
    expect(one.get('RBP')).toBe(0x8000n);
  });

  it('LEAVE moves SP only by the stack-address size', () => {
    const one = new SingleInstruction({ bits: 16 });
    one.store(0x6000, 2, 0x4321n);
    one.run('leave', { RSP: 0x5_1000n, RBP: 0x9_6000n });
    expect(one.get('RSP')).toBe(0x5_6002n);
    expect(one.get('RBP')).toBe(0x9_4321n);
  });
});
