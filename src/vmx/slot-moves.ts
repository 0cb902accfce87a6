/**
 * Slot-to-slot moves between the fields of a VMCS and the registers of a processor: tables of what
 * moves, always or under a control, and the loops that move it. Loops take several pairs at a time, so
 * that what the compiler must find out at each turn is shared (bench: "VMRESUME + exit").
 */
import { Register, type RegisterName, SEGMENT_NAMES } from '../cpu/registers.ts';
import type { ControlId } from '../vmcs/controls.ts';
import { Field, type FieldName } from '../vmcs/fields.ts';
import type { ProcessorCopy } from '../vmcs/processor-copy.ts';
import type { VmxCapabilities } from './capabilities/capabilities.ts';
import { saveWords } from './copy-writes.ts';
import { controlRef, type EffectiveControls } from './effective-controls.ts';

/** Fields and the registers they correspond to. */
export type FieldRegisters = Partial<Record<FieldName, RegisterName>>;

/** Field slot in bits 15:0, register slot in bits 31:16; a multiple of eight, the last repeated as needed. */
export type SlotMoves = Int32Array;

/** The moves of some tables in one. */
export function slotMoves(...tables: readonly FieldRegisters[]): SlotMoves {
  const pairs = tables.flatMap((table) =>
    Object.entries(table).map(
      ([field, register]) => [Field[field as FieldName], Register[register]] as const,
    ),
  );
  return padded(pairs);
}

/** Moves from source slots to destination slots. */
export function padded(pairs: readonly (readonly [from: number, to: number])[]): SlotMoves {
  const moves = pairs.map(([from, to]) => from | (to << 16));
  const last = moves.at(-1) ?? 0;
  return Int32Array.from([...moves, ...Array.from({ length: -moves.length & 7 }, () => last)]);
}

/** The four fields of every segment register. */
export const SEGMENT_MOVES: FieldRegisters = Object.fromEntries(
  SEGMENT_NAMES.flatMap((segment) => {
    const guest = `guest${segment[0]}${segment.slice(1).toLowerCase()}`;
    return [
      [`${guest}Selector`, `${segment}.selector`],
      [`${guest}Base`, `${segment}.base`],
      [`${guest}Limit`, `${segment}.limit`],
      [`${guest}AccessRights`, `${segment}.accessRights`],
    ];
  }),
);

let tables = 0;

/** Moves that depend on controls, worked out once for the same controls. */
export class DerivedMoves {
  private readonly index = tables++;
  private readonly derive: (controls: EffectiveControls, capabilities: VmxCapabilities) => SlotMoves;

  constructor(derive: (controls: EffectiveControls, capabilities: VmxCapabilities) => SlotMoves) {
    this.derive = derive;
  }

  /** The moves that these controls ask for. */
  under(controls: EffectiveControls, capabilities: VmxCapabilities): SlotMoves {
    const known = controls.derived[this.index] as SlotMoves | undefined;
    if (known !== undefined) return known;
    const moves = this.derive(controls, capabilities);
    controls.derived[this.index] = moves;
    return moves;
  }
}

/** Moves of which some depend on controls, or on whether the processor has the fields. */
export class ControlledMoves extends DerivedMoves {
  constructor(
    always: FieldRegisters,
    controlled: Partial<Record<ControlId, FieldRegisters>>,
    whereSupported: readonly FieldRegisters[] = [],
  ) {
    const rows = Object.entries(controlled).map(([id, table]) => ({
      control: controlRef(id as ControlId),
      table,
    }));
    super((controls, { fieldExists }) => {
      // The fields of one table exist together.
      const exists = (table: FieldRegisters) => fieldExists[Field[Object.keys(table)[0] as FieldName]] === 1;
      return slotMoves(
        always,
        ...whereSupported.filter(exists),
        ...rows.filter((row) => controls.isOn(row.control) && exists(row.table)).map((row) => row.table),
      );
    });
  }
}

/** Registers := fields, all 64 bits. */
export function loadRegisters(moves: SlotMoves, fields: BigUint64Array, registers: BigUint64Array): void {
  for (let i = 0; i < moves.length; i += 8) {
    let move = moves[i] as number;
    registers[move >>> 16] = fields[move & 0xffff] as bigint;
    move = moves[i + 1] as number;
    registers[move >>> 16] = fields[move & 0xffff] as bigint;
    move = moves[i + 2] as number;
    registers[move >>> 16] = fields[move & 0xffff] as bigint;
    move = moves[i + 3] as number;
    registers[move >>> 16] = fields[move & 0xffff] as bigint;
    move = moves[i + 4] as number;
    registers[move >>> 16] = fields[move & 0xffff] as bigint;
    move = moves[i + 5] as number;
    registers[move >>> 16] = fields[move & 0xffff] as bigint;
    move = moves[i + 6] as number;
    registers[move >>> 16] = fields[move & 0xffff] as bigint;
    move = moves[i + 7] as number;
    registers[move >>> 16] = fields[move & 0xffff] as bigint;
  }
}

/** Fields := registers, all 64 bits, for registers that a guest changes now and then. */
export function saveRegisters(
  moves: SlotMoves,
  copy: ProcessorCopy,
  words: Uint32Array,
  quads: BigUint64Array,
): void {
  if (copy.saved === moves && areEqual(moves, copy.quads, quads)) return;
  for (let i = 0; i < moves.length; i++) {
    const from = ((moves[i] as number) >>> 16) << 1;
    saveWords(copy, (moves[i] as number) & 0xffff, words[from] as number, words[from + 1] as number);
  }
  copy.saved = moves;
}

function areEqual(moves: SlotMoves, fields: BigUint64Array, registers: BigUint64Array): boolean {
  for (let i = 0; i < moves.length; i += 8) {
    const a = moves[i] as number;
    const b = moves[i + 1] as number;
    const c = moves[i + 2] as number;
    const d = moves[i + 3] as number;
    const e = moves[i + 4] as number;
    const f = moves[i + 5] as number;
    const g = moves[i + 6] as number;
    const h = moves[i + 7] as number;
    if (
      fields[a & 0xffff] !== registers[a >>> 16] ||
      fields[b & 0xffff] !== registers[b >>> 16] ||
      fields[c & 0xffff] !== registers[c >>> 16] ||
      fields[d & 0xffff] !== registers[d >>> 16] ||
      fields[e & 0xffff] !== registers[e >>> 16] ||
      fields[f & 0xffff] !== registers[f >>> 16] ||
      fields[g & 0xffff] !== registers[g >>> 16] ||
      fields[h & 0xffff] !== registers[h >>> 16]
    ) {
      return false;
    }
  }
  return true;
}
