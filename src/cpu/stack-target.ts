/**
 * A stack that a far transfer or an event delivery pushes to before SS and RSP refer to it: a fault
 * while pushing leaves all registers as they were. Only `adopt` changes RSP.
 */
import { addressRules } from './address-rules.ts';
import { followsRules, withinLimit } from './addressing.ts';
import { type Descriptor, Rights } from './descriptor.ts';
import { raiseWithCode, Vector } from './exceptions.ts';
import { Segment } from './instruction.ts';
import { loadAs, storeAs } from './memory-access.ts';
import { Mode } from './mode.ts';
import type { Processor } from './processor.ts';
import { Register, RFLAGS } from './registers.ts';
import { setSegment } from './segment-load.ts';
import { AccessClass } from './tlb.ts';

const LINEAR = 2 * Register.linear;
const RSP = 2 * Register.RSP;
const RFLAGS_LOW = 2 * Register.RFLAGS;
const ITEM = 2 * Register.stackItem;
const ITEM_BYTES = 8 * Register.stackItem;
const SS_BASE = 2 * Register['SS.base'];
const SS_LIMIT = 2 * Register['SS.limit'];
const SS_RIGHTS = 2 * Register['SS.accessRights'];
const TWO_32 = 0x1_0000_0000;

export class StackTarget {
  /** Stack pointer. */
  low = 0;
  high = 0;
  /** 16, 32 or 64. */
  private bits = 16;
  private base = 0;
  private limit = 0;
  private rights = 0;
  private real = false;
  private as: AccessClass = AccessClass.Supervisor;
  private alignmentChecked = false;
  /** Error code of #SS where the limit forbids a push: the selector of a new stack, and EXT. */
  private errorCode = 0;

  private ofPrivilege(cpu: Processor, cpl: number, errorCode: number): void {
    const ac = ((cpu.i32[RFLAGS_LOW] as number) & (1 << RFLAGS.AC)) !== 0;
    this.as = cpl === 3 ? AccessClass.User : ac ? AccessClass.SupervisorWithAc : AccessClass.Supervisor;
    this.alignmentChecked = cpl === 3 && cpu.alignmentChecked;
    this.errorCode = errorCode;
  }

  /** The stack in use. */
  current(cpu: Processor, errorCode: number): void {
    const w = cpu.i32;
    this.ofPrivilege(cpu, cpu.cpl, errorCode);
    this.bits = cpu.stackBits;
    this.real = cpu.mode === Mode.Real || cpu.mode === Mode.Virtual8086;
    this.low = w[RSP] as number;
    this.high = w[RSP + 1] as number;
    this.base = w[SS_BASE] as number;
    this.limit = (w[SS_LIMIT] as number) >>> 0;
    this.rights = w[SS_RIGHTS] as number;
  }

  /** The stack of segment `d` for `cpl`, with the stack pointer `low`. */
  inSegment(cpu: Processor, d: Descriptor, low: number, cpl: number, errorCode: number): void {
    this.ofPrivilege(cpu, cpl, errorCode);
    this.bits = (d.rights & Rights.Big) !== 0 ? 32 : 16;
    this.real = false;
    this.low = low;
    this.high = 0;
    this.base = d.baseLow;
    this.limit = d.limit >>> 0;
    this.rights = d.rights;
  }

  /** A stack in 64-bit mode for `cpl`. */
  flat(cpu: Processor, low: number, high: number, cpl: number, errorCode: number): void {
    this.ofPrivilege(cpu, cpl, errorCode);
    this.bits = 64;
    this.low = low;
    this.high = high;
  }

  /** The linear address of the item at `low`:`high` into the slot `linear`. */
  private address(cpu: Processor, low: number, high: number, bytes: number, store: boolean): boolean {
    const w = cpu.i32;
    if (this.bits === 64) {
      w[LINEAR] = low;
      w[LINEAR + 1] = high;
      if (!followsRules(cpu, addressRules(cpu, this.as), low, high, bytes)) return this.refuse(cpu);
    } else {
      const offset = this.bits === 16 ? low & 0xffff : low >>> 0;
      const { rights } = this;
      const usable =
        this.real ||
        ((rights & Rights.Unusable) === 0 && (!store || (rights & Rights.WritableOrReadable) !== 0));
      if (!usable || !withinLimit(rights, this.limit, offset, offset + bytes - 1)) return this.refuse(cpu);
      w[LINEAR] = (this.base + offset) | 0;
      w[LINEAR + 1] = 0;
    }
    if (this.alignmentChecked && ((w[LINEAR] as number) & (bytes - 1)) !== 0) {
      raiseWithCode(cpu, Vector.AC, this.errorCode & 1);
      return false;
    }
    return true;
  }

  private refuse(cpu: Processor): false {
    raiseWithCode(cpu, Vector.SS, this.errorCode);
    return false;
  }

  /** Pushes `high`:`low` as an item of `bytes` (2, 4, 8) bytes. */
  push(cpu: Processor, low: number, high: number, bytes: number): boolean {
    const at = (this.low - bytes) | 0;
    const atHigh = this.bits === 64 && this.low >>> 0 < bytes ? (this.high - 1) | 0 : this.high;
    if (!this.address(cpu, at, atHigh, bytes, true)) return false;
    cpu.i32[ITEM] = low;
    cpu.i32[ITEM + 1] = high;
    if (!storeAs(cpu, ITEM_BYTES, bytes, this.as)) return false;
    this.moveTo(at, atHigh);
    return true;
  }

  /** Loads the item of `bytes` bytes that is `offset` bytes above the pointer to `to` (byte offset in the state). */
  peek(cpu: Processor, offset: number, to: number, bytes: number): boolean {
    const sum = (this.low >>> 0) + offset;
    const high = this.bits === 64 && sum >= TWO_32 ? (this.high + 1) | 0 : this.high;
    return this.address(cpu, sum | 0, high, bytes, false) && loadAs(cpu, to, bytes, this.as);
  }

  /** Pops an item of `bytes` bytes to the slot `to` (byte offset in the state), zero-extended. */
  pop(cpu: Processor, to: number, bytes: number): boolean {
    if (!this.address(cpu, this.low, this.high, bytes, false) || !loadAs(cpu, to, bytes, this.as))
      return false;
    this.release(bytes);
    return true;
  }

  /** Moves the stack pointer up by `bytes`. */
  release(bytes: number): void {
    const sum = (this.low >>> 0) + bytes;
    this.moveTo(sum | 0, this.bits === 64 && sum >= TWO_32 ? (this.high + 1) | 0 : this.high);
  }

  /** Only the part of the pointer that the stack-address size has moves. */
  private moveTo(low: number, high: number): void {
    this.low = this.bits === 16 ? (this.low & ~0xffff) | (low & 0xffff) : low;
    this.high = this.bits === 64 ? high : 0;
  }

  /** RSP becomes this stack's pointer. */
  adopt(cpu: Processor): void {
    cpu.i32[RSP] = this.low;
    cpu.i32[RSP + 1] = this.high;
  }

  /** SS and RSP become this stack. */
  adoptWithSegment(cpu: Processor, selector: number, d: Descriptor): void {
    setSegment(cpu, Segment.SS, selector, d);
    this.adopt(cpu);
  }
}
