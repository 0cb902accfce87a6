/**
 * Shadow-stack management and ENDBRANCH (SDM vol. 2: INCSSP, RDSSP, SAVEPREVSSP, RSTORSSP, WRSS, WRUSS,
 * SETSSBSY, CLRSSBSY, ENDBR32, ENDBR64).
 */
import { addressRules } from '../address-rules.ts';
import { endBranch } from '../cet/branch-tracking.ts';
import { CetBit, ControlProtection, cetControls, Enforcement, hasShadowStack } from '../cet/enforcement.ts';
import {
  exchangeToken,
  loadShadow,
  lockToken,
  shadowStackClass,
  storeLocked,
  storeShadow,
  TokenExchange,
} from '../cet/shadow-stack.ts';
import { raise, raiseWithCode, Vector } from '../exceptions.ts';
import { materialise, replaceFlags } from '../flags.ts';
import { usesFred } from '../fred/fred-transitions.ts';
import { type Execute, type Instruction, Next } from '../instruction.ts';
import { Mode } from '../mode.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { operandAddress } from '../operand-forms.ts';
import type { Processor } from '../processor.ts';
import { ARITHMETIC_FLAGS, CR4, Register, RFLAGS } from '../registers.ts';
import { Access, AccessClass } from '../tlb.ts';

const { SSP, IA32_PL0_SSP, linear: LINEAR, stackItem: ITEM } = Register;
const CR4_LOW = 2 * Register.CR4;
const CF = 1 << RFLAGS.CF;
const BUSY = 1n;
/** Tokens for switching shadow stacks: 64-bit mode, previous SSP, and in a restore token a hole below SSP. */
const TOKEN_64 = 1n;
const TOKEN_PREVIOUS = 2n;
const TOKEN_HOLE = 4n;

const isWide = (cpu: Processor) => cpu.mode === Mode.Bit64;
const GP0 = (cpu: Processor) => raiseWithCode(cpu, Vector.GP, 0);

/** `execute`, but #UD where the CPL has no shadow stack. */
function onShadowStack(execute: Execute): Execute {
  return (cpu, i) =>
    (cpu.enforcement & Enforcement.ShadowStack) !== 0 ? execute(cpu, i) : raise(cpu, Vector.UD);
}

/** `execute` at CPL 0; #UD unless supervisor mode has shadow stacks, with tokens: FRED uses none. */
function withSupervisorTokens(execute: Execute): Execute {
  return (cpu, i) => {
    if (!hasShadowStack(cpu, 0) || usesFred(cpu)) return raise(cpu, Vector.UD);
    return cpu.cpl === 0 ? execute(cpu, i) : GP0(cpu);
  };
}

/** The operand, aligned to its `bytes`, for an access of class `as`: its address in the slot `linear`. */
function shadowOperand(cpu: Processor, i: Instruction, bytes: number, as: AccessClass): boolean {
  const rules = cpu.addressRules;
  cpu.addressRules = addressRules(cpu, as);
  // Alignment is not a matter of #AC.
  let placed = operandAddress(cpu, i, 1, Access.Write);
  if (placed && ((cpu.i32[2 * LINEAR] as number) & (bytes - 1)) !== 0) {
    GP0(cpu);
    placed = false;
  }
  placed &&= operandAddress(cpu, i, bytes, Access.Write);
  cpu.addressRules = rules;
  return placed;
}

/** Reads the first and the last item that go. */
const incssp: Execute = (cpu, i) => {
  const { quads } = cpu;
  const bytes = i.operandBits === 64 ? 8 : 4;
  const items = BigInt(cpu.u8[i.d] as number);
  const as = shadowStackClass(cpu.cpl);
  const wide = isWide(cpu);
  const ssp = quads[SSP] as bigint;
  if (!loadShadow(cpu, ssp, bytes, as, wide)) return Next.Fault;
  if (items > 0n && !loadShadow(cpu, ssp + BigInt(bytes) * (items - 1n), bytes, as, wide)) return Next.Fault;
  quads[SSP] = BigInt.asUintN(wide ? 64 : 32, ssp + BigInt(bytes) * items);
  return Next.Sequential;
};

/** Without a shadow stack it does nothing. */
const rdssp: Execute = (cpu, i) => {
  if ((cpu.enforcement & Enforcement.ShadowStack) === 0) return Next.Sequential;
  cpu.quads[i.d >> 3] = BigInt.asUintN(i.operandBits, cpu.quads[SSP] as bigint);
  return Next.Sequential;
};

/** Puts a restore token on the shadow stack that the previous-SSP token on top of the present one names. */
const saveprevssp: Execute = (cpu) => {
  const { quads } = cpu;
  const wide = isWide(cpu);
  const as = shadowStackClass(cpu.cpl);
  const ssp = quads[SSP] as bigint;
  if ((ssp & 7n) !== 0n) return GP0(cpu);
  if (!loadShadow(cpu, ssp, 8, as, wide)) return Next.Fault;
  const token = quads[ITEM] as bigint;
  const hasHole = (materialise(cpu) & CF) !== 0;
  if (hasHole) {
    if (wide) return GP0(cpu);
    if (!loadShadow(cpu, ssp + 8n, 4, as, wide)) return Next.Fault;
    if (quads[ITEM] !== 0n) return GP0(cpu);
  }
  if ((token & TOKEN_PREVIOUS) === 0n || (!wide && token >> 32n !== 0n)) return GP0(cpu);
  const previous = token & ~3n;
  const restore = previous | (wide ? TOKEN_64 : 0n);
  if (!storeShadow(cpu, previous - 4n, 0n, 4, as, wide)) return Next.Fault;
  if (!storeShadow(cpu, (previous & ~7n) - 8n, restore, 8, as, wide)) return Next.Fault;
  quads[SSP] = BigInt.asUintN(wide ? 64 : 32, ssp + (hasHole ? 12n : 8n));
  return Next.Sequential;
};

/** Switches to the shadow stack whose restore token the operand is; a previous-SSP token takes its place. */
const rstorssp: Execute = (cpu, i) => {
  const { quads } = cpu;
  const wide = isWide(cpu);
  const as = shadowStackClass(cpu.cpl);
  if (!shadowOperand(cpu, i, 8, as)) return Next.Fault;
  const address = quads[LINEAR] as bigint;
  const mode = wide ? TOKEN_64 : 0n;
  if (!lockToken(cpu, address, as, wide)) return Next.Fault;
  const token = quads[ITEM] as bigint;
  const names = BigInt.asUintN(64, (token & ~1n) - 8n) & ~7n;
  const valid = (token & 3n) === mode && (wide || token >> 32n === 0n) && names === address;
  const previous = (quads[SSP] as bigint) | mode | TOKEN_PREVIOUS;
  if (!storeLocked(cpu, valid ? previous : token, as)) return Next.Fault;
  if (!valid) return raiseWithCode(cpu, Vector.CP, ControlProtection.Rstorssp);
  quads[SSP] = address;
  replaceFlags(cpu, ARITHMETIC_FLAGS, (token & TOKEN_HOLE) !== 0n ? CF : 0);
  return Next.Sequential;
};

/** WRSS and WRUSS behind their checks. */
function write(cpu: Processor, i: Instruction, as: AccessClass): Next {
  const bytes = i.operandBits === 64 ? 8 : 4;
  if (!shadowOperand(cpu, i, bytes, as)) return Next.Fault;
  const { quads } = cpu;
  const stored = storeShadow(cpu, quads[LINEAR] as bigint, quads[i.s >> 3] as bigint, bytes, as, isWide(cpu));
  return stored ? Next.Sequential : Next.Fault;
}

const wrss: Execute = (cpu, i) => {
  const needed = CetBit.SH_STK_EN | CetBit.WR_SHSTK_EN;
  if ((cetControls(cpu, cpu.cpl) & needed) !== needed) return raise(cpu, Vector.UD);
  return write(cpu, i, shadowStackClass(cpu.cpl));
};

/** A user-mode access of supervisor code. */
const wruss: Execute = (cpu, i) => {
  if (((cpu.i32[CR4_LOW] as number) & (1 << CR4.CET)) === 0) return raise(cpu, Vector.UD);
  return cpu.cpl === 0 ? write(cpu, i, AccessClass.UserShadowStack) : GP0(cpu);
};

/** To the shadow stack of IA32_PL0_SSP, whose token becomes busy. */
const setssbsy: Execute = (cpu) => {
  const ssp = cpu.quads[IA32_PL0_SSP] as bigint;
  if ((ssp & 7n) !== 0n) return GP0(cpu);
  const as = AccessClass.SupervisorShadowStack;
  const exchange = exchangeToken(cpu, ssp, ssp | BUSY, ssp, as, isWide(cpu));
  if (exchange === TokenExchange.Fault) return Next.Fault;
  if (exchange === TokenExchange.Mismatch) return raiseWithCode(cpu, Vector.CP, ControlProtection.Setssbsy);
  cpu.quads[SSP] = ssp;
  return Next.Sequential;
};

/** CF says that the operand is no busy token. */
const clrssbsy: Execute = (cpu, i) => {
  const as = AccessClass.SupervisorShadowStack;
  if (!shadowOperand(cpu, i, 8, as)) return Next.Fault;
  const address = cpu.quads[LINEAR] as bigint;
  const exchange = exchangeToken(cpu, address, address, address | BUSY, as, isWide(cpu));
  if (exchange === TokenExchange.Fault) return Next.Fault;
  replaceFlags(cpu, ARITHMETIC_FLAGS, exchange === TokenExchange.Mismatch ? CF : 0);
  cpu.quads[SSP] = 0n;
  return Next.Sequential;
};

/** In the other mode it does nothing, as without tracking. */
function endbranch(in64: boolean): Execute {
  return (cpu) => {
    if ((cpu.enforcement & Enforcement.Endbranch) !== 0 && isWide(cpu) === in64) endBranch(cpu);
    return Next.Sequential;
  };
}

function row(opcode: string, mnemonic: string, operands: string, execute: Execute): OpcodeRow {
  return { opcode, mnemonic, operands, execute, protectedMode: true, feature: (f) => f.cetShadowStack };
}

/** Two instructions of one opcode: the names are those without and with REX.W. */
function sized(
  opcode: string,
  names: readonly [string, string],
  operands: string,
  execute: Execute,
): OpcodeRow[] {
  return names.map((name, w) => row(`${opcode} W${w}`, name, operands, execute));
}

export const CONTROL_FLOW_ENFORCEMENT_ROWS: readonly OpcodeRow[] = [
  ...sized('F3 0F AE /5 mod=3', ['INCSSPD', 'INCSSPQ'], 'Ry', onShadowStack(incssp)),
  // Hints where there are no shadow stacks.
  { opcode: 'F3 0F 1E /1 mod=3 W0', mnemonic: 'RDSSPD', operands: 'Ry', execute: rdssp },
  { opcode: 'F3 0F 1E /1 mod=3 W1', mnemonic: 'RDSSPQ', operands: 'Ry', execute: rdssp },
  row('F3 0F 01 /5 mod=3 rm=2', 'SAVEPREVSSP', '', onShadowStack(saveprevssp)),
  row('F3 0F 01 /5 mod!=3', 'RSTORSSP', 'Mq!', onShadowStack(rstorssp)),
  ...sized('NP 0F 38 F6 mod!=3', ['WRSSD', 'WRSSQ'], 'My! Gy', wrss),
  ...sized('66 0F 38 F5 mod!=3', ['WRUSSD', 'WRUSSQ'], 'My! Gy', wruss),
  row('F3 0F 01 /5 mod=3 rm=0', 'SETSSBSY', '', withSupervisorTokens(setssbsy)),
  row('F3 0F AE /6 mod!=3', 'CLRSSBSY', 'Mq!', withSupervisorTokens(clrssbsy)),
  { opcode: 'F3 0F 1E /7 mod=3 rm=2', mnemonic: 'ENDBR64', operands: '', execute: endbranch(true) },
  { opcode: 'F3 0F 1E /7 mod=3 rm=3', mnemonic: 'ENDBR32', operands: '', execute: endbranch(false) },
];
