/** Who uses which part of RAM while an image is being loaded. Nothing is given away twice. */
import { hex } from '../../bits/u64.ts';
import type { MemoryRange } from '../memory-map.ts';
import type { BootProblem } from './boot-plan.ts';

interface Claim {
  readonly start: number;
  readonly end: number;
  readonly what: string;
}

export class Placement {
  readonly #ram: readonly MemoryRange[];
  /** In ascending order, disjoint. */
  readonly #claims: Claim[] = [];

  /** `ram`: the ranges that may be used, in ascending order. */
  constructor(ram: readonly MemoryRange[]) {
    this.#ram = ram;
  }

  /** Takes `[start, end)`, which must be RAM and free. */
  claim(start: number, end: number, what: string): BootProblem | undefined {
    if (!this.#ram.some((r) => start >= r.start && end <= r.end)) {
      return {
        problem: `${what} would lie at ${hex(start)} to ${hex(end)}, where this machine has no RAM for it`,
      };
    }
    const index = this.#indexAfter(start);
    const before = this.#claims[index - 1];
    const after = this.#claims[index];
    const other =
      before !== undefined && before.end > start
        ? before
        : after !== undefined && after.start < end
          ? after
          : undefined;
    if (other !== undefined) {
      return {
        problem: `${what} at ${hex(start)} to ${hex(end)} overlaps ${other.what} at ${hex(other.start)} to ${hex(other.end)}`,
      };
    }
    this.#claims.splice(index, 0, { start, end, what });
    return undefined;
  }

  /** Takes `size` bytes at the lowest free multiple of `alignment` in `[from, limit)`; undefined if there is none. */
  place(size: number, alignment: number, from: number, limit: number, what: string): number | undefined {
    for (const range of this.#ram) {
      let start = Math.max(range.start, from);
      const end = Math.min(range.end, limit);
      for (;;) {
        start = Math.ceil(start / alignment) * alignment;
        if (start + size > end) break;
        const inTheWay = this.#firstEndingAfter(start);
        if (inTheWay === undefined || inTheWay.start >= start + size) {
          this.claim(start, start + size, what);
          return start;
        }
        start = inTheWay.end;
      }
    }
    return undefined;
  }

  /** End of the highest claim below `limit`, 0 if there is none. */
  highestEnd(limit: number): number {
    return this.#claims.reduce((end, c) => (c.start < limit ? Math.max(end, c.end) : end), 0);
  }

  /** Number of claims that start at or below `start`. */
  #indexAfter(start: number): number {
    let [low, high] = [0, this.#claims.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#claims[middle] as Claim).start <= start) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #firstEndingAfter(address: number): Claim | undefined {
    const index = this.#indexAfter(address);
    const before = this.#claims[index - 1];
    return before !== undefined && before.end > address ? before : this.#claims[index];
  }
}
