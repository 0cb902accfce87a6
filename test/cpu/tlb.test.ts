/** The table of the fast path: entries of several settings beside each other. */
import { beforeEach, describe, expect, it } from 'vitest';
import { Access, SETTING_WORDS, TLB_BYTES, Tlb } from '../../src/cpu/tlb.ts';

const ALL = Access.Read | Access.Write | Access.Fetch;
const setting = (...words: number[]) => Int32Array.from({ length: SETTING_WORDS }, (_, n) => words[n] ?? 0);
let tlb: Tlb;

beforeEach(() => {
  tlb = new Tlb(new ArrayBuffer(TLB_BYTES), 0);
});

describe('a view', () => {
  it('finds what was entered into it with the rights that were given', () => {
    tlb.select(setting(1));
    tlb.enter(0x5123, 7, 0x9000, 0x40, Access.Read);
    const entry = tlb.find(0x5fff, 7, Access.Read);
    expect(tlb.physical[entry]).toBe(0x9000);
    expect(tlb.find(0x5fff, 7, Access.Write)).toBe(-1);
    expect(tlb.find(0x5fff, 6, Access.Read)).toBe(-1);
    expect(tlb.find(0x6000, 7, Access.Read)).toBe(-1);
  });

  it('finds nothing at page 0 before anything was entered, selected or not', () => {
    expect(tlb.find(0, 0, 0)).toBe(-1);
    tlb.select(setting(1));
    expect(tlb.find(0, 0, 0)).toBe(-1);
    tlb.leaveView();
    expect(tlb.find(0, 0, 0)).toBe(-1);
  });

  it.each(Array.from({ length: SETTING_WORDS }, (_, word) => word))(
    'is another one if word %i differs',
    (word) => {
      const [one, other] = [setting(), setting()];
      other[word] = 1;
      tlb.select(one);
      tlb.enter(0x5000, 0, 0x9000, 0x40, ALL);
      tlb.select(other);
      expect(tlb.find(0x5000, 0, ALL)).toBe(-1);
      tlb.select(one);
      expect(tlb.find(0x5000, 0, ALL)).not.toBe(-1);
    },
  );

  it('is found again after four others were selected only if it was kept', () => {
    for (let n = 0; n < 4; n++) {
      tlb.select(setting(n));
      tlb.enter(0x1000 * n, 0, 0x1000 * n, 0x40, ALL);
    }
    for (let n = 0; n < 4; n++) {
      tlb.select(setting(n));
      expect(tlb.find(0x1000 * n, 0, ALL), `${n}`).toBe(n);
    }
    tlb.select(setting(4));
    tlb.select(setting(0));
    expect(tlb.find(0, 0, ALL)).toBe(-1);
  });

  it('loses everything to forgetAll, whichever is selected', () => {
    tlb.select(setting(1));
    tlb.enter(0x1000, 0, 0x1000, 0x40, ALL);
    tlb.select(setting(2));
    tlb.enter(0x2000, 0, 0x2000, 0x40, ALL);
    tlb.forgetAll();
    expect(tlb.hasLeft).toBe(true);
    for (const n of [1, 2]) {
      tlb.select(setting(n));
      expect(tlb.find(0x1000 * n, 0, ALL)).toBe(-1);
    }
  });

  it('loses a page to forgetPage also while another is selected', () => {
    tlb.select(setting(1));
    tlb.enter(0x1000, 3, 0x1000, 0x40, ALL);
    tlb.select(setting(2));
    tlb.forgetPage(0x1000, 3);
    tlb.select(setting(1));
    expect(tlb.find(0x1000, 3, ALL)).toBe(-1);
  });

  it('is never confused with an old one, however many there have been', () => {
    tlb.select(setting(0));
    tlb.enter(0x5000, 0, 0x9000, 0x40, ALL);
    for (let n = 1; n < 5000; n++) {
      tlb.select(setting(n));
      expect(tlb.find(0x5000, 0, ALL), `${n}`).toBe(-1);
    }
  });
});
