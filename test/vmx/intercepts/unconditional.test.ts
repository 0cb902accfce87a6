import { describe, expect, it } from 'vitest';
import { exitFields, GUEST, guestMachine, HOST, runToExit } from '../../support/guest.ts';

describe('instructions that exit unconditionally (SDM §28.1.2)', () => {
  const rows: readonly (readonly [code: string, reason: number, length: number, qualification: bigint])[] = [
    ['cpuid', 10, 2, 0n],
    ['invd', 13, 2, 0n],
    ['vmcall', 18, 3, 0n],
    ['vmlaunch', 20, 3, 0n],
    ['vmresume', 24, 3, 0n],
    ['vmxoff', 26, 3, 0n],
    ['vmclear [rax + 4 * rbx + 0x1234]', 19, 9, 0x1234n],
    ['vmptrld [rsp - 8]', 21, 5, 0xffff_ffff_ffff_fff8n],
    ['vmptrst [rax]', 22, 3, 0n],
    ['vmread rax, rbx', 23, 3, 0n],
    ['vmwrite rax, rbx', 25, 3, 0n],
    ['vmxon [rax]', 27, 4, 0n],
    ['invept rax, [rbx + 0x10]', 50, 6, 0x10n],
    ['invvpid rax, [rbx + 0x10]', 53, 6, 0x10n],
  ];
  for (const [code, reason, length, qualification] of rows) {
    it(code, () => {
      const cpu = guestMachine(`nop\n${code}`).cpu(0);
      runToExit(cpu);
      expect(
        exitFields(cpu, 'exitReason', 'exitQualification', 'vmExitInstructionLength', 'guestRip'),
      ).toEqual({
        exitReason: BigInt(reason),
        exitQualification: qualification,
        vmExitInstructionLength: BigInt(length),
        guestRip: BigInt(GUEST + 1),
      });
      expect(cpu.get('RIP')).toBe(BigInt(HOST));
    });
  }

  it('CPUID at any CPL, with the registers as they were', () => {
    const cpu = guestMachine('mov eax, 0x80000008\ncpuid', {
      fields: {
        guestCsSelector: 0xbn,
        guestCsAccessRights: 0xa0fbn,
        guestSsSelector: 0x13n,
        guestSsAccessRights: 0xc0f3n,
      },
    }).cpu(0);
    expect(cpu.cpl).toBe(3);
    cpu.set('RBX', 0x1234n);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({
      exitReason: 10n,
      guestRip: BigInt(GUEST + 5),
    });
    expect([cpu.get('RAX'), cpu.get('RBX')]).toEqual([0x8000_0008n, 0x1234n]);
  });
});
