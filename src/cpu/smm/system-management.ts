/**
 * System-management mode (SDM §34.3–§34.10): delivery of an SMI and RSM. SMRAM is memory from SMBASE on, as
 * everything else is; I/O instructions are not restarted. What VT-x does at both is asked of the port
 * (§34.14).
 */

import { Attention } from '../attention.ts';
import { Rights } from '../descriptor.ts';
import { shutDown } from '../events.ts';
import { materialise } from '../flags.ts';
import { endWait } from '../monitored-line.ts';
import { eferReserved } from '../msr-catalogue.ts';
import type { Processor } from '../processor.ts';
import { CR0, CR4, EFER, Register, RFLAGS, SEGMENT_NAMES } from '../registers.ts';
import { loadRegisters, SaveArea, storeRegisters } from './save-map.ts';

/** The state-save area and the first instruction lie at this offset from SMBASE. */
const AREA = 0x8000;
/** SMBASE can be relocated; I/O instructions cannot be restarted. */
const REVISION = 0x2_0100;
const SMI_PENDING = 2 * Register.smiPending;
const IN_SMM = 2 * Register.inSmm;
const ACTIVITY = 2 * Register.activityState;
const BLOCKING_BY_SMI = 2 * Register.blockingBySmi;
const BLOCKING_BY_NMI = 2 * Register.blockingByNmi;
const PENDING_DEBUG = 2 * Register.pendingDebugExceptions;
const SMBASE = 2 * Register.IA32_SMBASE;
const BEFORE = 2 * Register.before;
const [ACTIVE, HLT, SHUTDOWN] = [0, 1, 2];

const one = (position: number) => 1n << BigInt(position);
const PE = one(CR0.PE);
const PG = one(CR0.PG);
const CR0_CLEARED = PE | one(CR0.EM) | one(CR0.TS) | PG;
const CR0_DEFINED =
  PE |
  one(CR0.MP) |
  one(CR0.EM) |
  one(CR0.TS) |
  one(CR0.NE) |
  one(CR0.WP) |
  one(CR0.AM) |
  one(CR0.NW) |
  one(CR0.CD) |
  PG;
const RFLAGS_DEFINED = 0x3f_7fd5n;
const ACCESS_RIGHTS_DEFINED = 0x1_f0ffn;
const CODE_RIGHTS = 0x809bn;
const DATA_RIGHTS = 0x8093n;
const FOUR_GBYTES = 0xffff_ffffn;
const LOW_32 = 0xffff_ffffn;

/** Delivers the SMI that is pending (SDM §34.4, §34.5.1). */
export function enterSmm(cpu: Processor): void {
  const { memory, quads, i32: w } = cpu;
  materialise(cpu);
  w[SMI_PENDING] = 0;
  const eptp = cpu.vmxPort.entersSmm();
  const area = ((w[SMBASE] as number) >>> 0) + AREA;
  storeRegisters(cpu, area);
  memory.write64(area + SaveArea.Cr4, quads[Register.CR4] as bigint);
  memory.write16(area + SaveArea.AutoHaltRestart, w[ACTIVITY] === HLT ? 1 : 0);
  memory.write16(area + SaveArea.IoRestart, 0);
  memory.write32(area + SaveArea.IoMisc, 0);
  memory.write32(area + SaveArea.RevisionIdentifier, REVISION);
  memory.write32(area + SaveArea.Smbase, (w[SMBASE] as number) >>> 0);
  memory.write32(area + SaveArea.EnableEpt, eptp === undefined ? 0 : 1);
  if (eptp !== undefined) memory.write64(area + SaveArea.Eptp, eptp);
  w[IN_SMM] = 1;
  w[BLOCKING_BY_SMI] = 1;
  w[BLOCKING_BY_NMI] = 1;
  w[ACTIVITY] = ACTIVE;
  endWait(cpu);
  w[PENDING_DEBUG] = 0;
  quads[Register.CR0] = (quads[Register.CR0] as bigint) & ~CR0_CLEARED;
  quads[Register.CR4] = 0n;
  quads[Register.IA32_EFER] = 0n;
  quads[Register.DR7] = 0x400n;
  quads[Register.RFLAGS] = 2n;
  quads[Register.RIP] = BigInt(AREA);
  for (const name of ['ES', 'CS', 'SS', 'DS', 'FS', 'GS'] as const) {
    const isCode = name === 'CS';
    const base = BigInt((w[SMBASE] as number) >>> 0);
    quads[Register[`${name}.selector`]] = isCode ? (base >> 4n) & 0xffffn : 0n;
    quads[Register[`${name}.base`]] = isCode ? base : 0n;
    quads[Register[`${name}.limit`]] = FOUR_GBYTES;
    quads[Register[`${name}.accessRights`]] = isCode ? CODE_RIGHTS : DATA_RIGHTS;
  }
  cpu.translations.invalidateVpid(0, true);
  cpu.tlb.forgetAll();
  cpu.updateMode();
}

/** RSM in SMM: back to what was interrupted, or shutdown if the saved state is invalid (SDM §34.3.2). */
export function leaveSmm(cpu: Processor): void {
  const { memory, quads, i32: w } = cpu;
  materialise(cpu);
  const area = ((w[SMBASE] as number) >>> 0) + AREA;
  const cr4 = memory.read64(area + SaveArea.Cr4);
  const loadable = (cr4 & ~cpu.features.cr4Bits) === 0n && (cr4 & one(CR4.VMXE)) === 0n;
  if (loadable) {
    loadRegisters(cpu, area);
    quads[Register.CR4] = cr4;
    makeRepresentable(cpu);
  }
  if (!loadable || !isConsistent(cpu)) {
    // In SMM NMIs, SMIs and INIT are blocked: only RESET ends this shutdown.
    w[BLOCKING_BY_NMI] = 1;
    w[PENDING_DEBUG] = 0;
    shutDown(cpu);
    return;
  }
  const halts = w[ACTIVITY] === HLT && (memory.read16(area + SaveArea.AutoHaltRestart) & 1) !== 0;
  if (w[ACTIVITY] !== SHUTDOWN) w[ACTIVITY] = halts ? HLT : ACTIVE;
  w[SMBASE] = memory.read32(area + SaveArea.Smbase) | 0;
  w[IN_SMM] = 0;
  w[BLOCKING_BY_SMI] = 0;
  w[BEFORE] = 0;
  cpu.translations.invalidateAll();
  cpu.tlb.forgetAll();
  cpu.vmxPort.leavesSmm();
  cpu.updateMode();
  // What SMM held back, and what was pending when it was entered.
  cpu.requestAttention(Attention.Event | Attention.Vmx);
}

/** Bits that software may have written to SMRAM and that no register has. */
function makeRepresentable(cpu: Processor): void {
  const { quads, features } = cpu;
  const keep = (slot: number, mask: bigint, ones = 0n) => {
    quads[slot] = ((quads[slot] as bigint) & mask) | ones;
  };
  keep(Register.CR0, CR0_DEFINED, one(CR0.ET));
  keep(Register.CR3, one(features.physicalAddressBits) - 1n);
  keep(Register.RFLAGS, RFLAGS_DEFINED, 2n);
  keep(Register.DR6, 0xffff_ffffn, 0xffff_0ff0n & ~0x1_0800n);
  keep(Register.DR7, LOW_32 & ~0xd000n, 0x400n);
  keep(Register.IA32_EFER, ~eferReserved(features));
  if (((quads[Register.CR0] as bigint) & PG) !== 0n) {
    // LMA is LME while paging is on.
    const lme = ((quads[Register.IA32_EFER] as bigint) >> BigInt(EFER.LME)) & 1n;
    keep(Register.IA32_EFER, ~one(EFER.LMA), lme << BigInt(EFER.LMA));
  }
  keep(Register['GDTR.limit'], 0xffffn);
  keep(Register['IDTR.limit'], 0xffffn);
  keep(Register.blockingByNmi, 1n);
  keep(Register.activityState, 3n);
  keep(Register.pendingDebugExceptions, 0x1_580fn);
  for (const name of SEGMENT_NAMES) {
    keep(Register[`${name}.selector`], 0xffffn);
    keep(Register[`${name}.limit`], LOW_32);
    keep(Register[`${name}.accessRights`], ACCESS_RIGHTS_DEFINED);
  }
}

/** Combinations of control bits for which RSM shuts the processor down. */
function isConsistent(cpu: Processor): boolean {
  const cr0 = cpu.quads[Register.CR0] as bigint;
  const cr4 = cpu.quads[Register.CR4] as bigint;
  const efer = cpu.quads[Register.IA32_EFER] as bigint;
  const has = (value: bigint, position: number) => (value & one(position)) !== 0n;
  const lma = has(efer, EFER.LMA);
  if (has(cr0, CR0.PG) && !has(cr0, CR0.PE)) return false;
  if (has(cr0, CR0.NW) && !has(cr0, CR0.CD)) return false;
  if (lma && !has(cr4, CR4.PAE)) return false;
  if (has(cr4, CR4.PCIDE) && !lma) return false;
  if (has(cr4, CR4.FRED) && !isConsistentWithFred(cpu, lma)) return false;
  return !has(cr4, CR4.CET) || has(cr0, CR0.WP);
}

/** With FRED there are CPL 0 in 64-bit mode and CPL 3 with IOPL 0 (SDM §34.3.2). */
function isConsistentWithFred(cpu: Processor, lma: boolean): boolean {
  const rights = (register: 'CS' | 'SS') => cpu.i32[2 * Register[`${register}.accessRights`]] as number;
  const cpl = (rights('SS') >> 5) & 3;
  if (!lma || cpl === 1 || cpl === 2) return false;
  if (cpl === 0) return (rights('CS') & Rights.L) !== 0;
  return ((cpu.i32[2 * Register.RFLAGS] as number) & (3 << RFLAGS.IOPL)) === 0;
}
