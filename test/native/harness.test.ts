import { describe, expect, it } from 'vitest';
import { CaseBuilder } from './case-builder.ts';
import { makeCase, TEMPLATES } from './cases.ts';
import { compare } from './compare.ts';
import { buildHarness, executeNatively, hostFeatures, whyNotNative } from './harness.ts';
import { CODE_PAGE, DATA_PAGE, DATA_WINDOW, type NativeCase, PAGE } from './native-case.ts';
import { AF, CF, OF, PF, RAX, RBX, RCX, RDI, RDX, RSI, RSP, SF, ZF } from './operands.ts';
import { caseLine, parseLine, recordLine } from './recording.ts';

const ARITHMETIC_FLAGS = CF | PF | AF | ZF | SF | OF;
const START = BigInt(CODE_PAGE + 0x800);
const DATA = BigInt(DATA_PAGE + DATA_WINDOW);

function caseOf(code: string, change: (c: CaseBuilder) => void = () => undefined): NativeCase {
  const c = new CaseBuilder('by-hand', 1);
  c.raw(...Buffer.from(code, 'hex'));
  change(c);
  return c.finish();
}

function run(code: string, change?: (c: CaseBuilder) => void) {
  const [result] = executeNatively([caseOf(code, change)]);
  if (result === undefined) throw new Error('no result');
  return result;
}

describe.skipIf(whyNotNative() !== undefined)('the native harness, against results known by hand', () => {
  buildHarness();

  it('executes one instruction and returns registers and flags', () => {
    // ADD RAX, RBX
    const result = run('4801d8', (c) => {
      c.gprs[RAX] = 0x7fff_ffff_ffff_ffffn;
      c.gprs[RBX] = 1n;
    });
    expect(result.fault).toBeUndefined();
    expect(result.rip).toBe(START + 3n);
    expect(result.gprs[RAX]).toBe(1n << 63n);
    expect(result.rflags & ARITHMETIC_FLAGS).toBe(OF | SF | AF | PF);
  });

  it('returns the changed bytes of memory', () => {
    // MOV [RDI], AX
    const result = run('668907', (c) => {
      c.gprs[RDI] = DATA + 2n;
      c.gprs[RAX] = 0x1122n;
      c.data.fill(0);
    });
    expect([...result.changes]).toEqual([
      [DATA_WINDOW + 2, 0x22],
      [DATA_WINDOW + 3, 0x11],
    ]);
  });

  it('carries a repeated instruction to its end', () => {
    // REP STOSB
    const result = run('f3aa', (c) => {
      c.repeats = true;
      c.gprs[RDI] = DATA;
      c.gprs[RCX] = 5n;
      c.gprs[RAX] = 0x77n;
      c.data.fill(0);
    });
    expect(result.rip).toBe(START + 2n);
    expect(result.gprs[RCX]).toBe(0n);
    expect(result.gprs[RDI]).toBe(DATA + 5n);
    expect(result.changes.size).toBe(5);
  });

  it('stops a repeated instruction at the page that is not present', () => {
    // REP MOVSB
    const result = run('f3a4', (c) => {
      c.repeats = true;
      c.gprs[RSI] = DATA;
      c.gprs[RDI] = BigInt(DATA_PAGE + PAGE - 3);
      c.gprs[RCX] = 5n;
      c.data.fill(1);
      c.data.fill(0, 253);
    });
    expect(result.fault).toEqual({ vector: 14, error: 6, address: BigInt(DATA_PAGE + PAGE) });
    expect(result.rip).toBe(START);
    expect(result.gprs[RCX]).toBe(2n);
    expect(result.changes.size).toBe(3);
  });

  it.each([
    ['DIV by zero', 'f7f1', { vector: 0, error: 0, address: 0n }],
    ['UD2', '0f0b', { vector: 6, error: 0, address: 0n }],
    ['HLT', 'f4', { vector: 13, error: 0, address: 0n }],
    ['INT 21H', 'cd21', { vector: 13, error: 0x21 * 8 + 2, address: 0n }],
    ['a load from a page not present', '8b02', { vector: 14, error: 4, address: 0x5000n }],
    ['a store to a page not present', '8902', { vector: 14, error: 6, address: 0x5000n }],
    ['a store to the code page', '890500000000', { vector: 14, error: 7, address: START + 6n }],
  ])('reports %s with vector, error code and CR2, and changes nothing', (_, code, fault) => {
    const before = caseOf(code, (c) => {
      c.gprs[RCX] = 0n;
      c.gprs[RDX] = 0x5000n;
    });
    const [result] = executeNatively([before]);
    expect(result?.fault).toEqual(fault);
    expect(result?.rip).toBe(START);
    expect(result?.gprs).toEqual(before.gprs);
  });

  it('faults where the instruction goes on into a page that is not present', () => {
    const result = run('0fafc3', (c) => {
      c.codeOffset = PAGE - 2;
    });
    expect(result.fault).toEqual({ vector: 14, error: 0x14, address: BigInt(CODE_PAGE + PAGE) });
  });

  it('takes TF out of an image of RFLAGS that was pushed', () => {
    // PUSHFQ
    const result = run('9c', (c) => {
      c.pushesFlags = true;
      c.rflags = 2 | CF;
      c.stack.fill(0xff);
    });
    const top = Number((result.gprs[RSP] as bigint) & 0xfffn) + PAGE;
    expect(result.changes.get(top)).toBe(3);
    expect(result.changes.get(top + 1)).toBe(2);
  });

  it('carries x87, MMX and SSE state', () => {
    // ADDPS XMM1, XMM2
    const result = run('0f58ca', (c) => {
      const view = c.withFx();
      view.setUint32(24, 0x1f80, true);
      for (let i = 0; i < 4; i++) {
        view.setFloat32(176 + 4 * i, i + 1, true);
        view.setFloat32(192 + 4 * i, 0.5, true);
      }
    });
    const view = new DataView((result.fx as Uint8Array).buffer);
    expect([0, 4, 8, 12].map((i) => view.getFloat32(176 + i, true))).toEqual([1.5, 2.5, 3.5, 4.5]);
    expect(view.getUint32(24, true)).toBe(0x1f80);
  });

  it('does every template twice with the same results, and every line read back is what was written', () => {
    const features = hostFeatures();
    const usable = TEMPLATES.filter(({ needs }) => needs === undefined || features.has(needs));
    const cases = usable.flatMap((template) => [1, 2, 3].map((seed) => makeCase(template, seed)));
    const first = executeNatively(cases);
    const second = executeNatively(cases);
    cases.forEach((c, i) => {
      const result = first[i] as (typeof first)[number];
      expect(compare(c, result, second[i] as typeof result)).toEqual([]);
      const line = recordLine(c, result);
      const back = parseLine(line);
      expect(recordLine(back.case, back.result)).toBe(line);
      expect(compare(back.case, result, back.result)).toEqual([]);
    });
  });
});

describe('the case generator', () => {
  it('makes the same case of the same seed, and every template emits instructions of 1 to 16 bytes', () => {
    for (const template of TEMPLATES) {
      for (let seed = 1; seed <= 20; seed++) {
        const c = makeCase(template, seed);
        expect(c.code.length).toBeGreaterThan(0);
        expect(caseLine(c)).toBe(caseLine(makeCase(template, seed)));
      }
    }
  });

  it('names templates once', () => {
    const names = TEMPLATES.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
  });
});
