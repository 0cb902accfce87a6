/** Timing for benches: the best of several rounds, so that a busy machine disturbs least. */

/** Nanoseconds per operation of `batch`, which performs `operations` of them. */
export function nanoseconds(batch: () => void, operations: number, rounds = 7): number {
  batch();
  batch();
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds; round++) {
    const start = process.hrtime.bigint();
    batch();
    const elapsed = Number(process.hrtime.bigint() - start);
    best = Math.min(best, elapsed / operations);
  }
  return best;
}

/** Bytes allocated per operation of `batch`, as the heap grows between collections. */
export function allocatedBytes(batch: () => void, operations: number): number {
  batch();
  globalThis.gc?.();
  const before = process.memoryUsage().heapUsed;
  batch();
  return Math.max(0, process.memoryUsage().heapUsed - before) / operations;
}
