/**
 * Templates: selectors, far transfers at CPL 3, software interrupts. The descriptors are those that
 * Linux has in its GDT; executor.ts has the same.
 */
import type { CaseBuilder } from '../case-builder.ts';
import { isMemory, littleEndian, type Operand, RSP } from '../operands.ts';
import type { Template } from './template.ts';

const KERNEL_CODE = 0x10;
const KERNEL_DATA = 0x18;
const USER_CODE_32 = 0x23;
const LDT_DATA = 0x07;
const USER_DATA = 0x2b;
const USER_CODE = 0x33;
/** Beyond the limits of GDT and LDT. */
const NOWHERE = [0xfff8, 0xfffb, 0x1003, 0x000f, 0x000c, 0xffff];
const NULLS = [0, 1, 2, 3];

const canonical = (c: CaseBuilder) => BigInt.asUintN(64, BigInt.asIntN(48, c.random.edge()));

function setSelector(c: CaseBuilder, rm: Operand, selector: number): void {
  c.setValue(rm, 16, BigInt(selector));
}

/** MOV to DS, ES with any selector; to SS, FS and GS only with those that fault. */
function movToSegment(c: CaseBuilder): void {
  const rm = c.operand(16);
  const [digit, selectors] = c.random.pick([
    [0, [...NULLS, LDT_DATA, USER_DATA, USER_CODE, KERNEL_DATA, ...NOWHERE]],
    [3, [...NULLS, LDT_DATA, USER_DATA, USER_CODE_32, KERNEL_CODE, ...NOWHERE]],
    [2, [...NULLS, USER_CODE, KERNEL_DATA, USER_DATA & ~3, ...NOWHERE]],
    [4, [KERNEL_DATA, ...NOWHERE]],
    [5, [KERNEL_CODE, ...NOWHERE]],
  ] as const);
  c.emit({ opcode: [0x8e], digit, rm, redundant: 'segment' });
  setSelector(c, rm, c.random.pick(selectors));
}

const ANY = [
  ...NULLS,
  LDT_DATA,
  KERNEL_CODE,
  KERNEL_DATA,
  USER_CODE_32,
  USER_DATA,
  USER_CODE,
  0x13,
  0x28,
  0x30,
  ...NOWHERE,
];

/** VERR, VERW, LSL, and LAR (whose bits 19:16 are undefined). */
function checkSelector(c: CaseBuilder): void {
  const rm = c.operand(16);
  const size = c.wideSize();
  if (c.random.chance(50)) {
    c.emit({ opcode: [0x0f, 0x00], digit: c.random.pick([4, 5]), rm, redundant: 'segment' });
  } else {
    const opcode = c.random.pick([0x02, 0x03]);
    const reg = c.register();
    c.emit({ opcode: [0x0f, opcode], size, reg, rm, redundant: 'segment' });
    if (opcode === 0x02) c.undefinedRegisters = 1 << reg;
  }
  setSelector(c, rm, c.random.pick(ANY));
}

/** Code selectors: the one in use mostly, or one that faults. */
const codeSelector = (c: CaseBuilder) =>
  c.random.chance(70)
    ? c.bits === 64
      ? USER_CODE
      : USER_CODE_32
    : c.random.pick([...NULLS, KERNEL_CODE, 0x30, USER_DATA, ...NOWHERE]);

/** JMP and CALL m16:16 and m16:32. With REX.W the manuals of the two vendors differ. */
function farIndirect(c: CaseBuilder): void {
  c.reserve(RSP);
  c.stackEdges();
  const size = c.random.pick([16, 32] as const);
  const bytes = size / 8;
  const rm = c.memory(bytes + 2);
  c.emit({ opcode: [0xff], size, digit: c.random.pick([3, 5]), rm, redundant: 'segment' });
  c.setValue(rm, size, c.random.quad());
  if (isMemory(rm)) setSelector(c, { ...rm, address: rm.address + BigInt(bytes) }, codeSelector(c));
}

/** In what order the frame and the stack beyond it are read differs between processors: no faults there. */
function farReturn(c: CaseBuilder): void {
  const size = c.wideSize();
  const bytes = size / 8;
  const release = c.random.pick([0, 8, 3, 16]);
  if (c.random.chance(50)) c.emit({ opcode: [0xcb], size, redundant: 'segment' });
  else c.emit({ opcode: [0xca], size, immediate: littleEndian(release, 2), redundant: 'segment' });
  const frame = [...littleEndian(canonical(c), bytes), ...littleEndian(codeSelector(c), 2)];
  c.setStack(0, frame);
}

/** IRET, IRETD, IRETQ to CPL 3. TF stays clear in the image of RFLAGS. */
function interruptReturn(c: CaseBuilder): void {
  const size = c.wideSize();
  const bytes = size / 8;
  c.emit({ opcode: [0xcf], size, redundant: 'segment' });
  const stackSelector = c.random.chance(80)
    ? USER_DATA
    : c.random.pick([0, 3, KERNEL_DATA, USER_CODE, ...NOWHERE]);
  const flags = c.random.next() & ~0x100;
  const rsp = (c.gprs[RSP] as bigint) ^ BigInt(c.random.below(64));
  const words = [canonical(c), BigInt(codeSelector(c)), BigInt(flags >>> 0), rsp, BigInt(stackSelector)];
  c.setStack(
    0,
    words.flatMap((word) => littleEndian(word, bytes)),
  );
}

/** INT n whose gate CPL 3 may not use, or which is not there: #GP; and INT3. */
function softwareInterrupt(c: CaseBuilder): void {
  if (c.random.chance(20)) {
    c.emit({ opcode: [0xcc], redundant: 'segment' });
    return;
  }
  const vector = c.random.below(256);
  // Breakpoint, overflow and the operating system's own entry.
  const allowed = vector === 3 || vector === 4 || vector === 0x80;
  c.emit({ opcode: [0xcd], immediate: [allowed ? 0x21 : vector], redundant: 'segment' });
}

export const SEGMENTS: readonly Template[] = [
  { name: 'mov.to-segment', build: movToSegment },
  { name: 'selector', build: checkSelector },
  { name: 'far.indirect', build: farIndirect },
  { name: 'retf', build: farReturn },
  { name: 'iret', build: interruptReturn },
  { name: 'int', build: softwareInterrupt },
];
