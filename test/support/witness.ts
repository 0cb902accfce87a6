/** One minimal corruption of the smallest legal VMCS, which exactly one VM-entry check catches. */
import type { CpuidFeatures } from '../../src/cpu/cpuid.ts';
import type { ControlId } from '../../src/vmcs/controls.ts';
import type { FieldName } from '../../src/vmcs/fields.ts';
import type { CapabilityMsrValues } from '../../src/vmx/capabilities/capability-msrs.ts';
import type { EntryEnvironment } from '../../src/vmx/entry/check-context.ts';

type State = Omit<EntryEnvironment, 'read32' | 'read64' | 'vmcsAt'>;

/** What VM entry sees outside the VMCS, as values. */
export type EnvironmentValues = { readonly [K in keyof State]: NonNullable<ReturnType<State[K]>> };

export interface Witness {
  /** Controls switched on first, with those that activate their groups. */
  readonly controls?: readonly ControlId[];
  /** Controls switched off after that. */
  readonly off?: readonly ControlId[];
  /** Fields written last. */
  readonly fields?: Partial<Readonly<Record<FieldName, bigint>>>;
  readonly environment?: Partial<EnvironmentValues>;
  /** Quadwords of physical memory; all other memory is 0. */
  readonly memory?: readonly (readonly [address: number, value: bigint])[];
  /** The executive VMCS: the smallest legal one with some fields changed. */
  readonly executive?: {
    readonly launched: boolean;
    readonly fields?: Partial<Readonly<Record<FieldName, bigint>>>;
  };
  /** Name of a processor profile; `full` if left out. */
  readonly profile?: string;
  /** Capability MSRs that differ from the profile; `undefined` takes one away. */
  readonly msrs?: { readonly [K in keyof CapabilityMsrValues]: bigint | undefined };
  /** CPUID features that differ from the profile. */
  readonly features?: Partial<CpuidFeatures>;
  /** Checks that cannot but fail together with this one. */
  readonly also?: readonly string[];
}
