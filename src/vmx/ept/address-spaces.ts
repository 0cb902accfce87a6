/** Numbers for the ways in which guest-physical addresses were lately translated, by which a TLB tells them apart. */
import type { EptSettings } from './ept-settings.ts';

const REMEMBERED = 16;

export class AddressSpaces {
  private readonly roots = new Float64Array(REMEMBERED).fill(-1);
  private readonly flags = new Int32Array(REMEMBERED);
  private readonly numbers = new Int32Array(REMEMBERED);
  private newest = 0;

  /** The number of the way that `settings` say: never 0, and never one that another way had. */
  numberOf(settings: EptSettings): number {
    const { root } = settings;
    const flags = flagsOf(settings);
    for (let n = 0; n < REMEMBERED; n++) {
      if (this.roots[n] === root && this.flags[n] === flags) return this.numbers[n] as number;
    }
    const at = this.newest % REMEMBERED;
    this.newest++;
    this.roots[at] = root;
    this.flags[at] = flags;
    this.numbers[at] = this.newest;
    return this.newest;
  }
}

/** Everything but the root on which the rights of a page may depend. */
function flagsOf(settings: EptSettings): number {
  return (
    settings.levels |
    (settings.accessedDirty ? 1 << 3 : 0) |
    (settings.modeBasedExecute ? 1 << 4 : 0) |
    (settings.pagingWriteControl ? 1 << 5 : 0) |
    (settings.verifiesGuestPaging ? 1 << 6 : 0) |
    (settings.subPages ? 1 << 7 : 0)
  );
}
