/**
 * Every VMX instruction in every situation it can be executed in. What must happen is worked out here
 * from the instruction's operation in SDM §33.3, step by step, independently of the implementation.
 */
import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import type { Machine, MachineSnapshot } from '../../../src/machine/machine.ts';
import {
  faultingOperand,
  type MemoryOperand,
  REGISTER_FORM,
} from '../../../src/vmx/instructions/operands.ts';
import { fault, type Outcome } from '../../../src/vmx/outcome.ts';
import {
  ARITHMETIC,
  ENTRY,
  encodingOf,
  enterRoot,
  exited,
  FAIL_INVALID,
  failValid,
  freshRegion,
  GP0,
  held,
  launchable,
  launched,
  MODES,
  type ModeName,
  NO_POINTER,
  rootMachine,
  SUCCEED,
  setMode,
  succeeds,
  UD,
  vmcsRegion,
  vmxonRegion,
  writeRevision,
} from '../../support/machine.ts';

type OperationName = 'outside' | 'root' | 'non-root';
type CurrentName = 'none' | 'clear' | 'launched' | 'undefined' | 'shadow';

interface State {
  readonly operation: OperationName;
  readonly mode: ModeName;
  readonly cpl: number;
  readonly current: CurrentName;
}

const CURRENT = vmcsRegion(0);
const OTHER = vmcsRegion(1);
const WRONG_REVISION = vmcsRegion(2);
const SHADOW = vmcsRegion(3);
const UNINITIALISED = vmcsRegion(4);
const VMXON = vmxonRegion(0);
const PAGE_FAULT: Outcome = { kind: 'fault', vector: 14, errorCode: 2 };

/** Pointer operands: what is wrong with each. */
const POINTERS: Record<string, MemoryOperand> = {
  register: REGISTER_FORM,
  'page fault': faultingOperand(14, 2),
  'stack fault': faultingOperand(12, 0),
  'general protection': faultingOperand(13, 0),
  'misaligned by 1': BigInt(OTHER + 1),
  'misaligned by 2048': BigInt(OTHER + 2048),
  'too wide': 1n << 52n,
  'too wide, top bit': 1n << 63n,
  'all ones': NO_POINTER,
  'VMXON pointer': BigInt(VMXON),
  'current VMCS': BigInt(CURRENT),
  'another VMCS': BigInt(OTHER),
  'wrong revision': BigInt(WRONG_REVISION),
  'shadow bit': BigInt(SHADOW),
  'never cleared': BigInt(UNINITIALISED),
  'highest page': (1n << 52n) - 4096n,
};

function addressProblem(operand: bigint): boolean {
  return (operand & 0xfffn) !== 0n || operand >> 52n !== 0n;
}

function operandFault(operand: MemoryOperand): Outcome | undefined {
  if (typeof operand === 'bigint' || operand.kind !== 'fault') return undefined;
  return fault(operand.vector, operand.errorCode);
}

function isRegister(operand: MemoryOperand): boolean {
  return typeof operand !== 'bigint' && operand.kind === 'register';
}

/** "Not in VMX operation, CR0.PE = 0, RFLAGS.VM = 1, or compatibility mode." */
function commonUd(s: State): boolean {
  return s.operation === 'outside' || modeUd(s);
}

function modeUd(s: State): boolean {
  return s.mode === 'real' || s.mode === 'v86' || s.mode === 'compatibility';
}

function vmFail(s: State, error: number): Outcome {
  return s.current === 'none' ? FAIL_INVALID : failValid(error);
}

/** A machine for each kind of operation and current VMCS, and its state at that moment. */
class Bench {
  readonly machine: Machine;
  readonly cpu: LogicalProcessor;
  readonly #start: MachineSnapshot;

  constructor(operation: OperationName, current: CurrentName) {
    this.machine = rootMachine({ hazards: 'ignore' });
    this.cpu = this.machine.cpu(0);
    const { cpu, machine } = this;
    freshRegion(cpu, OTHER);
    freshRegion(cpu, SHADOW, true);
    writeRevision(cpu, UNINITIALISED);
    machine.memory.write32(WRONG_REVISION, (cpu.capabilities.revision ^ 1) >>> 0);
    machine.memory.write32(2 ** 52 - 4096, cpu.capabilities.revision);
    if (current === 'clear') launchable(cpu, CURRENT);
    else freshRegion(cpu, CURRENT);
    if (current === 'launched') {
      launched(cpu, CURRENT);
      if (operation === 'root') cpu.vmexit({ reason: 10, instructionLength: 2 });
    }
    if (current === 'undefined') {
      machine.memory.page(CURRENT).u8.fill(0);
      writeRevision(cpu, CURRENT);
      succeeds(cpu.vmptrld(BigInt(CURRENT)));
    }
    if (current === 'shadow') {
      freshRegion(cpu, CURRENT, true);
      succeeds(cpu.vmptrld(BigInt(CURRENT)));
    }
    if (operation === 'outside') succeeds(cpu.vmxoff());
    this.#start = machine.snapshot();
  }

  begin(s: State, flags: bigint): LogicalProcessor {
    this.machine.restore(this.#start);
    setMode(this.cpu, s.mode, s.cpl);
    this.cpu.set('RFLAGS', (this.cpu.get('RFLAGS') & ~ARITHMETIC) | flags);
    return this.cpu;
  }
}

const benches = new Map<string, Bench>();
function benchFor(s: State): Bench {
  const key = `${s.operation}/${s.current}`;
  let bench = benches.get(key);
  if (bench === undefined) {
    bench = new Bench(s.operation, s.current);
    benches.set(key, bench);
  }
  return bench;
}

const STATES: readonly State[] = (
  [
    ['outside', ['none']],
    ['root', ['none', 'clear', 'launched', 'undefined', 'shadow']],
    ['non-root', ['launched']],
  ] as const
).flatMap(([operation, currents]) =>
  currents.flatMap((current) =>
    MODES.flatMap((mode) =>
      (mode === 'real' ? [0] : mode === 'v86' ? [3] : [0, 3]).map((cpl) => ({
        operation,
        current,
        mode,
        cpl,
      })),
    ),
  ),
);

const ERROR_BEFORE = 0n;

/** Runs one case and compares outcome, RFLAGS and VM-instruction error. */
function check(
  s: State,
  name: string,
  run: (cpu: LogicalProcessor) => Outcome,
  expected: Outcome,
  prepare?: (cpu: LogicalProcessor) => void,
): void {
  for (const flags of [ARITHMETIC, 0n]) {
    const cpu = benchFor(s).begin(s, flags);
    prepare?.(cpu);
    const before = cpu.get('RFLAGS');
    const currentBefore = cpu.currentVmcs;
    const outcome = run(cpu);
    const where = `${name} ${JSON.stringify(s)}`;
    expect(outcome, where).toEqual(expected);
    const kept = before & ~ARITHMETIC;
    if (expected.kind === 'VMexit') {
      expect(held(cpu, CURRENT, 'guestRflags'), where).toBe(before);
      expect(held(cpu, CURRENT, 'exitReason') & 0xffffn, where).toBe(BigInt(expected.reason));
      expect(held(cpu, CURRENT, 'vmInstructionError'), where).toBe(ERROR_BEFORE);
      expect(cpu.operation, where).toBe('root');
      continue;
    }
    if (expected.kind === 'VMentry') continue;
    if (expected.kind === 'fault') expect(cpu.get('RFLAGS'), where).toBe(before);
    else {
      const flag = expected.kind === 'VMfailInvalid' ? 1n : expected.kind === 'VMfailValid' ? 0x40n : 0n;
      expect(cpu.get('RFLAGS'), where).toBe(kept | flag);
    }
    if (expected.kind !== 'VMsucceed') expect(cpu.currentVmcs, where).toBe(currentBefore);
    if (currentBefore !== undefined && cpu.unit.active.get(currentBefore) !== undefined) {
      const error = expected.kind === 'VMfailValid' ? BigInt(expected.error) : ERROR_BEFORE;
      expect(held(cpu, currentBefore, 'vmInstructionError'), where).toBe(error);
    }
  }
}

describe('VMX instructions in every mode, privilege level and kind of VMX operation', () => {
  it('VMXON (§33.3): #UD before everything; outside VMX operation #GP(0), then the operand; error 15 in root', () => {
    for (const s of STATES) {
      for (const [name, operand] of Object.entries(POINTERS)) {
        let expected: Outcome;
        if (isRegister(operand) || modeUd(s)) expected = UD;
        else if (s.operation === 'non-root') expected = exited(27);
        else if (s.cpl > 0) expected = GP0;
        else if (s.operation === 'root') expected = vmFail(s, 15);
        else if (operandFault(operand)) expected = operandFault(operand) as Outcome;
        else if (addressProblem(operand as bigint)) expected = FAIL_INVALID;
        else if (operand === BigInt(WRONG_REVISION) || operand === BigInt(SHADOW)) expected = FAIL_INVALID;
        else expected = SUCCEED;
        check(s, `VMXON ${name}`, (cpu) => cpu.vmxon(operand), expected);
      }
    }
  });

  it('VMXON (§26.7, §26.8): what enables it', () => {
    const conditions: readonly (readonly [string, (cpu: LogicalProcessor) => void, Outcome | undefined])[] = [
      ['CR4.VMXE = 0', (c) => c.set('CR4', c.get('CR4') & ~0x2000n), UD],
      ['A20M mode', (c) => c.set('a20mMode', 1n), GP0],
      ['CR0.NE = 0', (c) => c.set('CR0', c.get('CR0') & ~0x20n), GP0],
      ['CR0.PG = 0', (c) => c.set('CR0', c.get('CR0') & ~0x8000_0000n), GP0],
      ['a reserved bit of CR4', (c) => c.set('CR4', c.get('CR4') | (1n << 63n)), GP0],
      ['feature control unlocked', (c) => c.set('IA32_FEATURE_CONTROL', 4n), GP0],
      ['not enabled outside SMX', (c) => c.set('IA32_FEATURE_CONTROL', 3n), GP0],
      [
        'in SMX, enabled only outside',
        (c) => {
          c.set('inSmx', 1n);
          c.set('IA32_FEATURE_CONTROL', 5n);
        },
        GP0,
      ],
      [
        'in SMX, enabled there',
        (c) => {
          c.set('inSmx', 1n);
          c.set('IA32_FEATURE_CONTROL', 3n);
        },
        undefined,
      ],
    ];
    for (const mode of MODES) {
      for (const cpl of mode === 'real' ? [0] : mode === 'v86' ? [3] : [0, 3]) {
        for (const [name, prepare, failure] of conditions) {
          for (const [pointerName, operand] of Object.entries(POINTERS)) {
            const s: State = { operation: 'outside', mode, cpl, current: 'none' };
            let expected: Outcome;
            if (isRegister(operand) || modeUd(s) || failure === UD) expected = UD;
            else if (cpl > 0 || failure !== undefined) expected = GP0;
            else if (operandFault(operand)) expected = operandFault(operand) as Outcome;
            else if (addressProblem(operand as bigint)) expected = FAIL_INVALID;
            else if ([WRONG_REVISION, SHADOW].includes(Number(operand))) expected = FAIL_INVALID;
            else expected = SUCCEED;
            check(s, `VMXON, ${name}, ${pointerName}`, (cpu) => cpu.vmxon(operand), expected, prepare);
          }
        }
      }
    }
  });

  it('VMXON enters root operation without a current VMCS, blocks INIT and A20M, and ends address-range monitoring', () => {
    const s: State = { operation: 'outside', mode: '64-bit', cpl: 0, current: 'none' };
    const cpu = benchFor(s).begin(s, 0n);
    cpu.set('monitorArmed', 1n);
    expect(cpu.vmxon(BigInt(VMXON))).toEqual(SUCCEED);
    expect(cpu.operation).toBe('root');
    expect(cpu.currentVmcs).toBeUndefined();
    expect(cpu.unit.vmx.initBlocked).toBe(true);
    expect(cpu.unit.vmx.a20mBlocked).toBe(true);
    expect(cpu.get('monitorArmed')).toBe(0n);
  });

  it('VMXOFF (§33.3)', () => {
    for (const s of STATES) {
      let expected: Outcome;
      if (commonUd(s)) expected = UD;
      else if (s.operation === 'non-root') expected = exited(26);
      else expected = s.cpl > 0 ? GP0 : SUCCEED;
      check(s, 'VMXOFF', (cpu) => cpu.vmxoff(), expected);
    }
  });

  it('VMXOFF leaves VMX operation, unblocks INIT and A20M, and ends address-range monitoring', () => {
    const s: State = { operation: 'root', mode: '64-bit', cpl: 0, current: 'clear' };
    const cpu = benchFor(s).begin(s, 0n);
    cpu.set('monitorArmed', 1n);
    expect(cpu.movToControlRegister('CR4', 0x20n)).toBe(false);
    expect(cpu.vmxoff()).toEqual(SUCCEED);
    expect(cpu.operation).toBe('outside');
    expect(cpu.activeVmcss).toEqual([]);
    expect(cpu.unit.vmx.initBlocked).toBe(false);
    expect(cpu.unit.vmx.a20mBlocked).toBe(false);
    expect(cpu.get('monitorArmed')).toBe(0n);
    expect(cpu.movToControlRegister('CR4', 0x20n)).toBe(true);
    expect(cpu.vmptrst().outcome).toEqual(UD);
    enterRoot(cpu);
    expect(cpu.vmptrst().pointer).toBe(NO_POINTER);
  });

  it('inside SMX operation A20M stays blocked after VMXOFF', () => {
    const s: State = { operation: 'root', mode: '64-bit', cpl: 0, current: 'clear' };
    const cpu = benchFor(s).begin(s, 0n);
    cpu.set('inSmx', 1n);
    expect(cpu.vmxoff()).toEqual(SUCCEED);
    expect(cpu.unit.vmx.a20mBlocked).toBe(true);
  });

  it('VMCLEAR (§33.3): address, then VMXON pointer; the revision is not looked at', () => {
    for (const s of STATES) {
      for (const [name, operand] of Object.entries(POINTERS)) {
        let expected: Outcome;
        if (isRegister(operand) || commonUd(s)) expected = UD;
        else if (s.operation === 'non-root') expected = exited(19);
        else if (s.cpl > 0) expected = GP0;
        else if (operandFault(operand)) expected = operandFault(operand) as Outcome;
        else if (addressProblem(operand as bigint)) expected = vmFail(s, 2);
        else if (operand === BigInt(VMXON)) expected = vmFail(s, 3);
        else expected = SUCCEED;
        check(s, `VMCLEAR ${name}`, (cpu) => cpu.vmclear(operand), expected);
        if (expected === SUCCEED) {
          const cpu = benchFor(s).cpu;
          const still = operand === BigInt(CURRENT) || s.current === 'none' ? undefined : CURRENT;
          expect(cpu.currentVmcs).toBe(still);
          expect(cpu.activeVmcss).not.toContain(Number(operand));
        }
      }
    }
  });

  it('VMPTRLD (§33.3): address, VMXON pointer, revision identifier and shadow indicator', () => {
    for (const s of STATES) {
      for (const [name, operand] of Object.entries(POINTERS)) {
        let expected: Outcome;
        if (isRegister(operand) || commonUd(s)) expected = UD;
        else if (s.operation === 'non-root') expected = exited(21);
        else if (s.cpl > 0) expected = GP0;
        else if (operandFault(operand)) expected = operandFault(operand) as Outcome;
        else if (addressProblem(operand as bigint)) expected = vmFail(s, 9);
        else if (operand === BigInt(VMXON)) expected = vmFail(s, 10);
        else if (operand === BigInt(WRONG_REVISION)) expected = vmFail(s, 11);
        else expected = SUCCEED;
        check(s, `VMPTRLD ${name}`, (cpu) => cpu.vmptrld(operand), expected);
        if (expected === SUCCEED) {
          const { cpu } = benchFor(s);
          expect(cpu.currentVmcs).toBe(Number(operand));
          expect(cpu.activeVmcss).toContain(Number(operand));
          if (s.current !== 'none') expect(cpu.activeVmcss).toContain(CURRENT);
        }
      }
    }
  });

  it('VMPTRLD takes the shadow indicator for a wrong revision where VMCS shadowing is not supported', () => {
    for (const profile of ['penryn', 'sandy bridge']) {
      const cpu = rootMachine({ profile }).cpu(0);
      if (cpu.capabilities.supports('proc2.vmcsShadowing')) continue;
      launchable(cpu, CURRENT);
      freshRegion(cpu, SHADOW, true);
      expect(cpu.vmptrld(BigInt(SHADOW))).toEqual(failValid(11));
      expect(cpu.currentVmcs).toBe(CURRENT);
    }
  });

  it('VMPTRST (§33.3): the current-VMCS pointer or all ones; it cannot VMfail', () => {
    for (const s of STATES) {
      for (const operand of ['memory', 'register', 'fault'] as const) {
        let expected: Outcome;
        if (operand === 'register' || commonUd(s)) expected = UD;
        else if (s.operation === 'non-root') expected = exited(22);
        else if (s.cpl > 0) expected = GP0;
        else expected = operand === 'fault' ? PAGE_FAULT : SUCCEED;
        let stored: bigint | undefined;
        check(
          s,
          `VMPTRST ${operand}`,
          (cpu) =>
            cpu.unit.vmptrst(
              operand === 'register'
                ? 'register'
                : (pointer) => {
                    if (operand === 'fault') return fault(14, 2);
                    stored = pointer;
                    return undefined;
                  },
            ),
          expected,
        );
        const pointer = s.current === 'none' ? NO_POINTER : BigInt(CURRENT);
        expect(stored).toBe(expected === SUCCEED ? pointer : undefined);
      }
    }
  });

  it('VMREAD (§33.3): the field check comes before the memory operand', () => {
    const unsupported = [0x7ffen, 0x1000n, 0x8000n, 0xffff_ffffn, 0x0001n, 0x4001n];
    for (const s of STATES) {
      for (const encoding of [BigInt(encodingOf('guestRip')), ...unsupported]) {
        for (const destination of ['register', 'fault'] as const) {
          let expected: Outcome;
          if (commonUd(s)) expected = UD;
          else if (s.operation === 'non-root') expected = exited(23);
          else if (s.cpl > 0) expected = GP0;
          else if (s.current === 'none') expected = FAIL_INVALID;
          else if (unsupported.includes(encoding)) expected = failValid(12);
          else expected = destination === 'fault' ? PAGE_FAULT : SUCCEED;
          check(
            s,
            `VMREAD ${encoding.toString(16)} ${destination}`,
            (cpu) => cpu.unit.vmread(encoding, () => (destination === 'fault' ? fault(14, 2) : undefined)),
            expected,
          );
        }
      }
    }
  });

  it('VMWRITE (§33.3): the memory operand comes before the field check', () => {
    const unsupported = [0x7ffen, 0x1000n, 0x8000n, 0xffff_ffffn, 0x0001n, 0x4001n];
    for (const s of STATES) {
      for (const encoding of [BigInt(encodingOf('guestRip')), ...unsupported]) {
        for (const source of [0x123n, faultingOperand(14, 2)] as const) {
          let expected: Outcome;
          if (commonUd(s)) expected = UD;
          else if (s.operation === 'non-root') expected = exited(25);
          else if (s.cpl > 0) expected = GP0;
          else if (s.current === 'none') expected = FAIL_INVALID;
          else if (typeof source !== 'bigint') expected = PAGE_FAULT;
          else expected = unsupported.includes(encoding) ? failValid(12) : SUCCEED;
          check(s, `VMWRITE ${encoding.toString(16)}`, (cpu) => cpu.unit.vmwrite(encoding, source), expected);
        }
      }
    }
  });

  it('VMLAUNCH and VMRESUME (§33.3, §29.1): shadow VMCS, blocking by MOV SS, launch state, in this order', () => {
    for (const s of STATES) {
      for (const movSs of [0n, 1n]) {
        for (const instruction of ['VMLAUNCH', 'VMRESUME'] as const) {
          const wanted = instruction === 'VMLAUNCH' ? 'clear' : 'launched';
          let expected: Outcome;
          if (commonUd(s)) expected = UD;
          else if (s.operation === 'non-root') expected = exited(instruction === 'VMLAUNCH' ? 20 : 24);
          else if (s.cpl > 0) expected = GP0;
          else if (s.current === 'none' || s.current === 'shadow') expected = FAIL_INVALID;
          else if (movSs === 1n) expected = failValid(26);
          else if (s.current !== wanted) expected = failValid(instruction === 'VMLAUNCH' ? 4 : 5);
          // "Host address-space size" is 1, which a processor outside IA-32e mode cannot have.
          else expected = s.mode === '64-bit' ? ENTRY : failValid(8);
          check(
            s,
            `${instruction} MOV SS ${movSs}`,
            (cpu) => (instruction === 'VMLAUNCH' ? cpu.vmlaunch() : cpu.vmresume()),
            expected,
            (cpu) => cpu.set('blockingByMovSs', movSs),
          );
        }
      }
    }
  });

  it('VMCALL (§33.3): exits from every mode and CPL in non-root operation; error 1 in root', () => {
    for (const s of STATES) {
      let expected: Outcome;
      if (s.operation === 'outside') expected = UD;
      else if (s.operation === 'non-root') expected = exited(18);
      else if (s.mode === 'v86' || s.mode === 'compatibility') expected = UD;
      else expected = s.cpl > 0 ? GP0 : vmFail(s, 1);
      check(s, 'VMCALL', (cpu) => cpu.vmcall(), expected);
    }
  });

  it('VMFUNC (§33.3): #UD unless a guest with "enable VM functions" executes it', () => {
    for (const s of STATES) check(s, 'VMFUNC', (cpu) => cpu.vmfunc(), UD);
  });

  it('INVEPT and INVVPID (§33.3): type before descriptor, descriptor before its contents', () => {
    const goodEptp = 0x1en;
    for (const s of STATES) {
      for (const instruction of ['INVEPT', 'INVVPID'] as const) {
        const supported = instruction === 'INVEPT' ? [1n, 2n] : [0n, 1n, 2n, 3n];
        for (const type of [0n, 1n, 2n, 3n, 4n, 1n << 31n, 1n << 32n, (1n << 32n) | 2n]) {
          for (const operand of [REGISTER_FORM, faultingOperand(14, 2), goodEptp] as const) {
            const effective = s.mode === '64-bit' ? type : BigInt.asUintN(32, type);
            let expected: Outcome;
            if (commonUd(s) || isRegister(operand)) expected = UD;
            else if (s.operation === 'non-root') expected = exited(instruction === 'INVEPT' ? 50 : 53);
            else if (s.cpl > 0) expected = GP0;
            else if (!supported.includes(effective)) expected = vmFail(s, 28);
            else expected = operandFault(operand) ?? SUCCEED;
            check(
              s,
              `${instruction} ${type}`,
              (cpu) => (instruction === 'INVEPT' ? cpu.invept(type, operand) : cpu.invvpid(type, operand)),
              expected,
            );
          }
        }
      }
    }
  });
});
