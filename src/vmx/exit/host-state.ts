/** Loading host state (SDM §30.5), at VM exits and at VM-entry failures alike. */

import { slotsOf } from '../../bits/slots.ts';
import { CR4, EFER, Register, type RegisterName } from '../../cpu/registers.ts';
import { Field, type FieldName } from '../../vmcs/fields.ts';
import { AR_UNUSABLE } from '../../vmcs/formats.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { type ControlRef, controlRef, isOn } from '../effective-controls.ts';
import type { VmxProcessor } from '../vmx-state.ts';

// Only the slots this file uses, in objects small enough to be constants (bench: "VMRESUME + exit").
const F = slotsOf(Field, [
  'hostCr0',
  'hostCr3',
  'hostCr4',
  'hostCsSelector',
  'hostIa32Efer',
  'hostTrSelector',
]);
const R = slotsOf(Register, [
  'CR0',
  'CR3',
  'CR4',
  'CS.selector',
  'DR7',
  'GDTR.limit',
  'IA32_DEBUGCTL',
  'IA32_EFER',
  'IA32_UINTR_MISC',
  'IDTR.limit',
  'LDTR.selector',
  'PDPTE0',
  'RFLAGS',
  'TR.selector',
  'activityState',
  'blockingByMovSs',
  'blockingBySti',
  'enclaveInterruption',
  'monitorArmed',
  'pendingDebugExceptions',
]);

type Pairs = Partial<Record<FieldName, RegisterName>>;

function pairs(table: Pairs): Uint16Array {
  return Uint16Array.from(
    Object.entries(table).flatMap(([field, register]) => [Field[field as FieldName], Register[register]]),
  );
}

const ALWAYS = pairs({ hostRip: 'RIP', hostRsp: 'RSP', hostIa32SysenterCs: 'IA32_SYSENTER_CS' });

/** Addresses, loaded with bits 63:N equal to bit N−1. */
const ADDRESSES = pairs({
  hostIa32SysenterEsp: 'IA32_SYSENTER_ESP',
  hostIa32SysenterEip: 'IA32_SYSENTER_EIP',
  hostFsBase: 'FS.base',
  hostGsBase: 'GS.base',
  hostTrBase: 'TR.base',
  hostGdtrBase: 'GDTR.base',
  hostIdtrBase: 'IDTR.base',
});

const CET_ADDRESSES = pairs({
  hostIa32SCet: 'IA32_S_CET',
  hostIa32InterruptSspTableAddr: 'IA32_INTERRUPT_SSP_TABLE_ADDR',
});

const CONTROLLED: readonly { readonly control: ControlRef; readonly table: Uint16Array }[] = (
  [
    [controlRef('exit.loadIa32PerfGlobalCtrl'), pairs({ hostIa32PerfGlobalCtrl: 'IA32_PERF_GLOBAL_CTRL' })],
    [controlRef('exit.loadIa32Pat'), pairs({ hostIa32Pat: 'IA32_PAT' })],
    [controlRef('exit.loadPkrs'), pairs({ hostIa32Pkrs: 'IA32_PKRS' })],
    [controlRef('exit2.loadIa32SpecCtrl'), pairs({ hostIa32SpecCtrl: 'IA32_SPEC_CTRL' })],
    [controlRef('exit.loadCetState'), pairs({ hostSsp: 'SSP' })],
    [
      controlRef('exit2.loadFred'),
      pairs({
        hostIa32FredConfig: 'IA32_FRED_CONFIG',
        hostIa32FredRsp1: 'IA32_FRED_RSP1',
        hostIa32FredRsp2: 'IA32_FRED_RSP2',
        hostIa32FredRsp3: 'IA32_FRED_RSP3',
        hostIa32FredStklvls: 'IA32_FRED_STKLVLS',
        hostIa32FredSsp1: 'IA32_FRED_SSP1',
        hostIa32FredSsp2: 'IA32_FRED_SSP2',
        hostIa32FredSsp3: 'IA32_FRED_SSP3',
      }),
    ],
  ] as const satisfies readonly (readonly [ControlRef, Uint16Array])[]
).map(([control, table]) => ({ control, table }));

const CLEARED: readonly { readonly control: ControlRef; readonly slot: number }[] = (
  [
    [controlRef('exit.clearIa32Bndcfgs'), Register.IA32_BNDCFGS],
    [controlRef('exit.clearIa32RtitCtl'), Register.IA32_RTIT_CTL],
    [controlRef('exit.clearIa32LbrCtl'), Register.IA32_LBR_CTL],
  ] as const satisfies readonly (readonly [ControlRef, number])[]
).map(([control, slot]) => ({ control, slot }));

const CLEAR_UINV = controlRef('exit.clearUinv');
const LOAD_EFER = controlRef('exit.loadIa32Efer');
const LOAD_CET = controlRef('exit.loadCetState');
const HOST_64 = controlRef('exit.hostAddressSpaceSize');

/** Bits of CR0 that keep their value (ET, CD, NW, 28:19, 17, 15:6); fixed bits are equal in the field. */
const CR0_KEPT = 0x7ffa_ffd0;

const CODE = 0x9b;
const DATA = 0x93;
const TSS = 0x8b;
const G = 0x8000;
const DB = 0x4000;
const L = 0x2000;

function set(words: Uint32Array, slot: number, low: number, high = 0): void {
  words[2 * slot] = low >>> 0;
  words[2 * slot + 1] = high;
}

function load(copy: ProcessorCopy, table: Uint16Array, words: Uint32Array): void {
  for (let i = 0; i < table.length; i += 2) {
    const from = 2 * (table[i] as number);
    const to = 2 * (table[i + 1] as number);
    words[to] = copy.words[from] as number;
    words[to + 1] = copy.words[from + 1] as number;
  }
}

/** As {@link load}, with the upper bits made canonical for `width` (48 or 57). */
function loadAddresses(copy: ProcessorCopy, table: Uint16Array, words: Uint32Array, width: number): void {
  const shift = 64 - width;
  for (let i = 0; i < table.length; i += 2) {
    const from = 2 * (table[i] as number);
    const to = 2 * (table[i + 1] as number);
    words[to] = copy.words[from] as number;
    words[to + 1] = ((copy.words[from + 1] as number) << shift) >> shift;
  }
}

/** Whether the host uses PAE paging after the exit (SDM §30.5.4). */
function hostUsesPae(p: VmxProcessor, copy: ProcessorCopy): boolean {
  const cr4 = copy.words[2 * F.hostCr4] as number;
  return ((cr4 >>> CR4.PAE) & 1) === 1 && !isOn(copy, p.capabilities, HOST_64);
}

/** Loads everything of SDM §30.5; false if a host PDPTE is invalid (VMX abort 2). */
export function loadHostState(p: VmxProcessor, copy: ProcessorCopy): boolean {
  const { capabilities, cpu } = p;
  const { words } = cpu;
  const host64 = isOn(copy, capabilities, HOST_64);
  const width = cpu.features.linearAddressBits;
  const pdptesNeeded = hostUsesPae(p, copy);

  const cr0 = 2 * R.CR0;
  const fieldCr0 = copy.words[2 * F.hostCr0] as number;
  words[cr0] = (((words[cr0] as number) & CR0_KEPT) | (fieldCr0 & ~CR0_KEPT)) >>> 0;
  const cr3High = copy.words[2 * F.hostCr3 + 1] as number;
  set(
    words,
    R.CR3,
    copy.words[2 * F.hostCr3] as number,
    cr3High & (2 ** (cpu.features.physicalAddressBits - 32) - 1),
  );
  const fieldCr4Low = copy.words[2 * F.hostCr4] as number;
  const fieldCr4High = copy.words[2 * F.hostCr4 + 1] as number;
  set(
    words,
    R.CR4,
    host64 ? fieldCr4Low | (1 << CR4.PAE) : fieldCr4Low & ~(1 << CR4.PCIDE),
    host64 ? fieldCr4High : fieldCr4High & ~1,
  );
  set(words, R.DR7, 0x400);
  set(words, R.IA32_DEBUGCTL, 0);
  set(words, R.RFLAGS, 2);
  load(copy, ALWAYS, words);
  if (width === 32) load(copy, ADDRESSES, words);
  else loadAddresses(copy, ADDRESSES, words, width);

  if (isOn(copy, capabilities, LOAD_EFER)) set(words, R.IA32_EFER, copy.words[2 * F.hostIa32Efer] as number);
  if (cpu.features.intel64) {
    const mode = (1 << EFER.LME) | (1 << EFER.LMA);
    const efer = 2 * R.IA32_EFER;
    words[efer] = (((words[efer] as number) & ~mode) | (host64 ? mode : 0)) >>> 0;
  }
  for (let i = 0; i < CONTROLLED.length; i++) {
    const { control, table } = CONTROLLED[i] as (typeof CONTROLLED)[number];
    if (isOn(copy, capabilities, control)) load(copy, table, words);
  }
  if (isOn(copy, capabilities, LOAD_CET)) {
    if (width === 32) load(copy, CET_ADDRESSES, words);
    else loadAddresses(copy, CET_ADDRESSES, words, width);
  }
  for (let i = 0; i < CLEARED.length; i++) {
    const { control, slot } = CLEARED[i] as (typeof CLEARED)[number];
    if (isOn(copy, capabilities, control)) set(words, slot, 0);
  }
  if (isOn(copy, capabilities, CLEAR_UINV)) {
    const high = 2 * R.IA32_UINTR_MISC + 1;
    words[high] = ((words[high] as number) & ~0xff) >>> 0;
  }
  loadSegments(copy, words, host64);
  loadNonRegisterState(words);
  return !pdptesNeeded || loadPdptes(p);
}

const DATA_SEGMENTS = (['SS', 'DS', 'ES', 'FS', 'GS'] as const).map((name) => ({
  field: Field[`host${name[0]}${name.slice(1).toLowerCase()}Selector` as FieldName],
  selector: Register[`${name}.selector`],
  keepsBase: name === 'FS' || name === 'GS',
}));

/** SDM §30.5.2. Attributes that are undefined in an unusable register are those of a usable one. */
function loadSegments(copy: ProcessorCopy, words: Uint32Array, host64: boolean): void {
  const cs = R['CS.selector'];
  set(words, cs, copy.words[2 * F.hostCsSelector] as number);
  set(words, cs + 1, 0);
  set(words, cs + 2, 0xffff_ffff);
  set(words, cs + 3, CODE | G | (host64 ? L : DB));
  for (let i = 0; i < DATA_SEGMENTS.length; i++) {
    const { field, selector, keepsBase } = DATA_SEGMENTS[i] as (typeof DATA_SEGMENTS)[number];
    const value = copy.words[2 * field] as number;
    set(words, selector, value);
    if (!keepsBase) set(words, selector + 1, 0);
    set(words, selector + 2, 0xffff_ffff);
    set(words, selector + 3, DATA | G | DB | (value === 0 ? AR_UNUSABLE : 0));
  }
  const tr = R['TR.selector'];
  set(words, tr, copy.words[2 * F.hostTrSelector] as number);
  set(words, tr + 2, 0x67);
  set(words, tr + 3, TSS);
  const ldtr = R['LDTR.selector'];
  set(words, ldtr, 0);
  set(words, ldtr + 3, AR_UNUSABLE);
  set(words, R['GDTR.limit'], 0xffff);
  set(words, R['IDTR.limit'], 0xffff);
}

/** SDM §30.5.5, §30.5.6. Blocking by NMI is left as it is. */
function loadNonRegisterState(words: Uint32Array): void {
  set(words, R.activityState, 0);
  set(words, R.blockingBySti, 0);
  set(words, R.blockingByMovSs, 0);
  set(words, R.enclaveInterruption, 0);
  set(words, R.pendingDebugExceptions, 0);
  set(words, R.monitorArmed, 0);
}

/** A present PDPTE sets none of bits 2:1, 8:5 and 63:MAXPHYADDR (SDM vol. 3A §5.4.1). */
export function isPdpteValid(pdpte: bigint, physicalAddressBits: number): boolean {
  if ((pdpte & 1n) === 0n) return true;
  return (pdpte & 0x1e6n) === 0n && pdpte >> BigInt(physicalAddressBits) === 0n;
}

function loadPdptes(p: VmxProcessor): boolean {
  const { quads, memory, features } = p.cpu;
  const table = Number((quads[R.CR3] as bigint) & 0xffff_ffe0n);
  for (let i = 0; i < 4; i++) {
    const pdpte = memory.read64(table + 8 * i);
    if (!isPdpteValid(pdpte, features.physicalAddressBits)) return false;
    quads[R.PDPTE0 + i] = pdpte;
  }
  return true;
}
