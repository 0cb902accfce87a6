/**
 * The SMRAM state-save map of processors with Intel 64 (SDM §34.4.1, Table 34-3), which all profiles are:
 * offsets from SMBASE + 8000H. What the manual reserves holds what software does not see: descriptor
 * caches, PDPTEs and what is pending.
 */
import type { Processor } from '../processor.ts';
import { Register, type RegisterName, SEGMENT_NAMES } from '../registers.ts';

/** Where a part of a register lies: offset, bytes (4 or 8), register, and 1 for its upper half. */
interface Place {
  readonly offset: number;
  readonly bytes: 4 | 8;
  readonly slot: number;
  readonly half: 0 | 1;
}

const place = (offset: number, bytes: 4 | 8, name: RegisterName, half: 0 | 1 = 0): Place => ({
  offset,
  bytes,
  slot: Register[name],
  half,
});

/** Registers from `offset` downwards, one after the other. */
const downwards = (offset: number, bytes: 4 | 8, names: readonly RegisterName[]): Place[] =>
  names.map((name, n) => place(offset - bytes * n, bytes, name));

const SELECTORS = (['TR', 'LDTR', 'GS', 'FS', 'DS', 'SS', 'CS', 'ES'] as const).map(
  (name) => `${name}.selector` as const,
);
const GENERAL: readonly RegisterName[] = [
  ...(['RDI', 'RSI', 'RBP', 'RSP', 'RBX', 'RDX', 'RCX', 'RAX'] as const),
  ...(['R8', 'R9', 'R10', 'R11', 'R12', 'R13', 'R14', 'R15'] as const),
];
const PDPTES = ['PDPTE0', 'PDPTE1', 'PDPTE2', 'PDPTE3'] as const;
const PENDING = ['blockingByNmi', 'activityState', 'pendingDebugExceptions'] as const;

/** What lies in the reserved part, upwards from `offset`. */
function hidden(offset: number): Place[] {
  const places: Place[] = [];
  let at = offset;
  const add = (name: RegisterName, bytes: 4 | 8) => {
    places.push(place(at, bytes, name));
    at += bytes;
  };
  for (const name of PDPTES) add(name, 8);
  for (const name of SEGMENT_NAMES) {
    if (name !== 'LDTR') add(`${name}.base`, 8);
    add(`${name}.limit`, 4);
    add(`${name}.accessRights`, 4);
  }
  for (const name of ['GDTR.limit', 'IDTR.limit', ...PENDING] as const) add(name, 4);
  return places;
}

const PLACES: readonly Place[] = [
  ...downwards(0x7ff8, 8, ['CR0', 'CR3', 'RFLAGS', 'IA32_EFER', 'RIP', 'DR6', 'DR7']),
  ...downwards(0x7fc4, 4, SELECTORS),
  ...downwards(0x7f94, 8, GENERAL),
  place(0x7ec8, 8, 'SSP'),
  place(0x7e9c, 4, 'LDTR.base'),
  place(0x7e94, 4, 'IDTR.base'),
  place(0x7e8c, 4, 'GDTR.base'),
  place(0x7dd8, 4, 'IDTR.base', 1),
  place(0x7dd4, 4, 'LDTR.base', 1),
  place(0x7dd0, 4, 'GDTR.base', 1),
  ...hidden(0x7c00),
];

/** Offsets besides those of registers that RSM loads with the others. */
export const SaveArea = {
  /** Word: bit 0 is 1 if the SMI came in HLT; software may clear it. */
  AutoHaltRestart: 0x7f02,
  /** Word: 0, because I/O instructions are not restarted. */
  IoRestart: 0x7f00,
  RevisionIdentifier: 0x7efc,
  Smbase: 0x7ef8,
  /** I/O state: the SMI is that of no I/O instruction. */
  IoMisc: 0x7fa4,
  Cr4: 0x7e40,
  /** Bit 0: the SMI came in VMX non-root operation with "enable EPT"; then the EPTP. */
  EnableEpt: 0x7ee0,
  Eptp: 0x7ed8,
} as const;

/** Stores the registers of the map; `area` is SMBASE + 8000H. */
export function storeRegisters(cpu: Processor, area: number): void {
  const { memory, words } = cpu;
  for (const { offset, bytes, slot, half } of PLACES) {
    memory.write32(area + offset, words[2 * slot + half] as number);
    if (bytes === 8) memory.write32(area + offset + 4, words[2 * slot + 1] as number);
  }
}

/** Loads the registers of the map as they are there. */
export function loadRegisters(cpu: Processor, area: number): void {
  const { memory, words } = cpu;
  for (const { offset, bytes, slot, half } of PLACES) {
    words[2 * slot + half] = memory.read32(area + offset);
    if (bytes === 8) words[2 * slot + 1] = memory.read32(area + offset + 4);
  }
}
