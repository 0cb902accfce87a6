/** Run counts and seed of the properties: VMXON_RUNS scales every count, VMXON_SEED replays. */
import type fc from 'fast-check';

/** A whole number from the environment, or undefined. */
function setting(name: string): number | undefined {
  const text = process.env[name];
  if (text === undefined || text === '') return undefined;
  const value = Number(text);
  if (!Number.isSafeInteger(value)) throw new RangeError(`${name} must be a whole number, not "${text}"`);
  return value;
}

/** Parameters of `fc.assert`: `usual` runs where the environment does not say how many. */
export function runs<T>(usual: number): fc.Parameters<T> {
  const seed = setting('VMXON_SEED');
  const numRuns = setting('VMXON_RUNS') ?? usual;
  return seed === undefined ? { numRuns } : { numRuns, seed };
}

/** The trials of a campaign that draws its own numbers. */
export interface Trials {
  readonly count: number;
  readonly seed: number;
  /** Number of the first. */
  readonly first: number;
  /** Somebody waits for progress. */
  readonly watched: boolean;
}

/** `usual` trials where the environment does not say how many. */
export function trials(usual: number): Trials {
  const count = setting('VMXON_RUNS');
  return {
    count: count ?? usual,
    seed: setting('VMXON_SEED') ?? 0,
    first: setting('VMXON_FIRST') ?? 0,
    watched: count !== undefined,
  };
}
