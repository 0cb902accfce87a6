/** Packed shifts (SDM vol. 2: PSLLW to PSRLDQ): the count is the low 64 bits of the second operand, or an immediate. */
import { mmxAvailable, simdAvailable } from '../float-availability.ts';
import { type Execute, Next } from '../instruction.ts';
import { enterMmx, wroteMmx } from '../mmx-state.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import type { Processor } from '../processor.ts';
import { bothRows, type PackedOperation, type Width } from './packed-lanes.ts';

/** Shifts every lane of the register at `d` by `count`, at most {@link EVERYTHING}. */
type Shift = (cpu: Processor, d: number, count: number, bytes: Width) => void;

/** A count that no lane survives. */
const EVERYTHING = 64;

type Lane = (a: number, count: number) => number;

function words(lane: Lane): Shift {
  return ({ u16 }, d, count, bytes) => {
    for (let n = d >> 1; n < (d + bytes) >> 1; n++) u16[n] = lane(u16[n] as number, count);
  };
}

function doublewords(lane: Lane): Shift {
  return ({ i32 }, d, count, bytes) => {
    for (let n = d >> 2; n < (d + bytes) >> 2; n++) i32[n] = lane(i32[n] as number, count);
  };
}

function quadwords(lane: (a: bigint, count: bigint) => bigint): Shift {
  return ({ quads }, d, count, bytes) => {
    for (let n = d >> 3; n < (d + bytes) >> 3; n++)
      quads[n] = BigInt.asUintN(64, lane(quads[n] as bigint, BigInt(count)));
  };
}

const SHIFTS = {
  PSLLW: words((a, count) => (count > 15 ? 0 : a << count)),
  PSRLW: words((a, count) => (count > 15 ? 0 : a >>> count)),
  PSRAW: words((a, count) => ((a << 16) >> 16) >> Math.min(count, 15)),
  PSLLD: doublewords((a, count) => (count > 31 ? 0 : a << count)),
  PSRLD: doublewords((a, count) => (count > 31 ? 0 : a >>> count)),
  PSRAD: doublewords((a, count) => a >> Math.min(count, 31)),
  PSLLQ: quadwords((a, count) => a << count),
  PSRLQ: quadwords((a, count) => a >> count),
} as const satisfies Record<string, Shift>;

/** By the register or memory operand at `s`. */
function byOperand(shift: Shift): PackedOperation {
  return (cpu, d, s, bytes) => {
    const low = (cpu.i32[s >> 2] as number) >>> 0;
    const tooLarge = cpu.i32[(s >> 2) + 1] !== 0 || low > EVERYTHING;
    shift(cpu, d, tooLarge ? EVERYTHING : low, bytes);
  };
}

function immediateRows(opcode: string, mnemonic: string, shift: Shift): OpcodeRow[] {
  const onMmx: Execute = (cpu, i) => {
    shift(cpu, i.d, Math.min(i.immediate, EVERYTHING), 8);
    enterMmx(cpu);
    return wroteMmx(cpu, i.d);
  };
  const onXmm: Execute = (cpu, i) => {
    shift(cpu, i.d, Math.min(i.immediate, EVERYTHING), 16);
    return Next.Sequential;
  };
  return [
    { opcode: `NP 0F ${opcode} mod=3`, mnemonic, operands: 'Nq Ib', execute: onMmx, guard: mmxAvailable },
    { opcode: `66 0F ${opcode} mod=3`, mnemonic, operands: 'Udq Ib', execute: onXmm, guard: simdAvailable },
  ];
}

/** PSLLDQ and PSRLDQ: by bytes. */
const leftByBytes: Execute = ({ u8 }, i) => {
  for (let n = 15; n >= 0; n--) u8[i.d + n] = n >= i.immediate ? (u8[i.d + n - i.immediate] as number) : 0;
  return Next.Sequential;
};
const rightByBytes: Execute = ({ u8 }, i) => {
  for (let n = 0; n < 16; n++) u8[i.d + n] = n + i.immediate < 16 ? (u8[i.d + n + i.immediate] as number) : 0;
  return Next.Sequential;
};

export const PACKED_SHIFT_ROWS: readonly OpcodeRow[] = [
  ...bothRows('D1', 'PSRLW', byOperand(SHIFTS.PSRLW)),
  ...bothRows('D2', 'PSRLD', byOperand(SHIFTS.PSRLD)),
  ...bothRows('D3', 'PSRLQ', byOperand(SHIFTS.PSRLQ)),
  ...bothRows('E1', 'PSRAW', byOperand(SHIFTS.PSRAW)),
  ...bothRows('E2', 'PSRAD', byOperand(SHIFTS.PSRAD)),
  ...bothRows('F1', 'PSLLW', byOperand(SHIFTS.PSLLW)),
  ...bothRows('F2', 'PSLLD', byOperand(SHIFTS.PSLLD)),
  ...bothRows('F3', 'PSLLQ', byOperand(SHIFTS.PSLLQ)),
  ...immediateRows('71 /2', 'PSRLW', SHIFTS.PSRLW),
  ...immediateRows('71 /4', 'PSRAW', SHIFTS.PSRAW),
  ...immediateRows('71 /6', 'PSLLW', SHIFTS.PSLLW),
  ...immediateRows('72 /2', 'PSRLD', SHIFTS.PSRLD),
  ...immediateRows('72 /4', 'PSRAD', SHIFTS.PSRAD),
  ...immediateRows('72 /6', 'PSLLD', SHIFTS.PSLLD),
  ...immediateRows('73 /2', 'PSRLQ', SHIFTS.PSRLQ),
  ...immediateRows('73 /6', 'PSLLQ', SHIFTS.PSLLQ),
  {
    opcode: '66 0F 73 /3 mod=3',
    mnemonic: 'PSRLDQ',
    operands: 'Udq Ib',
    execute: rightByBytes,
    guard: simdAvailable,
  },
  {
    opcode: '66 0F 73 /7 mod=3',
    mnemonic: 'PSLLDQ',
    operands: 'Udq Ib',
    execute: leftByBytes,
    guard: simdAvailable,
  },
];
