/**
 * Shadow stacks in task switches (SDM vol. 1 §17.2.4; vol. 3A §9.3): SSP of the new task is in its TSS and has
 * a token, that of the old task is in a frame on the new task's shadow stack, to which IRET goes back.
 */
import { raiseForSelector, raiseWithCode, Vector } from '../exceptions.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { CetBit, ControlProtection, cetControls, Enforcement } from './enforcement.ts';
import { exchangeToken, loadShadow, shadowStackClass, storeShadow, TokenExchange } from './shadow-stack.ts';
import { userShadowStackPointer } from './shadow-stack-transfer.ts';

const { SSP, IA32_PL3_SSP, stackItem: ITEM } = Register;
const CS_SELECTOR = Register['CS.selector'];
const CS_BASE = Register['CS.base'];
const BUSY = 1n;
const FRAME_BYTES = 24n;

/** How a task switch treats the task that it leaves. */
export const TaskLink = { None: 0, Nests: 1, Returns: 2 } as const;
export type TaskLink = (typeof TaskLink)[keyof typeof TaskLink];

/** What the new task's shadow stack has to do with the old one's. */
const old = {
  link: TaskLink.None as TaskLink,
  /** There is a frame: to be pushed, or popped. */
  hasFrame: false,
  cs: 0n,
  lip: 0n,
  ssp: 0n,
  userSsp: undefined as bigint | undefined,
};

/** Whether tasks may have shadow stacks: TSSs then have 32 bits and room for SSP. */
export function tasksHaveShadowStacks(cpu: Processor): boolean {
  return ((cetControls(cpu, 0) | cetControls(cpu, 3)) & CetBit.SH_STK_EN) !== 0;
}

/**
 * Before the old task is left for code of `cpl`; `eip` is where it goes on. A return pops the frame and
 * frees the token of the old task's shadow stack. False after raising a fault, with nothing changed.
 */
export function leaveTask(cpu: Processor, link: TaskLink, cpl: number, eip: number): boolean {
  const { quads } = cpu;
  const enabled = (cpu.enforcement & Enforcement.ShadowStack) !== 0;
  old.link = link;
  old.userSsp = undefined;
  old.hasFrame = false;
  if (!enabled || link === TaskLink.None) return true;
  if (link === TaskLink.Returns) return popFrame(cpu, cpl);
  if (cpu.cpl === 3 && cpl < 3) {
    old.userSsp = userShadowStackPointer(cpu);
    return true;
  }
  old.hasFrame = true;
  old.cs = (quads[CS_SELECTOR] as bigint) & 0xffffn;
  old.lip = BigInt.asUintN(32, (quads[CS_BASE] as bigint) + BigInt(eip));
  old.ssp = quads[SSP] as bigint;
  return true;
}

/** A return to CPL 3 from less has no frame: SSP is that of IA32_PL3_SSP. */
function popFrame(cpu: Processor, cpl: number): boolean {
  const { quads } = cpu;
  const as = shadowStackClass(cpu.cpl);
  let ssp = quads[SSP] as bigint;
  if ((ssp & 7n) !== 0n) {
    raiseWithCode(cpu, Vector.CP, ControlProtection.FarRetOrIret);
    return false;
  }
  old.hasFrame = cpl < 3 || cpl === cpu.cpl;
  if (old.hasFrame) {
    if (!loadShadow(cpu, ssp + 16n, 8, as, false)) return false;
    old.cs = quads[ITEM] as bigint;
    if (!loadShadow(cpu, ssp + 8n, 8, as, false)) return false;
    old.lip = quads[ITEM] as bigint;
    if (!loadShadow(cpu, ssp, 8, as, false)) return false;
    old.ssp = quads[ITEM] as bigint;
    ssp += FRAME_BYTES;
  } else old.ssp = quads[IA32_PL3_SSP] as bigint;
  return exchangeToken(cpu, ssp, ssp, ssp | BUSY, as, false) !== TokenExchange.Fault;
}

/**
 * When CS and EIP are those of the new task, whose TSS is that of `selector` and has `ssp`. False after raising a
 * fault of the new task.
 */
export function enterTaskShadowStack(cpu: Processor, ssp: number, selector: number): boolean {
  const { quads } = cpu;
  if (old.userSsp !== undefined) quads[IA32_PL3_SSP] = old.userSsp;
  if ((cpu.enforcement & Enforcement.ShadowStack) === 0) return true;
  if (old.link === TaskLink.Returns) return returnToShadowStack(cpu);
  const as = shadowStackClass(cpu.cpl);
  const token = BigInt(ssp >>> 0);
  const exchange =
    (token & 7n) === 0n ? exchangeToken(cpu, token, token | BUSY, token, as, false) : undefined;
  if (exchange === TokenExchange.Fault) return false;
  if (exchange !== TokenExchange.Done) {
    raiseForSelector(cpu, Vector.TS, selector);
    return false;
  }
  quads[SSP] = token;
  if (!old.hasFrame) return true;
  const pushed =
    storeShadow(cpu, token - 8n, old.cs, 8, as, false) &&
    storeShadow(cpu, token - 16n, old.lip, 8, as, false) &&
    storeShadow(cpu, token - 24n, old.ssp, 8, as, false);
  if (pushed) quads[SSP] = BigInt.asUintN(32, token - FRAME_BYTES);
  return pushed;
}

function returnToShadowStack(cpu: Processor): boolean {
  const { quads } = cpu;
  if (old.hasFrame) {
    const cs = (quads[CS_SELECTOR] as bigint) & 0xffffn;
    const lip = BigInt.asUintN(32, (quads[CS_BASE] as bigint) + (quads[Register.RIP] as bigint));
    if (old.cs !== cs || old.lip !== lip || (old.ssp & 3n) !== 0n) {
      raiseWithCode(cpu, Vector.CP, ControlProtection.FarRetOrIret);
      return false;
    }
  }
  if (old.ssp >> 32n !== 0n) {
    raiseWithCode(cpu, Vector.GP, 0);
    return false;
  }
  quads[SSP] = old.ssp;
  return true;
}
