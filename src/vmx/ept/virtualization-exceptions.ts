/** Virtualization exceptions (SDM §28.5.8): which EPT violations become #VE, and its information area. */
import { CR0, Register } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { ExitReason } from '../exit/exit-reasons.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import { EptHighBit } from './ept-entry.ts';
import { linearAddress } from './ept-exits.ts';
import { EPT_WALK, EptWalk } from './ept-walk.ts';

const CR0_LOW = 2 * Register.CR0;
const ORIGINAL_EVENT = 2 * Register.originalEvent;
const BUSY = 0xffff_ffff;

/** Offsets in the information area. */
const Area = { reason: 0, busy: 4, qualification: 8, linear: 16, physical: 24, eptpIndex: 32 } as const;

/** The EPT violation of the last walk is convertible: bit 63 of the entry that ended it is 0. */
function isConvertible(result: EptWalk): boolean {
  return result !== EptWalk.OutOfReach && (EPT_WALK.high & EptHighBit.SuppressVe) === 0;
}

/**
 * Writes the information area if the EPT violation of the last walk, which came to `result`, becomes a
 * virtualization exception with "EPT-violation #VE"; false if it causes a VM exit.
 */
export function becomesVirtualizationException(
  p: VmxProcessor,
  copy: ProcessorCopy,
  result: EptWalk,
  address: number,
  qualification: number,
): boolean {
  const { cpu } = p;
  if (!isConvertible(result) || ((cpu.i32[CR0_LOW] as number) & (1 << CR0.PE)) === 0) return false;
  if (cpu.i32[ORIGINAL_EVENT] !== 0) return false;
  const { memory } = cpu;
  const area = Number(copy.quads[Field.virtualizationExceptionInformationAddress] as bigint);
  if (memory.read32(area + Area.busy) !== 0) return false;
  memory.write32(area + Area.reason, ExitReason.EptViolation);
  memory.write32(area + Area.busy, BUSY);
  memory.write64(area + Area.qualification, BigInt(qualification));
  memory.write64(area + Area.linear, linearAddress());
  memory.write64(area + Area.physical, BigInt(address));
  memory.write16(area + Area.eptpIndex, copy.words[2 * Field.eptpIndex] as number);
  return true;
}
