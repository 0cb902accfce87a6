/** Bytes of a firmware table, little-endian, with a checksum that makes their sum 0 modulo 256. */
export class TableWriter {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(length: number) {
    this.bytes = new Uint8Array(length);
    this.#view = new DataView(this.bytes.buffer);
  }

  text(at: number, text: string): this {
    for (let n = 0; n < text.length; n++) this.bytes[at + n] = text.charCodeAt(n);
    return this;
  }

  u8(at: number, ...values: readonly number[]): this {
    this.bytes.set(values, at);
    return this;
  }

  u16(at: number, value: number): this {
    this.#view.setUint16(at, value, true);
    return this;
  }

  u32(at: number, ...values: readonly number[]): this {
    values.forEach((value, n) => {
      this.#view.setUint32(at + 4 * n, value, true);
    });
    return this;
  }

  u64(at: number, value: number): this {
    this.#view.setBigUint64(at, BigInt(value), true);
    return this;
  }

  /** Sets the checksum at `at` for the first `length` bytes. */
  checksum(at: number, length = this.bytes.length): this {
    this.bytes[at] = 0;
    let sum = 0;
    for (let n = 0; n < length; n++) sum += this.bytes[n] as number;
    this.bytes[at] = -sum & 0xff;
    return this;
  }
}
