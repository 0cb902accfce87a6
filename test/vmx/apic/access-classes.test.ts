import { describe, expect, it } from 'vitest';
import { ApicControl, isReadVirtualized, isWriteVirtualized } from '../../../src/vmx/apic/access-classes.ts';

const { TprShadow, InterruptDelivery, Registers, Ipis } = ApicControl;

/** First and last byte of what "APIC-register virtualization" covers, as SDM §32.4.3.1 and §32.4.2 list it. */
const WRITE_RANGES = [
  '020-023 080-083 0B0-0B3 0D0-0D3 0E0-0E3 0F0-0F3 280-283 300-303 310-313',
  '320-323 330-333 340-343 350-353 360-363 370-373 380-383 3E0-3E3',
].join(' ');
const READ_RANGES = [
  WRITE_RANGES,
  '030-033 100-103 110-113 120-123 130-133 140-143 150-153 160-163 170-173',
  '180-183 190-193 1A0-1A3 1B0-1B3 1C0-1C3 1D0-1D3 1E0-1E3 1F0-1F3',
  '200-203 210-213 220-223 230-233 240-243 250-253 260-263 270-273',
].join(' ');

function ranges(text: string): (readonly [number, number])[] {
  return text.split(' ').map((range) => {
    const [first = '', last = ''] = range.split('-');
    return [Number.parseInt(first, 16), Number.parseInt(last, 16)] as const;
  });
}

/** The rules in the order of the manual. */
function expected(kind: 'read' | 'write', controls: number, offset: number, bytes: number): boolean {
  const on = (control: number) => (controls & control) !== 0;
  if (!on(TprShadow)) return false;
  if (bytes > 4) return false;
  const last = offset + bytes - 1;
  if ((offset & 0xc) !== 0 || (last & 0xc) !== 0 || offset >> 4 !== last >> 4) return false;
  if (offset === 0x080) return true;
  if (on(InterruptDelivery) && (offset === 0x0b0 || offset === 0x300)) return true;
  if (kind === 'write' && on(Ipis) && offset === 0x300) return true;
  const covered = ranges(kind === 'read' ? READ_RANGES : WRITE_RANGES);
  return on(Registers) && covered.some(([first, end]) => first <= offset && last <= end);
}

describe('accesses to the APIC-access page (SDM §32.4.2, §32.4.3.1)', () => {
  for (const kind of ['read', 'write'] as const) {
    it(`every ${kind}: offset × size × controls`, () => {
      const decide = kind === 'read' ? isReadVirtualized : isWriteVirtualized;
      const wrong: string[] = [];
      let virtualized = 0;
      for (let controls = 0; controls < 16; controls++) {
        for (const bytes of [1, 2, 3, 4, 6, 8, 16]) {
          for (let offset = 0; offset + bytes <= 0x1000; offset++) {
            const answer = decide(controls, offset, bytes);
            if (answer) virtualized++;
            // The ranges are only looked at where they matter.
            const within = (offset & 15) + bytes <= 4;
            if (answer !== (within && expected(kind, controls, offset, bytes))) {
              wrong.push(`${controls} ${offset.toString(16)} ${bytes}`);
            }
          }
        }
      }
      expect(wrong).toEqual([]);
      // A register has 4 + 3 + 2 + 1 accesses of one to four bytes; without ARV four, at its offset.
      const registers = kind === 'read' ? 42 : 17;
      const withRegisters = 4 * registers * 10;
      const without = kind === 'read' ? 2 * (4 + 12) : 4 + 8 + 12 + 12;
      expect(virtualized).toBe(withRegisters + without);
    });
  }
});
