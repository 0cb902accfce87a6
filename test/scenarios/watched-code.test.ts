import { describe, expect, it } from 'vitest';
import type { ControlId } from '../../src/vmcs/controls.ts';
import { assemble } from '../support/assemble.ts';
import { guestMachine, HOST } from '../support/guest.ts';
import { vmcsRegion, vmxonRegion } from '../support/machine.ts';

describe('ordinary accesses by executing code (SDM §27.11.1, §27.11.5)', () => {
  const cases = [
    ['a load of the data of an active VMCS', `mov rax, [${vmcsRegion(0) + 0x100}]`, 'vmcs.memory-read'],
    ['a store to them', `mov dword ptr [${vmcsRegion(0) + 0x100}], 1`, 'vmcs.memory-write'],
    ['a store across the border of its page', `mov qword ptr [${vmcsRegion(0) - 4}], 0x12`, undefined],
    ['an access to the VMXON region', `inc byte ptr [${vmxonRegion(0)}]`, 'vmxon.memory-access'],
    ['an access beside them', `mov rax, [${vmcsRegion(0) + 0x1000}]`, undefined],
  ] as const;
  for (const [name, code, hazard] of cases) {
    it(name, () => {
      const machine = guestMachine('vmcall');
      const cpu = machine.cpu(0);
      machine.memory.writeBytes(HOST, assemble(`${code}\nhere: jmp here`, 64, HOST));
      cpu.run(1);
      expect(cpu.operation).toBe('root');
      const before = machine.hazardCount;
      cpu.run(1);
      const ids = machine.hazards.slice(before).map((h) => h.id);
      if (hazard === undefined) expect(ids).toEqual([]);
      else expect(ids).toContain(hazard);
    });
  }

  it('stop a machine that is to stop at hazards, before the store', () => {
    const machine = guestMachine('vmcall', { hazards: 'stop' });
    const cpu = machine.cpu(0);
    const address = vmcsRegion(0) + 0x100;
    machine.memory.writeBytes(HOST, assemble(`mov dword ptr [${address}], 0x1234567\nmov eax, 5`, 64, HOST));
    const before = machine.memory.read32(address);
    cpu.run(10);
    expect(machine.stoppedAt?.id).toBe('vmcs.memory-write');
    expect(machine.memory.read32(address)).toBe(before);
    expect(cpu.get('RAX')).not.toBe(5n);
  });
});

describe('stores by executing code to structures of a running guest (SDM §27.11.4)', () => {
  const BITMAP = 0x8_0000;
  const inUse = (code: string, controls: readonly ControlId[]) => {
    const machine = guestMachine(`${code}\nvmcall`, {
      controls,
      fields: { msrBitmapAddress: BigInt(BITMAP), vmExitMsrLoadAddress: BigInt(BITMAP) },
    });
    const before = machine.hazardCount;
    machine.cpu(0).run(3);
    return machine.hazards.slice(before).map(({ id, address }) => [id, address]);
  };
  const store = `mov ecx, ${BITMAP}\nmov dword ptr [rcx + 8], 1`;

  it('are reported', () => {
    expect(inUse(store, ['proc.useMsrBitmaps'])).toEqual([['structure.modified-in-use', BITMAP]]);
  });

  it('are not if the structure is not in use, nor loads', () => {
    expect(inUse(store, [])).toEqual([]);
    expect(inUse(`mov ecx, ${BITMAP}\nmov eax, [rcx + 8]`, ['proc.useMsrBitmaps'])).toEqual([]);
  });
});
