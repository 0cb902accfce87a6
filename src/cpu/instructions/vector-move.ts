/** Moves of XMM registers (SDM vol. 2: MOVAPS to MOVUPD, MASKMOVDQU). Low to high, by 32-bit words. */
import { simdAvailable, simdWithMmxAvailable } from '../float-availability.ts';
import { type Execute, Next } from '../instruction.ts';
import { enterMmx, wroteMmx } from '../mmx-state.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { storeMasked } from './masked-store.ts';

/** Copies 16 bytes between byte offsets of the state. */
function copy128(cpu: Processor, to: number, from: number): Next {
  const w = cpu.i32;
  w[to >> 2] = w[from >> 2] as number;
  w[(to >> 2) + 1] = w[(from >> 2) + 1] as number;
  w[(to >> 2) + 2] = w[(from >> 2) + 2] as number;
  w[(to >> 2) + 3] = w[(from >> 2) + 3] as number;
  return Next.Sequential;
}

/** Copies 8 bytes. */
export function copy64(cpu: Processor, to: number, from: number): Next {
  const w = cpu.i32;
  w[to >> 2] = w[from >> 2] as number;
  w[(to >> 2) + 1] = w[(from >> 2) + 1] as number;
  return Next.Sequential;
}

function clearUpper(cpu: Processor, at: number): Next {
  const w = cpu.i32;
  w[(at >> 2) + 2] = 0;
  w[(at >> 2) + 3] = 0;
  return Next.Sequential;
}

const whole: Execute = (cpu, i) => copy128(cpu, i.d, i.s);

/** MOVSS and MOVSD from memory clear the rest of the register; between registers they keep it. */
const loadSingle: Execute = (cpu, i) => {
  const w = cpu.i32;
  w[i.d >> 2] = w[i.s >> 2] as number;
  if (!i.hasMemory) return Next.Sequential;
  w[(i.d >> 2) + 1] = 0;
  return clearUpper(cpu, i.d);
};
const loadDouble: Execute = (cpu, i) => {
  copy64(cpu, i.d, i.s);
  return i.hasMemory ? clearUpper(cpu, i.d) : Next.Sequential;
};
const storeSingle: Execute = (cpu, i) => {
  cpu.i32[i.d >> 2] = cpu.i32[i.s >> 2] as number;
  return Next.Sequential;
};

const toLow: Execute = (cpu, i) => copy64(cpu, i.d, i.s);
const toHigh: Execute = (cpu, i) => copy64(cpu, i.d + 8, i.s);
const highToLow: Execute = (cpu, i) => copy64(cpu, i.d, i.s + 8);
/** MOVQ: the upper half of a destination register becomes 0. */
const quad: Execute = (cpu, i) => {
  copy64(cpu, i.d, i.s);
  return clearUpper(cpu, i.d);
};
const quadOut: Execute = (cpu, i) => {
  copy64(cpu, i.d, i.s);
  return i.hasMemory ? Next.Sequential : clearUpper(cpu, i.d);
};

/** MOVD and MOVQ from a general register or memory. */
const fromGeneral: Execute = (cpu, i) => {
  const w = cpu.i32;
  const high = i.operandBits === 64 ? (w[(i.s >> 2) + 1] as number) : 0;
  w[i.d >> 2] = w[i.s >> 2] as number;
  w[(i.d >> 2) + 1] = high;
  return clearUpper(cpu, i.d);
};

/** MOVD and MOVQ to a general register or memory; also of MMX registers. */
export const toGeneral: Execute = (cpu, i) => {
  const w = cpu.i32;
  w[i.d >> 2] = w[i.s >> 2] as number;
  w[(i.d >> 2) + 1] = i.operandBits === 64 ? (w[(i.s >> 2) + 1] as number) : 0;
  return Next.Sequential;
};

const signsOfSingles: Execute = (cpu, i) => {
  const w = cpu.i32;
  let mask = 0;
  for (let n = 0; n < 4; n++) mask |= ((w[(i.s >> 2) + n] as number) >>> 31) << n;
  w[i.d >> 2] = mask;
  w[(i.d >> 2) + 1] = 0;
  return Next.Sequential;
};

const signsOfDoubles: Execute = (cpu, i) => {
  const w = cpu.i32;
  const mask = ((w[(i.s >> 2) + 1] as number) >>> 31) | (((w[(i.s >> 2) + 3] as number) >>> 31) << 1);
  w[i.d >> 2] = mask;
  w[(i.d >> 2) + 1] = 0;
  return Next.Sequential;
};

const fromMmx: Execute = (cpu, i) => {
  copy64(cpu, i.d, i.s);
  enterMmx(cpu);
  return clearUpper(cpu, i.d);
};

const toMmx: Execute = (cpu, i) => {
  copy64(cpu, i.d, i.s);
  enterMmx(cpu);
  return wroteMmx(cpu, i.d);
};

const maskedStore: Execute = (cpu, i) => storeMasked(cpu, i, 16);

const row = (opcode: string, mnemonic: string, operands: string, execute: Execute): OpcodeRow => ({
  opcode,
  mnemonic,
  operands,
  execute,
  guard: simdAvailable,
});

export const VECTOR_MOVE_ROWS: readonly OpcodeRow[] = [
  row('NP 0F 10', 'MOVUPS', 'Vx Wx', whole),
  row('66 0F 10', 'MOVUPD', 'Vx Wx', whole),
  row('NP 0F 11', 'MOVUPS', 'Wx= Vx', whole),
  row('66 0F 11', 'MOVUPD', 'Wx= Vx', whole),
  row('NP 0F 28', 'MOVAPS', 'Vps Wps', whole),
  row('66 0F 28', 'MOVAPD', 'Vpd Wpd', whole),
  row('NP 0F 29', 'MOVAPS', 'Wps= Vps', whole),
  row('66 0F 29', 'MOVAPD', 'Wpd= Vpd', whole),
  row('66 0F 6F', 'MOVDQA', 'Vdq Wdq', whole),
  row('66 0F 7F', 'MOVDQA', 'Wdq= Vdq', whole),
  row('F3 0F 6F', 'MOVDQU', 'Vx Wx', whole),
  row('F3 0F 7F', 'MOVDQU', 'Wx= Vx', whole),
  row('NP 0F 2B mod!=3', 'MOVNTPS', 'Mps= Vps', whole),
  row('66 0F 2B mod!=3', 'MOVNTPD', 'Mpd= Vpd', whole),
  row('66 0F E7 mod!=3', 'MOVNTDQ', 'Mdq= Vdq', whole),
  row('F3 0F 10', 'MOVSS', 'Vss Wss', loadSingle),
  row('F3 0F 11', 'MOVSS', 'Wss= Vss', storeSingle),
  row('F2 0F 10', 'MOVSD', 'Vsd Wsd', loadDouble),
  row('F2 0F 11', 'MOVSD', 'Wsd= Vsd', toLow),
  row('NP 0F 12 mod!=3', 'MOVLPS', 'Vps Mq', toLow),
  row('66 0F 12 mod!=3', 'MOVLPD', 'Vpd Mq', toLow),
  row('NP 0F 12 mod=3', 'MOVHLPS', 'Vps Ups', highToLow),
  row('NP 0F 13 mod!=3', 'MOVLPS', 'Mq= Vps', toLow),
  row('66 0F 13 mod!=3', 'MOVLPD', 'Mq= Vpd', toLow),
  row('NP 0F 16 mod!=3', 'MOVHPS', 'Vps Mq', toHigh),
  row('66 0F 16 mod!=3', 'MOVHPD', 'Vpd Mq', toHigh),
  row('NP 0F 16 mod=3', 'MOVLHPS', 'Vps Ups', toHigh),
  row('NP 0F 17 mod!=3', 'MOVHPS', 'Mq= Vps', highToLow),
  row('66 0F 17 mod!=3', 'MOVHPD', 'Mq= Vpd', highToLow),
  row('F3 0F 7E', 'MOVQ', 'Vq Wq', quad),
  row('66 0F D6', 'MOVQ', 'Wq= Vq', quadOut),
  row('66 0F 6E', 'MOVD', 'Vdq Ey', fromGeneral),
  row('66 0F 7E', 'MOVD', 'Ey= Vdq', toGeneral),
  row('NP 0F 50 mod=3', 'MOVMSKPS', 'Gd Ups', signsOfSingles),
  row('66 0F 50 mod=3', 'MOVMSKPD', 'Gd Upd', signsOfDoubles),
  row('66 0F F7 mod=3', 'MASKMOVDQU', 'Vdq Udq', maskedStore),
  { ...row('F3 0F D6 mod=3', 'MOVQ2DQ', 'Vdq Nq', fromMmx), guard: simdWithMmxAvailable },
  { ...row('F2 0F D6 mod=3', 'MOVDQ2Q', 'Pq Uq', toMmx), guard: simdWithMmxAvailable },
];
