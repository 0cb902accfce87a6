import { describe, expect, it } from 'vitest';
import type { RegisterName } from '../../../src/cpu/registers.ts';
import { codeMachine, execute, loadCode } from '../../support/code.ts';

/** Runs code that raises an exception; the vector is seen in the state, because there is no IDT. */
function faultOf(code: string, setUp: Partial<Record<RegisterName, bigint>> = {}): number {
  const machine = codeMachine({ bits: 64 });
  loadCode(machine, code);
  const cpu = machine.cpu(0);
  // An empty IDT leads from any exception to shutdown; the first one is what was raised first.
  cpu.set('IDTR.limit', 0n);
  for (const [name, value] of Object.entries(setUp)) cpu.set(name as RegisterName, value);
  cpu.run(1);
  return cpu.get('activityState') === 2n ? 1 : 0;
}

const user = { 'CS.accessRights': 0xa0fbn, 'SS.accessRights': 0xc0f3n };

describe('system instructions', () => {
  it('are kept to CPL 0', () => {
    for (const code of [
      'mov rax, cr0',
      'mov cr3, rax',
      'mov rax, dr0',
      'clts',
      'lmsw ax',
      'rdmsr',
      'wrmsr',
      'invd',
      'wbinvd',
      'invlpg [rax]',
    ]) {
      expect(faultOf(code, user), code).toBe(1);
      expect(faultOf(code, { RCX: 0x10n, RAX: 1n, RDX: 0n }), code).toBe(0);
    }
  });

  it('refuse impossible values of control registers', () => {
    expect(faultOf('mov cr0, rax', { RAX: 0x8000_0000n })).toBe(1);
    expect(faultOf('mov cr0, rax', { RAX: 0x2000_0001n })).toBe(1);
    expect(faultOf('mov cr4, rax', { RAX: 1n << 63n })).toBe(1);
    expect(faultOf('mov cr4, rax', { RAX: 0n })).toBe(1);
    expect(faultOf('mov cr3, rax', { RAX: 1n << 60n })).toBe(1);
    expect(faultOf('mov cr8, rax', { RAX: 16n })).toBe(1);
  });

  it('RDTSC counts instructions, however the run is cut into pieces', () => {
    const source = 'nop\nnop\nrdtsc\nmov esi, eax\nnop\nrdtsc\nsub eax, esi';
    const whole = execute(source, 7);
    expect(whole.get('RAX')).toBe(3n);
    const machine = codeMachine();
    loadCode(machine, source);
    for (let n = 0; n < 7; n++) machine.cpu(0).run(1);
    expect(machine.cpu(0).get('RAX')).toBe(3n);
    expect(machine.cpu(0).get('IA32_TIME_STAMP_COUNTER')).toBe(whole.get('IA32_TIME_STAMP_COUNTER'));
  });

  it('MSRs are written and read back', () => {
    const cpu = execute('mov ecx, 0xc0000082\nmov eax, 0x1234\nmov edx, 0\nwrmsr\nxor eax, eax\nrdmsr', 6);
    expect(cpu.get('RAX')).toBe(0x1234n);
  });

  it('RDRAND repeats with the seed', () => {
    const draw = (seed: number) => execute('rdrand rax\nrdseed rbx', 2, { seed });
    expect(draw(5).get('RAX')).toBe(draw(5).get('RAX'));
    expect(draw(5).get('RAX')).not.toBe(draw(6).get('RAX'));
    expect(draw(5).get('RFLAGS') & 1n).toBe(1n);
  });

  it('IN and OUT without devices: all ones', () => {
    const cpu = execute('in eax, 0x60\nmov ebx, eax\nmov dx, 0x1234\nin al, dx', 4);
    expect(cpu.get('RBX')).toBe(0xffff_ffffn);
  });

  it('SMSW, LMSW and CLTS', () => {
    const cpu = execute('mov ax, 0xf\nlmsw ax\nsmsw ebx\nclts\nsmsw ecx', 5);
    expect(cpu.get('RBX') & 0xfn).toBe(0xfn);
    expect(cpu.get('RCX') & 0xfn).toBe(7n);
  });

  it('debug registers keep the bits that are fixed', () => {
    const cpu = execute('mov rax, 0\nmov dr7, rax\nmov rbx, dr7\nmov dr6, rax\nmov rcx, dr6', 5);
    expect(cpu.get('RBX')).toBe(0x400n);
    expect(cpu.get('RCX') & 0xffff_07f0n & ~0x1_0000n).toBe(0xfffe_07f0n);
  });
});
