import { describe, expect, it } from 'vitest';
import { compareRuns, newCoverage } from './random-code.ts';

describe('random bytes executed as code', () => {
  it('end in no JavaScript error, and repeat to the bit however they are cut', () => {
    const coverage = newCoverage();
    for (let trial = 0; trial < 12; trial++) {
      expect(compareRuns(1, trial, coverage, 1500), `trial ${trial}`).toBeUndefined();
    }
    expect(coverage.executed).toBeGreaterThan(12_000);
    expect(coverage.modes.size).toBe(5);
    expect(coverage.exits.size).toBeGreaterThan(5);
  });
});
