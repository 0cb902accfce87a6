/**
 * Timing for benches. A subject and its floor run in turn in short rounds, and the best rounds of
 * both are compared: whatever else the machine does can only make a round slower.
 */

export interface Measurement {
  /** Nanoseconds per operation in the best round. */
  readonly nanoseconds: number;
  /** Cost in floors: best round of the subject over best round of its floor. */
  readonly floors: number;
}

function timed(batch: () => void, operations: number): number {
  const start = process.hrtime.bigint();
  batch();
  return Number(process.hrtime.bigint() - start) / operations;
}

const WARM_UP_MILLISECONDS = 300;
const MILLISECONDS = 700;

/** A batch of something, and how many operations it performs: about a millisecond, for no scheduler to cut. */
export interface Batch {
  readonly run: () => void;
  readonly operations: number;
}

/** Cost of `subject` beside `floor`, after both have run for a while. */
export function measure(subject: Batch, floor: Batch): Measurement {
  // Compilation takes time of its own, the more so on a busy machine.
  for (const end = performance.now() + WARM_UP_MILLISECONDS; performance.now() < end; ) {
    subject.run();
    floor.run();
  }
  let nanoseconds = Number.POSITIVE_INFINITY;
  let least = Number.POSITIVE_INFINITY;
  for (const end = performance.now() + MILLISECONDS; performance.now() < end; ) {
    least = Math.min(least, timed(floor.run, floor.operations));
    nanoseconds = Math.min(nanoseconds, timed(subject.run, subject.operations));
  }
  return { nanoseconds, floors: nanoseconds / least };
}

/** Bytes allocated per operation of `batch`, as the heap grows between collections; the least of three. */
export function allocatedBytes(batch: Batch): number {
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 3; i++) {
    batch.run();
    globalThis.gc?.();
    const before = process.memoryUsage().heapUsed;
    batch.run();
    least = Math.min(least, Math.max(0, process.memoryUsage().heapUsed - before) / batch.operations);
  }
  return least;
}
