/** The transcendental instructions of x87, known but not modelled: #UD, and counted. */
import { x87Ready } from '../float-availability.ts';
import type { OpcodeRow } from '../opcode-row.ts';

export const X87_TRANSCENDENTAL_ROWS: readonly OpcodeRow[] = (
  [
    ['D9 /6 mod=3 rm=0', 'F2XM1'],
    ['D9 /6 mod=3 rm=1', 'FYL2X'],
    ['D9 /6 mod=3 rm=2', 'FPTAN'],
    ['D9 /6 mod=3 rm=3', 'FPATAN'],
    ['D9 /7 mod=3 rm=1', 'FYL2XP1'],
    ['D9 /7 mod=3 rm=3', 'FSINCOS'],
    ['D9 /7 mod=3 rm=6', 'FSIN'],
    ['D9 /7 mod=3 rm=7', 'FCOS'],
  ] as const
).map(([opcode, mnemonic]) => ({ opcode, mnemonic, operands: '', execute: undefined, guard: x87Ready }));
