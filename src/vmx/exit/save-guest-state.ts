/** Saving guest state (SDM §30.3): register-to-field copies, then what has a rule of its own. */
import {
  CR0,
  CR4,
  EFER,
  Register,
  type RegisterName,
  SEGMENT_NAMES,
  type SegmentName,
} from '../../cpu/registers.ts';
import { Field, type FieldName } from '../../vmcs/fields.ts';
import { AR_RESERVED, AR_UNUSABLE } from '../../vmcs/formats.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { type ControlRef, controlRef, isOn } from '../effective-controls.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import { saveRegisters, saveWord, saveWords } from './copy-writes.ts';
import type { ExitReasonSpec } from './exit-reasons.ts';
import type { ExitRequest } from './exit-request.ts';
import { saveNonRegisterState } from './save-non-register-state.ts';
import { savedResumeFlag } from './saved-resume-flag.ts';

type Pairs = Partial<Record<FieldName, RegisterName>>;

function pairs(table: Pairs): Uint16Array {
  return Uint16Array.from(
    Object.entries(table).flatMap(([field, register]) => [Field[field as FieldName], Register[register]]),
  );
}

/** Saved at every VM exit, all 64 bits. */
const ALWAYS = pairs({
  guestCr0: 'CR0',
  guestCr3: 'CR3',
  guestCr4: 'CR4',
  guestRsp: 'RSP',
  guestRip: 'RIP',
  guestIa32SysenterEsp: 'IA32_SYSENTER_ESP',
  guestIa32SysenterEip: 'IA32_SYSENTER_EIP',
  guestGdtrBase: 'GDTR.base',
  guestIdtrBase: 'IDTR.base',
});

/** Saved at every VM exit of a processor that has the fields: one of their controls is supported. */
const WHERE_SUPPORTED: readonly Uint16Array[] = [
  pairs({ guestIa32Bndcfgs: 'IA32_BNDCFGS' }),
  pairs({ guestIa32RtitCtl: 'IA32_RTIT_CTL' }),
  pairs({ guestIa32LbrCtl: 'IA32_LBR_CTL' }),
  pairs({ guestIa32Pkrs: 'IA32_PKRS' }),
  pairs({ guestIa32SpecCtrl: 'IA32_SPEC_CTRL' }),
  pairs({
    guestIa32SCet: 'IA32_S_CET',
    guestIa32InterruptSspTableAddr: 'IA32_INTERRUPT_SSP_TABLE_ADDR',
    guestSsp: 'SSP',
  }),
];

const PDPTES = pairs({
  guestPdpte0: 'PDPTE0',
  guestPdpte1: 'PDPTE1',
  guestPdpte2: 'PDPTE2',
  guestPdpte3: 'PDPTE3',
});

/** Saved under a VM-exit control. */
const CONTROLLED: readonly { readonly control: ControlRef; readonly table: Uint16Array }[] = [
  {
    control: controlRef('exit.saveDebugControls'),
    table: pairs({ guestDr7: 'DR7', guestIa32Debugctl: 'IA32_DEBUGCTL' }),
  },
  { control: controlRef('exit.saveIa32Pat'), table: pairs({ guestIa32Pat: 'IA32_PAT' }) },
  { control: controlRef('exit.saveIa32Efer'), table: pairs({ guestIa32Efer: 'IA32_EFER' }) },
  {
    control: controlRef('exit.saveIa32PerfGlobalCtrl'),
    table: pairs({ guestIa32PerfGlobalCtrl: 'IA32_PERF_GLOBAL_CTRL' }),
  },
  {
    control: controlRef('exit2.saveFred'),
    table: pairs({
      guestIa32FredConfig: 'IA32_FRED_CONFIG',
      guestIa32FredRsp1: 'IA32_FRED_RSP1',
      guestIa32FredRsp2: 'IA32_FRED_RSP2',
      guestIa32FredRsp3: 'IA32_FRED_RSP3',
      guestIa32FredStklvls: 'IA32_FRED_STKLVLS',
      guestIa32FredSsp1: 'IA32_FRED_SSP1',
      guestIa32FredSsp2: 'IA32_FRED_SSP2',
      guestIa32FredSsp3: 'IA32_FRED_SSP3',
    }),
  },
];

const segmentFields = (segment: SegmentName, part: string) =>
  Field[`guest${segment[0]}${segment.slice(1).toLowerCase()}${part}` as FieldName];

/** Segment registers, whole. */
const SEGMENTS = Uint16Array.from(
  SEGMENT_NAMES.flatMap((segment) =>
    (['selector', 'base', 'limit', 'accessRights'] as const).flatMap((part) => [
      segmentFields(segment, `${part[0]?.toUpperCase()}${part.slice(1)}`),
      Register[`${segment}.${part}`],
    ]),
  ),
);

const ENABLE_EPT = controlRef('proc2.enableEpt');

const SYSENTER_CS = Field.guestIa32SysenterCs;
const GDTR_LIMIT = Field.guestGdtrLimit;
const IDTR_LIMIT = Field.guestIdtrLimit;
const RFLAGS_FIELD = Field.guestRflags;
const UINV_FIELD = Field.guestUinv;
const RFLAGS_LOW = 2 * Register.RFLAGS;
const UINTR_MISC_HIGH = 2 * Register.IA32_UINTR_MISC + 1;
const CR0_LOW = 2 * Register.CR0;
const CR4_LOW = 2 * Register.CR4;
const EFER_LOW = 2 * Register.IA32_EFER;
const DPL = 0x60;
// Words of segment registers: selector, base, limit and access rights, two words each.
const ES = 2 * Register['ES.selector'];
const SS = 2 * Register['SS.selector'];
const DS = 2 * Register['DS.selector'];
const LDTR = 2 * Register['LDTR.selector'];
const FIRST_SEGMENT = ES;
const LAST_SEGMENT = 2 * Register['TR.selector'];
const SEGMENT_WORDS = 8;
const BASE = 2;
const RIGHTS = 6;

/** Saves everything of SDM §30.3. Fields that do not exist are not saved. */
export function saveGuestState(
  p: VmxProcessor,
  copy: ProcessorCopy,
  request: ExitRequest,
  spec: ExitReasonSpec,
): void {
  const { capabilities } = p;
  const { words } = p.cpu;
  const { fieldExists } = capabilities;
  saveRegisters(copy, ALWAYS, words);
  saveWord(copy, SYSENTER_CS, words[2 * Register.IA32_SYSENTER_CS] as number);
  saveWord(copy, GDTR_LIMIT, words[2 * Register['GDTR.limit']] as number);
  saveWord(copy, IDTR_LIMIT, words[2 * Register['IDTR.limit']] as number);
  for (let i = 0; i < WHERE_SUPPORTED.length; i++) {
    const table = WHERE_SUPPORTED[i] as Uint16Array;
    if (fieldExists[table[0] as number] === 1) saveRegisters(copy, table, words);
  }
  for (let i = 0; i < CONTROLLED.length; i++) {
    const { control, table } = CONTROLLED[i] as (typeof CONTROLLED)[number];
    if (isOn(copy, capabilities, control) && fieldExists[table[0] as number] === 1) {
      saveRegisters(copy, table, words);
    }
  }
  if (fieldExists[UINV_FIELD] === 1) {
    // UINV is IA32_UINTR_MISC[39:32].
    saveWord(copy, UINV_FIELD, (words[UINTR_MISC_HIGH] as number) & 0xff);
  }
  normaliseSegments(p);
  saveRegisters(copy, SEGMENTS, words);
  const flags = words[RFLAGS_LOW] as number;
  saveWords(copy, RFLAGS_FIELD, savedResumeFlag(flags, request, spec), words[RFLAGS_LOW + 1] as number);
  savePdptes(p, copy);
  saveNonRegisterState(p, copy, request, spec);
}

/**
 * Gives the segment registers the form in which they are saved (SDM §30.3.2): access rights without
 * bits 31:17 and 11:8, CPL as SS.DPL, no bits 63:32 in the base of an unusable SS, DS or ES. Whatever
 * else is undefined in an unusable register is saved as held, an LDTR base made canonical. Host state
 * replaces all of them.
 */
function normaliseSegments(p: VmxProcessor): void {
  const { words, cpl, features } = p.cpu;
  for (let at = FIRST_SEGMENT; at <= LAST_SEGMENT; at += SEGMENT_WORDS) {
    words[at] = (words[at] as number) & 0xffff;
    words[at + RIGHTS] = (words[at + RIGHTS] as number) & ~AR_RESERVED;
  }
  words[SS + RIGHTS] = ((words[SS + RIGHTS] as number) & ~DPL) | (cpl << 5);
  if ((words[SS + RIGHTS] as number) & AR_UNUSABLE) words[SS + BASE + 1] = 0;
  if ((words[DS + RIGHTS] as number) & AR_UNUSABLE) words[DS + BASE + 1] = 0;
  if ((words[ES + RIGHTS] as number) & AR_UNUSABLE) words[ES + BASE + 1] = 0;
  if ((words[LDTR + RIGHTS] as number) & AR_UNUSABLE) {
    const low = words[LDTR + BASE] as number;
    words[LDTR + BASE + 1] = canonicalHigh(low, words[LDTR + BASE + 1] as number, features.linearAddressBits);
  }
}

/** The high half of an address with bits 63:`width` equal to bit `width`−1. */
function canonicalHigh(low: number, high: number, width: number): number {
  const shift = 64 - width;
  return (shift === 32 ? low >> 31 : (high << shift) >> shift) >>> 0;
}

/** SDM §30.3.4: with EPT, the PDPTEs in use by a guest that uses PAE paging; otherwise the fields are left alone. */
function savePdptes(p: VmxProcessor, copy: ProcessorCopy): void {
  const { words } = p.cpu;
  const paging = (words[CR0_LOW] as number) >>> CR0.PG;
  const pae = (words[CR4_LOW] as number) >>> CR4.PAE;
  const ia32e = (words[EFER_LOW] as number) >>> EFER.LMA;
  if ((paging & pae & ~ia32e & 1) === 1 && isOn(copy, p.capabilities, ENABLE_EPT)) {
    saveRegisters(copy, PDPTES, words);
  }
}
