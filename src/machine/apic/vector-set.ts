/** A set of interrupt vectors as the local APIC keeps it: eight registers of 32 bits. */
export class VectorSet {
  readonly words: Uint32Array;

  constructor(words: Uint32Array = new Uint32Array(8)) {
    this.words = words;
  }

  has(vector: number): boolean {
    return (((this.words[vector >>> 5] as number) >>> (vector & 31)) & 1) !== 0;
  }

  add(vector: number): void {
    const word = vector >>> 5;
    this.words[word] = (this.words[word] as number) | (1 << (vector & 31));
  }

  delete(vector: number): void {
    const word = vector >>> 5;
    this.words[word] = (this.words[word] as number) & ~(1 << (vector & 31));
  }

  clear(): void {
    this.words.fill(0);
  }

  /** The highest vector, −1 if there is none. */
  get highest(): number {
    for (let word = 7; word >= 0; word--) {
      const bits = this.words[word] as number;
      if (bits !== 0) return 32 * word + 31 - Math.clz32(bits);
    }
    return -1;
  }
}
