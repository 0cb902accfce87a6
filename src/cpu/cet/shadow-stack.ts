/**
 * Accesses to shadow stacks (SDM vol. 1 §17.2), and near CALL and RET. Functions that answer a boolean
 * answer false after raising a fault; SSP changes only when an instruction can no longer fault.
 */
import { followsRules } from '../addressing.ts';
import { raiseWithCode, Vector } from '../exceptions.ts';
import { loadAs, storeAs } from '../memory-access.ts';
import { Mode } from '../mode.ts';
import { translate } from '../paging.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { Access, AccessClass } from '../tlb.ts';
import { ControlProtection } from './enforcement.ts';

const { SSP, RIP, linear: LINEAR, stackItem: ITEM } = Register;
const ITEM_BYTES = 8 * ITEM;

/** Class of the shadow-stack accesses of code at `cpl`. */
export function shadowStackClass(cpl: number): AccessClass {
  return cpl === 3 ? AccessClass.UserShadowStack : AccessClass.SupervisorShadowStack;
}

/** The address in the slot `linear`, of 64 bits if `wide`; #GP(0) if it is not canonical. */
function place(cpu: Processor, address: bigint, bytes: number, wide: boolean): boolean {
  const { quads, i32 } = cpu;
  quads[LINEAR] = BigInt.asUintN(wide ? 64 : 32, address);
  if (!wide) return true;
  if (followsRules(cpu, 0, i32[2 * LINEAR] as number, i32[2 * LINEAR + 1] as number, bytes)) return true;
  raiseWithCode(cpu, Vector.GP, 0);
  return false;
}

/** Loads 4 or 8 bytes at `address` into the slot `stackItem`. */
export function loadShadow(
  cpu: Processor,
  address: bigint,
  bytes: 4 | 8,
  as: AccessClass,
  wide: boolean,
): boolean {
  return place(cpu, address, bytes, wide) && loadAs(cpu, ITEM_BYTES, bytes, as);
}

/** Stores 4 or 8 bytes of `value` at `address`. */
export function storeShadow(
  cpu: Processor,
  address: bigint,
  value: bigint,
  bytes: 4 | 8,
  as: AccessClass,
  wide: boolean,
): boolean {
  if (!place(cpu, address, bytes, wide)) return false;
  cpu.quads[ITEM] = BigInt.asUintN(64, value);
  return storeAs(cpu, ITEM_BYTES, bytes, as);
}

/** What came of {@link exchangeToken}. */
export const TokenExchange = { Fault: 0, Mismatch: 1, Done: 2 } as const;
export type TokenExchange = (typeof TokenExchange)[keyof typeof TokenExchange];

/** Replaces the 8 bytes at `address` by `value` if they are `expected`, in one locked access. */
export function exchangeToken(
  cpu: Processor,
  address: bigint,
  value: bigint,
  expected: bigint,
  as: AccessClass,
  wide: boolean,
): TokenExchange {
  const { quads } = cpu;
  if (!lockToken(cpu, address, as, wide)) return TokenExchange.Fault;
  const found = quads[ITEM] as bigint;
  const matches = found === expected;
  if (!storeLocked(cpu, matches ? value : found, as)) return TokenExchange.Fault;
  return matches ? TokenExchange.Done : TokenExchange.Mismatch;
}

/** Loads the 8 aligned bytes of a token that will be stored to, into the slot `stackItem`. */
export function lockToken(cpu: Processor, address: bigint, as: AccessClass, wide: boolean): boolean {
  const { i32 } = cpu;
  if (!place(cpu, address, 8, wide)) return false;
  const need = (Access.Read | Access.Write) << as;
  if (translate(cpu, i32[2 * LINEAR] as number, i32[2 * LINEAR + 1] as number, need) < 0) return false;
  return loadAs(cpu, ITEM_BYTES, 8, as);
}

/** Stores a token to the address in the slot `linear`, which {@link lockToken} has placed. */
export function storeLocked(cpu: Processor, value: bigint, as: AccessClass): boolean {
  cpu.quads[ITEM] = value;
  return storeAs(cpu, ITEM_BYTES, 8, as);
}

/** Near CALL and user interrupts: pushes RIP, which is the return address, as an item of 8 bytes with 64-bit operands, of 4 otherwise. */
export function pushReturnAddress(cpu: Processor, operandBits: number): boolean {
  const { quads } = cpu;
  const wide = cpu.mode === Mode.Bit64;
  const bytes = operandBits === 64 ? 8 : 4;
  const ssp = BigInt.asUintN(wide ? 64 : 32, (quads[SSP] as bigint) - BigInt(bytes));
  const address = BigInt.asUintN(operandBits, quads[RIP] as bigint);
  if (!storeShadow(cpu, ssp, address, bytes, shadowStackClass(cpu.cpl), wide)) return false;
  quads[SSP] = ssp;
  return true;
}

/** Near RET and UIRET: whether the return address in slot `popped` is that on the shadow stack, which stays there; #CP if not. */
export function matchesReturnAddress(
  cpu: Processor,
  operandBits: number,
  popped: number,
  errorCode: number = ControlProtection.NearRet,
): boolean {
  const { quads } = cpu;
  const bytes = operandBits === 64 ? 8 : 4;
  const wide = cpu.mode === Mode.Bit64;
  if (!loadShadow(cpu, quads[SSP] as bigint, bytes, shadowStackClass(cpu.cpl), wide)) return false;
  if (quads[ITEM] === quads[popped]) return true;
  raiseWithCode(cpu, Vector.CP, errorCode);
  return false;
}

/** Moves SSP up by `bytes`. */
export function releaseShadow(cpu: Processor, bytes: number): void {
  const { quads } = cpu;
  quads[SSP] = BigInt.asUintN(cpu.mode === Mode.Bit64 ? 64 : 32, (quads[SSP] as bigint) + BigInt(bytes));
}
