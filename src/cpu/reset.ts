/** State after power-up, reset and INIT (SDM vol. 3A §11.1.1, Table 11-1), and where a start-up IPI starts (§11.4.4). */
import { MTRR_CAPABILITIES } from './memory-type-ranges.ts';
import type { Processor } from './processor.ts';
import { REGISTERS, Register, type RegisterName } from './registers.ts';

const DATA_SEGMENTS = ['ES', 'SS', 'DS', 'FS', 'GS'] as const;
const CACHE_DISABLE_AND_NOT_WRITE_THROUGH = 0x6000_0000n;
const WAIT_FOR_SIPI = 3n;

const isKept = (name: RegisterName) =>
  (name.startsWith('IA32_') && name !== 'IA32_EFER') ||
  /^(XMM|FPR|FCW|FSW|FTW|FOP|FIP|FDP|MXCSR|XCR0|PKRU|a20mMode|inSmx)/.test(name);
/** What INIT leaves alone: MSRs, the time-stamp counter among them, x87, MMX, SSE and AVX state, XCR0, pins. */
const KEPT_BY_INIT: readonly number[] = REGISTERS.filter(isKept).map((name) => Register[name]);

/** Power-up reset. */
export function powerUp(cpu: Processor): void {
  cpu.quads.fill(0n);
  const set = (name: RegisterName, value: bigint) => {
    cpu.quads[Register[name]] = value;
  };
  set('RFLAGS', 2n);
  set('RIP', 0xfff0n);
  set('RDX', BigInt(cpu.identity.signature));
  set('CR0', 0x6000_0010n);
  set('DR6', 0xffff_0ff0n);
  set('DR7', 0x400n);
  set('XCR0', 1n);
  set('FCW', 0x40n);
  set('FTW', 0xffffn);
  set('MXCSR', 0x1f80n);
  set('IA32_PAT', 0x0007_0406_0007_0406n);
  set('IA32_MTRRCAP', MTRR_CAPABILITIES);
  set('IA32_PERF_GLOBAL_CTRL', (1n << BigInt(cpu.features.generalPurposeCounters)) - 1n);
  set('IA32_APIC_BASE', isBootstrapProcessor(cpu) ? 0xfee0_0900n : 0xfee0_0800n);
  set('IA32_SMBASE', 0x3_0000n);
  for (const segment of DATA_SEGMENTS) {
    set(`${segment}.limit`, 0xffffn);
    set(`${segment}.accessRights`, 0x93n);
  }
  set('CS.selector', 0xf000n);
  set('CS.base', 0xffff_0000n);
  set('CS.limit', 0xffffn);
  set('CS.accessRights', 0x9bn);
  set('LDTR.limit', 0xffffn);
  set('LDTR.accessRights', 0x82n);
  set('TR.limit', 0xffffn);
  set('TR.accessRights', 0x8bn);
  set('GDTR.limit', 0xffffn);
  set('IDTR.limit', 0xffffn);
  cpu.translations.invalidateAll();
  cpu.tlb.forgetAll();
  cpu.updateMode();
}

/** INIT outside VMX operation: the bootstrap processor starts at the reset vector, the others wait for a start-up IPI. */
export function initialise(cpu: Processor): void {
  const { quads } = cpu;
  const kept = KEPT_BY_INIT.map((slot) => quads[slot] as bigint);
  const caching = (quads[Register.CR0] as bigint) & CACHE_DISABLE_AND_NOT_WRITE_THROUGH;
  const sipi = quads[Register.sipiPending] as bigint;
  const smi = quads[Register.smiPending] as bigint;
  powerUp(cpu);
  KEPT_BY_INIT.forEach((slot, n) => {
    quads[slot] = kept[n] as bigint;
  });
  quads[Register.CR0] = 0x10n | caching;
  quads[Register.sipiPending] = sipi;
  quads[Register.smiPending] = smi;
  if (!isBootstrapProcessor(cpu)) quads[Register.activityState] = WAIT_FOR_SIPI;
  cpu.updateMode();
}

/** A start-up IPI: real-address mode at the page that `vector` numbers. */
export function startUp(cpu: Processor, vector: number): void {
  const { quads } = cpu;
  quads[Register['CS.selector']] = BigInt(vector << 8);
  quads[Register['CS.base']] = BigInt(vector << 12);
  quads[Register.RIP] = 0n;
  quads[Register.activityState] = 0n;
  cpu.updateMode();
}

/** The first processor is the bootstrap processor, also while its IA32_APIC_BASE says otherwise. */
function isBootstrapProcessor(cpu: Processor): boolean {
  return cpu.index === 0;
}
