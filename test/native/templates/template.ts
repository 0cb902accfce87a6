/** A template makes cases of one instruction or a family of instructions. */
import type { CaseBuilder } from '../case-builder.ts';

/** A flag of /proc/cpuinfo without which the processor lacks the instructions. */
export type HostFeature =
  | 'abm'
  | 'bmi1'
  | 'bmi2'
  | 'adx'
  | 'movbe'
  | 'popcnt'
  | 'sse4_2'
  | 'cx16'
  | 'lahf_lm';

export interface Template {
  readonly name: string;
  readonly needs?: HostFeature;
  /** Size of code; 64 if left out. */
  readonly bits?: 32 | 64;
  /** Emits one instruction; what it returns means nothing. */
  build(c: CaseBuilder): unknown;
}
