/** Little-endian numbers from an image. A number that lies beyond the end is asked for by nobody: callers look first. */
export class ImageReader {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    // A file's bytes may come as a subclass whose slice() is no copy.
    this.bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get length(): number {
    return this.bytes.length;
  }

  /** Whether `[offset, offset + length)` is in the image; false for what is no offset. */
  has(offset: number, length: number): boolean {
    return offset >= 0 && length >= 0 && offset + length <= this.length;
  }

  u8(offset: number): number {
    return this.#view.getUint8(offset);
  }

  u16(offset: number): number {
    return this.#view.getUint16(offset, true);
  }

  u32(offset: number): number {
    return this.#view.getUint32(offset, true);
  }

  /** A 64-bit number; above 2^53 it is inexact, and too large for every use. */
  u64(offset: number): number {
    return Number(this.big64(offset));
  }

  big64(offset: number): bigint {
    return this.#view.getBigUint64(offset, true);
  }
}
