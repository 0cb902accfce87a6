/** Every row of x87, MMX and SSE instructions, and of what saves their state. */
import type { OpcodeRow } from '../opcode-row.ts';
import { FXSAVE_ROWS } from './fxsave.ts';
import { MMX_ROWS } from './mmx.ts';
import { PACKED_ARITHMETIC_ROWS } from './packed-arithmetic.ts';
import { PACKED_SHIFT_ROWS } from './packed-shift.ts';
import { PACKED_SHUFFLE_ROWS } from './packed-shuffle.ts';
import { VECTOR_ARITHMETIC_ROWS } from './vector-arithmetic.ts';
import { VECTOR_CONVERT_ROWS } from './vector-convert.ts';
import { VECTOR_LOGIC_ROWS } from './vector-logic.ts';
import { VECTOR_MOVE_ROWS } from './vector-move.ts';
import { X87_ARITHMETIC_ROWS } from './x87-arithmetic.ts';
import { X87_COMPARE_ROWS } from './x87-compare.ts';
import { X87_CONTROL_ROWS } from './x87-control.ts';
import { X87_SCALING_ROWS } from './x87-scaling.ts';
import { X87_TRANSCENDENTAL_ROWS } from './x87-transcendental.ts';
import { X87_TRANSFER_ROWS } from './x87-transfer.ts';
import { XSAVE_ROWS } from './xsave.ts';

export const FLOATING_POINT_ROWS: readonly OpcodeRow[] = [
  ...FXSAVE_ROWS,
  ...MMX_ROWS,
  ...PACKED_ARITHMETIC_ROWS,
  ...PACKED_SHIFT_ROWS,
  ...PACKED_SHUFFLE_ROWS,
  ...VECTOR_ARITHMETIC_ROWS,
  ...VECTOR_CONVERT_ROWS,
  ...VECTOR_LOGIC_ROWS,
  ...VECTOR_MOVE_ROWS,
  ...X87_ARITHMETIC_ROWS,
  ...X87_COMPARE_ROWS,
  ...X87_CONTROL_ROWS,
  ...X87_SCALING_ROWS,
  ...X87_TRANSCENDENTAL_ROWS,
  ...X87_TRANSFER_ROWS,
  ...XSAVE_ROWS,
];
