/** Templates: shifts, rotates, bit tests and scans, BMI1 and BMI2. */
import type { CaseBuilder } from '../case-builder.ts';
import { AF, CF, isMemory, OF, type Operand, PF, RCX, SF, type Size, ZF } from '../operands.ts';
import { emitLockable } from './arithmetic.ts';
import type { Template } from './template.ts';

/** A shift count: near zero, near each operand size, or anything. */
function shiftCount(c: CaseBuilder): number {
  const { random } = c;
  const near = random.pick([0, 1, 1, 7, 8, 9, 15, 16, 17, 18, 24, 25, 26, 31, 32, 33, 63, 64]);
  return random.chance(50) ? near : random.below(256);
}

const SHIFTS = ['rol', 'ror', 'rcl', 'rcr', 'shl', 'shr', undefined, 'sar'] as const;

/** Flags undefined after a shift or rotate by `count` (masked). */
function undefinedAfterShift(digit: number, count: number, size: Size): number {
  if (count === 0) return 0;
  const overflow = count === 1 ? 0 : OF;
  if (digit < 4) return overflow;
  const carry = digit !== 7 && count >= size && size < 32 ? CF : 0;
  return overflow | AF | carry;
}

function shiftTemplate(name: string | undefined, digit: number): Template[] {
  if (name === undefined) return [];
  const build = (c: CaseBuilder) => {
    const size = c.size();
    const form = c.random.below(3);
    if (form === 2) c.reserve(RCX);
    const rm = c.operand(size);
    let count = 1;
    if (form !== 0) count = shiftCount(c);
    if (form === 0) c.emit({ opcode: [size === 8 ? 0xd0 : 0xd1], size, digit, rm });
    if (form === 1) c.emit({ opcode: [size === 8 ? 0xc0 : 0xc1], size, digit, rm, immediate: [count] });
    if (form === 2) {
      c.emit({ opcode: [size === 8 ? 0xd2 : 0xd3], size, digit, rm });
      c.gprs[RCX] = ((c.gprs[RCX] as bigint) & ~0xffn) | BigInt(count);
    }
    c.undefinedFlags = undefinedAfterShift(digit, count & (size === 64 ? 63 : 31), size);
  };
  return [{ name, build }];
}

function doubleShift(name: string, opcode: number): Template {
  return {
    name,
    build(c) {
      const size = c.wideSize();
      const byCl = c.random.chance(50);
      if (byCl) c.reserve(RCX);
      const rm = c.operand(size);
      const reg = c.register();
      let count = shiftCount(c);
      const masked = () => count & (size === 64 ? 63 : 31);
      // The result is undefined then; a register can be left out of the comparison, memory cannot.
      if (masked() > size && isMemory(rm)) count &= 15;
      if (byCl) {
        c.emit({ opcode: [0x0f, opcode + 1], size, reg, rm });
        c.gprs[RCX] = ((c.gprs[RCX] as bigint) & ~0xffn) | BigInt(count);
      } else c.emit({ opcode: [0x0f, opcode], size, reg, rm, immediate: [count] });
      if (masked() > size) {
        c.undefinedFlags = CF | OF | SF | ZF | AF | PF;
        if (!isMemory(rm)) c.undefinedRegisters = 1 << rm.register;
      } else if (masked() !== 0) c.undefinedFlags = AF | (masked() === 1 ? 0 : OF);
    },
  };
}

const BIT_TESTS = ['bt', 'bts', 'btr', 'btc'] as const;

function bitTest(name: string, index: number): Template {
  return {
    name,
    build(c) {
      const { random } = c;
      c.undefinedFlags = OF | SF | AF | PF;
      const size = c.wideSize();
      const align = size / 8;
      const emit = (form: {
        opcode: number[];
        rm: Operand;
        reg?: number;
        digit?: number;
        immediate?: number[];
      }) => (index === 0 ? c.emit({ ...form, size }) : emitLockable(c, { ...form, size }));
      if (random.chance(40)) {
        const rm = c.operand(size, { align });
        return emit({ opcode: [0x0f, 0xba], digit: 4 + index, rm, immediate: [random.below(256)] });
      }
      const reg = c.register();
      const opcode = [0x0f, 0xa3 + 8 * index];
      if (random.chance(40)) return emit({ opcode, reg, rm: { register: c.register() } });
      // The bit offset in a register reaches outside the operand: the operand is placed so that the bit
      // is in the window.
      c.reserve(reg);
      const offset = BigInt.asIntN(
        size,
        random.chance(50) ? random.edge() : BigInt(random.below(2048) - 1024),
      );
      const shift = BigInt({ 8: 3, 16: 4, 32: 5, 64: 6 }[size]);
      const target = c.address(size / 8, { align });
      const at = BigInt.asUintN(64, target - (offset >> shift) * BigInt(size / 8));
      const canonical = BigInt.asIntN(48, at) === BigInt.asIntN(64, at);
      if (!canonical && index !== 0) c.reserve(reg);
      emit({ opcode, reg, rm: c.memory(size / 8, { at }) });
      c.setValue({ register: reg }, size, BigInt.asUintN(size, offset));
    },
  };
}

function scan(name: string, opcode: number): Template {
  return {
    name,
    build(c) {
      c.undefinedFlags = CF | OF | SF | AF | PF;
      const size = c.wideSize();
      const rm = c.operand(size, { valid: true });
      const reg = c.register();
      c.emit({ opcode: [0x0f, opcode], size, reg, rm, redundant: 'segment' });
      if (c.valueOf(rm, size) === 0n) c.undefinedRegisters = 1 << reg;
    },
  };
}

function countZeros(name: string, opcode: number): Template {
  return {
    name,
    needs: name === 'lzcnt' ? 'abm' : 'bmi1',
    build(c) {
      c.undefinedFlags = OF | SF | AF | PF;
      const size = c.wideSize();
      const rm = c.operand(size);
      const reg = c.register();
      c.emit({ opcode: [0x0f, opcode], mandatory: 0xf3, size, reg, rm, redundant: 'segment' });
    },
  };
}

function popcnt(c: CaseBuilder): void {
  const size = c.wideSize();
  const rm = c.operand(size);
  c.emit({ opcode: [0x0f, 0xb8], mandatory: 0xf3, size, reg: c.register(), rm, redundant: 'segment' });
}

interface BmiRow {
  readonly name: string;
  readonly needs: 'bmi1' | 'bmi2';
  readonly pp: 0 | 1 | 2 | 3;
  readonly opcode: number;
  readonly digit?: number;
  readonly undefinedFlags: number;
  /** The second source, in VEX.vvvv, is an index or count. */
  readonly control?: boolean;
}

const BMI: readonly BmiRow[] = [
  { name: 'andn', needs: 'bmi1', pp: 0, opcode: 0xf2, undefinedFlags: AF | PF },
  { name: 'blsr', needs: 'bmi1', pp: 0, opcode: 0xf3, digit: 1, undefinedFlags: AF | PF },
  { name: 'blsmsk', needs: 'bmi1', pp: 0, opcode: 0xf3, digit: 2, undefinedFlags: AF | PF },
  { name: 'blsi', needs: 'bmi1', pp: 0, opcode: 0xf3, digit: 3, undefinedFlags: AF | PF },
  { name: 'bextr', needs: 'bmi1', pp: 0, opcode: 0xf7, undefinedFlags: AF | SF | PF, control: true },
  { name: 'bzhi', needs: 'bmi2', pp: 0, opcode: 0xf5, undefinedFlags: AF | PF, control: true },
  { name: 'mulx', needs: 'bmi2', pp: 3, opcode: 0xf6, undefinedFlags: 0 },
  { name: 'pdep', needs: 'bmi2', pp: 3, opcode: 0xf5, undefinedFlags: 0 },
  { name: 'pext', needs: 'bmi2', pp: 2, opcode: 0xf5, undefinedFlags: 0 },
  { name: 'shlx', needs: 'bmi2', pp: 1, opcode: 0xf7, undefinedFlags: 0, control: true },
  { name: 'sarx', needs: 'bmi2', pp: 2, opcode: 0xf7, undefinedFlags: 0, control: true },
  { name: 'shrx', needs: 'bmi2', pp: 3, opcode: 0xf7, undefinedFlags: 0, control: true },
];

function bmi(row: BmiRow): Template {
  return {
    name: row.name,
    needs: row.needs,
    build(c) {
      const { random } = c;
      c.undefinedFlags = row.undefinedFlags;
      const size = c.longSize();
      const vvvv = c.register();
      if (row.control) c.reserve(vvvv);
      const rm = c.operand(size);
      const reg = row.digit === undefined ? { reg: c.register() } : { digit: row.digit };
      c.emitVex({ map: 2, pp: row.pp, w: size === 64 ? 1 : 0, vvvv, opcode: row.opcode, ...reg, rm });
      if (row.control && random.chance(70)) {
        c.gprs[vvvv] = BigInt(random.below(80)) | (BigInt(random.below(80)) << 8n) | (random.edge() << 16n);
        c.gprs[vvvv] = BigInt.asUintN(64, c.gprs[vvvv] as bigint);
      }
    },
  };
}

function rorx(c: CaseBuilder): void {
  const w = c.longSize() === 64 ? 1 : 0;
  const rm = c.operand(w ? 64 : 32);
  c.emitVex({ map: 3, pp: 3, w, opcode: 0xf0, reg: c.register(), rm, immediate: [c.random.below(256)] });
}

/** A VEX prefix after 66H, F2H, F3H, LOCK or REX is #UD (SDM vol. 2A §2.3.2 to §2.3.4). */
function badVex(c: CaseBuilder): void {
  const prefix = c.random.pick([0x66, 0xf2, 0xf3, 0xf0, 0x48, 0x40]);
  c.raw(prefix, 0xc4, 0xe2, 0x78, 0xf2, 0xc0 | c.random.below(64));
}

export const BITS: readonly Template[] = [
  ...SHIFTS.flatMap(shiftTemplate),
  doubleShift('shld', 0xa4),
  doubleShift('shrd', 0xac),
  ...BIT_TESTS.map(bitTest),
  scan('bsf', 0xbc),
  scan('bsr', 0xbd),
  countZeros('tzcnt', 0xbc),
  countZeros('lzcnt', 0xbd),
  { name: 'popcnt', needs: 'popcnt', build: popcnt },
  ...BMI.map(bmi),
  { name: 'rorx', needs: 'bmi2', build: rorx },
  { name: 'vex.bad-prefix', needs: 'bmi1', build: badVex },
];
