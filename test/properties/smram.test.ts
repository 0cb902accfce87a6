/** RSM from SMRAM that software has filled with anything: shutdown, or a state that registers can hold. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type RegisterName, SEGMENT_NAMES } from '../../src/cpu/registers.ts';
import { codeMachine, loadCode } from '../support/code.ts';
import { guestMachine } from '../support/guest.ts';
import { runs } from './settings.ts';

const AREA = 0x3_8000;
const MAP = AREA + 0x7c00;
const MAP_BYTES = 0x400;
const RSM = Uint8Array.of(0x0f, 0xaa);
const [CR0, CR4, EFER, RIP, SMBASE] = [0x7ff8, 0x7e40, 0x7fe0, 0x7fd8, 0x7ef8];

/** What software may find: control bits mostly such that RSM does not shut down. */
const smram = fc.record({
  bytes: fc.uint8Array({ minLength: MAP_BYTES, maxLength: MAP_BYTES }),
  cr0: fc.option(fc.constantFrom(0x10n, 0x11n, 0x8000_0011n, 0x8005_0033n), { freq: 8 }),
  cr4: fc.option(fc.constantFrom(0n, 0x20n, 0x30n, 0x6a0n), { freq: 8 }),
  efer: fc.option(fc.constantFrom(0n, 0x100n, 0x500n, 0xd01n), { freq: 4 }),
  rip: fc.option(fc.constantFrom(0x1_0000n, 0xffffn, 0xffff_fff0n), { freq: 2 }),
});

const inBits = (value: bigint, bits: number) => value >> BigInt(bits) === 0n;

describe('RSM from any SMRAM', () => {
  it.each(['outside VMX operation', 'in non-root operation'])('%s is shutdown or a legal state', (where) => {
    fc.assert(
      fc.property(smram, ({ bytes, cr0, cr4, efer, rip }) => {
        const machine = where === 'outside VMX operation' ? codeMachine() : guestMachine('nop');
        if (where === 'outside VMX operation') loadCode(machine, 'nop');
        const cpu = machine.cpu(0);
        const { memory } = machine;
        memory.writeBytes(AREA, RSM);
        cpu.processor.requestSmi();
        cpu.run(1);
        expect(cpu.get('inSmm')).toBe(1n);
        memory.writeBytes(MAP, bytes);
        for (const [offset, value] of [
          [CR0, cr0],
          [CR4, cr4],
          [EFER, efer],
          [RIP, rip],
        ] as const) {
          if (value !== null) memory.write64(AREA + offset, value);
        }
        memory.write32(AREA + SMBASE, 0x3_0000);
        cpu.run(1);
        if (cpu.get('inSmm') === 1n) {
          expect(cpu.get('activityState')).toBe(2n);
          return;
        }
        expect(cpu.get('RFLAGS') & 2n).toBe(2n);
        expect(cpu.get('CR0') & 0x10n).toBe(0x10n);
        expect(cpu.get('CR4') & ~cpu.processor.features.cr4Bits).toBe(0n);
        expect(cpu.get('activityState')).toBeLessThan(3n);
        for (const name of SEGMENT_NAMES) {
          expect(inBits(cpu.get(`${name}.selector`), 16)).toBe(true);
          expect(inBits(cpu.get(`${name}.limit`), 32)).toBe(true);
        }
        for (const name of ['CR0', 'DR6', 'DR7', 'RFLAGS'] as const satisfies readonly RegisterName[]) {
          expect(inBits(cpu.get(name), 32), name).toBe(true);
        }
        // Whatever the registers hold, execution goes on without an error of this model.
        cpu.run(50);
      }),
      runs(80),
    );
  });
});
