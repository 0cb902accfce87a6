/** Saving guest state (SDM §30.3): register-to-field copies, then what has a rule of its own. */
import { CR0, CR4, EFER, Register } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import { AR_RESERVED, AR_UNUSABLE } from '../../vmcs/formats.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { saveWord, saveWords } from '../copy-writes.ts';
import { controlRef, controlsOf, type EffectiveControls } from '../effective-controls.ts';
import { ControlledMoves, SEGMENT_MOVES, saveRegisters, slotMoves } from '../slot-moves.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import type { ExitReasonSpec } from './exit-reasons.ts';
import type { ExitRequest } from './exit-request.ts';
import { saveNonRegisterState } from './save-non-register-state.ts';
import { savedResumeFlag } from './saved-resume-flag.ts';

/** Saved whole. Segment registers have been given the form in which they are saved. */
const GUEST_STATE = new ControlledMoves(
  {
    guestCr0: 'CR0',
    guestCr3: 'CR3',
    guestCr4: 'CR4',
    guestIa32SysenterEsp: 'IA32_SYSENTER_ESP',
    guestIa32SysenterEip: 'IA32_SYSENTER_EIP',
    guestGdtrBase: 'GDTR.base',
    guestIdtrBase: 'IDTR.base',
    guestGdtrLimit: 'GDTR.limit',
    guestIdtrLimit: 'IDTR.limit',
    ...SEGMENT_MOVES,
  },
  {
    'exit.saveDebugControls': { guestDr7: 'DR7', guestIa32Debugctl: 'IA32_DEBUGCTL' },
    'exit.saveIa32Pat': { guestIa32Pat: 'IA32_PAT' },
    'exit.saveIa32Efer': { guestIa32Efer: 'IA32_EFER' },
    'exit.saveIa32PerfGlobalCtrl': { guestIa32PerfGlobalCtrl: 'IA32_PERF_GLOBAL_CTRL' },
    'exit2.saveFred': {
      guestIa32FredConfig: 'IA32_FRED_CONFIG',
      guestIa32FredRsp1: 'IA32_FRED_RSP1',
      guestIa32FredRsp2: 'IA32_FRED_RSP2',
      guestIa32FredRsp3: 'IA32_FRED_RSP3',
      guestIa32FredStklvls: 'IA32_FRED_STKLVLS',
      guestIa32FredSsp1: 'IA32_FRED_SSP1',
      guestIa32FredSsp2: 'IA32_FRED_SSP2',
      guestIa32FredSsp3: 'IA32_FRED_SSP3',
    },
  },
  // Saved by every exit of a processor that supports one of their controls, and so has the fields.
  [
    { guestIa32Bndcfgs: 'IA32_BNDCFGS' },
    { guestIa32RtitCtl: 'IA32_RTIT_CTL' },
    { guestIa32LbrCtl: 'IA32_LBR_CTL' },
    { guestIa32Pkrs: 'IA32_PKRS' },
    { guestIa32SpecCtrl: 'IA32_SPEC_CTRL' },
    {
      guestIa32SCet: 'IA32_S_CET',
      guestIa32InterruptSspTableAddr: 'IA32_INTERRUPT_SSP_TABLE_ADDR',
      guestSsp: 'SSP',
    },
  ],
);

const PDPTES = slotMoves({
  guestPdpte0: 'PDPTE0',
  guestPdpte1: 'PDPTE1',
  guestPdpte2: 'PDPTE2',
  guestPdpte3: 'PDPTE3',
});

const ENABLE_EPT = controlRef('proc2.enableEpt');

const SYSENTER_CS = Field.guestIa32SysenterCs;
const RIP_FIELD = Field.guestRip;
const RSP_FIELD = Field.guestRsp;
const RFLAGS_FIELD = Field.guestRflags;
const UINV_FIELD = Field.guestUinv;
const RIP = 2 * Register.RIP;
const RSP = 2 * Register.RSP;
const SYSENTER_CS_LOW = 2 * Register.IA32_SYSENTER_CS;
const GDTR_LIMIT_HIGH = 2 * Register['GDTR.limit'] + 1;
const IDTR_LIMIT_HIGH = 2 * Register['IDTR.limit'] + 1;
const RFLAGS_LOW = 2 * Register.RFLAGS;
const UINTR_MISC_HIGH = 2 * Register.IA32_UINTR_MISC + 1;
const CR0_LOW = 2 * Register.CR0;
const CR4_LOW = 2 * Register.CR4;
const EFER_LOW = 2 * Register.IA32_EFER;
const DPL = 0x60;
// Words of segment registers: selector, base, limit and access rights, two words each.
const ES = 2 * Register['ES.selector'];
const CS = 2 * Register['CS.selector'];
const SS = 2 * Register['SS.selector'];
const DS = 2 * Register['DS.selector'];
const FS = 2 * Register['FS.selector'];
const GS = 2 * Register['GS.selector'];
const LDTR = 2 * Register['LDTR.selector'];
const TR = 2 * Register['TR.selector'];
const FIRST_SEGMENT = ES;
const LAST_SEGMENT = TR;
const SEGMENT_WORDS = 8;
const BASE = 2;
const RIGHTS = 6;

// Constants to the compiler, which imported bindings are not (bench: "VMRESUME + exit").
const { PG } = CR0;
const { PAE } = CR4;
const { LMA } = EFER;
const RESERVED = AR_RESERVED;
const UNUSABLE = AR_UNUSABLE;

/** Saves everything of SDM §30.3. Fields that do not exist are not saved. */
export function saveGuestState(
  p: VmxProcessor,
  copy: ProcessorCopy,
  request: ExitRequest,
  spec: ExitReasonSpec,
  controls = controlsOf(copy, p.capabilities),
): void {
  const { capabilities } = p;
  const { words } = p.cpu;
  normaliseSegments(p);
  saveRegisters(GUEST_STATE.under(controls, capabilities), copy, words, p.cpu.quads);
  saveRegister(copy, RIP_FIELD, words, RIP);
  saveRegister(copy, RSP_FIELD, words, RSP);
  saveWord(copy, SYSENTER_CS, words[SYSENTER_CS_LOW] as number);
  if (capabilities.fieldExists[UINV_FIELD] === 1) {
    // UINV is IA32_UINTR_MISC[39:32].
    saveWord(copy, UINV_FIELD, (words[UINTR_MISC_HIGH] as number) & 0xff);
  }
  const flags = words[RFLAGS_LOW] as number;
  saveWords(copy, RFLAGS_FIELD, savedResumeFlag(flags, request, spec), words[RFLAGS_LOW + 1] as number);
  savePdptes(p, copy, controls);
  saveNonRegisterState(p, copy, request, spec, controls);
}

/**
 * Gives the segment registers and limits the form in which they are saved (SDM §30.3.2): access rights without
 * bits 31:17 and 11:8, CPL as SS.DPL, no bits 63:32 in the base of an unusable SS, DS or ES. Whatever
 * else is undefined in an unusable register is saved as held, an LDTR base made canonical. Host state
 * replaces all of them. A register that has its form is not written: 64 bits are read next, and would
 * wait for the store of 32 (bench: "VMRESUME + exit").
 */
function normaliseSegments(p: VmxProcessor): void {
  const { words, cpl, features } = p.cpu;
  if (hasSuperfluousBits(words)) {
    for (let at = FIRST_SEGMENT; at <= LAST_SEGMENT; at += SEGMENT_WORDS) {
      words[at] = (words[at] as number) & 0xffff;
      words[at + RIGHTS] = (words[at + RIGHTS] as number) & ~RESERVED;
    }
    words[GDTR_LIMIT_HIGH] = 0;
    words[IDTR_LIMIT_HIGH] = 0;
  }
  setWord(words, SS + RIGHTS, ((words[SS + RIGHTS] as number) & ~DPL) | (cpl << 5));
  if ((words[SS + RIGHTS] as number) & UNUSABLE) setWord(words, SS + BASE + 1, 0);
  if ((words[DS + RIGHTS] as number) & UNUSABLE) setWord(words, DS + BASE + 1, 0);
  if ((words[ES + RIGHTS] as number) & UNUSABLE) setWord(words, ES + BASE + 1, 0);
  if ((words[LDTR + RIGHTS] as number) & UNUSABLE) {
    const low = words[LDTR + BASE] as number;
    const high = canonicalHigh(low, words[LDTR + BASE + 1] as number, features.linearAddressBits);
    setWord(words, LDTR + BASE + 1, high);
  }
}

function saveRegister(copy: ProcessorCopy, field: number, words: Uint32Array, low: number): void {
  saveWords(copy, field, words[low] as number, words[low + 1] as number);
}

/** Bits 31:16 of a selector, reserved bits of access rights or bits 63:32 of a limit; without a loop, which costs twice as much. */
function hasSuperfluousBits(words: Uint32Array): boolean {
  const selectors =
    (words[ES] as number) |
    (words[CS] as number) |
    (words[SS] as number) |
    (words[DS] as number) |
    (words[FS] as number) |
    (words[GS] as number) |
    (words[LDTR] as number) |
    (words[TR] as number);
  const rights =
    (words[ES + RIGHTS] as number) |
    (words[CS + RIGHTS] as number) |
    (words[SS + RIGHTS] as number) |
    (words[DS + RIGHTS] as number) |
    (words[FS + RIGHTS] as number) |
    (words[GS + RIGHTS] as number) |
    (words[LDTR + RIGHTS] as number) |
    (words[TR + RIGHTS] as number);
  const limits = (words[GDTR_LIMIT_HIGH] as number) | (words[IDTR_LIMIT_HIGH] as number);
  return ((selectors >>> 16) | (rights & RESERVED) | limits) !== 0;
}

function setWord(words: Uint32Array, at: number, value: number): void {
  if (words[at] !== value) words[at] = value;
}

/** The high half of an address with bits 63:`width` equal to bit `width`−1. */
function canonicalHigh(low: number, high: number, width: number): number {
  const shift = 64 - width;
  return (shift === 32 ? low >> 31 : (high << shift) >> shift) >>> 0;
}

/** SDM §30.3.4: with EPT, the PDPTEs in use by a guest that uses PAE paging; otherwise the fields are left alone. */
function savePdptes(p: VmxProcessor, copy: ProcessorCopy, controls: EffectiveControls): void {
  const { words } = p.cpu;
  const paging = (words[CR0_LOW] as number) >>> PG;
  const pae = (words[CR4_LOW] as number) >>> PAE;
  const ia32e = (words[EFER_LOW] as number) >>> LMA;
  if ((paging & pae & ~ia32e & 1) === 1 && controls.isOn(ENABLE_EPT)) {
    saveRegisters(PDPTES, copy, p.cpu.words, p.cpu.quads);
  }
}
