/** VMX instructions in VMX non-root operation that need not exit: VMCS shadowing and VM functions. */
import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import type { Machine } from '../../../src/machine/machine.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { faultingOperand } from '../../../src/vmx/instructions/operands.ts';
import { fault, type Outcome } from '../../../src/vmx/outcome.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';
import {
  encodingOf,
  exited,
  FAIL_INVALID,
  failValid,
  freshRegion,
  GP0,
  held,
  launched,
  MODES,
  NO_POINTER,
  rootMachine,
  SUCCEED,
  setMode,
  succeeds,
  UD,
  vmcsRegion,
} from '../../support/machine.ts';

const CURRENT = vmcsRegion(0);
const LINK = vmcsRegion(1);
const READ_BITMAP = 0x40_0000;
const WRITE_BITMAP = 0x40_1000;
const FIELD = encodingOf('guestRip');

function guest(controls: readonly ControlId[], fields: FieldValues): [Machine, LogicalProcessor] {
  const machine = rootMachine({ hazards: 'ignore' });
  const cpu = machine.cpu(0);
  freshRegion(cpu, LINK, true);
  succeeds(cpu.vmptrld(BigInt(LINK)));
  succeeds(cpu.vmwrite('guestRip', 0x1111_2222_3333_4444n));
  succeeds(cpu.vmclear(BigInt(LINK)));
  launched(cpu, CURRENT, fields, controls);
  return [machine, cpu];
}

function shadowing(link: bigint = BigInt(LINK)): [Machine, LogicalProcessor] {
  return guest(['proc2.vmcsShadowing'], {
    vmcsLinkPointer: link,
    vmreadBitmapAddress: BigInt(READ_BITMAP),
    vmwriteBitmapAddress: BigInt(WRITE_BITMAP),
  });
}

describe('VMCS shadowing (SDM §27.10, §28.1.3, §33.3)', () => {
  it('VM entry makes the VMCS at the link pointer active and leaves the current one current (§27.1)', () => {
    const [, cpu] = shadowing();
    expect(cpu.activeVmcss).toEqual([CURRENT, LINK]);
    expect(cpu.currentVmcs).toBe(CURRENT);
  });

  it('VMREAD and VMWRITE in every mode, at every CPL, with and without link VMCS and bitmap bit', () => {
    for (const link of [BigInt(LINK), NO_POINTER]) {
      const [machine, cpu] = shadowing(link);
      const start = machine.snapshot();
      for (const mode of MODES) {
        for (const cpl of mode === 'real' ? [0] : mode === 'v86' ? [3] : [0, 3]) {
          for (const instruction of ['VMREAD', 'VMWRITE'] as const) {
            for (const encoding of [BigInt(FIELD), 0x7ffen, 0x8000n, 1n << 32n, 1n << 63n]) {
              for (const bitmapBit of [0, 1]) {
                for (const faulting of [false, true]) {
                  machine.restore(start);
                  setMode(cpu, mode, cpl);
                  const sized = mode === '64-bit' ? encoding : BigInt.asUintN(32, encoding);
                  if (sized < 0x8000n) {
                    const bitmap = instruction === 'VMREAD' ? READ_BITMAP : WRITE_BITMAP;
                    machine.memory.write8(bitmap + (Number(sized) >> 3), bitmapBit << (Number(sized) & 7));
                  }
                  const pageFault: Outcome = { kind: 'fault', vector: 14, errorCode: 2 };
                  const supported = sized === BigInt(FIELD) || sized === 0n;
                  let expected: Outcome;
                  if (mode !== 'protected' && mode !== '64-bit') expected = UD;
                  else if (sized >= 0x8000n || bitmapBit === 1) {
                    expected = exited(instruction === 'VMREAD' ? 23 : 25);
                  } else if (cpl > 0) expected = GP0;
                  else if (link === NO_POINTER) expected = FAIL_INVALID;
                  else if (instruction === 'VMWRITE' && faulting) expected = pageFault;
                  else if (!supported) expected = failValid(12);
                  else expected = faulting ? pageFault : SUCCEED;
                  const outcome =
                    instruction === 'VMREAD'
                      ? cpu.unit.vmread(encoding, () => (faulting ? fault(14, 2) : undefined))
                      : cpu.unit.vmwrite(encoding, faulting ? faultingOperand(14, 2) : 7n);
                  const where = `${instruction} ${encoding.toString(16)} ${mode} CPL ${cpl} bit ${bitmapBit}`;
                  expect(outcome, where).toEqual(expected);
                }
              }
            }
          }
        }
      }
    }
  });

  it('reach the shadow VMCS, not the current one; the writes are there after the exit', () => {
    const [, cpu] = shadowing();
    expect(cpu.vmread('guestRip')).toEqual({ outcome: SUCCEED, value: 0x1111_2222_3333_4444n });
    succeeds(cpu.vmwrite('guestRsp', 0xabcdn));
    expect(held(cpu, LINK, 'guestRsp')).toBe(0xabcdn);
    expect(held(cpu, CURRENT, 'guestRsp')).toBe(0n);
    expect(cpu.vmexit({ reason: 10, instructionLength: 2 }).kind).toBe('VMexit');
    expect(cpu.activeVmcss).toContain(LINK);
    succeeds(cpu.vmptrld(BigInt(LINK)));
    expect(cpu.vmread('guestRsp').value).toBe(0xabcdn);
  });

  it('every bit of the bitmaps decides about its own encoding only', () => {
    const [machine, cpu] = shadowing();
    const start = machine.snapshot();
    for (let encoding = 0; encoding < 0x8000; encoding += 37) {
      machine.restore(start);
      machine.memory.page(READ_BITMAP).u8.fill(0xff);
      machine.memory.write8(READ_BITMAP + (encoding >> 3), 0xff & ~(1 << (encoding & 7)));
      expect(cpu.vmread(encoding).outcome.kind).not.toBe('VMexit');
      expect(cpu.vmread(encoding ^ 1).outcome).toEqual(exited(23));
    }
  });

  it('without "VMCS shadowing" VMREAD and VMWRITE exit whatever the link pointer', () => {
    const [, cpu] = guest([], {});
    expect(cpu.vmread(FIELD).outcome).toEqual(exited(23));
  });
});

const LIST = 0x41_0000;
/** "Intel PT uses guest physical addresses", and what VM entry wants with it. */
const PT_OUTPUT: readonly ControlId[] = [
  'proc2.intelPtUsesGuestPhysicalAddresses',
  'entry.loadIa32RtitCtl',
  'exit.clearIa32RtitCtl',
];

describe('EPTP switching (SDM §28.5.7.3)', () => {
  const controls: readonly ControlId[] = ['proc2.enableEpt', 'proc2.enableVmFunctions'];
  const fields: FieldValues = { vmFunctionControls: 1n, eptpListAddress: BigInt(LIST), eptPointer: 0x1en };

  function switching(extra: FieldValues = {}): [Machine, LogicalProcessor] {
    return guest(controls, { ...fields, ...extra });
  }

  it('writes the EPTP and the EPTP index, and no register or flag', () => {
    const [machine, cpu] = switching();
    machine.memory.write64(LIST + 8 * 511, 0x5000_001en);
    cpu.set('RAX', 0xffff_ffff_0000_0000n);
    cpu.set('RCX', 0xffff_ffff_0000_01ffn);
    cpu.set('RFLAGS', 0x8d7n);
    const before = cpu.processor.words.slice();
    expect(cpu.vmfunc()).toEqual(SUCCEED);
    expect(cpu.processor.words).toEqual(before);
    expect(held(cpu, CURRENT, 'eptPointer')).toBe(0x5000_001en);
    expect(held(cpu, CURRENT, 'eptpIndex')).toBe(511n);
  });

  it('works in every mode and at every CPL', () => {
    for (const mode of MODES) {
      const [machine, cpu] = switching();
      machine.memory.write64(LIST, 0x5000_001en);
      setMode(cpu, mode, mode === 'real' ? 0 : 3);
      cpu.set('RAX', 0n);
      cpu.set('RCX', 0n);
      expect(cpu.vmfunc()).toEqual(SUCCEED);
    }
  });

  it.each([
    ['EAX = 64', { rax: 64n }, UD],
    ['EAX = FFFFFFFF', { rax: 0xffff_ffffn }, UD],
    ['a function whose bit is 0', { rax: 1n }, exited(59)],
    ['function 63', { rax: 63n }, exited(59)],
    ['ECX = 512', { rcx: 512n }, exited(59)],
    ['ECX = 80000000', { rcx: 0x8000_0000n }, exited(59)],
    ['an EPTP of 0', { entry: 0n }, exited(59)],
    ['a reserved memory type', { entry: 0x1dn }, exited(59)],
    ['a reserved bit', { entry: 0x81en }, exited(59)],
    ['another page-walk length', { entry: 0x26n }, exited(59)],
    ['an address too wide', { entry: (1n << 52n) | 0x1en }, exited(59)],
  ])('%s', (_, { rax = 0n, rcx = 0n, entry = 0x1en }: Record<string, bigint>, expected) => {
    const [machine, cpu] = switching();
    machine.memory.write64(LIST, entry as bigint);
    cpu.set('RAX', rax as bigint);
    cpu.set('RCX', rcx as bigint);
    cpu.set('RFLAGS', 0x8d7n);
    expect(cpu.vmfunc()).toEqual(expected);
    expect(held(cpu, CURRENT, 'eptPointer')).toBe(0x1en);
    if (expected.kind === 'VMexit') {
      expect(held(cpu, CURRENT, 'guestRflags')).toBe(0x8d7n);
      expect(held(cpu, CURRENT, 'vmExitInstructionLength')).toBe(3n);
    }
  });

  it('"enable VM functions" without the bit of the function exits', () => {
    const [, off] = switching({ vmFunctionControls: 0n });
    off.set('RAX', 0n);
    expect(off.vmfunc()).toEqual(exited(59));
  });

  it.each([
    [PT_OUTPUT, 1n, exited(59)],
    [PT_OUTPUT, 0n, SUCCEED],
    [[], 1n, SUCCEED],
  ] as const)('with %j and IA32_RTIT_CTL %i', (more, tracing, expected) => {
    const [machine, cpu] = guest([...controls, ...more], fields);
    machine.memory.write64(LIST, 0x5000_001en);
    for (const name of ['RAX', 'RCX'] as const) cpu.set(name, 0n);
    cpu.set('IA32_RTIT_CTL', tracing);
    expect(cpu.vmfunc()).toEqual(expected);
    expect(held(cpu, CURRENT, 'eptPointer')).toBe(expected === SUCCEED ? 0x5000_001en : 0x1en);
  });
});

describe('operands of INVEPT and INVVPID (SDM §33.3)', () => {
  const cpu = rootMachine().cpu(0);
  const linear = (address: bigint, low: bigint) => (address << 64n) | low;

  it.each([
    ['type 1, valid EPTP', 1n, 0x1en, true],
    ['type 1, UC paging structures', 1n, 0x18n, cpu.capabilities.has('eptVpidCap', 8)],
    ['type 1, memory type 1', 1n, 0x19n, false],
    ['type 1, page-walk length 3', 1n, 0x16n, false],
    ['type 1, reserved bit 11', 1n, 0x81en, false],
    ['type 1, width', 1n, (1n << 52n) | 0x1en, false],
    ['type 1, bits 127:64 are not tested', 1n, linear(1n, 0x1en), true],
    ['type 2, EPTP is not examined', 2n, linear(NO_POINTER, NO_POINTER), true],
  ])('INVEPT %s', (_, type, descriptor, valid) => {
    expect(cpu.invept(type, descriptor)).toEqual(valid ? SUCCEED : FAIL_INVALID);
  });

  const nonCanonical = 1n << 60n;
  it.each([0n, 1n, 2n, 3n])('INVVPID type %d', (type) => {
    for (const vpid of [0n, 1n, 0xffffn]) {
      for (const reserved of [0n, 1n << 16n, 1n << 63n]) {
        for (const address of [0n, 0x1234n, nonCanonical, NO_POINTER]) {
          const valid =
            reserved === 0n && (type === 2n || vpid !== 0n) && (type !== 0n || address !== nonCanonical);
          expect(cpu.invvpid(type, linear(address, vpid | reserved))).toEqual(valid ? SUCCEED : FAIL_INVALID);
        }
      }
    }
  });

  it('#UD without EPT or VPID, and VMfail for the types a processor does not report', () => {
    const old = rootMachine({ profile: 'penryn' }).cpu(0);
    expect(old.invept(2n, 0n)).toEqual(UD);
    expect(old.invvpid(2n, 0n)).toEqual(UD);
  });
});

describe('what the exit of a VMX instruction says about its encoding (SDM §30.2.1, §30.2.5)', () => {
  const EXIT = { kind: 'VMexit' };
  const recorded = (cpu: LogicalProcessor) => [
    cpu.vmread('vmExitInstructionLength').value,
    cpu.vmread('vmExitInstructionInformation').value,
  ];

  it.each<[string, (cpu: LogicalProcessor) => Outcome, length: bigint]>([
    ['VMCLEAR', (cpu) => cpu.vmclear(0n), 4n],
    ['VMPTRLD', (cpu) => cpu.vmptrld(0n), 3n],
    ['VMPTRST', (cpu) => cpu.vmptrst().outcome, 3n],
    ['VMXON', (cpu) => cpu.vmxon(0n), 4n],
    ['INVEPT', (cpu) => cpu.invept(2, 0n), 5n],
    ['INVVPID', (cpu) => cpu.invvpid(2, 0n), 5n],
    ['VMREAD', (cpu) => cpu.vmread(FIELD).outcome, 3n],
    ['VMWRITE', (cpu) => cpu.vmwrite(FIELD, 0n), 3n],
    ['VMLAUNCH', (cpu) => cpu.vmlaunch(), 3n],
    ['VMXOFF', (cpu) => cpu.vmxoff(), 3n],
    ['VMCALL', (cpu) => cpu.vmcall(), 3n],
  ])('%s without further particulars has its shortest encoding', (_, execute, length) => {
    const [, cpu] = guest([], {});
    expect(execute(cpu)).toMatchObject(EXIT);
    expect(recorded(cpu)[0]).toBe(length);
  });

  it('VMREAD and VMWRITE between registers: register form, operand in 6:3, encoding in 31:28', () => {
    for (const execute of ['vmreadRegister', 'vmwriteRegister'] as const) {
      const [, cpu] = guest([], {});
      expect(cpu[execute](11, 6)).toMatchObject(EXIT);
      expect(recorded(cpu)).toEqual([3n, 0xb000_0430n]);
    }
  });
});
