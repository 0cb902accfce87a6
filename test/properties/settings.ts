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
