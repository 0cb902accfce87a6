/** Byte strings to decode: 15 bytes from a seed, half of them built like instructions. */
import { Prng } from '../../../src/bits/prng.ts';
import { MAX_INSTRUCTION_BYTES } from '../../../src/cpu/decoder.ts';

const LEGACY_PREFIXES = [0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x66, 0xf2, 0xf3, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];
/** Opcodes of VEX map 0F38 and 0F3A that general-purpose instructions have. */
const VEX_OPCODES = [0xf0, 0xf2, 0xf3, 0xf5, 0xf6, 0xf7];
const EDGE_BYTES = [0x00, 0xff, 0x7f, 0x80, 0x01];

export class ByteStrings {
  private readonly random: Prng;
  private readonly bytes = new Uint8Array(MAX_INSTRUCTION_BYTES);
  private at = 0;

  constructor(seed: number) {
    this.random = new Prng(seed);
  }

  /** The next string; the same array each time. */
  next(bits: number): Uint8Array {
    for (let n = 0; n < this.bytes.length; n++) this.bytes[n] = this.random.below(256);
    if (this.random.below(2) === 0) return this.bytes;
    this.at = 0;
    this.prefixes(bits);
    this.opcode();
    // ModR/M and SIB stay random; displacement and immediate are often at the edges.
    if (this.random.below(2) === 0) {
      const edge = this.pick(EDGE_BYTES);
      for (let n = this.at + this.random.below(4); n < this.bytes.length; n++) this.bytes[n] = edge;
    }
    return this.bytes;
  }

  private pick(values: readonly number[]): number {
    return values[this.random.below(values.length)] as number;
  }

  private put(byte: number): void {
    if (this.at < this.bytes.length) this.bytes[this.at++] = byte;
  }

  private prefixes(bits: number): void {
    const { random } = this;
    const count = random.below(20) === 0 ? random.below(15) : [0, 0, 0, 1, 1, 2, 3][random.below(7)];
    for (let n = 0; n < (count as number); n++) this.put(this.pick(LEGACY_PREFIXES));
    if (bits === 64 && random.below(3) === 0) this.put(0x40 | random.below(16));
  }

  private opcode(): void {
    const { random } = this;
    const choice = random.below(20);
    if (choice < 8) this.put(random.below(256));
    else if (choice < 15) {
      this.put(0x0f);
      this.put(random.below(256));
    } else if (choice === 15) {
      this.put(0x62);
      this.put(random.below(8) === 0 ? random.below(256) : 0xf0 | (1 + random.below(3)));
      this.put(random.below(256) | (random.below(16) === 0 ? 0 : 4));
      this.put(random.below(256));
      this.put(random.below(256));
    } else if (choice === 16) {
      this.put(0x0f);
      this.put(random.below(2) === 0 ? 0x38 : 0x3a);
      this.put(random.below(4) < 2 ? random.below(256) : 0xf0 | random.below(8));
    } else if (choice === 17) {
      this.put(0xc5);
      this.put(random.below(256));
    } else {
      this.put(0xc4);
      this.put((random.below(256) & 0xe0) | (random.below(8) === 0 ? random.below(32) : 2 + random.below(2)));
      this.put(random.below(256));
      this.put(random.below(4) === 0 ? random.below(256) : this.pick(VEX_OPCODES));
    }
  }
}
