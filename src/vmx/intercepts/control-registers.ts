/**
 * CR0, CR3 and CR4 in non-root operation: guest/host masks and read shadows, CR3-target values (SDM
 * §27.6.6, §27.6.7, §28.1.3, §28.3).
 */
import { CR0 } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';

const MASKS = { CR0: Field.cr0GuestHostMask, CR4: Field.cr4GuestHostMask } as const;
const SHADOWS = { CR0: Field.cr0ReadShadow, CR4: Field.cr4ReadShadow } as const;
const CR3_TARGETS = [
  Field.cr3TargetValue0,
  Field.cr3TargetValue1,
  Field.cr3TargetValue2,
  Field.cr3TargetValue3,
];

const maskOf = (copy: ProcessorCopy, register: 'CR0' | 'CR4') => copy.quads[MASKS[register]] as bigint;
const shadowOf = (copy: ProcessorCopy, register: 'CR0' | 'CR4') => copy.quads[SHADOWS[register]] as bigint;

/** What the guest reads: the shadow where the mask is 1, the register elsewhere. */
export function readThroughShadow(copy: ProcessorCopy, register: 'CR0' | 'CR4', value: bigint): bigint {
  const mask = maskOf(copy, register);
  return (value & ~mask) | (shadowOf(copy, register) & mask);
}

/** What a write makes of the register: bits of the mask stay as they are. */
export function keepMasked(
  copy: ProcessorCopy,
  register: 'CR0' | 'CR4',
  source: bigint,
  current: bigint,
): bigint {
  const mask = maskOf(copy, register);
  return (source & ~mask) | (current & mask);
}

/** MOV to CR0 or CR4 exits: a bit of the mask differs between source and shadow. */
export function writeExits(copy: ProcessorCopy, register: 'CR0' | 'CR4', source: bigint): boolean {
  return ((source ^ shadowOf(copy, register)) & maskOf(copy, register)) !== 0n;
}

/** CLTS exits: the host owns CR0.TS and the guest sees it as 1. */
export function cltsExits(copy: ProcessorCopy): boolean {
  const ts = 1n << BigInt(CR0.TS);
  return (maskOf(copy, 'CR0') & shadowOf(copy, 'CR0') & ts) !== 0n;
}

/** LMSW exits: bit 0 would be set where the shadow has 0, or one of bits 3:1 differs from the shadow. */
export function lmswExits(copy: ProcessorCopy, source: number): boolean {
  const mask = Number(maskOf(copy, 'CR0') & 0xfn);
  const shadow = Number(shadowOf(copy, 'CR0') & 0xfn);
  const setsPe = (mask & source & ~shadow & 1) !== 0;
  return setsPe || (mask & (source ^ shadow) & 0xe) !== 0;
}

/** The source of MOV to CR3 is one of the CR3-target values in use. */
export function isCr3Target(copy: ProcessorCopy, source: bigint): boolean {
  const count = copy.words[2 * Field.cr3TargetCount] as number;
  for (let n = 0; n < count; n++) if (copy.quads[CR3_TARGETS[n] as number] === source) return true;
  return false;
}
