/**
 * Shadow stacks in far transfers (SDM vol. 1 §17.2.3; vol. 2: CALL, RET, INT n, IRET): frames of CS, linear
 * return address and SSP, and the busy tokens of supervisor shadow stacks. What comes of a transfer is kept
 * until {@link adoptShadowStack}, which follows the last fault.
 */
import { isCanonical } from '../../bits/address.ts';
import { isCanonicalPair } from '../addressing.ts';
import { raiseWithCode, Vector } from '../exceptions.ts';
import { loadLinear } from '../memory-access.ts';
import { Mode } from '../mode.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { AccessClass } from '../tlb.ts';
import { ControlProtection, cetControls, Enforcement, hasShadowStack } from './enforcement.ts';
import { exchangeToken, loadShadow, shadowStackClass, storeShadow, TokenExchange } from './shadow-stack.ts';

const { SSP, IA32_PL0_SSP, IA32_PL3_SSP, IA32_FRED_SSP1, returnAddress: RETURN, stackItem: ITEM } = Register;
const CS_SELECTOR = Register['CS.selector'];
const CS_BASE = Register['CS.base'];
const TABLE = Register.IA32_INTERRUPT_SSP_TABLE_ADDR;
const { SupervisorShadowStack } = AccessClass;
const BUSY = 1n;
const FRAME_BYTES = 24n;
const ABOVE_4_GBYTES = 32n;
const ANY_TRACKING_OR_STACK = 0b101;

/** SSP and IA32_PL3_SSP after the transfer; undefined where they stay. */
const after: { ssp: bigint | undefined; userSsp: bigint | undefined } = {
  ssp: undefined,
  userSsp: undefined,
};

function begin(): void {
  after.ssp = undefined;
  after.userSsp = undefined;
}

/** SSP becomes what the last transfer found out; IA32_PL3_SSP too if it left CPL 3. */
export function adoptShadowStack(cpu: Processor): void {
  const { quads } = cpu;
  if (after.userSsp !== undefined) quads[IA32_PL3_SSP] = after.userSsp;
  if (after.ssp !== undefined) quads[SSP] = after.ssp;
  cpu.stateChanged();
}

function refuse(cpu: Processor): false {
  raiseWithCode(cpu, Vector.GP, 0);
  return false;
}

function violates(cpu: Processor): false {
  raiseWithCode(cpu, Vector.CP, ControlProtection.FarRetOrIret);
  return false;
}

/** SSP of the code that is left, as IA32_PL3_SSP keeps it: of the width of linear addresses. */
export function userShadowStackPointer(cpu: Processor): bigint {
  const ssp = cpu.quads[SSP] as bigint;
  if (cpu.mode < Mode.Compatibility) return ssp;
  return BigInt.asUintN(64, BigInt.asIntN(cpu.features.linearAddressBits, ssp));
}

/** The linear address of offset `rip` in the code segment in use. */
function linearReturnAddress(cpu: Processor, rip: bigint): bigint {
  return cpu.mode === Mode.Bit64 ? rip : BigInt.asUintN(32, (cpu.quads[CS_BASE] as bigint) + rip);
}

/** Pushes `cs`, the linear address of the offset in slot `returnAddress`, and SSP below `ssp`. */
function pushFrame(
  cpu: Processor,
  ssp: bigint,
  returnAddress: number,
  as: AccessClass,
  wide: boolean,
  cs: bigint,
): boolean {
  const { quads } = cpu;
  const oldSsp = quads[SSP] as bigint;
  const lip = linearReturnAddress(cpu, quads[returnAddress] as bigint);
  const pushed =
    storeShadow(cpu, ssp - 8n, cs, 8, as, wide) &&
    storeShadow(cpu, ssp - 16n, lip, 8, as, wide) &&
    storeShadow(cpu, ssp - 24n, oldSsp, 8, as, wide);
  if (pushed) after.ssp = BigInt.asUintN(wide ? 64 : 32, ssp - FRAME_BYTES);
  return pushed;
}

/** As {@link pushFrame} where the frame may leave a hole of four bytes, which is 0, above it. */
function pushAligned(
  cpu: Processor,
  ssp: bigint,
  returnAddress: number,
  as: AccessClass,
  wide: boolean,
  cs: bigint,
): boolean {
  if (!storeShadow(cpu, ssp - 4n, 0n, 4, as, wide)) return false;
  return pushFrame(cpu, ssp & ~7n, returnAddress, as, wide, cs);
}

/** The selector in CS, as frames have it. */
function codeSelector(cpu: Processor): bigint {
  return (cpu.quads[CS_SELECTOR] as bigint) & 0xffffn;
}

/**
 * Far CALL and events that stay at the CPL, on the shadow stack in use if there is one; `wide`: the target is
 * 64-bit code. The return address is in slot `returnAddress`.
 */
export function callOnShadowStack(cpu: Processor, wide: boolean, returnAddress: number): boolean {
  begin();
  if ((cpu.enforcement & Enforcement.ShadowStack) === 0) return true;
  if (!suitsTarget(cpu, wide)) return false;
  const ssp = cpu.quads[SSP] as bigint;
  return pushAligned(cpu, ssp, returnAddress, shadowStackClass(cpu.cpl), wide, codeSelector(cpu));
}

/** Whether SSP suits the code that a far branch at the CPL leads to: below 4 GBytes unless that is 64-bit code. */
export function suitsTarget(cpu: Processor, wide: boolean): boolean {
  if ((cpu.enforcement & Enforcement.ShadowStack) === 0 || wide) return true;
  return (cpu.quads[SSP] as bigint) >> ABOVE_4_GBYTES === 0n || refuse(cpu);
}

/**
 * Sets the busy bit of the token at `ssp`, for a shadow stack that is switched to. What is pushed next is in
 * the same 32 bytes, and cannot fault: no shadow stack becomes prematurely busy (SDM §28.4.3).
 */
function acquire(cpu: Processor, ssp: bigint, as: AccessClass, wide: boolean): boolean {
  if ((ssp & 7n) !== 0n || (ssp & ~31n) !== ((ssp - FRAME_BYTES) & ~31n)) return refuse(cpu);
  if (!wide && ssp >> ABOVE_4_GBYTES !== 0n) return refuse(cpu);
  const exchange = exchangeToken(cpu, ssp, ssp | BUSY, ssp, as, wide);
  return exchange === TokenExchange.Mismatch ? refuse(cpu) : exchange === TokenExchange.Done;
}

/** Reads the entry of `ist` in the interrupt SSP table into the slot `stackItem`. */
function readTable(cpu: Processor, ist: number): boolean {
  const address = BigInt.asUintN(64, (cpu.quads[TABLE] as bigint) + BigInt(8 * ist));
  const lo = Number(BigInt.asIntN(32, address));
  const hi = Number(BigInt.asIntN(32, address >> 32n));
  if (!isCanonicalPair(cpu, hi)) return refuse(cpu);
  return loadLinear(cpu, lo, hi, 8 * ITEM, 8);
}

/**
 * Far CALL and events that change to `cpl`: the shadow stack is that of IA32_PL0_SSP, IA32_PL1_SSP or
 * IA32_PL2_SSP or, with `ist`, of the interrupt SSP table. A frame is pushed unless CPL 3 is left.
 */
export function switchShadowStack(
  cpu: Processor,
  cpl: number,
  ist: number,
  wide: boolean,
  returnAddress: number,
): boolean {
  begin();
  const { quads } = cpu;
  const fromUser = cpu.cpl === 3;
  if (fromUser && (cpu.enforcement & Enforcement.ShadowStack) !== 0)
    after.userSsp = userShadowStackPointer(cpu);
  if (!hasShadowStack(cpu, cpl)) return true;
  if (ist !== 0 && !readTable(cpu, ist)) return false;
  const ssp = quads[ist !== 0 ? ITEM : IA32_PL0_SSP + cpl] as bigint;
  if (!acquire(cpu, ssp, SupervisorShadowStack, wide)) return false;
  after.ssp = ssp;
  if (fromUser) return true;
  return pushFrame(cpu, ssp, returnAddress, SupervisorShadowStack, wide, codeSelector(cpu));
}

/** Events that stay at the CPL but change stacks by `ist`: to 64-bit code, with the shadow stack of the table. */
export function switchInterruptShadowStack(cpu: Processor, ist: number, returnAddress: number): boolean {
  begin();
  if ((cpu.enforcement & Enforcement.ShadowStack) === 0) return true;
  if (!readTable(cpu, ist)) return false;
  const ssp = cpu.quads[ITEM] as bigint;
  const as = shadowStackClass(cpu.cpl);
  if (!acquire(cpu, ssp, as, true)) return false;
  return pushAligned(cpu, ssp, returnAddress, as, true, codeSelector(cpu));
}

/**
 * FRED delivery to the shadow stack of stack level `level`: without tokens, and with a frame for events at CPL
 * 0 that has `cs`, the image of CS in the other frame. `changes`: another level than that of SSP.
 */
export function deliverOnShadowStack(cpu: Processor, level: number, changes: boolean, cs: bigint): boolean {
  begin();
  const { quads } = cpu;
  const ofLevel = quads[level === 0 ? IA32_PL0_SSP : IA32_FRED_SSP1 + level - 1] as bigint;
  if (cpu.cpl === 3) {
    if ((cpu.enforcement & Enforcement.ShadowStack) !== 0) after.userSsp = userShadowStackPointer(cpu);
    if (hasShadowStack(cpu, 0)) after.ssp = ofLevel;
    return true;
  }
  if ((cpu.enforcement & Enforcement.ShadowStack) === 0) return true;
  if (changes) return pushFrame(cpu, ofLevel, RETURN, SupervisorShadowStack, true, cs);
  return pushAligned(cpu, quads[SSP] as bigint, RETURN, SupervisorShadowStack, true, cs);
}

/** ERETS: `cs` and `rip` are those of the frame; `leaves`, the stack level that it leaves, or −1. */
export function returnToSupervisorShadowStack(
  cpu: Processor,
  cs: bigint,
  rip: bigint,
  leaves: number,
): boolean {
  begin();
  const { quads } = cpu;
  if ((cpu.enforcement & Enforcement.ShadowStack) === 0) return true;
  const ssp = quads[SSP] as bigint;
  if ((ssp & 7n) !== 0n) return violates(cpu);
  if (!matchFrame(cpu, cs, rip)) return false;
  after.ssp = quads[ITEM] as bigint;
  if (!isCanonical(after.ssp, cpu.features.linearAddressBits)) return refuse(cpu);
  // A level is left as it was entered. None is below level 0.
  return leaves < 0 || ssp + FRAME_BYTES === quads[IA32_FRED_SSP1 + leaves - 1] || violates(cpu);
}

/** ERETU, to 64-bit code if `wide`, from the shadow stack of stack level 0, on which nothing is left. */
export function returnToUserShadowStack(cpu: Processor, wide: boolean): boolean {
  begin();
  const { quads } = cpu;
  const user = quads[IA32_PL3_SSP] as bigint;
  const hasUser = hasShadowStack(cpu, 3);
  if (hasUser && !wide && user >> ABOVE_4_GBYTES !== 0n) return refuse(cpu);
  const supervised = (cpu.enforcement & Enforcement.ShadowStack) !== 0;
  if (supervised && quads[SSP] !== quads[IA32_PL0_SSP]) return violates(cpu);
  if (hasUser) after.ssp = user;
  return true;
}

/** Clears the busy bit of the token at `ssp`, if it is one. */
function release(cpu: Processor, ssp: bigint, as: AccessClass): boolean {
  const wide = cpu.mode === Mode.Bit64;
  return exchangeToken(cpu, ssp, ssp, ssp | BUSY, as, wide) !== TokenExchange.Fault;
}

/** SSP that a return finds in the frame on the shadow stack; its CS and linear address have to be these. */
function matchFrame(cpu: Processor, selector: bigint, lip: bigint): boolean {
  const { quads } = cpu;
  const ssp = quads[SSP] as bigint;
  const as = shadowStackClass(cpu.cpl);
  const wide = cpu.mode === Mode.Bit64;
  if (!loadShadow(cpu, ssp + 16n, 8, as, wide)) return false;
  const cs = quads[ITEM];
  if (!loadShadow(cpu, ssp + 8n, 8, as, wide)) return false;
  const address = quads[ITEM];
  if (!loadShadow(cpu, ssp, 8, as, wide)) return false;
  const matches = cs === selector && address === lip && ((quads[ITEM] as bigint) & 3n) === 0n;
  return matches || violates(cpu);
}

/** Whether `ssp` may be used by the code that is returned to. */
function mayReturnTo(cpu: Processor, ssp: bigint, wide: boolean): boolean {
  const suits = wide
    ? isCanonicalPair(cpu, Number(BigInt.asIntN(32, ssp >> 32n)))
    : ssp >> ABOVE_4_GBYTES === 0n;
  return suits || refuse(cpu);
}

/**
 * RET and IRET to `selector` with the linear address `lip`, 64-bit code if `wide`. After the last check a
 * token is freed: by a return to less privilege, and by an IRET that leaves a shadow stack of the interrupt
 * SSP table.
 */
export function returnOnShadowStack(
  cpu: Processor,
  selector: number,
  lip: bigint,
  wide: boolean,
  isIret: boolean,
): boolean {
  begin();
  const { quads } = cpu;
  const enabled = (cpu.enforcement & Enforcement.ShadowStack) !== 0;
  const cpl = selector & 3;
  const outwards = cpl > cpu.cpl;
  const ssp = quads[SSP] as bigint;
  if (enabled && (ssp & 7n) !== 0n) return violates(cpu);
  const hasFrame = enabled && !(outwards && cpl === 3);
  if (hasFrame && !matchFrame(cpu, BigInt(selector), lip)) return false;
  const old = hasFrame ? ssp + FRAME_BYTES : ssp;
  if (hasFrame) after.ssp = quads[ITEM];
  else if (outwards && hasShadowStack(cpu, cpl)) after.ssp = quads[IA32_PL3_SSP];
  if (after.ssp !== undefined && !mayReturnTo(cpu, after.ssp, wide)) return false;
  if (!enabled) return true;
  if (outwards) return release(cpu, old, SupervisorShadowStack);
  if (!isIret || cpu.mode < Mode.Compatibility || after.ssp === old) return true;
  return release(cpu, old, shadowStackClass(cpl));
}

/** IRET to virtual-8086 mode, which has no control-flow enforcement. */
export function leaveForVirtual8086(cpu: Processor): boolean {
  begin();
  if ((cetControls(cpu, 3) & ANY_TRACKING_OR_STACK) !== 0) return refuse(cpu);
  if ((cpu.enforcement & Enforcement.ShadowStack) === 0) return true;
  const ssp = cpu.quads[SSP] as bigint;
  if ((ssp & 7n) !== 0n) return violates(cpu);
  return release(cpu, ssp, SupervisorShadowStack);
}
