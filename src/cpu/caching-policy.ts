/**
 * How long a processor keeps translations that it may keep (SDM vol. 3A §5.10, SDM §31.4). Software that
 * invalidates what the manual says cannot tell the policies apart.
 */
import { Prng } from '../bits/prng.ts';

/**
 * `none`: nothing is kept. `eager`: everything is dropped at every operation that may drop something.
 * `retain`: everything is kept until an invalidation that covers it. `seeded`: translations are also
 * dropped at arbitrary moments.
 */
export type CachingPolicy = 'none' | 'eager' | 'retain' | 'seeded';

export const CACHING_POLICIES: readonly CachingPolicy[] = ['none', 'eager', 'retain', 'seeded'];

export class Caching {
  readonly policy: CachingPolicy;
  /** Whether anything is kept. */
  readonly keeps: boolean;
  /** Of `seeded`. */
  readonly random: Prng;

  constructor(policy: CachingPolicy = 'retain', seed = 0) {
    this.policy = policy;
    this.keeps = policy !== 'none';
    this.random = new Prng(seed);
  }

  /** An invalidation or a VMX transition happens: whether everything is dropped with it. */
  dropsAtOperation(): boolean {
    if (this.policy === 'retain') return false;
    return this.policy !== 'seeded' || this.random.below(2) === 0;
  }

  /** A translation was not found at once: whether everything is dropped before it is looked for. */
  dropsNow(): boolean {
    return this.policy === 'seeded' && this.random.below(4) === 0;
  }
}
