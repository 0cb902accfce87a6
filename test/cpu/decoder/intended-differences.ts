/** Where the decoder differs from iced-x86 on purpose, and names that differ. */
import type { InstructionForm } from './own-form.ts';

/** Mnemonics of iced-x86 that are another in the manual. */
export const ALIASES: ReadonlyMap<string, string> = new Map([
  ['RESERVEDNOP', 'NOP'],
  ['PREFETCH', 'NOP'],
  ['XLATB', 'XLAT'],
  // With REX.W, as the manual has it.
  ['SYSRETQ', 'SYSRET'],
  ['SYSEXITQ', 'SYSEXIT'],
  ['FXSAVE64', 'FXSAVE'],
  ['FXRSTOR64', 'FXRSTOR'],
  ['XSAVE64', 'XSAVE'],
  ['XSAVEC64', 'XSAVEC'],
  ['XSAVEOPT64', 'XSAVEOPT'],
  ['XSAVES64', 'XSAVES'],
  ['XRSTOR64', 'XRSTOR'],
  ['XRSTORS64', 'XRSTORS'],
  ['PCMPESTRI64', 'PCMPESTRI'],
  ['PCMPESTRM64', 'PCMPESTRM'],
  ['VPCMPESTRI64', 'VPCMPESTRI'],
  ['VPCMPESTRM64', 'VPCMPESTRM'],
  ['GETSECQ', 'GETSEC'],
]);

/** Instructions of which iced-x86 names operands that the manual leaves implied. */
export const IMPLIED_OPERANDS: ReadonlySet<string> = new Set([
  'XLAT',
  'MASKMOVQ',
  'MASKMOVDQU',
  'MONITOR',
  'MWAIT',
  'UMWAIT',
  'TPAUSE',
]);

export interface IntendedDifference {
  readonly id: string;
  readonly reason: string;
  readonly applies: (
    own: InstructionForm | undefined,
    iced: InstructionForm | undefined,
    bytes: Uint8Array,
    bits: number,
  ) => boolean;
}

/** Number and name of a general register without its size. */
const withoutSize = (operand: string) =>
  operand.replace(/^[RE]?([ABCD]X|[SB]P|[SD]I)$/, '$1').replace(/^(R\d+)[DW]$/, '$1');

const sameButForSize = (own: InstructionForm, other: InstructionForm) =>
  own.length === other.length &&
  own.operands.length === other.operands.length &&
  own.operands.every((operand, n) => {
    const theirs = (other.operands[n] as string).replace(/^\d+ /, '');
    return withoutSize(operand.replace(/^\d+ /, '')) === withoutSize(theirs);
  });

const SELECTOR_OPERANDS = new Set([
  'ARPL',
  'LAR',
  'LSL',
  'VERR',
  'VERW',
  'LLDT',
  'LTR',
  'LMSW',
  'LKGS',
  'MOV',
]);
const ADDRESS_IN_REGISTER = new Set(['UMONITOR', 'ENQCMD', 'ENQCMDS']);
const NARROW_VECTOR_RESULTS = new Set(['PINSRW', 'PEXTRW', 'PMOVMSKB', 'MOVMSKPS', 'MOVMSKPD']);
const SEGMENT_REGISTER = /^[CDEFGS]S$/;

/** The two bytes of the opcode follow the legacy and REX prefixes. */
function isTwoByte(bytes: Uint8Array, second: number): boolean {
  const at = bytes.indexOf(0x0f);
  return at >= 0 && bytes[at + 1] === second;
}

export const INTENDED_DIFFERENCES: readonly IntendedDifference[] = [
  {
    id: 'word-of-a-register',
    reason:
      'A selector or the operand of LMSW in a general register is its low 16 bits; iced-x86 names it by operand size.',
    applies: (own, iced) =>
      own !== undefined &&
      iced !== undefined &&
      own.mnemonic === iced.mnemonic &&
      SELECTOR_OPERANDS.has(own.mnemonic) &&
      (own.mnemonic !== 'MOV' || own.operands.some((operand) => SEGMENT_REGISTER.test(operand))) &&
      sameButForSize(own, iced),
  },
  {
    id: 'narrow-part-of-a-vector',
    reason: 'A word, or a mask of bits, in a general register; iced-x86 names the register by operand size.',
    applies: (own, iced) =>
      own !== undefined &&
      iced !== undefined &&
      own.mnemonic === iced.mnemonic &&
      NARROW_VECTOR_RESULTS.has(own.mnemonic) &&
      sameButForSize(own, iced),
  },
  {
    id: 'address-in-a-register',
    reason:
      'UMONITOR, ENQCMD and ENQCMDS take an address of the address size from a register; iced-x86 names the register by that.',
    applies: (own, iced) =>
      own !== undefined &&
      iced !== undefined &&
      own.mnemonic === iced.mnemonic &&
      ADDRESS_IN_REGISTER.has(own.mnemonic) &&
      sameButForSize(own, iced),
  },
  {
    id: 'movd-with-rex-w',
    reason: 'MOVD with REX.W is one opcode row here; its other name is MOVQ.',
    applies: (own, iced) =>
      own?.mnemonic === 'MOVD' && iced?.mnemonic === 'MOVQ' && sameButForSize(own, iced),
  },
  {
    id: 'hints-0F0D',
    reason:
      'Of opcode 0F 0D Intel defines /1 and /2; the others are hints that do nothing, which AMD calls PREFETCH.',
    applies: (own, iced, bytes) =>
      own?.mnemonic === 'NOP' && iced !== undefined && own.length === iced.length && isTwoByte(bytes, 0x0d),
  },
  {
    id: 'rex-b-of-90',
    reason: 'With REX.B, opcode 90 is XCHG whatever F3 says (so do processors); iced-x86 says PAUSE.',
    applies: (own, iced) =>
      own?.mnemonic === 'XCHG' && iced?.mnemonic === 'PAUSE' && own.length === iced.length,
  },
];
