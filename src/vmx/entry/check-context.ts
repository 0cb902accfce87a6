/**
 * What an entry check may look at: the fields of one VMCS, the capabilities of the processor, and the
 * little state outside the VMCS that the manual lets a check depend on. Anything may be unknown (a
 * dump prints only part of it): reading something unknown answers 0 and is noted in `missing`, which
 * makes the verdict of that check "unknown".
 */
import type { CpuidFeatures } from '../../cpu/cpuid.ts';
import { CONTROL_GROUPS, CONTROLS, type ControlGroupName, type ControlId } from '../../vmcs/controls.ts';
import { FIELDS, Field, type FieldName } from '../../vmcs/fields.ts';
import { decodeEvent, type EventIdentification } from '../../vmcs/formats.ts';
import type { VmxCapabilities } from '../capabilities/capabilities.ts';

/** State outside the VMCS; `undefined` means unknown. */
export interface EntryEnvironment {
  /** IA32_EFER.LMA of the processor that executes VM entry. */
  ia32eMode(): boolean | undefined;
  inSmm(): boolean | undefined;
  /** IA32_RTIT_CTL.TraceEn of the processor that executes VM entry. */
  traceEnabled(): boolean | undefined;
  /** Whether the processor uses PAE paging now, and its CR3. */
  paePaging(): boolean | undefined;
  cr3(): bigint | undefined;
  /** Bits by which IA32_TME_ACTIVATE reduces the physical-address width, 0–15 (SDM §29.2.1). */
  tmeReduction(): number | undefined;
  /** The current-VMCS pointer. */
  currentVmcs(): bigint | undefined;
  vmxonPointer(): bigint | undefined;
  /** The VMCS at a pointer, as far as a VM entry that returns from SMM looks at it. */
  vmcsAt(pointer: bigint): { readonly launched: boolean; readonly words: Uint32Array } | undefined;
  /** 32 or 64 bits of physical memory. */
  read32(address: number): number | undefined;
  read64(address: number): bigint | undefined;
}

export type SegmentRegister = 'es' | 'cs' | 'ss' | 'ds' | 'fs' | 'gs' | 'ldtr' | 'tr';

interface ControlWord {
  /** {@link CheckContext.refreshed} when it was worked out. */
  at: number;
  /** Bits 31:0 of the group; no control lies above. */
  low: number;
  /** The control field whose value is unknown, if this word depends on one. */
  missing: string | undefined;
}

const GROUPS = Object.keys(CONTROL_GROUPS) as ControlGroupName[];

/** Where a control is: index of its group and bit within that. */
export interface ControlPlace {
  readonly group: number;
  readonly bit: number;
}

const places = new Map<ControlId, ControlPlace>(
  CONTROLS.map(({ id, group, bit }) => [id, { group: GROUPS.indexOf(group), bit }]),
);

/** The place of a control, to be looked up once. */
export function placeOf(id: ControlId): ControlPlace {
  return places.get(id) as ControlPlace;
}

const GROUP_ROWS = GROUPS.map((name) => {
  const { field, activatedBy } = CONTROL_GROUPS[name];
  return { field, slot: Field[field], activatedBy: activatedBy.map(placeOf) };
});
const UNRESTRICTED_GUEST = placeOf('proc2.unrestrictedGuest');
const IA32E_MODE_GUEST = placeOf('entry.ia32eModeGuest');

export class CheckContext {
  readonly capabilities: VmxCapabilities;
  readonly features: CpuidFeatures;
  readonly environment: EntryEnvironment;
  /** Names of what was read although unknown, since the last {@link begin}. */
  readonly missing = new Set<string>();
  private quads!: BigUint64Array;
  private words!: Uint32Array;
  private readonly known: Uint8Array | undefined;
  /** How often control fields have been said to have changed. */
  private refreshed = 0;
  /** Effective control words by group; worked out on first use after {@link refresh}. */
  private readonly controls: readonly ControlWord[] = GROUPS.map(() => ({
    at: -1,
    low: 0,
    missing: undefined,
  }));

  /**
   * @param words field values, two 32-bit words a slot, low first
   * @param known whether each slot's value is known; all are if this is left out
   */
  constructor(
    words: Uint32Array,
    capabilities: VmxCapabilities,
    environment: EntryEnvironment,
    known?: Uint8Array,
  ) {
    this.examine(words);
    this.capabilities = capabilities;
    this.features = capabilities.features;
    this.environment = environment;
    this.known = known;
  }

  /** Turns to the fields of another VMCS, as given to the constructor. */
  examine(words: Uint32Array): void {
    if (this.words !== words) {
      this.words = words;
      this.quads = new BigUint64Array(words.buffer, words.byteOffset, words.length / 2);
    }
    this.refresh();
  }

  /** Forgets what was noted as missing: call before each check. */
  begin(): void {
    if (this.missing.size > 0) this.missing.clear();
  }

  /** Call after a control field has changed. */
  refresh(): void {
    this.refreshed++;
  }

  private note(slot: number): void {
    if (this.known !== undefined && this.known[slot] === 0) {
      this.missing.add((FIELDS[slot] as { key: FieldName }).key);
    }
  }

  /** The whole field. */
  value(field: FieldName): bigint {
    const slot = Field[field];
    this.note(slot);
    return this.quads[slot] as bigint;
  }

  /** Bits 31:0 of the field, unsigned. */
  low(field: FieldName): number {
    const slot = Field[field];
    this.note(slot);
    return this.words[2 * slot] as number;
  }

  /** Bits 63:32 of the field, unsigned. */
  high(field: FieldName): number {
    const slot = Field[field];
    this.note(slot);
    return this.words[2 * slot + 1] as number;
  }

  /** Bit `position` of the field, 0–63. */
  bit(field: FieldName, position: number): boolean {
    const half = position < 32 ? this.low(field) : this.high(field);
    return ((half >>> (position & 31)) & 1) === 1;
  }

  /** Bits `high:low` of the field as a number, at most 32 bits of the low word. */
  bits(field: FieldName, high: number, low: number): number {
    return (this.low(field) >>> low) & (2 ** (high - low + 1) - 1);
  }

  /** The effective value of a control: 0 while its group is not activated (SDM §27.6.2, §27.7.1). */
  control(id: ControlId): boolean {
    return this.controlAt(placeOf(id));
  }

  /** As {@link control}, for a control that has been looked up. */
  controlAt({ group, bit }: ControlPlace): boolean {
    const word = this.group(group);
    if (word.missing !== undefined) this.missing.add(word.missing);
    return ((word.low >>> bit) & 1) === 1;
  }

  private group(group: number): ControlWord {
    const word = this.controls[group] as ControlWord;
    if (word.at === this.refreshed) return word;
    word.at = this.refreshed;
    word.low = 0;
    word.missing = undefined;
    const { field, slot, activatedBy } = GROUP_ROWS[group] as (typeof GROUP_ROWS)[number];
    if (this.capabilities.fieldExists[slot] !== 1) return word;
    for (const outer of activatedBy) {
      const outerWord = this.group(outer.group);
      word.missing ??= outerWord.missing;
      if (((outerWord.low >>> outer.bit) & 1) === 0) return word;
    }
    word.low = this.words[2 * slot] as number;
    if (this.known?.[slot] === 0) word.missing ??= field;
    return word;
  }

  /** Reads something of the environment; `what` names it if it is unknown. */
  ask<T>(answer: T | undefined, what: string, otherwise: T): T {
    if (answer !== undefined) return answer;
    this.missing.add(what);
    return otherwise;
  }

  /** Width W of rule PAW: addresses in the VMCS must not set bits 63:W (SDM §29.2.1). */
  get addressWidth(): number {
    return this.capabilities.addressWidth(this.ask(this.environment.tmeReduction(), 'IA32_TME_ACTIVATE', 0));
  }

  /** The address in `field` satisfies rule PAW. */
  withinAddressWidth(address: bigint): boolean {
    return address >> BigInt(this.addressWidth) === 0n;
  }

  // Words the manual uses throughout chapter 29; all come from the VMCS.

  get unrestrictedGuest(): boolean {
    return this.controlAt(UNRESTRICTED_GUEST);
  }

  get ia32eModeGuest(): boolean {
    return this.controlAt(IA32E_MODE_GUEST);
  }

  /** Guest CR4.FRED (bit 32). */
  get guestFred(): boolean {
    return this.bit('guestCr4', 32);
  }

  /** Access rights of a guest segment register. */
  accessRights(segment: SegmentRegister): number {
    return this.low(ACCESS_RIGHTS[segment]);
  }

  /** Bit 16 of the access rights is 0. */
  usable(segment: SegmentRegister): boolean {
    return (this.accessRights(segment) & 0x1_0000) === 0;
  }

  /** Bits 3:0 of the access rights. */
  segmentType(segment: SegmentRegister): number {
    return this.accessRights(segment) & 0xf;
  }

  /** Bits 6:5 of the access rights. */
  dpl(segment: SegmentRegister): number {
    return (this.accessRights(segment) >> 5) & 3;
  }

  /** The event to be injected, decoded; its `valid` is false if there is none. */
  get injectedEvent(): EventIdentification {
    return decodeEvent(this.low('injectedEventIdentification'));
  }
}

const ACCESS_RIGHTS: Readonly<Record<SegmentRegister, FieldName>> = {
  es: 'guestEsAccessRights',
  cs: 'guestCsAccessRights',
  ss: 'guestSsAccessRights',
  ds: 'guestDsAccessRights',
  fs: 'guestFsAccessRights',
  gs: 'guestGsAccessRights',
  ldtr: 'guestLdtrAccessRights',
  tr: 'guestTrAccessRights',
};

/** Names of the four fields of a guest segment register. */
export function segmentFields(segment: SegmentRegister): {
  readonly selector: FieldName;
  readonly base: FieldName;
  readonly limit: FieldName;
  readonly accessRights: FieldName;
} {
  const name = (segment[0] as string).toUpperCase() + segment.slice(1);
  return {
    selector: `guest${name}Selector` as FieldName,
    base: `guest${name}Base` as FieldName,
    limit: `guest${name}Limit` as FieldName,
    accessRights: ACCESS_RIGHTS[segment],
  };
}
