/** Descriptor tables and task-state segments of guest programs in tests. */
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { CODE, type CodeOptions, codeMachine, loadCode } from './code.ts';

export const GDT = 0x2000;
export const LDT = 0x2800;
export const IDT = 0x3000;
export const TSS = 0x4000;
export const HANDLERS = 0x2_0000;
/** Stacks that the TSS names for CPL 0 to 2, and IST 1. */
export const STACK0 = 0x8_0000;
const STACK1 = 0x7_8000;
const STACK2 = 0x7_0000;
export const IST1 = 0x6_8000;

/** Selectors of the GDT that {@link tables} builds; rings are the DPL. */
export const Selector = {
  /** Code of the machine's size. */
  Code0: 0x10,
  Data0: 0x18,
  Code3: 0x23,
  Data3: 0x2b,
  /** 32-bit code. */
  Code32Ring3: 0x33,
  Tss: 0x38,
  Code16: 0x48,
  Data16: 0x50,
  Conforming: 0x58,
  Code1: 0x61,
  Data1: 0x69,
  Code32: 0x70,
  /** Free for a test, with room for 16 bytes. */
  Free: 0x80,
  Free2: 0x90,
} as const;

/** A segment descriptor; `rights` as in the VMCS. */
export function segment(base: number, limit: number, rights: number): bigint {
  const [b, l, r] = [BigInt(base), BigInt(limit), BigInt(rights)];
  return (
    (l & 0xffffn) |
    ((b & 0xff_ffffn) << 16n) |
    ((r & 0xffn) << 40n) |
    ((l >> 16n) << 48n) |
    ((r >> 12n) << 52n) |
    ((b >> 24n) << 56n)
  );
}

/** A gate: type and DPL in `rights`; `parameters` also holds an IST number. */
export function gate(selector: number, offset: number, rights: number, parameters = 0): bigint {
  const [s, o, r] = [BigInt(selector), BigInt(offset), BigInt(rights)];
  return (
    (o & 0xffffn) | (s << 16n) | (BigInt(parameters) << 32n) | (r << 40n) | (((o >> 16n) & 0xffffn) << 48n)
  );
}

export interface World {
  readonly machine: Machine;
  readonly cpu: LogicalProcessor;
  readonly bits: 16 | 32 | 64;
}

/** Writes a descriptor to the GDT. */
export function setDescriptor({ machine }: World, selector: number, low: bigint, high?: bigint): void {
  const at = GDT + (selector & 0xfff8);
  machine.memory.write64(at, low);
  if (high !== undefined) machine.memory.write64(at + 8, high);
}

/** Writes a gate to the IDT. */
export function setGate(world: World, vector: number, low: bigint): void {
  const { memory } = world.machine;
  if (world.bits === 64) {
    memory.write64(IDT + 16 * vector, low);
    memory.write64(IDT + 16 * vector + 8, 0n);
  } else memory.write64(IDT + 8 * vector, low);
}

/** Where the handler of a vector is. */
export const handler = (vector: number) => HANDLERS + 16 * vector;

/** A processor in flat code of `bits` bits with GDT, IDT (an interrupt gate for each vector) and TSS. */
export function world(code: string | Uint8Array, options: CodeOptions = {}): World {
  const bits = options.bits ?? 64;
  const machine = codeMachine(options);
  const cpu = machine.cpu(0);
  const w: World = { machine, cpu, bits };
  const big = bits === 64 ? 0xa000 : 0xc000;
  const flat = (rights: number) => segment(0, 0xf_ffff, rights);
  const { memory } = machine;
  setDescriptor(w, Selector.Code0, flat(big | 0x9b));
  setDescriptor(w, Selector.Data0, flat(0xc093));
  setDescriptor(w, Selector.Code3, flat(big | 0xfb));
  setDescriptor(w, Selector.Data3, flat(0xc0f3));
  setDescriptor(w, Selector.Code32Ring3, flat(0xc0fb));
  setDescriptor(w, Selector.Tss, segment(TSS, 0x2fff, 0x89), 0n);
  setDescriptor(w, Selector.Code16, segment(0x1_0000, 0xffff, 0x9b));
  setDescriptor(w, Selector.Data16, segment(0x1_0000, 0xffff, 0x93));
  setDescriptor(w, Selector.Conforming, flat(big | 0x9f));
  setDescriptor(w, Selector.Code1, flat(big | 0xbb));
  setDescriptor(w, Selector.Data1, flat(0xc0b3));
  setDescriptor(w, Selector.Code32, flat(0xc09b));
  cpu.set('GDTR.base', BigInt(GDT));
  cpu.set('GDTR.limit', 0xffn);
  cpu.set('IDTR.base', BigInt(IDT));
  cpu.set('IDTR.limit', bits === 64 ? 0xfffn : 0x7ffn);
  cpu.set('TR.selector', BigInt(Selector.Tss));
  cpu.set('TR.base', BigInt(TSS));
  cpu.set('TR.limit', 0x2fffn);
  cpu.set('TR.accessRights', 0x8bn);
  cpu.set('LDTR.accessRights', 0x1_0000n);
  if (bits === 64) {
    memory.write64(TSS + 4, BigInt(STACK0));
    memory.write64(TSS + 12, BigInt(STACK1));
    memory.write64(TSS + 20, BigInt(STACK2));
    memory.write64(TSS + 36, BigInt(IST1));
  } else {
    memory.write32(TSS + 4, STACK0);
    memory.write32(TSS + 8, Selector.Data0);
    memory.write32(TSS + 12, STACK1);
    memory.write32(TSS + 16, Selector.Data1);
  }
  memory.write16(TSS + 0x66, 0x2000);
  for (let vector = 0; vector < 256; vector++) {
    setGate(w, vector, gate(Selector.Code0, handler(vector), 0x8e));
  }
  if (code !== '') loadCode(machine, code, bits);
  cpu.set('RIP', BigInt(CODE));
  return w;
}

/** Lets the processor run at CPL 3 (or 1) with the flat segments of that ring. */
export function enterRing({ cpu, bits }: World, ring: 1 | 3): void {
  const dpl = BigInt(ring << 5);
  const [code, data] = ring === 3 ? [Selector.Code3, Selector.Data3] : [Selector.Code1, Selector.Data1];
  cpu.set('CS.selector', BigInt(code));
  cpu.set('CS.accessRights', (bits === 64 ? 0xa09bn : 0xc09bn) | dpl);
  for (const name of ['SS', 'DS', 'ES', 'FS', 'GS'] as const) {
    cpu.set(`${name}.selector`, BigInt(data));
    cpu.set(`${name}.accessRights`, 0xc093n | dpl);
  }
}

/** Virtual-8086 mode at the start of the code, 1000H:0000H, with the stack at 7000H:F000H. */
export function enterVirtual8086({ cpu }: World, flags = 0): void {
  const segments = { CS: 0x1000, SS: 0x7000, DS: 1, ES: 2, FS: 3, GS: 4 };
  for (const [name, selector] of Object.entries(segments) as [keyof typeof segments, number][]) {
    cpu.set(`${name}.selector`, BigInt(selector));
    cpu.set(`${name}.base`, BigInt(selector * 16));
    cpu.set(`${name}.limit`, 0xffffn);
    cpu.set(`${name}.accessRights`, 0xf3n);
  }
  cpu.set('RFLAGS', BigInt(0x2_0002 | flags));
  cpu.set('RIP', 0n);
  cpu.set('RSP', 0xf000n);
}

/** Items of `bytes` bytes from the top of the stack, as numbers. */
export function stackItems({ machine, cpu }: World, count: number, bytes: 2 | 4 | 8): number[] {
  const base = cpu.mode === 4 ? 0n : cpu.get('SS.base');
  const top = Number(base + cpu.get('RSP'));
  return Array.from({ length: count }, (_, n) => {
    const at = top + n * bytes;
    if (bytes === 2) return machine.memory.read16(at);
    return bytes === 4 ? machine.memory.read32(at) : Number(machine.memory.read64(at));
  });
}

/** The exception that was just delivered to an interrupt gate of {@link world}: vector, and its error code if it has one. */
export function delivered(w: World): { vector: number; errorCode?: number; rip: number } {
  const vector = (Number(w.cpu.get('RIP')) - HANDLERS) / 16;
  const bytes = w.bits === 64 ? 8 : 4;
  const hasCode = [8, 10, 11, 12, 13, 14, 17, 21].includes(vector);
  const [first = 0, second = 0] = stackItems(w, 2, bytes);
  return hasCode ? { vector, errorCode: first, rip: second } : { vector, rip: first };
}
