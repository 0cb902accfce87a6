/** Differences between what the processor did and what vmxon did, without what the manual leaves undefined. */
import {
  CODE_PAGE,
  type Fault,
  initialMemory,
  type NativeCase,
  type NativeResult,
  PAGE,
} from './native-case.ts';

const NAMES = ['RAX', 'RCX', 'RDX', 'RBX', 'RSP', 'RBP', 'RSI', 'RDI'];
const GPR_NAMES: readonly string[] = [...NAMES, ...Array.from({ length: 8 }, (_, i) => `R${8 + i}`)];

/** Arithmetic flags, IF, DF, IOPL, NT, AC, ID: not TF, which the harness steps with, nor RF. */
const COMPARED_FLAGS = 0x8d5 | 0x200 | 0x400 | 0x3000 | 0x4000 | 0x4_0000 | 0x20_0000;
const DIVIDE_ERROR = 0;
const PAGE_FAULT = 14;

export interface Difference {
  readonly what: string;
  readonly native: string;
  readonly vmxon: string;
}

const FLAG_NAMES: readonly (readonly [number, string])[] = [
  [0, 'CF'],
  [2, 'PF'],
  [4, 'AF'],
  [6, 'ZF'],
  [7, 'SF'],
  [9, 'IF'],
  [10, 'DF'],
  [11, 'OF'],
  [12, 'IOPL0'],
  [13, 'IOPL1'],
  [14, 'NT'],
  [18, 'AC'],
  [21, 'ID'],
];

/** Names of the flags set. */
function describeFlags(flags: number): string {
  const set = FLAG_NAMES.filter(([position]) => flags & (1 << position)).map(([, name]) => name);
  return set.join(' ') || 'none';
}

const hex = (value: bigint | number) => `${value.toString(16)}H`;

/**
 * The operating system that reports a fault at an address of its own half says that the page is present
 * whether it is or not.
 */
function describeFault(fault: Fault | undefined): string {
  if (fault === undefined) return 'no fault';
  const kernel = fault.vector === PAGE_FAULT && fault.address >= 1n << 47n;
  const error = kernel ? fault.error | 1 : fault.error;
  const address = fault.vector === PAGE_FAULT ? ` at ${hex(fault.address)}` : '';
  return `vector ${fault.vector} error ${hex(error)}${address}`;
}

/** Regions of an FXSAVE image that are compared: offset, bytes, name. Instruction and data pointers are not. */
const FX_REGIONS: readonly (readonly [number, number, string])[] = [
  [0, 2, 'FCW'],
  [2, 2, 'FSW'],
  [4, 1, 'FTW'],
  [24, 4, 'MXCSR'],
  ...Array.from({ length: 8 }, (_, i) => [32 + 16 * i, 10, `ST${i}`] as const),
  ...Array.from({ length: 16 }, (_, i) => [160 + 16 * i, 16, `XMM${i}`] as const),
];

/** Whether two x87 registers hold numbers of one sign at most `places` units in the last place apart. */
function isNear(a: Uint8Array, b: Uint8Array, places: number): boolean {
  const [one, other] = [a, b].map((bytes) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const signExponent = view.getUint16(8, true);
    const exponent = BigInt(signExponent & 0x7fff);
    // Counts the values of the format from 0 on.
    const count = view.getBigUint64(0, true) + (exponent === 0n ? 0n : (exponent - 1n) << 63n);
    return { sign: signExponent >> 15, count, isNumber: exponent !== 0x7fffn };
  }) as [Ordinal, Ordinal];
  const distance = one.count > other.count ? one.count - other.count : other.count - one.count;
  return one.isNumber && other.isNumber && one.sign === other.sign && distance <= BigInt(places);
}

interface Ordinal {
  readonly sign: number;
  readonly count: bigint;
  readonly isNumber: boolean;
}

const bigEndianHex = (bytes: Uint8Array) => Buffer.from(bytes).reverse().toString('hex');

function compareFx(c: NativeCase, native: Uint8Array, vmxon: Uint8Array, add: (d: Difference) => void): void {
  for (const [offset, length, what] of FX_REGIONS) {
    const masked = (bytes: Uint8Array) => {
      const region = bytes.slice(offset, offset + length);
      if (what === 'FSW') {
        region[0] = (region[0] as number) & ~c.undefined.statusWord;
        region[1] = (region[1] as number) & ~(c.undefined.statusWord >> 8);
      }
      return bigEndianHex(region);
    };
    const { lastPlaces } = c.undefined;
    const part = (bytes: Uint8Array) => bytes.slice(offset, offset + length);
    if (lastPlaces > 0 && what.startsWith('ST') && isNear(part(native), part(vmxon), lastPlaces)) continue;
    if (masked(native) !== masked(vmxon)) add({ what, native: masked(native), vmxon: masked(vmxon) });
  }
}

/** Everything in which the two results differ. */
export function compare(c: NativeCase, native: NativeResult, vmxon: NativeResult): Difference[] {
  const differences: Difference[] = [];
  const check = (what: string, a: string, b: string) => {
    if (a !== b) differences.push({ what, native: a, vmxon: b });
  };
  check('fault', describeFault(native.fault), describeFault(vmxon.fault));
  // Compatibility mode leaves bits 63:32 undefined (SDM vol. 1 §3.4.1.1).
  const value = (register: bigint) => hex(BigInt.asUintN(c.bits, register));
  check('RIP', value(native.rip), value(vmxon.rip));
  const executed = native.fault === undefined;
  const undefinedFlags = executed || native.fault?.vector === DIVIDE_ERROR ? c.undefined.flags : 0;
  const flags = COMPARED_FLAGS & ~undefinedFlags;
  check('RFLAGS', describeFlags(native.rflags & flags), describeFlags(vmxon.rflags & flags));
  for (let i = 0; i < 16; i++) {
    if (executed && c.undefined.registers & (1 << i)) continue;
    check(GPR_NAMES[i] as string, value(native.gprs[i] as bigint), value(vmxon.gprs[i] as bigint));
  }
  if (native.fx && vmxon.fx) compareFx(c, native.fx, vmxon.fx, (d) => differences.push(d));
  compareMemory(c, native, vmxon, check);
  return differences;
}

function compareMemory(
  c: NativeCase,
  native: NativeResult,
  vmxon: NativeResult,
  check: (what: string, a: string, b: string) => void,
): void {
  const offsets = [...new Set([...native.changes.keys(), ...vmxon.changes.keys()])].sort((a, b) => a - b);
  if (offsets.length === 0) return;
  const before = initialMemory(c);
  const byte = (result: NativeResult, offset: number) =>
    hex(result.changes.get(offset) ?? (before[offset] as number));
  for (const offset of offsets) {
    const where = offset < PAGE ? `data+${hex(offset)}` : `stack+${hex(offset - PAGE)}`;
    check(where, byte(native, offset), byte(vmxon, offset));
  }
}

/** The value before the instruction of what a {@link Difference} names, or an empty string. */
export function initialValue(c: NativeCase, what: string): string {
  const register = GPR_NAMES.indexOf(what);
  if (register >= 0) return hex(c.gprs[register] as bigint);
  if (what === 'RFLAGS') return describeFlags(c.rflags & COMPARED_FLAGS);
  if (what === 'RIP') return hex(CODE_PAGE + c.codeOffset);
  const region = FX_REGIONS.find(([, , name]) => name === what);
  if (region && c.fx) return bigEndianHex(c.fx.subarray(region[0], region[0] + region[1]));
  const place = /^(data|stack)\+([0-9a-f]+)H$/.exec(what);
  if (!place) return '';
  const offset = Number.parseInt(place[2] as string, 16) + (place[1] === 'stack' ? PAGE : 0);
  return hex(initialMemory(c)[offset] as number);
}
