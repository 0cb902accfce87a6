/**
 * Executes cases in vmxon: 64-bit mode at CPL 3 with 4-level paging, the pages of harness.c mapped
 * with the rights they have there, and an IDT whose gates lead to one address each, so that a fault is
 * read from where it is delivered: vector from RIP, the rest from the stack of CPL 0.
 */
import { Register } from '../../src/cpu/registers.ts';
import { Machine } from '../../src/machine/machine.ts';
import { loadFx, saveFx } from './fx-image.ts';
import {
  CODE_OFFSET,
  CODE_PAGE,
  DATA_PAGE,
  type ExecuteCase,
  type Fault,
  GS_BASE,
  initialMemory,
  type NativeCase,
  type NativeResult,
  PAGE,
  STACK_PAGE,
} from './native-case.ts';

const KERNEL = 0xffff_8000_0000_0000n;
/** Linear address of the handler of vector 0; the others follow at 16 bytes. Nothing is mapped there. */
const HANDLERS = KERNEL + 0x10_0000n;
const HANDLER_BYTES = 16n;
const VECTORS = 32;
/** Vectors with an error code. */
const WITH_ERROR_CODE: ReadonlySet<number> = new Set([8, 10, 11, 12, 13, 14, 17, 21]);
const PAGE_FAULT = 14;
/** Access rights of a segment register that holds a null selector. */
const UNUSABLE = 1n << 16n;
const ACTIVE = 0n;

const Physical = {
  pml4: 0x1000,
  userPdpt: 0x2000,
  userDirectory: 0x3000,
  codeTable: 0x4000,
  dataTable: 0x5000,
  stackTable: 0x6000,
  kernelPdpt: 0x7000,
  kernelDirectory: 0x8000,
  kernelTable: 0x9000,
  code: 0x1_0000,
  /** The data page, then the stack page. */
  data: 0x1_1000,
  stack: 0x1_2000,
  gdt: 0x1_3000,
  /** Behind the GDT in its page. */
  ldt: 0x1_3800,
  idt: 0x1_4000,
  tss: 0x1_5000,
  kernelStack: 0x1_6000,
} as const;
const KERNEL_STACK_TOP = Physical.kernelStack + PAGE;

const PRESENT = 1n;
const WRITABLE = 2n;
const USER = 4n;
const NO_EXECUTE = 1n << 63n;

const KERNEL_CODE = 0x10;
const USER_DATA = 0x2b;
const USER_CODE = 0x33;
const USER_CODE_32 = 0x23;
/** The data page alone, in the LDT. */
const SMALL_DATA = 0x07;
const TSS_SELECTOR = 0x40;
/** Segment descriptors by selector, as Linux has them. */
const DESCRIPTORS: readonly (readonly [number, bigint])[] = [
  [0x08, 0x00cf_9b00_0000_ffffn],
  [KERNEL_CODE, 0x00af_9b00_0000_ffffn],
  [0x18, 0x00cf_9300_0000_ffffn],
  [USER_CODE_32, 0x00cf_fb00_0000_ffffn],
  [USER_DATA, 0x00cf_f300_0000_ffffn],
  [USER_CODE, 0x00af_fb00_0000_ffffn],
];
/** Software may raise #BP and #OF. */
const SOFTWARE_VECTORS: ReadonlySet<number> = new Set([3, 4]);

const ALWAYS_ONE_AND_IF = 0x202;
/** Iterations of a string instruction. */
const STEPS_LIMIT = 65_536;

function mapPages({ memory }: Machine): void {
  const entry = (table: number, index: number, value: bigint) => memory.write64(table + 8 * index, value);
  const open = PRESENT | WRITABLE | USER;
  entry(Physical.pml4, 0, BigInt(Physical.userPdpt) | open);
  entry(Physical.userPdpt, 0, BigInt(Physical.userDirectory) | open);
  const map = (linear: number, table: number, physical: number, rights: bigint) => {
    entry(Physical.userDirectory, linear / 0x20_0000, BigInt(table) | open);
    entry(table, 0, BigInt(physical) | rights);
  };
  map(CODE_PAGE, Physical.codeTable, Physical.code, PRESENT | USER);
  map(DATA_PAGE, Physical.dataTable, Physical.data, open | NO_EXECUTE);
  map(STACK_PAGE, Physical.stackTable, Physical.stack, open | NO_EXECUTE);
  entry(Physical.pml4, 256, BigInt(Physical.kernelPdpt) | PRESENT | WRITABLE);
  entry(Physical.kernelPdpt, 0, BigInt(Physical.kernelDirectory) | PRESENT | WRITABLE);
  entry(Physical.kernelDirectory, 0, BigInt(Physical.kernelTable) | PRESENT | WRITABLE);
  for (const physical of [Physical.gdt, Physical.idt, Physical.tss, Physical.kernelStack])
    entry(Physical.kernelTable, physical / PAGE, BigInt(physical) | PRESENT | WRITABLE);
}

function makeTables({ memory }: Machine): void {
  for (const [selector, descriptor] of DESCRIPTORS)
    memory.write64(Physical.gdt + (selector & ~7), descriptor);
  memory.write64(Physical.ldt, 0x2040_f300_0000_0fffn);
  const tss = KERNEL + BigInt(Physical.tss);
  const low = 0x0000_8b00_0000_0067n | ((tss & 0xff_ffffn) << 16n) | (((tss >> 24n) & 0xffn) << 56n);
  memory.write64(Physical.gdt + TSS_SELECTOR, low);
  memory.write64(Physical.gdt + TSS_SELECTOR + 8, tss >> 32n);
  // The I/O map begins behind the limit: no port is allowed.
  memory.write16(Physical.tss + 0x66, 0xffff);
  memory.write64(Physical.tss + 4, KERNEL + BigInt(KERNEL_STACK_TOP));
  for (let vector = 0; vector < VECTORS; vector++) {
    const handler = HANDLERS + BigInt(vector) * HANDLER_BYTES;
    const gate =
      (handler & 0xffffn) |
      (BigInt(KERNEL_CODE) << 16n) |
      ((SOFTWARE_VECTORS.has(vector) ? 0xee00n : 0x8e00n) << 32n);
    memory.write64(Physical.idt + 16 * vector, gate | ((handler & 0xffff_0000n) << 32n));
    memory.write64(Physical.idt + 16 * vector + 8, handler >> 32n);
  }
}

/** A machine whose CPU is at CPL 3, and a function that executes one case on it after another. */
export function createExecutor(): ExecuteCase {
  const machine = new Machine({ memory: 0x2_0000 });
  const { memory } = machine;
  const cpu = machine.cpu(0);
  cpu.enterLongMode();
  mapPages(machine);
  makeTables(machine);
  cpu.set('CR0', 0x8005_0033n);
  cpu.set('CR3', BigInt(Physical.pml4));
  cpu.set('CR4', 0x0000_0620n);
  cpu.set('IA32_EFER', 0xd01n);
  cpu.set('GS.base', BigInt(GS_BASE));
  cpu.set('GDTR.base', KERNEL + BigInt(Physical.gdt));
  cpu.set('GDTR.limit', 0x4fn);
  cpu.set('IDTR.base', KERNEL + BigInt(Physical.idt));
  cpu.set('IDTR.limit', BigInt(16 * VECTORS - 1));
  cpu.set('TR.selector', BigInt(TSS_SELECTOR));
  cpu.set('TR.base', KERNEL + BigInt(Physical.tss));
  cpu.set('LDTR.base', KERNEL + BigInt(Physical.ldt));
  cpu.set('LDTR.limit', 7n);
  cpu.set('LDTR.selector', 0x50n);
  const { quads } = cpu.processor;
  const page = (physical: number) => {
    const offset = memory.ramOffset(physical);
    return memory.u8.subarray(offset, offset + PAGE);
  };
  const dataPage = page(Physical.data);
  const stackPage = page(Physical.stack);
  memory.writeBytes(Physical.code, new Uint8Array(PAGE).fill(0xcc));
  let codeEnd = CODE_OFFSET;

  /** Selectors and rights of user code of 64 or 32 bits, where the last case left others. */
  function enterUserMode(bits: 32 | 64): void {
    const code = BigInt(bits === 64 ? USER_CODE : USER_CODE_32);
    const data = BigInt(USER_DATA);
    const asBefore =
      cpu.cpl === 3 &&
      cpu.get('CS.selector') === code &&
      cpu.get('DS.selector') === data &&
      cpu.get('ES.selector') === data;
    if (asBefore) return;
    cpu.set('CS.selector', code);
    cpu.set('CS.limit', 0xffff_ffffn);
    cpu.set('CS.accessRights', bits === 64 ? 0xa0fbn : 0xc0fbn);
    for (const segment of ['SS', 'DS', 'ES'] as const) {
      cpu.set(`${segment}.selector`, data);
      cpu.set(`${segment}.base`, 0n);
      cpu.set(`${segment}.limit`, 0xffff_ffffn);
      cpu.set(`${segment}.accessRights`, 0xc0f3n);
    }
    for (const segment of ['FS', 'GS'] as const) {
      cpu.set(`${segment}.selector`, 0n);
      cpu.set(`${segment}.accessRights`, UNUSABLE);
    }
  }

  function prepare(c: NativeCase, before: Uint8Array): void {
    dataPage.set(before.subarray(0, PAGE));
    stackPage.set(before.subarray(PAGE));
    memory.writeBytes(
      Physical.code + codeEnd - 16,
      new Uint8Array(Math.min(16, PAGE - codeEnd + 16)).fill(0xcc),
    );
    memory.writeBytes(Physical.code + c.codeOffset, c.code.subarray(0, PAGE - c.codeOffset));
    codeEnd = c.codeOffset + 16;
    quads.set(c.gprs);
    quads[Register.RIP] = BigInt(CODE_PAGE + c.codeOffset);
    cpu.set('RFLAGS', BigInt(c.rflags | ALWAYS_ONE_AND_IF));
    if (c.fx) loadFx(cpu.processor, c.fx);
  }

  /** The fault that was delivered, and the state that it was delivered from. */
  function delivered(): { fault: Fault; rip: bigint; rflags: number; rsp: bigint } {
    const vector = Number((cpu.get('RIP') - HANDLERS) / HANDLER_BYTES);
    const hasCode = WITH_ERROR_CODE.has(vector);
    const frame = Number(cpu.get('RSP') - KERNEL);
    const at = (index: number) => memory.read64(frame + 8 * (index + (hasCode ? 1 : 0)));
    return {
      fault: {
        vector,
        error: hasCode ? memory.read32(frame) : 0,
        address: vector === PAGE_FAULT ? cpu.get('CR2') : 0n,
      },
      rip: at(0),
      rflags: Number(at(2)),
      rsp: at(3),
    };
  }

  function changed(before: Uint8Array): Map<number, number> {
    const changes = new Map<number, number>();
    for (const [page, start] of [
      [dataPage, 0],
      [stackPage, PAGE],
    ] as const) {
      if (Buffer.compare(page, before.subarray(start, start + PAGE)) === 0) continue;
      page.forEach((value, offset) => {
        if (value !== before[start + offset]) changes.set(start + offset, value);
      });
    }
    return changes;
  }

  return (c) => {
    enterUserMode(c.bits);
    if (c.smallEs) {
      cpu.set('ES.selector', BigInt(SMALL_DATA));
      cpu.set('ES.base', BigInt(DATA_PAGE));
      cpu.set('ES.limit', BigInt(PAGE - 1));
      cpu.set('ES.accessRights', 0x40f3n);
    }
    const before = initialMemory(c);
    prepare(c, before);
    const start = BigInt(CODE_PAGE + c.codeOffset);
    let steps = 0;
    do cpu.run(1);
    while (c.repeats && cpu.get('RIP') === start && cpu.cpl === 3 && ++steps < STEPS_LIMIT);
    const fx = c.fx ? saveFx(cpu.processor, c.fx) : undefined;
    const changes = changed(before);
    if (cpu.get('activityState') !== ACTIVE) {
      throw new Error(`${c.template}, seed ${c.seed.toString(16)}: the processor did not deliver a fault`);
    }
    if (cpu.cpl === 3) {
      const gprs = quads.slice(0, 16);
      const rflags = Number(cpu.get('RFLAGS'));
      return { fault: undefined, rip: cpu.get('RIP'), rflags, gprs, fx, changes };
    }
    const { fault, rip, rflags, rsp } = delivered();
    const gprs = quads.slice(0, 16);
    gprs[4] = rsp;
    return { fault, rip, rflags, gprs, fx, changes } satisfies NativeResult;
  };
}
