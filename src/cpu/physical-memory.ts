/**
 * Physical memory of up to 2^52 bytes in 4-KByte pages: RAM, contiguous in one buffer that also holds
 * the state of the processors, and sparse pages everywhere else. Unwritten memory reads 0. This is
 * the memory itself: accesses that software makes go through a processor, which can watch them.
 */
import { PAGE_SIZE } from '../bits/address.ts';
import { type MappedDevices, NO_MAPPED_DEVICES } from './memory-mapped.ts';

/** One page, with aligned little-endian views of the same bytes. */
export interface MemoryPage {
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
}

function makePage(buffer: ArrayBuffer = new ArrayBuffer(PAGE_SIZE), at = 0): MemoryPage {
  return {
    u8: new Uint8Array(buffer, at, PAGE_SIZE),
    u16: new Uint16Array(buffer, at, PAGE_SIZE / 2),
    u32: new Uint32Array(buffer, at, PAGE_SIZE / 4),
  };
}

const ZERO_PAGE = makePage();

/** RAM beyond this address continues at {@link HIGH_RAM}: below 4 GBytes there are devices. */
const LOW_RAM_LIMIT = 0xc000_0000;
const HIGH_RAM = 0x1_0000_0000;
/** A WebAssembly memory has at most 4 GBytes in pages of 64 KBytes. */
const WASM_PAGE = 0x1_0000;
const BUFFER_LIMIT = 0xffff_0000;

/** {@link PhysicalMemory.pageUse} of a page from which code was decoded: a store has to drop that. */
export const PAGE_HAS_CODE = 1;
/** … of a page that is watched: no access may bypass the watcher. */
const PAGE_IS_WATCHED = 2;
/** … of a page in which a processor may monitor a line. */
const PAGE_IS_MONITORED = 4;
/** … of a page stores to which have to be noticed ({@link PhysicalMemory.noticeStore}). */
export const STORES_ARE_NOTICED = PAGE_HAS_CODE | PAGE_IS_MONITORED;

/** Is told of stores to pages with monitored lines; answers whether it still monitors a line in the page. */
export type StoreMonitor = (address: number, bytes: number) => boolean;

/** What is used of the WebAssembly API, which every browser and Node have. */
const { WebAssembly: WASM } = globalThis as unknown as {
  WebAssembly: { Memory: new (size: { initial: number; maximum: number }) => { buffer: ArrayBuffer } };
};

/** Bytes of state that precede RAM, for `processors` of `stateBytes` each. */
export interface MemoryLayout {
  /** Bytes of RAM, a multiple of 4096; 0 if all memory is sparse. */
  readonly ramBytes: number;
  /** Bytes in front of RAM for the state of processors. */
  readonly stateBytes: number;
}

export class PhysicalMemory {
  /** State of processors, then RAM; one WebAssembly memory if there is RAM. */
  readonly buffer: ArrayBuffer;
  readonly ramBytes: number;
  /** Devices at addresses outside RAM. */
  devices: MappedDevices = NO_MAPPED_DEVICES;
  /** Offset of RAM in {@link buffer}; without RAM the buffer is empty, and processors keep their state themselves. */
  readonly ramStart: number;
  /** The buffer as bytes, halves, words. */
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly i32: Int32Array;
  /** Who monitors lines. */
  readonly monitors: StoreMonitor[] = [];
  /** By RAM page: PAGE_HAS_CODE, PAGE_IS_WATCHED, PAGE_IS_MONITORED. */
  readonly pageUse: Uint8Array;
  /** By RAM page: changes with every store to a page that has code. */
  readonly codeVersions: Int32Array;
  private readonly lowRam: number;
  private readonly pages = new Map<number, MemoryPage>();
  private lastNumber = -1;
  private lastPage: MemoryPage = ZERO_PAGE;

  /** @throws RangeError if the layout does not fit into 4 GBytes */
  constructor({ ramBytes, stateBytes }: MemoryLayout = { ramBytes: 0, stateBytes: 0 }) {
    this.ramBytes = ramBytes;
    this.ramStart = Math.max(Math.ceil(stateBytes / PAGE_SIZE), 1) * PAGE_SIZE;
    this.lowRam = Math.min(ramBytes, LOW_RAM_LIMIT);
    const bytes = Math.ceil((this.ramStart + ramBytes) / WASM_PAGE) * WASM_PAGE;
    if (ramBytes % PAGE_SIZE !== 0 || bytes > BUFFER_LIMIT) {
      throw new RangeError(`RAM must be a multiple of 4096 bytes below 4 GBytes, not ${ramBytes} bytes`);
    }
    if (ramBytes === 0) this.buffer = new ArrayBuffer(0);
    else {
      const pages = bytes / WASM_PAGE;
      this.buffer = new WASM.Memory({ initial: pages, maximum: pages }).buffer;
    }
    this.u8 = new Uint8Array(this.buffer);
    this.u16 = new Uint16Array(this.buffer);
    this.i32 = new Int32Array(this.buffer);
    this.pageUse = new Uint8Array(ramBytes / PAGE_SIZE);
    this.codeVersions = new Int32Array(ramBytes / PAGE_SIZE);
  }

  /** Offset in {@link buffer} of the RAM at `address`, 0 if there is none. */
  ramOffset(address: number): number {
    if (address < this.lowRam) return this.ramStart + address;
    const offset = address - HIGH_RAM + LOW_RAM_LIMIT;
    return address >= HIGH_RAM && offset < this.ramBytes ? this.ramStart + offset : 0;
  }

  /** As {@link ramOffset}, but 0 also for a page each access to which somebody must see. */
  directOffset(address: number): number {
    const offset = this.ramOffset(address);
    if (offset === 0) return 0;
    return ((this.pageUse[(offset - this.ramStart) >>> 12] as number) & PAGE_IS_WATCHED) === 0 ? offset : 0;
  }

  /** From now on every access to the page of `address` goes past the watcher; true if it did not before. */
  watch(address: number): boolean {
    const offset = this.ramOffset(address);
    if (offset === 0) return false;
    const page = (offset - this.ramStart) >>> 12;
    const use = this.pageUse[page] as number;
    this.pageUse[page] = use | PAGE_IS_WATCHED;
    return (use & PAGE_IS_WATCHED) === 0;
  }

  /** Physical address of the RAM at `offset` of {@link buffer}. */
  ramAddress(offset: number): number {
    const address = offset - this.ramStart;
    return address < LOW_RAM_LIMIT ? address : address - LOW_RAM_LIMIT + HIGH_RAM;
  }

  /** From now on stores to the page of `address` are noticed, as long as a processor monitors a line in it; false if it is no RAM. */
  monitor(address: number): boolean {
    const offset = this.ramOffset(address);
    if (offset === 0) return false;
    const page = (offset - this.ramStart) >>> 12;
    this.pageUse[page] = (this.pageUse[page] as number) | PAGE_IS_MONITORED;
    return true;
  }

  /** The page that holds `address`, created if it does not exist yet; `bytes` from there may be written. */
  page(address: number, bytes = PAGE_SIZE - (address % PAGE_SIZE)): MemoryPage {
    const number = Math.floor(address / PAGE_SIZE);
    if (this.ramBytes !== 0) this.noticeStore(address, bytes);
    if (number === this.lastNumber) return this.lastPage;
    let page = this.pages.get(number);
    if (page === undefined) {
      const offset = this.ramOffset(number * PAGE_SIZE);
      page = offset === 0 ? makePage() : makePage(this.buffer, offset);
      this.pages.set(number, page);
    }
    this.lastNumber = number;
    this.lastPage = page;
    return page;
  }

  /** `bytes` within the page of `address` are stored: what was decoded no longer holds, who monitors them is told. */
  noticeStore(address: number, bytes: number): void {
    const offset = this.ramOffset(address);
    if (offset === 0) return;
    const page = (offset - this.ramStart) >>> 12;
    const use = this.pageUse[page] as number;
    if ((use & STORES_ARE_NOTICED) === 0) return;
    if ((use & PAGE_HAS_CODE) !== 0) this.codeVersions[page] = ((this.codeVersions[page] as number) + 1) | 0;
    const isMonitored = (use & PAGE_IS_MONITORED) !== 0 && this.isStillMonitored(address, bytes);
    this.pageUse[page] = (use & PAGE_IS_WATCHED) | (isMonitored ? PAGE_IS_MONITORED : 0);
  }

  private isStillMonitored(address: number, bytes: number): boolean {
    let monitored = false;
    for (const stored of this.monitors) monitored = stored(address, bytes) || monitored;
    return monitored;
  }

  /** The page that holds `address` for reading only: a shared page of zeros where nothing was written. */
  peek(address: number): MemoryPage {
    const number = Math.floor(address / PAGE_SIZE);
    if (number === this.lastNumber) return this.lastPage;
    const page = this.pages.get(number);
    if (page !== undefined) return page;
    return this.ramBytes !== 0 && this.ramOffset(number * PAGE_SIZE) !== 0
      ? this.page(address, 0)
      : ZERO_PAGE;
  }

  read16(address: number): number {
    return this.read8(address) | (this.read8(address + 1) << 8);
  }

  write16(address: number, value: number): void {
    this.write8(address, value & 0xff);
    this.write8(address + 1, (value >>> 8) & 0xff);
  }

  read8(address: number): number {
    const ram = this.ramOffset(address);
    if (ram !== 0) return this.u8[ram] as number;
    return this.peek(address).u8[address % PAGE_SIZE] as number;
  }

  write8(address: number, value: number): void {
    this.page(address, 1).u8[address % PAGE_SIZE] = value;
  }

  read32(address: number): number {
    const ram = this.ramOffset(address);
    if (ram !== 0 && (ram & 3) === 0) return (this.i32[ram >>> 2] as number) >>> 0;
    const offset = address % PAGE_SIZE;
    if ((offset & 3) === 0) return this.peek(address).u32[offset >> 2] as number;
    let value = 0;
    for (let i = 3; i >= 0; i--) value = value * 256 + this.read8(address + i);
    return value;
  }

  write32(address: number, value: number): void {
    const offset = address % PAGE_SIZE;
    if ((offset & 3) === 0) {
      this.page(address, 4).u32[offset >> 2] = value;
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
      this.page(address + done, chunk).u8.set(bytes.subarray(done, done + chunk), offset);
      done += chunk;
    }
  }

  /** Number of pages that exist. */
  get pageCount(): number {
    return this.pages.size;
  }

  /** A copy of every page that is not all zeros in RAM, or exists elsewhere, by page number in ascending order. */
  snapshot(): ReadonlyMap<number, Uint8Array> {
    for (let offset = this.ramStart; offset < this.ramStart + this.ramBytes; offset += PAGE_SIZE) {
      const words = this.i32.subarray(offset >> 2, (offset + PAGE_SIZE) >> 2);
      if (words.some((word) => word !== 0)) this.page(this.ramAddress(offset), 0);
    }
    const numbers = [...this.pages.keys()].sort((a, b) => a - b);
    return new Map(numbers.map((n) => [n, (this.pages.get(n) as MemoryPage).u8.slice()]));
  }

  /** Puts back a {@link snapshot}; pages that did not exist then cease to exist. */
  restore(pages: ReadonlyMap<number, Uint8Array>): void {
    this.pages.clear();
    this.lastNumber = -1;
    this.u8.fill(0, this.ramStart);
    for (let page = 0; page < this.pageUse.length; page++) {
      // Processors that are put back too may monitor any.
      this.pageUse[page] = ((this.pageUse[page] as number) & PAGE_IS_WATCHED) | PAGE_IS_MONITORED;
    }
    for (let page = 0; page < this.codeVersions.length; page++)
      this.codeVersions[page] = this.codeVersions[page]! + 1;
    for (const [number, bytes] of pages) this.page(number * PAGE_SIZE, 0).u8.set(bytes);
  }
}
