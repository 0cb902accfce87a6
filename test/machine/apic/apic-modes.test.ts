import { describe, expect, it } from 'vitest';
import { apicRegister } from '../../../src/machine/apic/apic-registers.ts';
import { acknowledge, apicMachine, enterX2apic, loadApic, sendIpi, storeApic } from '../../support/apic.ts';
import { codeMachine, loadCode } from '../../support/code.ts';

const BASE = 0xfee0_0000n;
const one = (options = {}) => apicMachine(options).cpu(0);

describe('IA32_APIC_BASE (SDM vol. 3A §12.12.5)', () => {
  const DISABLED = 0n;
  const EXTD = 0x400n;
  const XAPIC = 0x800n;
  const X2APIC = 0xc00n;
  const ways: Readonly<Record<string, readonly bigint[]>> = {
    disabled: [],
    xAPIC: [XAPIC],
    x2APIC: [XAPIC, X2APIC],
  };
  const allowed: Readonly<Record<string, readonly bigint[]>> = {
    disabled: [DISABLED, XAPIC],
    xAPIC: [DISABLED, XAPIC, X2APIC],
    x2APIC: [DISABLED, X2APIC],
  };

  it.each(
    Object.keys(ways).flatMap((from) => [DISABLED, EXTD, XAPIC, X2APIC].map((to) => [from, to] as const)),
  )('from %s to mode bits %i', (from, to) => {
    const cpu = one();
    cpu.wrmsr(0x1b, BASE);
    for (const step of ways[from] as readonly bigint[]) expect(cpu.wrmsr(0x1b, BASE | step)).toBe('ok');
    const before = cpu.rdmsr(0x1b);
    const isAllowed = (allowed[from] as readonly bigint[]).includes(to);
    expect(cpu.wrmsr(0x1b, BASE | to)).toBe(isAllowed ? 'ok' : 'bad-value');
    expect(cpu.rdmsr(0x1b)).toBe(isAllowed ? BASE | to : before);
  });

  it('disabling the APIC resets it', () => {
    const cpu = one();
    storeApic(cpu, 'TaskPriority', 0x30);
    sendIpi(cpu, 0x4_0060);
    cpu.wrmsr(0x1b, BASE);
    cpu.wrmsr(0x1b, BASE | 0x800n);
    expect([loadApic(cpu, 'TaskPriority'), loadApic(cpu, 'SpuriousInterruptVector')]).toEqual([0, 0xff]);
    expect(acknowledge(cpu)).toBeUndefined();
  });

  it('entering x2APIC mode keeps what is there', () => {
    const cpu = one();
    storeApic(cpu, 'TaskPriority', 0x30);
    storeApic(cpu, 'LvtTimer', 0x40);
    sendIpi(cpu, 0x4_0060);
    enterX2apic(cpu);
    expect([cpu.rdmsr(0x808), cpu.rdmsr(0x832), cpu.rdmsr(0x823)]).toEqual([0x30n, 0x40n, 1n]);
    expect(acknowledge(cpu)).toBe(0x60);
  });

  it('moves the page, over RAM too, and away from it', () => {
    const machine = codeMachine({ devices: {} });
    loadCode(
      machine,
      `mov ebx, 0x50000; mov dword ptr [rbx + 0x80], 0x11
       mov ecx, 0x1b; mov eax, 0x50900; xor edx, edx; wrmsr
       mov dword ptr [rbx + 0x80], 0x22
       mov esi, [rbx + 0x80]
       mov rdi, cr8
       mov eax, 0x900; add eax, 0xfee00000; wrmsr
       mov ebp, [rbx + 0x80]; hlt`,
    );
    machine.cpu(0).run(30);
    expect((['RSI', 'RDI', 'RBP'] as const).map((r) => machine.cpu(0).get(r))).toEqual([0x22n, 2n, 0x11n]);
  });
});

describe('MSRs of x2APIC mode', () => {
  const indices = Array.from({ length: 256 }, (_, n) => 0x800 + n);

  it('are there in that mode alone', () => {
    const cpu = one();
    for (const index of indices) {
      expect(cpu.rdmsr(index)).toBeUndefined();
      expect(cpu.wrmsr(index, 0n)).toBe('does-not-exist');
    }
  });

  it('can be read and written as their registers', () => {
    const cpu = one();
    enterX2apic(cpu);
    for (const index of indices) {
      const row = index < 0x840 ? apicRegister((index - 0x800) << 4, true) : undefined;
      expect([index, cpu.rdmsr(index) !== undefined]).toEqual([index, row?.reads ?? false]);
      if (row === undefined) expect([index, cpu.wrmsr(index, 0n)]).toEqual([index, 'does-not-exist']);
      else if (!row.writes) expect([index, cpu.wrmsr(index, 0n)]).toEqual([index, 'read-only']);
    }
    const readable = indices.filter((index) => cpu.rdmsr(index) !== undefined);
    expect(readable).toEqual([
      ...[0x802, 0x803, 0x808, 0x80a, 0x80d, 0x80f],
      ...Array.from({ length: 24 }, (_, n) => 0x810 + n),
      ...[0x828, 0x82f, 0x830, 0x832, 0x833, 0x834, 0x835, 0x836, 0x837, 0x838, 0x839, 0x83e],
    ]);
    expect([0x80b, 0x83f].map((index) => cpu.wrmsr(index, 0n))).toEqual(['ok', 'ok']);
  });

  /** Bits that may be written, by MSR. */
  it.each([
    [0x808, 0xffn],
    [0x80b, 0n],
    [0x80f, 0x13ffn],
    [0x828, 0n],
    [0x82f, 0x1_17ffn],
    [0x830, 0xffff_ffff_000c_cfffn],
    [0x832, 0x7_10ffn],
    [0x833, 0x1_17ffn],
    [0x834, 0x1_17ffn],
    [0x835, 0x1_f7ffn],
    [0x836, 0x1_f7ffn],
    [0x837, 0x1_10ffn],
    [0x838, 0xffff_ffffn],
    [0x83e, 0xbn],
    [0x83f, 0xffn],
  ])('%i takes no other bits than %i', (index, bits) => {
    const cpu = one();
    enterX2apic(cpu);
    for (let bit = 0n; bit < 64n; bit++) {
      const isWritable = ((bits >> bit) & 1n) === 1n;
      expect([bit, cpu.wrmsr(index, 1n << bit)]).toEqual([bit, isWritable ? 'ok' : 'reserved-bit']);
    }
  });

  it('the page is memory in that mode', () => {
    const machine = codeMachine({ devices: {} });
    loadCode(
      machine,
      `mov ecx, 0x1b; rdmsr; or eax, 0xc00; wrmsr
       mov ebx, 0xfee00080; mov dword ptr [rbx], 0x55; mov rdi, cr8; mov ecx, 0x808; rdmsr; hlt`,
    );
    machine.cpu(0).run(30);
    expect((['RDI', 'RAX'] as const).map((r) => machine.cpu(0).get(r))).toEqual([0n, 0n]);
  });

  it('RDMSR and WRMSR of executing code raise #GP where they must', () => {
    for (const [code, faults] of [
      ['mov ecx, 0x80b; rdmsr', true],
      ['mov ecx, 0x80a; xor eax, eax; xor edx, edx; wrmsr', true],
      ['mov ecx, 0x808; mov eax, 0x20; xor edx, edx; wrmsr', false],
    ] as const) {
      const machine = codeMachine({ devices: {} });
      loadCode(machine, `mov ecx, 0x1b; rdmsr; or eax, 0xc00; wrmsr; ${code}; nop; hlt`);
      machine.cpu(0).run(12);
      expect(machine.cpu(0).get('activityState')).toBe(faults ? 2n : 1n);
    }
  });
});

describe('accesses to the page', () => {
  const run = (code: string) => {
    const machine = codeMachine({ devices: {} });
    loadCode(machine, `mov ebx, 0xfee00000; ${code}; hlt`);
    const cpu = machine.cpu(0);
    cpu.run(40);
    expect(cpu.get('activityState')).toBe(1n);
    return cpu;
  };

  it('load parts of registers', () => {
    const cpu = run(
      'movzx eax, byte ptr [rbx + 0x32]; movzx edx, word ptr [rbx + 0x30]; mov rsi, [rbx + 0x30]; mov edi, [rbx + 0x34]',
    );
    expect((['RAX', 'RDX', 'RSI', 'RDI'] as const).map((r) => cpu.get(r))).toEqual([
      6n,
      0x15n,
      0x0106_0015n,
      0n,
    ]);
  });

  it('store whole registers alone', () => {
    const cpu = run(
      'mov byte ptr [rbx + 0x80], 0x33; mov word ptr [rbx + 0x80], 0x44; mov eax, [rbx + 0x80]; mov qword ptr [rbx + 0x80], 0x55; mov edx, [rbx + 0x80]; or dword ptr [rbx + 0x80], 2; mov esi, [rbx + 0x80]',
    );
    expect((['RAX', 'RDX', 'RSI'] as const).map((r) => cpu.get(r))).toEqual([0n, 0x55n, 0x57n]);
  });

  it('reach across into the page from RAM that does not belong to it', () => {
    const cpu = run('mov eax, [rbx - 2]; mov [rbx - 2], eax; mov edx, [rbx + 0xffe]');
    expect([cpu.get('RAX'), cpu.get('RDX')]).toEqual([0n, 0n]);
  });
});
