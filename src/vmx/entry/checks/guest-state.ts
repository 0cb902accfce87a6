/** All checks on the guest-state area, in the order of the manual's sections (SDM §29.3.1). */
import { GUEST_DESCRIPTOR_TABLES } from './guest-descriptor-tables.ts';
import {
  GUEST_ACTIVITY_STATE,
  GUEST_INTERRUPTIBILITY_STATE,
  GUEST_PENDING_DEBUG_EXCEPTIONS,
  GUEST_VMCS_LINK_POINTER,
} from './guest-non-register.ts';
import { GUEST_PDPTES } from './guest-pdptes.ts';
import {
  GUEST_CONTROL_REGISTERS,
  GUEST_CR3,
  GUEST_DEBUG_REGISTERS,
  GUEST_FRED_MSRS,
  GUEST_MSRS,
} from './guest-registers.ts';
import { GUEST_RFLAGS, GUEST_RIP, GUEST_SSP } from './guest-rip-rflags.ts';
import {
  GUEST_CODE_SEGMENT,
  GUEST_DATA_SEGMENTS,
  GUEST_SEGMENTS_FRED,
  GUEST_STACK_SEGMENT,
} from './guest-segments.ts';
import { GUEST_SEGMENTS_V86 } from './guest-segments-v86.ts';
import { GUEST_LDTR, GUEST_TR } from './guest-system-segments.ts';

export const GUEST_STATE = [
  GUEST_CONTROL_REGISTERS,
  GUEST_CR3,
  GUEST_DEBUG_REGISTERS,
  GUEST_MSRS,
  GUEST_FRED_MSRS,
  GUEST_SEGMENTS_V86,
  GUEST_CODE_SEGMENT,
  GUEST_STACK_SEGMENT,
  GUEST_SEGMENTS_FRED,
  GUEST_DATA_SEGMENTS,
  GUEST_TR,
  GUEST_LDTR,
  GUEST_DESCRIPTOR_TABLES,
  GUEST_RIP,
  GUEST_RFLAGS,
  GUEST_SSP,
  GUEST_ACTIVITY_STATE,
  GUEST_INTERRUPTIBILITY_STATE,
  GUEST_PENDING_DEBUG_EXCEPTIONS,
  GUEST_VMCS_LINK_POINTER,
  GUEST_PDPTES,
] as const;

/** Id of a check on the guest-state area. */
export type GuestCheckId = (typeof GUEST_STATE)[number]['rows'][number]['id'];
