/** Runs entry checks on a VMCS that a test has put together. */
import { FIELD_COUNT, Field, type FieldName } from '../../src/vmcs/fields.ts';
import { VmxCapabilities } from '../../src/vmx/capabilities/capabilities.ts';
import type { CapabilityMsrValues } from '../../src/vmx/capabilities/capability-msrs.ts';
import { capabilitiesOf, findProfile } from '../../src/vmx/capabilities/profiles.ts';
import type { CheckList, EntryCheck, FieldChange } from '../../src/vmx/entry/check.ts';
import { CheckContext, type EntryEnvironment } from '../../src/vmx/entry/check-context.ts';
import { type FieldValues, legalVmcs, switchControl } from './legal-vmcs.ts';
import type { EnvironmentValues, Witness } from './witness.ts';

/** A 64-bit host outside SMM that does not trace, with the current VMCS at 0x1000. */
const ORDINARY: EnvironmentValues = {
  ia32eMode: true,
  inSmm: false,
  traceEnabled: false,
  paePaging: false,
  cr3: 0n,
  tmeReduction: 0,
  currentVmcs: 0x1000n,
  vmxonPointer: 0x2000n,
};

export function environmentOf(
  values: Partial<EnvironmentValues> = {},
  memory: readonly (readonly [address: number, value: bigint])[] = [],
  executive?: { readonly launched: boolean; readonly words: Uint32Array },
): EntryEnvironment {
  const state = { ...ORDINARY, ...values };
  const quads = new Map(memory);
  const read64 = (address: number) => quads.get(address) ?? 0n;
  return {
    ia32eMode: () => state.ia32eMode,
    inSmm: () => state.inSmm,
    traceEnabled: () => state.traceEnabled,
    paePaging: () => state.paePaging,
    cr3: () => state.cr3,
    tmeReduction: () => state.tmeReduction,
    currentVmcs: () => state.currentVmcs,
    vmxonPointer: () => state.vmxonPointer,
    vmcsAt: () => executive,
    read64,
    read32: (address) =>
      Number(
        quads.has(address)
          ? BigInt.asUintN(32, read64(address))
          : BigInt.asUintN(64, read64(address - 4)) >> 32n,
      ),
  };
}

/** Field values as a check context wants them: two words a slot. */
export function wordsOf(values: FieldValues): Uint32Array {
  const words = new Uint32Array(2 * FIELD_COUNT);
  const quads = new BigUint64Array(words.buffer);
  for (const [name, value] of Object.entries(values)) quads[Field[name as FieldName]] = value;
  return words;
}

/** What VM entry finds. */
export interface Situation {
  readonly words: Uint32Array;
  readonly capabilities: VmxCapabilities;
  readonly environment: EntryEnvironment;
}

/** The smallest legal VMCS with a witness's changes; without a witness, untouched. */
export function situationOf(witness: Witness = {}): Situation {
  const profile = findProfile(witness.profile ?? 'full');
  if (profile === undefined) throw new RangeError(`no profile ${witness.profile}`);
  let capabilities = capabilitiesOf(profile, 'checked');
  if (witness.msrs !== undefined || witness.features !== undefined) {
    const msrs: Record<string, bigint | undefined> = { ...capabilities.msrs, ...witness.msrs };
    for (const name of Object.keys(msrs)) if (msrs[name] === undefined) delete msrs[name];
    const { format } = capabilities;
    capabilities = new VmxCapabilities(
      { ...profile.features, ...witness.features },
      msrs as CapabilityMsrValues,
      () => format,
    );
  }
  const values = legalVmcs(capabilities);
  for (const id of witness.controls ?? []) switchControl(values, id, true);
  for (const id of witness.off ?? []) switchControl(values, id, false);
  return {
    words: wordsOf({ ...values, ...witness.fields }),
    capabilities,
    environment: environmentOf(
      witness.environment,
      witness.memory,
      witness.executive && {
        launched: witness.executive.launched,
        words: wordsOf({ ...legalVmcs(capabilities), ...witness.executive.fields }),
      },
    ),
  };
}

export function contextOf({ words, capabilities, environment }: Situation, known?: Uint8Array): CheckContext {
  return new CheckContext(words, capabilities, environment, known);
}

/** The check applies and does not hold. */
export function fails(check: EntryCheck, context: CheckContext): boolean {
  context.begin();
  return check.when.every((condition) => condition.test(context)) && !check.holds(context);
}

/** Ids of the checks that fail, in order. */
export function failingChecks(
  lists: readonly CheckList[],
  words: Uint32Array,
  capabilities: VmxCapabilities,
  environment: EntryEnvironment,
): string[] {
  const context = new CheckContext(words, capabilities, environment);
  return lists.flatMap((list) => list.rows.filter((row) => fails(row, context)).map((row) => row.id));
}

/** A copy of a situation with some fields changed. */
export function withChanges(situation: Situation, changes: readonly FieldChange[]): Situation {
  const words = situation.words.slice();
  const quads = new BigUint64Array(words.buffer);
  for (const { field, value } of changes) quads[Field[field]] = value;
  return { ...situation, words };
}
