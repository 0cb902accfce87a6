/** Host state that VM exits keep: loading it from there or from the fields makes no difference. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Field } from '../../../src/vmcs/fields.ts';
import { encodingOf, launched, rootMachine, vmcsRegion } from '../../support/machine.ts';

const REGION = vmcsRegion(0);
const EXIT = { reason: 10, instructionLength: 2 } as const;
const FIELDS = [
  'hostRip',
  'hostRsp',
  'hostFsBase',
  'hostGsBase',
  'hostIa32SysenterCs',
  'hostDsSelector',
] as const;

const write = fc.record({
  field: fc.constantFrom(...FIELDS),
  value: fc.constantFrom(0x8n, 0x10n, 0x2000n, 0x7_fff8n),
  way: fc.constantFrom('register', 'checked'),
});

describe('the host state of a VM exit', () => {
  it('is that of the fields, whichever way they were written since the last exit', () => {
    fc.assert(
      fc.property(fc.array(fc.array(write, { maxLength: 4 }), { maxLength: 8 }), (rounds) => {
        const registers = [false, true].map((forgets) => {
          const cpu = rootMachine({ hazards: 'ignore' }).cpu(0);
          launched(cpu, REGION);
          const copy = cpu.unit.active.get(REGION);
          if (copy === undefined) throw new Error('the VMCS is active');
          const seen: BigUint64Array[] = [];
          for (const writes of rounds) {
            if (forgets) copy.hostWritten = true;
            expect(cpu.vmexit(EXIT)).toEqual({ kind: 'VMexit', reason: 10 });
            seen.push(cpu.processor.quads.slice());
            // As KVM and others do: through the paths that need no checks.
            cpu.vmread('guestRip');
            for (const { field, value, way } of writes) {
              const fits = field === 'hostDsSelector' ? value & 0x18n : value;
              if (way === 'checked') {
                cpu.vmwrite(field, fits);
              } else {
                cpu.processor.quads[0] = BigInt(encodingOf(field));
                cpu.processor.quads[1] = fits;
                cpu.vmwriteRegister(0, 1);
              }
              expect(copy.quads[Field[field]]).toBe(fits);
            }
            expect(cpu.vmresume()).toEqual({ kind: 'VMentry' });
          }
          return seen;
        });
        expect(registers[0]).toEqual(registers[1]);
      }),
      { numRuns: 60 },
    );
  });

  it.each(FIELDS)('follows %s written again and again where no check is needed', (field) => {
    const cpu = rootMachine({ hazards: 'ignore' }).cpu(0);
    launched(cpu, REGION);
    const copy = cpu.unit.active.get(REGION);
    for (const value of [0x8n, 0x10n, 0x18n, 0x8n]) {
      cpu.vmexit(EXIT);
      expect(copy?.hostWritten).toBe(false);
      cpu.vmread('guestRip');
      cpu.processor.quads[0] = BigInt(encodingOf(field));
      cpu.processor.quads[1] = value;
      cpu.vmwriteRegister(0, 1);
      expect(copy?.hostWritten).toBe(true);
      expect(cpu.vmresume()).toEqual({ kind: 'VMentry' });
    }
  });

  it('follows a VMCS that is read from memory again', () => {
    const cpu = rootMachine({ hazards: 'ignore' }).cpu(0);
    launched(cpu, REGION);
    cpu.vmexit(EXIT);
    const copy = cpu.unit.active.get(REGION);
    expect(copy?.hostWritten).toBe(false);
    copy?.load(cpu.processor.memory.peek(REGION));
    expect(copy?.hostWritten).toBe(true);
  });
});
