/**
 * Decoded code. A block is a run of instructions within one page of RAM, up to one that may go
 * elsewhere; it is found by the physical address of its first byte and the size of the code, and
 * holds as long as nothing was stored to its page. Code outside RAM is decoded each time.
 */
import { isCanonicalPair } from './addressing.ts';
import { DecodeFailure, Decoder, MAX_INSTRUCTION_BYTES } from './decoder.ts';
import { raiseWithCode, Vector } from './exceptions.ts';
import type { Instruction } from './instruction.ts';
import { Mode } from './mode.ts';
import { OPCODES } from './opcode-map.ts';
import { translate } from './paging.ts';
import { PAGE_HAS_CODE } from './physical-memory.ts';
import type { Processor } from './processor.ts';
import { Register } from './registers.ts';
import { Access, AccessClass } from './tlb.ts';

const RIP = 2 * Register.RIP;
const CS_BASE = 2 * Register['CS.base'];
const CS_LIMIT = 2 * Register['CS.limit'];
const PAGE = 0x1000;
const CACHED_BLOCKS = 1 << 14;
const MAX_BLOCK_INSTRUCTIONS = 64;

export class Block {
  /** Offset of the first byte in the memory's buffer. */
  readonly where: number;
  readonly codeBits: number;
  /** `codeVersions` of the page when this was decoded. */
  readonly version: number;
  readonly instructions: readonly Instruction[];
  /** Bytes of all instructions. */
  readonly length: number;

  constructor(where: number, codeBits: number, version: number, instructions: readonly Instruction[]) {
    this.where = where;
    this.codeBits = codeBits;
    this.version = version;
    this.instructions = instructions;
    this.length = instructions.reduce((sum, i) => sum + i.length, 0);
  }
}

export class BlockCache {
  private readonly decoder: Decoder;
  private readonly blocks: (Block | undefined)[] = new Array(CACHED_BLOCKS).fill(undefined);
  private readonly window = new Uint8Array(MAX_INSTRUCTION_BYTES);

  constructor(cpu: Processor) {
    this.decoder = new Decoder(OPCODES, cpu.features);
  }

  /** The block at CS:RIP, or undefined after a fault was raised by fetching. */
  at(cpu: Processor): Block | undefined {
    const w = cpu.i32;
    let lo = w[RIP] as number;
    let hi = w[RIP + 1] as number;
    if (cpu.mode !== Mode.Bit64) {
      if (lo >>> 0 > (w[CS_LIMIT] as number) >>> 0) {
        raiseWithCode(cpu, Vector.GP, 0);
        return undefined;
      }
      lo = (lo + (w[CS_BASE] as number)) | 0;
      hi = 0;
    } else if (!isCanonicalPair(cpu, hi)) {
      raiseWithCode(cpu, Vector.GP, 0);
      return undefined;
    }
    const entry = translate(cpu, lo, hi, Access.Fetch << fetchClass(cpu));
    if (entry < 0) return undefined;
    const page = cpu.tlb.where[entry] as number;
    if (page === 0) return this.single(cpu, lo, hi);
    const where = page + (lo & (PAGE - 1));
    const slot = (where ^ (where >>> 14)) & (CACHED_BLOCKS - 1);
    const cached = this.blocks[slot];
    const { memory } = cpu;
    const number = (page - memory.ramStart) >>> 12;
    if (
      cached !== undefined &&
      cached.where === where &&
      cached.codeBits === cpu.codeBits &&
      cached.version === memory.codeVersions[number] &&
      this.fits(cpu, cached)
    ) {
      return cached;
    }
    const block = this.build(cpu, where, number);
    if (block === undefined || !this.fits(cpu, block)) return this.single(cpu, lo, hi);
    this.blocks[slot] = block;
    return block;
  }

  /** Whether the whole block is within the limit of CS. */
  private fits(cpu: Processor, block: Block): boolean {
    if (cpu.mode === Mode.Bit64) return true;
    const w = cpu.i32;
    return ((w[RIP] as number) >>> 0) + block.length - 1 <= (w[CS_LIMIT] as number) >>> 0;
  }

  /** Decodes as many instructions as lie within the page; undefined if the first one does not. */
  private build(cpu: Processor, where: number, number: number): Block | undefined {
    const { memory, codeBits } = cpu;
    const end = (where & -PAGE) + PAGE;
    const instructions: Instruction[] = [];
    let at = where;
    while (at < end && instructions.length < MAX_BLOCK_INSTRUCTIONS) {
      const available = Math.min(end - at, MAX_INSTRUCTION_BYTES);
      const decoded = this.decoder.decode(memory.u8.subarray(at, at + available), available, codeBits);
      if (typeof decoded === 'number') break;
      // A repeated string instruction counts its iterations itself, and is alone.
      const repeats = decoded.repeat !== 0;
      if ((repeats || decoded.row.begins === true) && at !== where) break;
      instructions.push(decoded);
      at += decoded.length;
      if (repeats || decoded.row.ends === true) break;
    }
    if (instructions.length === 0) return undefined;
    memory.pageUse[number] = (memory.pageUse[number] as number) | PAGE_HAS_CODE;
    return new Block(where, codeBits, memory.codeVersions[number] as number, instructions);
  }

  /** One instruction, byte by byte: across pages, outside RAM, at the limit of CS. */
  private single(cpu: Processor, lo: number, hi: number): Block | undefined {
    const w = cpu.i32;
    const room =
      cpu.mode === Mode.Bit64
        ? MAX_INSTRUCTION_BYTES
        : ((w[CS_LIMIT] as number) >>> 0) - ((w[RIP] as number) >>> 0) + 1;
    const wanted = Math.min(MAX_INSTRUCTION_BYTES, room);
    const inFirstPage = Math.min(wanted, PAGE - (lo & (PAGE - 1)));
    if (!this.fetch(cpu, lo, hi, 0, inFirstPage)) return undefined;
    let decoded = this.decoder.decode(this.window, inFirstPage, cpu.codeBits);
    if (decoded === DecodeFailure.NeedsMore && inFirstPage < wanted) {
      const sum = (lo >>> 0) + inFirstPage;
      const nextHigh = cpu.mode === Mode.Bit64 ? (hi + Math.floor(sum / 0x1_0000_0000)) | 0 : 0;
      if (!isCanonicalPair(cpu, nextHigh)) raiseWithCode(cpu, Vector.GP, 0);
      else if (!this.fetch(cpu, sum | 0, nextHigh, inFirstPage, wanted)) return undefined;
      else decoded = this.decoder.decode(this.window, wanted, cpu.codeBits);
    }
    if (typeof decoded !== 'number') return new Block(0, cpu.codeBits, 0, [decoded]);
    // Longer than 15 bytes, or beyond the limit of CS.
    raiseWithCode(cpu, Vector.GP, 0);
    return undefined;
  }

  /** Bytes `from` … `to`−1 of the instruction into the window; the first of them is at `hi`:`lo`. */
  private fetch(cpu: Processor, lo: number, hi: number, from: number, to: number): boolean {
    const entry = translate(cpu, lo, hi, Access.Fetch << fetchClass(cpu));
    if (entry < 0) return false;
    const page = cpu.tlb.physical[entry] as number;
    const offset = lo & (PAGE - 1);
    if (page === cpu.apicAccessPage) return cpu.vmxPort.refuseVirtualApic(offset, Access.Fetch);
    const physical = page + offset;
    for (let n = from; n < to; n++) this.window[n] = cpu.memory.read8(physical + n - from);
    return true;
  }
}

function fetchClass(cpu: Processor): AccessClass {
  return cpu.cpl === 3 ? AccessClass.User : AccessClass.Supervisor;
}
