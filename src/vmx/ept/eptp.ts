/**
 * What makes an EPT pointer valid (SDM §27.6.11, Table 27-9): the rules are those of VM entry
 * (§29.2.1.1), of INVEPT and of EPTP switching.
 */
import { fitsWidth } from '../../bits/address.ts';
import type { VmxCapabilities } from '../capabilities/capabilities.ts';
import { EptVpidCap } from '../capabilities/capability-msrs.ts';

export const EPTP_MEMORY_TYPE = 0x7n;
export const EPTP_WALK_LENGTH = 0x38n;
export const EPTP_ACCESSED_DIRTY = 0x40n;
export const EPTP_SUPERVISOR_SHADOW_STACK = 0x80n;
export const EPTP_ADDRESS = 0xffff_ffff_ffff_f000n;

/** Memory type of the paging structures that the processor supports, WB before UC. */
export function eptpMemoryTypes(capabilities: VmxCapabilities): bigint[] {
  const types: bigint[] = [];
  if (capabilities.has('eptVpidCap', EptVpidCap.WB)) types.push(6n);
  if (capabilities.has('eptVpidCap', EptVpidCap.UC)) types.push(0n);
  return types;
}

/** Values of bits 5:3, in place, that the processor supports: the page-walk length less 1, 4 before 5. */
export function eptpWalkLengths(capabilities: VmxCapabilities): bigint[] {
  const lengths: bigint[] = [];
  if (capabilities.has('eptVpidCap', EptVpidCap.WALK_LENGTH_4)) lengths.push(3n << 3n);
  if (capabilities.has('eptVpidCap', EptVpidCap.WALK_LENGTH_5)) lengths.push(4n << 3n);
  return lengths;
}

/**
 * Reserved bits among 11:7.
 * DEVIATION(eptp-bit-7): §29.2.1.1 wants bit 7 to be 0, Table 27-9 defines it; the table wins where
 * IA32_VMX_EPT_VPID_CAP reports supervisor shadow-stack control.
 */
export function eptpReserved(capabilities: VmxCapabilities): bigint {
  const supported = capabilities.has('eptVpidCap', EptVpidCap.SUPERVISOR_SHADOW_STACK);
  return 0xf00n | (supported ? 0n : EPTP_SUPERVISOR_SHADOW_STACK);
}

/** Bits that must be 0 because accessed and dirty flags for EPT are not supported. */
export function eptpAccessedDirtyReserved(capabilities: VmxCapabilities): bigint {
  return capabilities.has('eptVpidCap', EptVpidCap.ACCESSED_DIRTY) ? 0n : EPTP_ACCESSED_DIRTY;
}

/** `eptp` would pass VM entry with "enable EPT", its address being held to `addressWidth` bits. */
export function isEptpValid(eptp: bigint, capabilities: VmxCapabilities, addressWidth: number): boolean {
  const reserved = eptpReserved(capabilities) | eptpAccessedDirtyReserved(capabilities);
  return (
    (eptp & reserved) === 0n &&
    eptpMemoryTypes(capabilities).includes(eptp & EPTP_MEMORY_TYPE) &&
    eptpWalkLengths(capabilities).includes(eptp & EPTP_WALK_LENGTH) &&
    fitsWidth(eptp & EPTP_ADDRESS, addressWidth)
  );
}
