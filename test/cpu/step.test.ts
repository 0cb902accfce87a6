import { describe, expect, it } from 'vitest';
import { codeMachine, execute, loadCode } from '../support/code.ts';

describe('executing code', () => {
  it('runs an integer loop', () => {
    const machine = codeMachine();
    const length = loadCode(
      machine,
      'mov ecx, 1000\nxor eax, eax\nagain: add rax, rcx\nsub rcx, 1\njne again',
    );
    const cpu = machine.cpu(0);
    cpu.run(2 + 3 * 1000);
    expect(cpu.get('RAX')).toBe(500500n);
    expect(cpu.get('RIP')).toBe(BigInt(0x1_0000 + length));
    expect(cpu.get('RFLAGS') & 0x40n).toBe(0x40n);
  });

  it('loads and stores memory operands', () => {
    const cpu = execute(
      'mov rax, 0x1122334455667788\nmov [0x2003], rax\nadd byte ptr [0x2003], 1\nmov ebx, [0x2003]',
      4,
    );
    expect(cpu.get('RBX')).toBe(0x5566_7789n);
  });

  it('executes what was stored over code that was executed before', () => {
    const machine = codeMachine();
    loadCode(
      machine,
      'mov ecx, 2\nagain: mov eax, 1\nmov byte ptr [rip + again + 1 - next], 7\nnext: sub ecx, 1\njne again'.replace(
        '[rip + again + 1 - next]',
        '[0x10006]',
      ),
    );
    const cpu = machine.cpu(0);
    cpu.run(9);
    expect(cpu.get('RAX')).toBe(7n);
  });

  it('runs in each size of code', () => {
    for (const bits of [16, 32, 64] as const) {
      const cpu = execute('mov ax, 0x1234\nadd ax, ax\nmov bx, ax', 3, { bits });
      expect(cpu.get('RBX')).toBe(0x2468n);
    }
  });

  it('takes AF of 64-bit operations from bit 3 of the whole, not of the upper half', () => {
    const AF = 0x10n;
    const upper = 'mov rax, 0x800000000\nmov rbx, 0x800000000\n';
    for (const operation of [
      'add rax, rbx',
      'adc rax, rbx',
      'sub rcx, rbx',
      'sbb rcx, rbx',
      'cmp rcx, rbx',
      'neg rax',
    ]) {
      const cpu = execute(`${upper}xor ecx, ecx\n${operation}`, 4);
      expect(cpu.get('RFLAGS') & AF, operation).toBe(0n);
    }
    expect(execute('mov eax, 8\nmov ebx, 8\nadd rax, rbx', 3).get('RFLAGS') & AF).toBe(AF);
  });
});
