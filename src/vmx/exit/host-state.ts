/** Loading host state (SDM §30.5), at VM exits and at VM-entry failures alike. */
import { CR4, EFER, Register, type RegisterName } from '../../cpu/registers.ts';
import { Field, type FieldName } from '../../vmcs/fields.ts';
import { AR_UNUSABLE } from '../../vmcs/formats.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { type ControlRef, controlRef, isOn } from '../effective-controls.ts';
import { tmeReduction, type VmxProcessor } from '../vmx-state.ts';

type Pairs = Partial<Record<FieldName, RegisterName>>;

function pairs(table: Pairs): Uint16Array {
  return Uint16Array.from(
    Object.entries(table).flatMap(([field, register]) => [Field[field as FieldName], Register[register]]),
  );
}

const ALWAYS = pairs({
  hostRip: 'RIP',
  hostRsp: 'RSP',
  hostIa32SysenterCs: 'IA32_SYSENTER_CS',
  hostCsSelector: 'CS.selector',
  hostSsSelector: 'SS.selector',
  hostDsSelector: 'DS.selector',
  hostEsSelector: 'ES.selector',
  hostFsSelector: 'FS.selector',
  hostGsSelector: 'GS.selector',
  hostTrSelector: 'TR.selector',
});

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

const CONTROLLED: readonly { readonly control: ControlRef; readonly table: Uint16Array }[] = [
  {
    control: controlRef('exit.loadIa32PerfGlobalCtrl'),
    table: pairs({ hostIa32PerfGlobalCtrl: 'IA32_PERF_GLOBAL_CTRL' }),
  },
  { control: controlRef('exit.loadIa32Pat'), table: pairs({ hostIa32Pat: 'IA32_PAT' }) },
  { control: controlRef('exit.loadPkrs'), table: pairs({ hostIa32Pkrs: 'IA32_PKRS' }) },
  { control: controlRef('exit2.loadIa32SpecCtrl'), table: pairs({ hostIa32SpecCtrl: 'IA32_SPEC_CTRL' }) },
  { control: controlRef('exit.loadCetState'), table: pairs({ hostSsp: 'SSP' }) },
  {
    control: controlRef('exit2.loadFred'),
    table: pairs({
      hostIa32FredConfig: 'IA32_FRED_CONFIG',
      hostIa32FredRsp1: 'IA32_FRED_RSP1',
      hostIa32FredRsp2: 'IA32_FRED_RSP2',
      hostIa32FredRsp3: 'IA32_FRED_RSP3',
      hostIa32FredStklvls: 'IA32_FRED_STKLVLS',
      hostIa32FredSsp1: 'IA32_FRED_SSP1',
      hostIa32FredSsp2: 'IA32_FRED_SSP2',
      hostIa32FredSsp3: 'IA32_FRED_SSP3',
    }),
  },
];

const CLEARED: readonly { readonly control: ControlRef; readonly word: number }[] = [
  { control: controlRef('exit.clearIa32Bndcfgs'), word: 2 * Register.IA32_BNDCFGS },
  { control: controlRef('exit.clearIa32RtitCtl'), word: 2 * Register.IA32_RTIT_CTL },
  { control: controlRef('exit.clearIa32LbrCtl'), word: 2 * Register.IA32_LBR_CTL },
];

const G = 0x8000;
const DB = 0x4000;
const L = 0x2000;
const CODE = G | 0x9b;
const DATA = G | DB | 0x93;
const TSS = 0x8b;

/** Registers that every host finds with the same value: slot and bits 31:0; bits 63:32 are 0. */
const FIXED = Uint32Array.from(
  (
    [
      ['DR7', 0x400],
      ['IA32_DEBUGCTL', 0],
      ['RFLAGS', 2],
      ['CS.base', 0],
      ['CS.limit', 0xffff_ffff],
      ['SS.base', 0],
      ['SS.limit', 0xffff_ffff],
      ['DS.base', 0],
      ['DS.limit', 0xffff_ffff],
      ['ES.base', 0],
      ['ES.limit', 0xffff_ffff],
      ['FS.limit', 0xffff_ffff],
      ['GS.limit', 0xffff_ffff],
      ['TR.limit', 0x67],
      ['TR.accessRights', TSS],
      ['LDTR.selector', 0],
      ['LDTR.base', 0],
      ['LDTR.limit', 0],
      ['LDTR.accessRights', AR_UNUSABLE],
      ['GDTR.limit', 0xffff],
      ['IDTR.limit', 0xffff],
      ['activityState', 0],
      ['blockingBySti', 0],
      ['blockingByMovSs', 0],
      ['enclaveInterruption', 0],
      ['pendingDebugExceptions', 0],
      ['monitorArmed', 0],
    ] as const satisfies readonly (readonly [RegisterName, number])[]
  ).flatMap(([name, value]) => [Register[name], value]),
);

/** Words of the selectors of SS, DS, ES, FS and GS; that of the access rights is 6 further on. */
const DATA_SELECTORS = Uint16Array.from(
  (['SS', 'DS', 'ES', 'FS', 'GS'] as const).map((name) => 2 * Register[`${name}.selector`]),
);
const TO_RIGHTS = 6;

const CLEAR_UINV = controlRef('exit.clearUinv');
const LOAD_EFER = controlRef('exit.loadIa32Efer');
const LOAD_CET = controlRef('exit.loadCetState');
const HOST_64 = controlRef('exit.hostAddressSpaceSize');

const HOST_CR0 = 2 * Field.hostCr0;
const HOST_CR3 = 2 * Field.hostCr3;
const HOST_CR4 = 2 * Field.hostCr4;
const HOST_EFER = 2 * Field.hostIa32Efer;
const CR0_LOW = 2 * Register.CR0;
const CR3_LOW = 2 * Register.CR3;
const CR4_LOW = 2 * Register.CR4;
const EFER_LOW = 2 * Register.IA32_EFER;
const UINTR_MISC_HIGH = 2 * Register.IA32_UINTR_MISC + 1;
const CS_RIGHTS = 2 * Register['CS.accessRights'];

/** Bits of CR0 that keep their value (ET, CD, NW, 28:19, 17, 15:6); fixed bits are equal in the field. */
const CR0_KEPT = 0x7ffa_ffd0;
const PAE = 1 << CR4.PAE;
const PCIDE = 1 << CR4.PCIDE;
/** LAM_U57 and LAM_U48, bits 61 and 62. */
const CR3_LAM_HIGH = 0x6000_0000;
/** CR4.FRED is bit 32. */
const FRED_HIGH = 1;
const LONG_MODE = (1 << EFER.LME) | (1 << EFER.LMA);

/** Exits of this VMCS lead to a host in IA-32e mode. */
export function isHost64(p: VmxProcessor, copy: ProcessorCopy): boolean {
  return isOn(copy, p.capabilities, HOST_64);
}

/** Loads everything of SDM §30.5; false if a host PDPTE is invalid (VMX abort 2). */
export function loadHostState(p: VmxProcessor, copy: ProcessorCopy): boolean {
  const { words } = p.cpu;
  const host64 = isHost64(p, copy);
  for (let i = 0; i < FIXED.length; i += 2) {
    const to = (FIXED[i] as number) << 1;
    words[to] = FIXED[i + 1] as number;
    words[to + 1] = 0;
  }
  load(copy, ALWAYS, words);
  loadAddresses(p, copy, ADDRESSES);
  for (let i = 0; i < DATA_SELECTORS.length; i++) {
    const at = DATA_SELECTORS[i] as number;
    // Attributes that are undefined in an unusable register are those of a usable one.
    words[at + TO_RIGHTS] = words[at] === 0 ? DATA | AR_UNUSABLE : DATA;
    words[at + TO_RIGHTS + 1] = 0;
  }
  words[CS_RIGHTS] = CODE | (host64 ? L : DB);
  words[CS_RIGHTS + 1] = 0;
  loadControlRegisters(p, copy, host64);
  loadMsrs(p, copy, host64);
  const pae = !host64 && ((words[CR4_LOW] as number) & PAE) !== 0;
  return !pae || loadPdptes(p);
}

function load(copy: ProcessorCopy, table: Uint16Array, words: Uint32Array): void {
  const fields = copy.words;
  for (let i = 0; i < table.length; i += 2) {
    const from = (table[i] as number) << 1;
    const to = (table[i + 1] as number) << 1;
    words[to] = fields[from] as number;
    words[to + 1] = fields[from + 1] as number;
  }
}

/** As {@link load}, with the upper bits made canonical for the processor's linear-address width. */
function loadAddresses(p: VmxProcessor, copy: ProcessorCopy, table: Uint16Array): void {
  const { words, features } = p.cpu;
  const fields = copy.words;
  const shift = 64 - features.linearAddressBits;
  for (let i = 0; i < table.length; i += 2) {
    const from = (table[i] as number) << 1;
    const to = (table[i + 1] as number) << 1;
    words[to] = fields[from] as number;
    // A processor with 32-bit addresses has no bits 63:32.
    words[to + 1] = shift === 32 ? 0 : (((fields[from + 1] as number) << shift) >> shift) >>> 0;
  }
}

function loadControlRegisters(p: VmxProcessor, copy: ProcessorCopy, host64: boolean): void {
  const { words, features } = p.cpu;
  const { masksLinearAddresses } = p.capabilities;
  const fields = copy.words;
  words[CR0_LOW] =
    (((words[CR0_LOW] as number) & CR0_KEPT) | ((fields[HOST_CR0] as number) & ~CR0_KEPT)) >>> 0;
  // Bits 63:MAXPHYADDR of CR3 are not modified, but for those of LAM, which are not reserved.
  const width = Math.max(features.physicalAddressBits - tmeReduction(p), 32);
  const loaded = ((1 << (width - 32)) - 1) | (masksLinearAddresses ? CR3_LAM_HIGH : 0);
  words[CR3_LOW] = fields[HOST_CR3] as number;
  words[CR3_LOW + 1] =
    (((fields[HOST_CR3 + 1] as number) & loaded) | ((words[CR3_LOW + 1] as number) & ~loaded)) >>> 0;
  const low = fields[HOST_CR4] as number;
  const high = fields[HOST_CR4 + 1] as number;
  words[CR4_LOW] = (host64 ? low | PAE : low & ~PCIDE) >>> 0;
  words[CR4_LOW + 1] = (host64 ? high : high & ~FRED_HIGH) >>> 0;
}

function loadMsrs(p: VmxProcessor, copy: ProcessorCopy, host64: boolean): void {
  const { capabilities } = p;
  const { words, features } = p.cpu;
  if (isOn(copy, capabilities, LOAD_EFER)) {
    words[EFER_LOW] = copy.words[HOST_EFER] as number;
    words[EFER_LOW + 1] = copy.words[HOST_EFER + 1] as number;
  }
  if (features.intel64) {
    words[EFER_LOW] = (((words[EFER_LOW] as number) & ~LONG_MODE) | (host64 ? LONG_MODE : 0)) >>> 0;
  }
  for (let i = 0; i < CONTROLLED.length; i++) {
    const { control, table } = CONTROLLED[i] as (typeof CONTROLLED)[number];
    if (isOn(copy, capabilities, control)) load(copy, table, words);
  }
  if (isOn(copy, capabilities, LOAD_CET)) loadAddresses(p, copy, CET_ADDRESSES);
  for (let i = 0; i < CLEARED.length; i++) {
    const { control, word } = CLEARED[i] as (typeof CLEARED)[number];
    if (!isOn(copy, capabilities, control)) continue;
    words[word] = 0;
    words[word + 1] = 0;
  }
  if (isOn(copy, capabilities, CLEAR_UINV)) {
    words[UINTR_MISC_HIGH] = ((words[UINTR_MISC_HIGH] as number) & ~0xff) >>> 0;
  }
}

/** Reserved bits of a present PDPTE below the physical-address width: 2:1 and 8:5 (SDM vol. 3A §5.4.1). */
const PDPTE_RESERVED = 0x1e6n;

/** Checks the PDPTEs at CR3 and loads them, as MOV to CR3 does: at every exit to a host with PAE paging. */
function loadPdptes(p: VmxProcessor): boolean {
  const { words, quads, memory, features } = p.cpu;
  const table = ((words[CR3_LOW] as number) & ~0x1f) >>> 0;
  const width = BigInt(features.physicalAddressBits - tmeReduction(p));
  for (let i = 0; i < 4; i++) {
    const pdpte = memory.read64(table + 8 * i);
    const valid = (pdpte & 1n) === 0n || ((pdpte & PDPTE_RESERVED) === 0n && pdpte >> width === 0n);
    if (!valid) return false;
    quads[Register.PDPTE0 + i] = pdpte;
  }
  return true;
}
