/** A processor that enumerates everything: the comparison is about encodings. */
import type { CpuidFeatures } from '../../../src/cpu/cpuid.ts';
import { PROFILES } from '../../../src/vmx/capabilities/profiles.ts';

const widest = PROFILES.at(-1);
if (widest === undefined) throw new Error('no profiles');
export const FEATURES: CpuidFeatures = widest.features;
