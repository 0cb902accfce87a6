import { describe, expect, it } from 'vitest';
import { REGISTERS, type RegisterName } from '../../../src/cpu/registers.ts';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import type { Machine } from '../../../src/machine/machine.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { assemble } from '../../support/assemble.ts';
import { exitFields, GUEST, type GuestOptions, guestMachine, HOST, runToExit } from '../../support/guest.ts';
import { eventGuest, eventId, requestInterrupt } from '../../support/guest-events.ts';

const SMBASE = 0x3_0000;
const AREA = SMBASE + 0x8000;
const RSM = '.byte 0x0f, 0xaa';
const NMI = 8n;

const OTHERS = new Set<RegisterName>(['IA32_TIME_STAMP_COUNTER']);
const ARCHITECTURAL = REGISTERS.slice(0, REGISTERS.indexOf('ZERO')).filter((name) => !OTHERS.has(name));
const registers = (cpu: LogicalProcessor) =>
  Object.fromEntries(ARCHITECTURAL.map((name) => [name, cpu.get(name)]));

function smiHandler(machine: Machine, code: string): void {
  machine.memory.writeBytes(SMBASE + 0x8000, assemble(code, 16, 0x8000));
}

/** A guest and an SMI handler. */
function guest(
  code: string,
  options: GuestOptions = {},
  handler = RSM,
): { machine: Machine; cpu: LogicalProcessor } {
  const machine = eventGuest(code, options, 'nop');
  smiHandler(machine, handler);
  return { machine, cpu: machine.cpu(0) };
}

/** Everything that the current VMCS holds. */
function vmcs(cpu: LogicalProcessor): bigint[] {
  return [...(cpu.unit.vmx.current?.quads ?? [])];
}

describe('an SMI in VMX operation, default treatment (SDM §34.14.1)', () => {
  it('in non-root operation is no VM exit: the VMCS is as before, and the guest goes on after RSM', () => {
    const { cpu } = guest('nop\nnop\nvmcall');
    cpu.run(1);
    const before = { registers: registers(cpu), vmcs: vmcs(cpu), pointer: cpu.currentVmcs };
    cpu.processor.requestSmi();
    cpu.run(1);
    expect([cpu.operation, cpu.get('inSmm'), cpu.get('RIP')]).toEqual(['outside', 1n, 0x8000n]);
    cpu.run(1);
    expect(cpu.operation).toBe('non-root');
    expect({ registers: registers(cpu), vmcs: vmcs(cpu), pointer: cpu.currentVmcs }).toEqual(before);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({
      exitReason: 18n,
      guestRip: BigInt(GUEST + 2),
    });
  });

  it('in root operation RSM leads back to it', () => {
    const { cpu } = guest('vmcall');
    cpu.run(1);
    const before = registers(cpu);
    cpu.processor.requestSmi();
    cpu.run(1);
    expect(cpu.operation).toBe('outside');
    cpu.run(1);
    expect([cpu.operation, registers(cpu)]).toEqual(['root', before]);
    expect(cpu.vmread('exitReason').value).toBe(18n);
  });

  it('CR4.VMXE is 0 in SMM and in SMRAM, and cannot be set; nothing exits', () => {
    const code = `
      mov eax, cr4
      mov ebx, eax
      or eax, 0x2000
      mov dword ptr [0x34], 0x20000100
      mov cr4, eax`;
    const { cpu, machine } = guest(
      'nop',
      { controls: ['proc.hltExiting', 'proc.rdtscExiting'], fields: { exceptionBitmap: 0xffff_ffffn } },
      `rdtsc\ncpuid\n${code}`,
    );
    cpu.set('IDTR.base', 0n);
    cpu.processor.requestSmi();
    cpu.run(8);
    expect([cpu.get('RBX'), machine.memory.read32(AREA + 0x7e40) & 0x2000]).toEqual([0n, 0]);
    // #GP through the interrupt vectors.
    expect([cpu.get('CS.base'), cpu.get('RIP'), cpu.operation]).toEqual([0x2_0000n, 0x100n, 'outside']);
  });

  it('VMX instructions are undefined in SMM', () => {
    const { cpu } = guest('nop');
    cpu.processor.requestSmi();
    cpu.run(1);
    for (const outcome of [cpu.vmcall(), cpu.vmresume(), cpu.vmxoff(), cpu.vmxon(0x10_0000n)]) {
      expect(outcome).toMatchObject({ kind: 'fault', vector: 6 });
    }
  });

  it('says in SMRAM whether EPT was in use, and its pointer', () => {
    const eptp = 0x40_101en - 0x10_0000n;
    const machine = guestMachine('nop\nvmcall');
    smiHandler(machine, RSM);
    expect(machine.memory.read32(AREA + 0x7ee0)).toBe(0);
    const withEpt = guestMachine('nop', {
      controls: ['proc2.enableEpt', 'proc.activateSecondaryControls'],
      fields: { eptPointer: eptp },
    });
    // One page of 1 GByte, one to one.
    withEpt.memory.write64(0x30_1000, 0x30_2007n);
    withEpt.memory.write64(0x30_2000, 0xb7n);
    smiHandler(withEpt, RSM);
    const cpu = withEpt.cpu(0);
    cpu.processor.requestSmi();
    cpu.run(1);
    expect([withEpt.memory.read32(AREA + 0x7ee0), withEpt.memory.read64(AREA + 0x7ed8)]).toEqual([1, eptp]);
  });
});

describe('RSM to VMX operation (SDM §34.14.2)', () => {
  it('a pending MTF VM exit is pending again', () => {
    const { cpu } = guest('nop\nnop', { controls: ['proc.monitorTrapFlag'] });
    cpu.run(1);
    cpu.processor.requestSmi();
    cpu.run(2);
    expect(cpu.operation).toBe('non-root');
    runToExit(cpu, 1);
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({
      exitReason: 37n,
      guestRip: BigInt(GUEST + 1),
    });
  });

  it('one that was not pending yet follows the first instruction', () => {
    const { cpu } = guest('nop\nnop', { controls: ['proc.monitorTrapFlag'] });
    cpu.processor.requestSmi();
    cpu.run(2);
    runToExit(cpu, 2);
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({
      exitReason: 37n,
      guestRip: BigInt(GUEST + 1),
    });
  });

  it('one that VM entry injected, without the control, too', () => {
    const { cpu } = guest('nop', { fields: { injectedEventIdentification: eventId(7, 0) } });
    cpu.processor.requestSmi();
    cpu.run(2);
    expect(cpu.operation).toBe('non-root');
    runToExit(cpu, 1);
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({ exitReason: 37n, guestRip: BigInt(GUEST) });
  });

  it('a pending MTF VM exit wakes HLT', () => {
    const { cpu } = guest('hlt', { controls: ['proc.monitorTrapFlag'] });
    cpu.run(1);
    cpu.processor.requestSmi();
    cpu.run(2);
    expect(cpu.get('activityState')).toBe(1n);
    runToExit(cpu, 1);
    expect(exitFields(cpu, 'exitReason', 'guestActivityState')).toEqual({
      exitReason: 37n,
      guestActivityState: 1n,
    });
  });

  it('the preemption timer counts on in SMM, and exits after RSM', () => {
    const controls: readonly ControlId[] = ['pin.activateVmxPreemptionTimer'];
    const { cpu } = guest(
      'here: jmp here',
      { controls, fields: { vmxPreemptionTimerValue: 2n } },
      `mov ecx, 500\nagain: loop again\n${RSM}`,
    );
    cpu.run(1);
    cpu.processor.requestSmi();
    cpu.run(400);
    expect(cpu.get('inSmm')).toBe(1n);
    cpu.run(103);
    expect(cpu.operation).toBe('non-root');
    runToExit(cpu, 1);
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({ exitReason: 52n, guestRip: BigInt(GUEST) });
  });

  it('interrupt-window and NMI-window exits come right after it', () => {
    for (const [control, exitReason] of [
      ['proc.interruptWindowExiting', 7n],
      ['proc.nmiWindowExiting', 8n],
    ] as const) {
      const { cpu } = guest('nop', {
        controls: [control, 'pin.nmiExiting', 'pin.virtualNmis'],
        fields: { guestRflags: 0x202n },
      });
      cpu.processor.requestSmi();
      cpu.run(2);
      expect(cpu.operation).toBe('non-root');
      runToExit(cpu, 1);
      expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({ exitReason, guestRip: BigInt(GUEST) });
    }
  });

  it('with virtual NMIs NMIs are not blocked after it, and blocking of virtual NMIs is as before', () => {
    const controls: readonly ControlId[] = ['pin.nmiExiting', 'pin.virtualNmis'];
    for (const guestInterruptibilityState of [0n, NMI]) {
      const { cpu } = guest('nop\nnop', { controls, fields: { guestInterruptibilityState } });
      cpu.processor.requestSmi();
      cpu.run(1);
      cpu.processor.requestNmi();
      cpu.run(1);
      runToExit(cpu, 1);
      expect(
        exitFields(cpu, 'exitReason', 'exitingEventIdentification', 'guestInterruptibilityState'),
      ).toEqual({
        exitReason: 0n,
        exitingEventIdentification: eventId(2, 2),
        guestInterruptibilityState,
      });
    }
  });

  it('without them blocking of NMIs is as before', () => {
    for (const blocked of [0n, NMI]) {
      const { cpu } = guest('nop', { fields: { guestInterruptibilityState: blocked } });
      cpu.processor.requestSmi();
      cpu.run(2);
      expect(cpu.get('blockingByNmi')).toBe(blocked >> 3n);
    }
  });

  it('an INIT signal that came in SMM exits from non-root operation, and waits in root operation', () => {
    const nonRoot = guest('nop').cpu;
    nonRoot.processor.requestSmi();
    nonRoot.run(1);
    nonRoot.processor.requestInit();
    nonRoot.run(1);
    runToExit(nonRoot, 1);
    expect(nonRoot.vmread('exitReason').value).toBe(3n);
    const root = guest('vmcall').cpu;
    root.run(1);
    root.processor.requestSmi();
    root.run(1);
    root.processor.requestInit();
    root.run(5);
    expect([root.operation, root.get('RIP'), root.get('initPending')]).toEqual(['root', BigInt(HOST), 1n]);
  });

  it('an external interrupt that came in SMM exits after it', () => {
    const { cpu } = guest('nop', { controls: ['pin.externalInterruptExiting'] });
    cpu.processor.requestSmi();
    cpu.run(1);
    requestInterrupt(cpu, 0x40);
    cpu.run(1);
    runToExit(cpu, 1);
    expect(cpu.vmread('exitReason').value).toBe(1n);
  });

  it('forces the bits that VMX operation fixes, and the privilege level that was', () => {
    const { cpu } = guest(
      'nop',
      {},
      `and dword ptr cs:[0xfff8], 0xffffffdf\nmov word ptr cs:[0xffac], 0xb\nmov word ptr cs:[0xffb0], 0x13\n${RSM}`,
    );
    const before = registers(cpu);
    cpu.processor.requestSmi();
    cpu.run(5);
    expect(cpu.operation).toBe('non-root');
    expect(cpu.get('CR0')).toBe(before['CR0']);
    expect([cpu.get('CS.selector'), cpu.get('SS.selector'), cpu.cpl]).toEqual([8n, 0x10n, 0]);
  });

  it('is kept by a snapshot', () => {
    const { cpu, machine } = guest('nop\nnop\nvmcall', {}, `nop\n${RSM}`);
    cpu.processor.requestSmi();
    cpu.run(1);
    const snapshot = machine.snapshot();
    cpu.run(10);
    expect(cpu.operation).toBe('root');
    machine.restore(snapshot);
    expect([cpu.operation, cpu.get('inSmm')]).toEqual(['outside', 1n]);
    cpu.run(2);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({
      exitReason: 18n,
      guestRip: BigInt(GUEST + 2),
    });
  });
});
