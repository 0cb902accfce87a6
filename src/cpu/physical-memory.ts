/**
 * Sparse physical memory of up to 2^52 bytes in 4-KByte pages. Unwritten memory reads 0. This is the
 * memory itself: accesses that software makes go through a processor, which can watch them.
 */
import { PAGE_SIZE } from '../bits/address.ts';

/** One page, with aligned little-endian views of the same bytes. */
export interface MemoryPage {
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
}

function makePage(buffer: ArrayBuffer = new ArrayBuffer(PAGE_SIZE)): MemoryPage {
  return { u8: new Uint8Array(buffer), u16: new Uint16Array(buffer), u32: new Uint32Array(buffer) };
}

const ZERO_PAGE = makePage();

export class PhysicalMemory {
  private readonly pages = new Map<number, MemoryPage>();
  private lastNumber = -1;
  private lastPage: MemoryPage = ZERO_PAGE;

  /** The page that holds `address`, created if it does not exist yet. */
  page(address: number): MemoryPage {
    const number = Math.floor(address / PAGE_SIZE);
    if (number === this.lastNumber) return this.lastPage;
    let page = this.pages.get(number);
    if (page === undefined) {
      page = makePage();
      this.pages.set(number, page);
    }
    this.lastNumber = number;
    this.lastPage = page;
    return page;
  }

  /** The page that holds `address` for reading only: a shared page of zeros where nothing was written. */
  peek(address: number): MemoryPage {
    const number = Math.floor(address / PAGE_SIZE);
    if (number === this.lastNumber) return this.lastPage;
    return this.pages.get(number) ?? ZERO_PAGE;
  }

  read8(address: number): number {
    return this.peek(address).u8[address % PAGE_SIZE] as number;
  }

  write8(address: number, value: number): void {
    this.page(address).u8[address % PAGE_SIZE] = value;
  }

  read32(address: number): number {
    const offset = address % PAGE_SIZE;
    if ((offset & 3) === 0) return this.peek(address).u32[offset >> 2] as number;
    let value = 0;
    for (let i = 3; i >= 0; i--) value = value * 256 + this.read8(address + i);
    return value;
  }

  write32(address: number, value: number): void {
    const offset = address % PAGE_SIZE;
    if ((offset & 3) === 0) {
      this.page(address).u32[offset >> 2] = value;
      return;
    }
    for (let i = 0; i < 4; i++) this.write8(address + i, (value >>> (8 * i)) & 0xff);
  }

  read64(address: number): bigint {
    return (BigInt(this.read32(address + 4)) << 32n) | BigInt(this.read32(address));
  }

  write64(address: number, value: bigint): void {
    this.write32(address, Number(value & 0xffff_ffffn));
    this.write32(address + 4, Number((value >> 32n) & 0xffff_ffffn));
  }

  readBytes(address: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const offset = (address + done) % PAGE_SIZE;
      const chunk = Math.min(length - done, PAGE_SIZE - offset);
      bytes.set(this.peek(address + done).u8.subarray(offset, offset + chunk), done);
      done += chunk;
    }
    return bytes;
  }

  writeBytes(address: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; ) {
      const offset = (address + done) % PAGE_SIZE;
      const chunk = Math.min(bytes.length - done, PAGE_SIZE - offset);
      this.page(address + done).u8.set(bytes.subarray(done, done + chunk), offset);
      done += chunk;
    }
  }

  /** Number of pages that exist. */
  get pageCount(): number {
    return this.pages.size;
  }

  /** A copy of every page, by page number in ascending order. */
  snapshot(): ReadonlyMap<number, Uint8Array> {
    const numbers = [...this.pages.keys()].sort((a, b) => a - b);
    return new Map(numbers.map((n) => [n, (this.pages.get(n) as MemoryPage).u8.slice()]));
  }

  /** Puts back a {@link snapshot}; pages that did not exist then cease to exist. */
  restore(pages: ReadonlyMap<number, Uint8Array>): void {
    this.pages.clear();
    this.lastNumber = -1;
    for (const [number, bytes] of pages) {
      const page = makePage();
      page.u8.set(bytes);
      this.pages.set(number, page);
    }
  }
}
