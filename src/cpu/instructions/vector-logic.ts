/** ANDPS to XORPD (SDM vol. 2): bits are combined whatever number they are. */
import { simdAvailable } from '../float-availability.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { PACKED_LOGIC } from './packed-arithmetic.ts';
import { onXmm } from './packed-lanes.ts';

export const VECTOR_LOGIC_ROWS: readonly OpcodeRow[] = (
  [
    ['54', 'AND', PACKED_LOGIC.and],
    ['55', 'ANDN', PACKED_LOGIC.andNot],
    ['56', 'OR', PACKED_LOGIC.or],
    ['57', 'XOR', PACKED_LOGIC.xor],
  ] as const
).flatMap(([opcode, mnemonic, operation]): OpcodeRow[] =>
  (['ps', 'pd'] as const).map((type) => ({
    opcode: `${type === 'ps' ? 'NP' : '66'} 0F ${opcode}`,
    mnemonic: `${mnemonic}${type.toUpperCase()}`,
    operands: `V${type} W${type}`,
    execute: onXmm(operation),
    guard: simdAvailable,
  })),
);
