/**
 * Slot-to-slot moves between the fields of a VMCS and the registers of a processor: tables of what
 * moves, always or under a control, and the loops that move it. Loops take four pairs of 64 bits at a
 * time, so that what the compiler must find out at each turn is shared (bench: "VMRESUME + exit").
 */
import { Register, type RegisterName, SEGMENT_NAMES } from '../cpu/registers.ts';
import type { ControlId } from '../vmcs/controls.ts';
import { Field, type FieldName } from '../vmcs/fields.ts';
import { type ProcessorCopy, WRITTEN } from '../vmcs/processor-copy.ts';
import type { VmxCapabilities } from './capabilities/capabilities.ts';
import { type ControlRef, controlRef, type EffectiveControls } from './effective-controls.ts';

/** Fields and the registers they correspond to. */
export type FieldRegisters = Partial<Record<FieldName, RegisterName>>;

/** Pairs of field slot and register slot; a multiple of four pairs, the last repeated as needed. */
export type SlotMoves = Uint16Array;

/** The moves of some tables in one. */
export function slotMoves(...tables: readonly FieldRegisters[]): SlotMoves {
  const pairs = tables.flatMap((table) =>
    Object.entries(table).map(
      ([field, register]) => [Field[field as FieldName], Register[register]] as const,
    ),
  );
  return padded(pairs);
}

/** Pairs of source slot and destination slot, with the last repeated as needed. */
export function padded(pairs: readonly (readonly [number, number])[]): SlotMoves {
  const last = pairs.at(-1);
  const rest = last === undefined ? [] : Array.from({ length: -pairs.length & 3 }, () => last);
  return Uint16Array.from([...pairs, ...rest].flat());
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

/** Moves of which some depend on controls, or on whether the processor has the fields. */
export class ControlledMoves {
  private readonly index = tables++;
  private readonly always: FieldRegisters;
  private readonly whereSupported: readonly FieldRegisters[];
  private readonly controlled: readonly { readonly control: ControlRef; readonly table: FieldRegisters }[];

  constructor(
    always: FieldRegisters,
    controlled: Partial<Record<ControlId, FieldRegisters>>,
    whereSupported: readonly FieldRegisters[] = [],
  ) {
    this.always = always;
    this.whereSupported = whereSupported;
    this.controlled = Object.entries(controlled).map(([id, table]) => ({
      control: controlRef(id as ControlId),
      table,
    }));
  }

  /** The moves that these controls ask for. */
  under(controls: EffectiveControls, capabilities: VmxCapabilities): SlotMoves {
    const known = controls.derived[this.index] as SlotMoves | undefined;
    if (known !== undefined) return known;
    const moves = this.chosen(controls, capabilities);
    controls.derived[this.index] = moves;
    return moves;
  }

  private chosen(controls: EffectiveControls, { fieldExists }: VmxCapabilities): SlotMoves {
    // The fields of one table exist together.
    const exists = (table: FieldRegisters) => fieldExists[Field[Object.keys(table)[0] as FieldName]] === 1;
    return slotMoves(
      this.always,
      ...this.whereSupported.filter(exists),
      ...this.controlled.filter((c) => controls.isOn(c.control) && exists(c.table)).map((c) => c.table),
    );
  }
}

/** Registers := fields, all 64 bits. */
export function loadRegisters(moves: SlotMoves, fields: BigUint64Array, registers: BigUint64Array): void {
  for (let i = 0; i < moves.length; i += 8) {
    registers[moves[i + 1] as number] = fields[moves[i] as number] as bigint;
    registers[moves[i + 3] as number] = fields[moves[i + 2] as number] as bigint;
    registers[moves[i + 5] as number] = fields[moves[i + 4] as number] as bigint;
    registers[moves[i + 7] as number] = fields[moves[i + 6] as number] as bigint;
  }
}

/** Fields := registers, all 64 bits; the entry checks look again at what changes. */
export function saveRegisters(moves: SlotMoves, copy: ProcessorCopy, registers: BigUint64Array): void {
  const { quads: fields, written } = copy;
  for (let i = 0; i < moves.length; i += 8) {
    const a = moves[i] as number;
    const b = moves[i + 2] as number;
    const c = moves[i + 4] as number;
    const d = moves[i + 6] as number;
    const unwritten =
      ((written[a] as number) ^ WRITTEN) |
      ((written[b] as number) ^ WRITTEN) |
      ((written[c] as number) ^ WRITTEN) |
      ((written[d] as number) ^ WRITTEN);
    if (
      unwritten !== 0 ||
      fields[a] !== registers[moves[i + 1] as number] ||
      fields[b] !== registers[moves[i + 3] as number] ||
      fields[c] !== registers[moves[i + 5] as number] ||
      fields[d] !== registers[moves[i + 7] as number]
    ) {
      saveFour(moves, i, copy, registers);
    }
  }
}

function saveFour(moves: SlotMoves, first: number, copy: ProcessorCopy, registers: BigUint64Array): void {
  const { quads: fields, dependents } = copy;
  for (let i = first; i < first + 8; i += 2) {
    const slot = moves[i] as number;
    const value = registers[moves[i + 1] as number] as bigint;
    if (fields[slot] !== value) {
      fields[slot] = value;
      copy.unverified |= dependents[slot] as number;
    }
    copy.fieldSaved(slot);
  }
}
