/** PASID translation (SDM §28.5.9): guest PASIDs of ENQCMD and ENQCMDS, through a directory and tables in physical memory. */
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { tmeReduction, type VmxProcessor } from '../vmx-state.ts';

/** There is no translation: an entry is not present or not valid, or has reserved bits. */
export const NO_PASID = -1;

const HIGH_HALF = 1 << 19;
const PRESENT = 1n;
const LOW_BITS = 0xfffn;
/** An entry of a table: host PASID in bits 19:0, valid in bit 31. */
const HOST_PASID = 0xf_ffff;
const VALID = 0x800;

/** The host PASID of `pasid` (20 bits), or {@link NO_PASID}; with "PASID translation". */
export function translatePasid(p: VmxProcessor, copy: ProcessorCopy, pasid: number): number {
  const { memory, features } = p.cpu;
  const field = (pasid & HIGH_HALF) === 0 ? Field.lowPasidDirectoryAddress : Field.highPasidDirectoryAddress;
  const directory = Number(copy.quads[field] as bigint);
  const entry = memory.read64(directory + 8 * ((pasid >>> 10) & 0x1ff));
  const width = features.physicalAddressBits - tmeReduction(p);
  if ((entry & LOW_BITS) !== PRESENT || entry >> BigInt(width) !== 0n) return NO_PASID;
  const translation = memory.read32(Number(entry - PRESENT) + 4 * (pasid & 0x3ff));
  return translation >>> 20 === VALID ? translation & HOST_PASID : NO_PASID;
}
