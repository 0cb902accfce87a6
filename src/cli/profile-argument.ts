/** A processor profile named on the command line. */
import { type CpuProfile, findProfile, PROFILES } from '../vmx/capabilities/profiles.ts';
import { alternatives, Problem } from './problem.ts';

/** @throws Problem if there is none of that name */
export function profileNamed(name: string): CpuProfile {
  const profile = findProfile(name);
  if (profile === undefined) {
    throw new Problem(`no processor profile "${name}": use ${alternatives(PROFILES.map((p) => p.name))}`);
  }
  return profile;
}
