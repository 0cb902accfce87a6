/** Loading host state (SDM §30.5), at VM exits and at VM-entry failures alike. */
import { CR4, EFER, Register, type RegisterName } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import { AR_UNUSABLE } from '../../vmcs/formats.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { type ControlRef, controlRef, controlsOf, type EffectiveControls } from '../effective-controls.ts';
import { ControlledMoves, DerivedMoves, loadRegisters, padded, type SlotMoves } from '../slot-moves.ts';
import { tmeReduction, type VmxProcessor } from '../vmx-state.ts';

const HOST_STATE = new ControlledMoves(
  {
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
  },
  {
    'exit.loadIa32PerfGlobalCtrl': { hostIa32PerfGlobalCtrl: 'IA32_PERF_GLOBAL_CTRL' },
    'exit.loadIa32Pat': { hostIa32Pat: 'IA32_PAT' },
    'exit.loadPkrs': { hostIa32Pkrs: 'IA32_PKRS' },
    'exit2.loadIa32SpecCtrl': { hostIa32SpecCtrl: 'IA32_SPEC_CTRL' },
    'exit.loadCetState': { hostSsp: 'SSP' },
    'exit2.loadFred': {
      hostIa32FredConfig: 'IA32_FRED_CONFIG',
      hostIa32FredRsp1: 'IA32_FRED_RSP1',
      hostIa32FredRsp2: 'IA32_FRED_RSP2',
      hostIa32FredRsp3: 'IA32_FRED_RSP3',
      hostIa32FredStklvls: 'IA32_FRED_STKLVLS',
      hostIa32FredSsp1: 'IA32_FRED_SSP1',
      hostIa32FredSsp2: 'IA32_FRED_SSP2',
      hostIa32FredSsp3: 'IA32_FRED_SSP3',
    },
  },
);

/** Addresses, loaded with bits 63:N equal to bit N−1. */
const ADDRESSES = new ControlledMoves(
  {
    hostIa32SysenterEsp: 'IA32_SYSENTER_ESP',
    hostIa32SysenterEip: 'IA32_SYSENTER_EIP',
    hostFsBase: 'FS.base',
    hostGsBase: 'GS.base',
    hostTrBase: 'TR.base',
    hostGdtrBase: 'GDTR.base',
    hostIdtrBase: 'IDTR.base',
  },
  {
    'exit.loadCetState': {
      hostIa32SCet: 'IA32_S_CET',
      hostIa32InterruptSspTableAddr: 'IA32_INTERRUPT_SSP_TABLE_ADDR',
    },
  },
);

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
const UNUSABLE_DATA = DATA | AR_UNUSABLE;
const TSS = 0x8b;

/** Registers that every host finds with the same value. */
const FIXED: readonly (readonly [RegisterName, number])[] = [
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
];
const FIXED_MOVES = padded(FIXED.map(([name], index) => [index, Register[name]]));
const FIXED_VALUES = BigUint64Array.from(FIXED, ([, value]) => BigInt(value));

// Words of selectors; that of the access rights is 6 further on.
const SS = 2 * Register['SS.selector'];
const DS = 2 * Register['DS.selector'];
const ES = 2 * Register['ES.selector'];
const FS = 2 * Register['FS.selector'];
const GS = 2 * Register['GS.selector'];
const TO_RIGHTS = 6;
/** Slots of access rights that loading gives a value of its own. */
const RIGHTS = (['CS', 'SS', 'DS', 'ES', 'FS', 'GS'] as const).map((s) => Register[`${s}.accessRights`]);

const CLEAR_UINV = controlRef('exit.clearUinv');
const LOAD_EFER = controlRef('exit.loadIa32Efer');
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

/** Exits of a VMCS with these controls lead to a host in IA-32e mode. */
export function isHost64(controls: EffectiveControls): boolean {
  return controls.isOn(HOST_64);
}

/** Loads everything of SDM §30.5; false if a host PDPTE is invalid (VMX abort 2). */
export function loadHostState(
  p: VmxProcessor,
  copy: ProcessorCopy,
  controls = controlsOf(copy, p.capabilities),
): boolean {
  const { words, quads } = p.cpu;
  const host64 = controls.isOn(HOST_64);
  const image = copy.hostImage as HostImage | undefined;
  if (image !== undefined && image.controls === controls) {
    if (copy.hostWritten) {
      loadFromFields(p, copy, controls);
      image.refresh(quads);
      copy.keepHostImage(image);
    } else {
      loadRegisters(image.moves, image.values, quads);
    }
  } else {
    loadFromFields(p, copy, controls);
    copy.keepHostImage(new HostImage(p, controls));
  }
  loadBesideOldValues(p, copy, controls);
  const pae = !host64 && ((words[CR4_LOW] as number) & PAE) !== 0;
  return !pae || loadPdptes(p);
}

/** Moves of an image into the registers that controls decide. */
const IMAGE = new DerivedMoves((controls, capabilities) => {
  const loaded = [
    FIXED_MOVES,
    HOST_STATE.under(controls, capabilities),
    ADDRESSES.under(controls, capabilities),
  ].flatMap((moves) => [...moves].map((move) => move >>> 16));
  const cleared = CLEARED.filter(({ control }) => controls.isOn(control)).map(({ word }) => word >>> 1);
  const registers = [...new Set([...loaded, ...RIGHTS, Register.CR4, ...cleared])];
  return padded(registers.map((register, index) => [index, register]));
});

/**
 * The registers that only host-state fields and controls decide, as the last VM exit left them: the
 * next one takes them from here if no field was written (bench: "VMRESUME + exit").
 */
class HostImage {
  readonly controls: EffectiveControls;
  readonly moves: SlotMoves;
  readonly values: BigUint64Array;

  constructor(p: VmxProcessor, controls: EffectiveControls) {
    this.controls = controls;
    this.moves = IMAGE.under(controls, p.capabilities);
    this.values = new BigUint64Array(this.moves.length);
    this.refresh(p.cpu.quads);
  }

  refresh(registers: BigUint64Array): void {
    const { moves, values } = this;
    for (let i = 0; i < values.length; i++) {
      values[i] = registers[(moves[i] as number) >>> 16] as bigint;
    }
  }
}

/** Everything that has nothing of what the registers held before. */
function loadFromFields(p: VmxProcessor, copy: ProcessorCopy, controls: EffectiveControls): void {
  const { capabilities } = p;
  const { words, quads } = p.cpu;
  const host64 = controls.isOn(HOST_64);
  loadRegisters(FIXED_MOVES, FIXED_VALUES, quads);
  loadRegisters(HOST_STATE.under(controls, capabilities), copy.quads, quads);
  loadAddresses(p, ADDRESSES.under(controls, capabilities), copy.words);
  setDataRights(words, SS);
  setDataRights(words, DS);
  setDataRights(words, ES);
  setDataRights(words, FS);
  setDataRights(words, GS);
  words[CS_RIGHTS] = CODE | (host64 ? L : DB);
  words[CS_RIGHTS + 1] = 0;
  const low = copy.words[HOST_CR4] as number;
  const high = copy.words[HOST_CR4 + 1] as number;
  words[CR4_LOW] = (host64 ? low | PAE : low & ~PCIDE) >>> 0;
  words[CR4_LOW + 1] = (host64 ? high : high & ~FRED_HIGH) >>> 0;
  for (const { control, word } of CLEARED) {
    if (!controls.isOn(control)) continue;
    words[word] = 0;
    words[word + 1] = 0;
  }
}

/** Access rights of a data segment; what is undefined in an unusable register is as in a usable one. */
function setDataRights(words: Uint32Array, selector: number): void {
  words[selector + TO_RIGHTS] = words[selector] === 0 ? UNUSABLE_DATA : DATA;
  words[selector + TO_RIGHTS + 1] = 0;
}

/** Loads addresses with the upper bits made canonical for the processor's linear-address width. */
function loadAddresses(p: VmxProcessor, moves: SlotMoves, fields: Uint32Array): void {
  const { words, features } = p.cpu;
  const shift = 64 - features.linearAddressBits;
  for (let i = 0; i < moves.length; i += 2) {
    const one = moves[i] as number;
    const other = moves[i + 1] as number;
    loadAddress(words, one >>> 16, fields, one & 0xffff, shift);
    loadAddress(words, other >>> 16, fields, other & 0xffff, shift);
  }
}

function loadAddress(
  words: Uint32Array,
  register: number,
  fields: Uint32Array,
  field: number,
  shift: number,
) {
  words[2 * register] = fields[2 * field] as number;
  words[2 * register + 1] = canonicalHigh(fields[2 * field + 1] as number, shift);
}

function canonicalHigh(high: number, shift: number): number {
  // A processor with 32-bit addresses has no bits 63:32.
  return shift === 32 ? 0 : (high << shift) >> shift;
}

/** Registers of which a part keeps its value: CR0, CR3, IA32_EFER, IA32_UINTR_MISC. */
function loadBesideOldValues(p: VmxProcessor, copy: ProcessorCopy, controls: EffectiveControls): void {
  const { words, features } = p.cpu;
  const fields = copy.words;
  words[CR0_LOW] =
    (((words[CR0_LOW] as number) & CR0_KEPT) | ((fields[HOST_CR0] as number) & ~CR0_KEPT)) >>> 0;
  // Bits 63:MAXPHYADDR of CR3 are not modified, but for those of LAM, which are not reserved.
  const width = Math.max(features.physicalAddressBits - tmeReduction(p), 32);
  const loaded = ((1 << (width - 32)) - 1) | (p.capabilities.masksLinearAddresses ? CR3_LAM_HIGH : 0);
  words[CR3_LOW] = fields[HOST_CR3] as number;
  words[CR3_LOW + 1] =
    (((fields[HOST_CR3 + 1] as number) & loaded) | ((words[CR3_LOW + 1] as number) & ~loaded)) >>> 0;
  if (controls.isOn(LOAD_EFER)) {
    words[EFER_LOW] = fields[HOST_EFER] as number;
    words[EFER_LOW + 1] = fields[HOST_EFER + 1] as number;
  }
  if (features.intel64) {
    const longMode = controls.isOn(HOST_64) ? LONG_MODE : 0;
    words[EFER_LOW] = (((words[EFER_LOW] as number) & ~LONG_MODE) | longMode) >>> 0;
  }
  if (controls.isOn(CLEAR_UINV)) {
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
