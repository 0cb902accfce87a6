/**
 * Rearrangement of lanes (SDM vol. 2: PACKSSDW to PACKUSWB, PUNPCKHBW to PUNPCKLWD, PSHUFD to PSHUFW, SHUFPS,
 * UNPCKLPS, PEXTRW, PINSRW, PMOVMSKB). The result is put together in T2 and T3, as sources and
 * destination may be one register.
 */
import { mmxAvailable, simdAvailable } from '../float-availability.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import { enterMmx, wroteMmx } from '../mmx-state.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { bothRows, type PackedOperation, type Width, xmmRow } from './packed-lanes.ts';

const RESULT = 8 * Register.T2;

function take(cpu: Processor, d: number, bytes: Width): void {
  for (let n = 0; n < bytes >> 2; n++) cpu.i32[(d >> 2) + n] = cpu.i32[(RESULT >> 2) + n] as number;
}

/** Interleaves lanes of `size` bytes of the low or high halves: destination first. */
function unpack(size: 1 | 2 | 4 | 8, half: 'low' | 'high'): PackedOperation {
  return (cpu, d, s, bytes) => {
    const { u8 } = cpu;
    const start = half === 'low' ? 0 : bytes >> 1;
    for (let n = 0; n < bytes >> 1; n++) {
      const to = RESULT + 2 * (n - (n % size)) + (n % size);
      u8[to] = u8[d + start + n] as number;
      u8[to + size] = u8[s + start + n] as number;
    }
    take(cpu, d, bytes);
  };
}

const saturate = (value: number, least: number, most: number) => Math.min(Math.max(value, least), most);
const signed16 = (a: number) => (a << 16) >> 16;

/** PACKSSWB and PACKUSWB: signed words to bytes. */
function packWords(least: number, most: number): PackedOperation {
  return (cpu, d, s, bytes) => {
    const { u8, u16 } = cpu;
    const half = bytes >> 1;
    for (let n = 0; n < half; n++) {
      u8[RESULT + n] = saturate(signed16(u16[(d >> 1) + n] as number), least, most);
      u8[RESULT + half + n] = saturate(signed16(u16[(s >> 1) + n] as number), least, most);
    }
    take(cpu, d, bytes);
  };
}

/** PACKSSDW. */
const packDoublewords: PackedOperation = (cpu, d, s, bytes) => {
  const { i32, u16 } = cpu;
  const half = bytes >> 2;
  for (let n = 0; n < half; n++) {
    u16[(RESULT >> 1) + n] = saturate(i32[(d >> 2) + n] as number, -0x8000, 0x7fff);
    u16[(RESULT >> 1) + half + n] = saturate(i32[(s >> 2) + n] as number, -0x8000, 0x7fff);
  }
  take(cpu, d, bytes);
};

/** Puts the words of the 8 bytes at `s` that the immediate selects at `to`. */
function selectWords(cpu: Processor, to: number, s: number, immediate: number): void {
  const { u16 } = cpu;
  for (let n = 0; n < 4; n++) u16[(RESULT >> 1) + n] = u16[(s >> 1) + ((immediate >> (2 * n)) & 3)] as number;
  take(cpu, to, 8);
}

function copyHalf({ i32 }: Processor, to: number, from: number): void {
  i32[to >> 2] = i32[from >> 2] as number;
  i32[(to >> 2) + 1] = i32[(from >> 2) + 1] as number;
}

const pshufw: Execute = (cpu, i) => {
  selectWords(cpu, i.d, i.s, i.immediate);
  enterMmx(cpu);
  return wroteMmx(cpu, i.d);
};

const pshuflw: Execute = (cpu, i) => {
  copyHalf(cpu, i.d + 8, i.s + 8);
  selectWords(cpu, i.d, i.s, i.immediate);
  return Next.Sequential;
};

const pshufhw: Execute = (cpu, i) => {
  copyHalf(cpu, i.d, i.s);
  selectWords(cpu, i.d + 8, i.s + 8, i.immediate);
  return Next.Sequential;
};

/** Doubleword `n` of the result from `from`, selected by bits 2n+1:2n of the immediate. */
function selectDoubleword({ i32 }: Processor, i: Instruction, n: number, from: number): void {
  i32[(RESULT >> 2) + n] = i32[(from >> 2) + ((i.immediate >> (2 * n)) & 3)] as number;
}

const pshufd: Execute = (cpu, i) => {
  for (let n = 0; n < 4; n++) selectDoubleword(cpu, i, n, i.s);
  take(cpu, i.d, 16);
  return Next.Sequential;
};

const shufps: Execute = (cpu, i) => {
  for (let n = 0; n < 4; n++) selectDoubleword(cpu, i, n, n < 2 ? i.d : i.s);
  take(cpu, i.d, 16);
  return Next.Sequential;
};

const shufpd: Execute = (cpu, i) => {
  copyHalf(cpu, RESULT, i.d + 8 * (i.immediate & 1));
  copyHalf(cpu, RESULT + 8, i.s + 8 * ((i.immediate >> 1) & 1));
  take(cpu, i.d, 16);
  return Next.Sequential;
};

function writeGeneral({ i32 }: Processor, at: number, value: number): void {
  i32[at >> 2] = value;
  i32[(at >> 2) + 1] = 0;
}

/** The sign bits of `bytes` bytes as a number. */
function signs({ u8 }: Processor, s: number, bytes: Width): number {
  let mask = 0;
  for (let n = 0; n < bytes; n++) mask |= ((u8[s + n] as number) >> 7) << n;
  return mask;
}

const pmovmskb: Execute = (cpu, i) => {
  writeGeneral(cpu, i.d, signs(cpu, i.s, 16));
  return Next.Sequential;
};
const pmovmskbOfMmx: Execute = (cpu, i) => {
  writeGeneral(cpu, i.d, signs(cpu, i.s, 8));
  enterMmx(cpu);
  return Next.Sequential;
};

const pextrw: Execute = (cpu, i) => {
  writeGeneral(cpu, i.d, cpu.u16[(i.s >> 1) + (i.immediate & 7)] as number);
  return Next.Sequential;
};
const pextrwOfMmx: Execute = (cpu, i) => {
  writeGeneral(cpu, i.d, cpu.u16[(i.s >> 1) + (i.immediate & 3)] as number);
  enterMmx(cpu);
  return Next.Sequential;
};

const pinsrw: Execute = (cpu, i) => {
  cpu.u16[(i.d >> 1) + (i.immediate & 7)] = cpu.u16[i.s >> 1] as number;
  return Next.Sequential;
};
const pinsrwOfMmx: Execute = (cpu, i) => {
  cpu.u16[(i.d >> 1) + (i.immediate & 3)] = cpu.u16[i.s >> 1] as number;
  enterMmx(cpu);
  return wroteMmx(cpu, i.d);
};

const row = (opcode: string, mnemonic: string, operands: string, execute: Execute): OpcodeRow => ({
  opcode,
  mnemonic,
  operands,
  execute,
  guard: /[PQN]q/.test(operands) ? mmxAvailable : simdAvailable,
});

/** The unpacking of MMX reads only 4 bytes of memory for the low halves (SDM vol. 2, PUNPCKLBW). */
function unpackLow(opcode: string, mnemonic: string, size: 1 | 2 | 4): OpcodeRow[] {
  return bothRows(opcode, mnemonic, unpack(size, 'low')).map((both) =>
    both.operands === 'Pq Qq' ? { ...both, operands: 'Pq Qd' } : both,
  );
}

export const PACKED_SHUFFLE_ROWS: readonly OpcodeRow[] = [
  ...bothRows('63', 'PACKSSWB', packWords(-0x80, 0x7f)),
  ...bothRows('67', 'PACKUSWB', packWords(0, 0xff)),
  ...bothRows('6B', 'PACKSSDW', packDoublewords),
  ...unpackLow('60', 'PUNPCKLBW', 1),
  ...unpackLow('61', 'PUNPCKLWD', 2),
  ...unpackLow('62', 'PUNPCKLDQ', 4),
  ...bothRows('68', 'PUNPCKHBW', unpack(1, 'high')),
  ...bothRows('69', 'PUNPCKHWD', unpack(2, 'high')),
  ...bothRows('6A', 'PUNPCKHDQ', unpack(4, 'high')),
  xmmRow('6C', 'PUNPCKLQDQ', unpack(8, 'low')),
  xmmRow('6D', 'PUNPCKHQDQ', unpack(8, 'high')),
  row('NP 0F 70', 'PSHUFW', 'Pq Qq Ib', pshufw),
  row('66 0F 70', 'PSHUFD', 'Vdq Wdq Ib', pshufd),
  row('F3 0F 70', 'PSHUFHW', 'Vdq Wdq Ib', pshufhw),
  row('F2 0F 70', 'PSHUFLW', 'Vdq Wdq Ib', pshuflw),
  row('NP 0F C6', 'SHUFPS', 'Vps Wps Ib', shufps),
  row('66 0F C6', 'SHUFPD', 'Vpd Wpd Ib', shufpd),
  row('NP 0F C4', 'PINSRW', 'Pq Ew Ib', pinsrwOfMmx),
  row('66 0F C4', 'PINSRW', 'Vdq Ew Ib', pinsrw),
  row('NP 0F C5 mod=3', 'PEXTRW', 'Gd Nq Ib', pextrwOfMmx),
  row('66 0F C5 mod=3', 'PEXTRW', 'Gd Udq Ib', pextrw),
  row('NP 0F D7 mod=3', 'PMOVMSKB', 'Gd Nq', pmovmskbOfMmx),
  row('66 0F D7 mod=3', 'PMOVMSKB', 'Gd Udq', pmovmskb),
  ...[
    ['NP 0F 14', 'UNPCKLPS', 'Vps Wps', unpack(4, 'low')],
    ['66 0F 14', 'UNPCKLPD', 'Vpd Wpd', unpack(8, 'low')],
    ['NP 0F 15', 'UNPCKHPS', 'Vps Wps', unpack(4, 'high')],
    ['66 0F 15', 'UNPCKHPD', 'Vpd Wpd', unpack(8, 'high')],
  ].map(([opcode, mnemonic, operands, operation]) =>
    row(opcode as string, mnemonic as string, operands as string, (cpu, i) => {
      (operation as PackedOperation)(cpu, i.d, i.s, 16);
      return Next.Sequential;
    }),
  ),
];
