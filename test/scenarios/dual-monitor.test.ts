/** Dual-monitor treatment of SMIs and SMM (SDM §34.15): an executive monitor with a guest, and an SMM monitor. */
import { describe, expect, it } from 'vitest';
import { Mode } from '../../src/cpu/processor.ts';
import { type ControlId, controlOf } from '../../src/vmcs/controls.ts';
import { assemble } from '../support/assemble.ts';
import {
  activate,
  enable,
  FROM_ROOT,
  guest,
  MONITOR,
  MSEG,
  PML4,
  prepare,
  RSM,
  root,
  SMBASE,
  STACK,
  smi,
  TRANSFER,
} from '../support/dual-monitor.ts';
import { exitFields, GUEST, HOST, runToExit } from '../support/guest.ts';
import { ENTRY, exited, failValid, launchable, UD, vmcsRegion, vmxonRegion } from '../support/machine.ts';

const DEACTIVATE = 1n << 11n;

describe('activation by VMCALL (SDM §34.15.6)', () => {
  it('is not possible before software in SMM has set the valid bit', () => {
    const { cpu } = root();
    expect(cpu.vmcall()).toEqual(failValid(1));
    expect(cpu.wrmsr(0x9b, 1n)).toBe('read-only');
    expect(cpu.rdmsr(0x9b)).toBe(0n);
    expect(cpu.rdmsr(0x9e)).toBeUndefined();
  });

  it('checks launch state, VM-exit controls, MSEG revision and features, in this order', () => {
    const { machine, cpu } = root();
    enable(machine);
    machine.memory.write32(MSEG, 2);
    machine.memory.write32(MSEG + 4, 2);
    expect(cpu.vmcall()).toEqual(failValid(19));
    prepare(cpu);
    const controls = cpu.vmread('primaryVmExitControls').value;
    cpu.vmwrite('primaryVmExitControls', 0n);
    expect(cpu.vmcall()).toEqual(failValid(20));
    cpu.vmwrite('primaryVmExitControls', controls | (1n << 31n));
    cpu.vmwrite('secondaryVmExitControls', 1n << 63n);
    expect(cpu.vmcall()).toEqual(failValid(20));
    cpu.vmwrite('primaryVmExitControls', controls);
    expect(cpu.vmcall()).toEqual(failValid(22));
    machine.memory.write32(MSEG, 1);
    expect(cpu.vmcall()).toEqual(failValid(24));
    machine.memory.write32(MSEG + 4, 0);
    expect(cpu.vmcall()).toEqual(failValid(24));
    machine.memory.write32(MSEG + 4, 1);
    cpu.vmclear(BigInt(TRANSFER));
    expect(cpu.vmcall()).toEqual({ kind: 'VMfailInvalid' });
    expect(cpu.get('inSmm')).toBe(0n);
  });

  it('starts the monitor as the MSEG header says, with the state of the caller in the VMCS', () => {
    const { machine, cpu } = root();
    enable(machine);
    prepare(cpu);
    const rip = cpu.get('RIP');
    expect(cpu.vmcall()).toEqual(exited(18));
    expect([cpu.operation, cpu.get('inSmm'), cpu.mode === Mode.Bit64, cpu.currentVmcs]).toEqual([
      'root',
      1n,
      true,
      TRANSFER,
    ]);
    const names = ['RIP', 'RSP', 'CR3', 'RFLAGS', 'GDTR.base', 'GDTR.limit', 'IDTR.limit'] as const;
    expect(names.map((name) => cpu.get(name))).toEqual(
      [MONITOR, STACK, PML4, 2, MSEG + 0x800, 0x17, 0].map(BigInt),
    );
    expect([cpu.get('CS.selector'), cpu.get('SS.selector'), cpu.get('CS.accessRights')]).toEqual([
      8n,
      0x10n,
      0xa09bn,
    ]);
    expect([cpu.get('blockingBySmi'), cpu.get('blockingByNmi')]).toEqual([1n, 1n]);
    expect(
      exitFields(cpu, 'exitReason', 'executiveVmcsPointer', 'guestRip', 'guestSmbase', 'vmcsLinkPointer'),
    ).toEqual({
      exitReason: FROM_ROOT | 18n,
      executiveVmcsPointer: BigInt(vmxonRegion(0)),
      guestRip: rip,
      guestSmbase: BigInt(SMBASE),
      vmcsLinkPointer: BigInt(TRANSFER),
    });
  });

  it('lets the monitor neither leave VMX operation nor call itself nor execute RSM; nor the executive monitor leave it', () => {
    const { machine, cpu } = root();
    enable(machine);
    prepare(cpu);
    cpu.vmcall();
    expect([cpu.vmxoff(), cpu.vmcall()]).toEqual([failValid(23), failValid(1)]);
    machine.memory.writeBytes(MONITOR, assemble(RSM, 64, MONITOR));
    cpu.set('IDTR.limit', 0n);
    cpu.run(1);
    // #UD, and no IDT.
    expect([cpu.get('inSmm'), cpu.get('activityState')]).toEqual([1n, 2n]);
    const other = root();
    activate(other.machine);
    expect(other.cpu.vmxoff()).toEqual(failValid(23));
  });

  it('lets it read SMBASE and write its control MSR', () => {
    const { machine, cpu } = root();
    enable(machine);
    prepare(cpu);
    cpu.vmcall();
    expect(cpu.rdmsr(0x9e)).toBe(BigInt(SMBASE));
    expect(cpu.wrmsr(0x9e, 0n)).not.toBe('ok');
    expect(cpu.wrmsr(0x9b, 2n)).toBe('reserved-bit');
    expect(cpu.wrmsr(0x9b, 5n)).toBe('ok');
  });
});

describe('an SMI under dual-monitor treatment (SDM §34.15.2)', () => {
  it('exits from a guest to the monitor, and its VMRESUME goes on with the guest', () => {
    const { machine, cpu } = guest('nop\nnop\nvmcall');
    cpu.run(1);
    machine.memory.writeBytes(SMBASE + 0xfe00, new Uint8Array(0x200));
    smi(cpu);
    expect([cpu.operation, cpu.get('inSmm'), cpu.get('RIP'), cpu.currentVmcs]).toEqual([
      'root',
      1n,
      BigInt(MONITOR),
      TRANSFER,
    ]);
    expect(exitFields(cpu, 'exitReason', 'executiveVmcsPointer', 'guestRip')).toEqual({
      exitReason: 6n,
      executiveVmcsPointer: BigInt(vmcsRegion(0)),
      guestRip: BigInt(GUEST + 1),
    });
    expect(machine.memory.read32(SMBASE + 0xfefc)).toBe(0);
    cpu.run(1);
    expect([cpu.operation, cpu.get('inSmm'), cpu.currentVmcs]).toEqual(['non-root', 0n, vmcsRegion(0)]);
    expect([cpu.get('blockingBySmi'), cpu.get('RIP')]).toEqual([0n, BigInt(GUEST + 1)]);
    runToExit(cpu);
    expect([cpu.vmread('exitReason').value, cpu.currentVmcs]).toEqual([18n, vmcsRegion(0)]);
  });

  it('exits from root operation, where it goes on with its current VMCS', () => {
    const { cpu } = guest('vmcall');
    runToExit(cpu);
    smi(cpu);
    expect(exitFields(cpu, 'exitReason', 'executiveVmcsPointer', 'vmcsLinkPointer', 'guestRip')).toEqual({
      exitReason: FROM_ROOT | 6n,
      executiveVmcsPointer: BigInt(vmxonRegion(0)),
      vmcsLinkPointer: BigInt(vmcsRegion(0)),
      guestRip: BigInt(HOST),
    });
    cpu.run(1);
    expect([cpu.operation, cpu.currentVmcs, cpu.get('RIP'), cpu.get('inSmm')]).toEqual([
      'root',
      vmcsRegion(0),
      BigInt(HOST),
      0n,
    ]);
    expect(cpu.vmread('exitReason').value).toBe(18n);
  });

  it('says which I/O instruction it follows', () => {
    const { cpu } = guest('mov edx, 0x2f8\nmov ecx, 5\nout dx, ax\nnop');
    cpu.run(3);
    smi(cpu);
    expect(exitFields(cpu, 'exitReason', 'exitQualification', 'ioRcx', 'ioRip')).toEqual({
      exitReason: 5n,
      exitQualification: 0x2f8_0001n,
      ioRcx: 5n,
      ioRip: BigInt(GUEST + 10),
    });
    const string = guest('mov edx, 0x2f8\nmov edi, 0x60000\nmov ecx, 2\nrep insb\nnop').cpu;
    string.run(4);
    smi(string);
    expect(
      exitFields(
        string,
        'exitReason',
        'exitQualification',
        'guestLinearAddress',
        'ioRcx',
        'ioRdi',
        'guestRip',
      ),
    ).toEqual({
      exitReason: 5n,
      exitQualification: 0x2f8_0038n,
      guestLinearAddress: 0x6_0000n,
      ioRcx: 2n,
      ioRdi: 0x6_0000n,
      guestRip: BigInt(GUEST + 15),
    });
    const later = guest('in al, 0x80\nnop\nnop').cpu;
    later.run(1);
    smi(later);
    expect(exitFields(later, 'exitReason', 'exitQualification')).toEqual({
      exitReason: 5n,
      exitQualification: 0x80_0048n,
    });
    later.run(2);
    smi(later);
    expect(later.vmread('exitReason').value).toBe(6n);
  });

  it('tells of a pending MTF VM exit, which the monitor has to inject again', () => {
    const { cpu } = guest('nop\nnop', { controls: ['proc.monitorTrapFlag'] });
    cpu.run(1);
    smi(cpu);
    expect(cpu.vmread('exitReason').value).toBe(0x1000_0006n);
    cpu.vmwrite('injectedEventIdentification', 0x8000_0700n);
    expect(cpu.vmresume()).toEqual(ENTRY);
    runToExit(cpu, 1);
    expect([cpu.vmread('exitReason').value, cpu.currentVmcs]).toEqual([37n, vmcsRegion(0)]);
  });

  it('is blocked in SMM, and after it as long as the monitor says', () => {
    const { cpu } = guest('nop\nnop\nnop\nvmcall');
    smi(cpu);
    cpu.processor.requestSmi();
    cpu.vmwrite('guestInterruptibilityState', 4n);
    expect(cpu.vmresume()).toEqual(ENTRY);
    runToExit(cpu);
    // It ends outside SMM, and saves no blocking by SMI.
    expect(exitFields(cpu, 'exitReason', 'guestInterruptibilityState')).toEqual({
      exitReason: 18n,
      guestInterruptibilityState: 0n,
    });
    expect([cpu.get('blockingBySmi'), cpu.get('smiPending')]).toEqual([1n, 1n]);
    expect(cpu.vmcall()).toEqual(exited(18));
    expect(cpu.vmread('guestInterruptibilityState').value).toBe(4n);
    cpu.vmwrite('guestInterruptibilityState', 0n);
    expect(cpu.vmresume()).toEqual(ENTRY);
    expect(cpu.look()).toBe(true);
    expect(cpu.vmread('exitReason').value).toBe(FROM_ROOT | 6n);
  });

  it('keeps virtual-NMI blocking, the preemption timer and the VPID of the guest', () => {
    const controls: readonly ControlId[] = [
      'pin.nmiExiting',
      'pin.virtualNmis',
      'pin.activateVmxPreemptionTimer',
      'proc2.enableVpid',
    ];
    const fields = { guestInterruptibilityState: 8n, vmxPreemptionTimerValue: 0x1000n, vpid: 7n };
    const { cpu } = guest('nop\nnop', { controls, fields });
    smi(cpu);
    expect(cpu.vmread('guestInterruptibilityState').value).toBe(8n);
    expect(cpu.unit.vmx.preemptionTimer).toBeUndefined();
    cpu.vmwrite('vmxPreemptionTimerValue', 0x55n);
    expect(cpu.vmresume()).toEqual(ENTRY);
    const { virtualNmiBlocking, vpid, preemptionTimer } = cpu.unit.vmx;
    expect([virtualNmiBlocking, vpid, preemptionTimer?.value]).toEqual([true, 7, 0x55]);
  });

  it('stops the preemption timer, whose value the monitor gets if its VMCS asks, and the way back starts it', () => {
    const { cpu } = guest('again: jmp again', {
      controls: ['pin.activateVmxPreemptionTimer'],
      fields: { vmxPreemptionTimerValue: 100n },
    });
    smi(cpu);
    const exit = cpu.vmread('primaryVmExitControls').value;
    cpu.vmwrite('primaryVmExitControls', exit | controlOf('exit.saveVmxPreemptionTimerValue').mask);
    cpu.vmwrite('vmxPreemptionTimerValue', 90n);
    expect(cpu.vmresume()).toEqual(ENTRY);
    const rate = 2 ** Number(cpu.capabilities.misc & 0x1fn);
    cpu.run(50 * rate);
    smi(cpu);
    const left = Number(cpu.vmread('vmxPreemptionTimerValue').value);
    expect([left >= 39, left <= 41]).toEqual([true, true]);
    expect(cpu.vmresume()).toEqual(ENTRY);
    cpu.run(38 * rate);
    expect(cpu.operation).toBe('non-root');
    cpu.run(4 * rate);
    expect([cpu.operation, cpu.vmread('exitReason').value, cpu.currentVmcs]).toEqual([
      'root',
      52n,
      vmcsRegion(0),
    ]);
  });

  it('is kept by a snapshot', () => {
    const { machine, cpu } = guest('nop\nnop\nvmcall');
    smi(cpu);
    const snapshot = machine.snapshot();
    cpu.vmwrite('vmEntryControls', cpu.vmread('vmEntryControls').value);
    cpu.run(1);
    machine.restore(snapshot);
    expect([cpu.get('inSmm'), cpu.currentVmcs]).toEqual([1n, TRANSFER]);
    cpu.run(1);
    runToExit(cpu);
    expect(cpu.vmread('exitReason').value).toBe(18n);
  });
});

describe("the SMM monitor's own guests (SDM §34.15.1, §34.15.3)", () => {
  it('run in SMM, where RSM exits', () => {
    const { machine, cpu } = guest('nop\nvmcall');
    smi(cpu);
    machine.memory.writeBytes(GUEST + 0x100, assemble(RSM, 64, GUEST + 0x100));
    const own = vmcsRegion(2);
    const segment = { guestRip: BigInt(GUEST + 0x100), guestCr3: BigInt(PML4), hostCr3: BigInt(PML4) };
    launchable(cpu, own, { ...segment, hostRip: BigInt(MONITOR), guestInterruptibilityState: 4n }, [
      'entry.entryToSmm',
    ]);
    expect(cpu.vmlaunch()).toEqual(ENTRY);
    expect([cpu.operation, cpu.get('inSmm'), cpu.get('blockingBySmi')]).toEqual(['non-root', 1n, 1n]);
    runToExit(cpu, 2);
    expect(exitFields(cpu, 'exitReason', 'guestInterruptibilityState')).toEqual({
      exitReason: 17n,
      guestInterruptibilityState: 4n,
    });
    expect([cpu.get('inSmm'), cpu.currentVmcs]).toEqual([1n, own]);
  });
});

describe('deactivation (SDM §34.15.7)', () => {
  function deactivate(from: 'root' | 'non-root') {
    const { machine, cpu } = guest('nop\nvmcall');
    if (from === 'root') runToExit(cpu);
    smi(cpu);
    cpu.vmwrite('vmEntryControls', cpu.vmread('vmEntryControls').value | DEACTIVATE);
    cpu.vmwrite('guestInterruptibilityState', 4n);
    return { machine, cpu, outcome: cpu.vmresume() };
  }

  it('leads to root operation only', () => {
    expect(deactivate('non-root').outcome).toEqual(failValid(18));
  });

  it('ends with SMIs unblocked, delivered to SMRAM again, and VMX operation can be left', () => {
    const { cpu, outcome } = deactivate('root');
    expect(outcome).toEqual(ENTRY);
    expect([cpu.operation, cpu.get('blockingBySmi'), cpu.currentVmcs]).toEqual(['root', 0n, vmcsRegion(0)]);
    smi(cpu);
    expect([cpu.operation, cpu.get('RIP')]).toEqual(['outside', 0x8000n]);
    cpu.run(5);
    expect(cpu.operation).toBe('root');
    expect(cpu.vmxoff().kind).toBe('VMsucceed');
  });

  it('in SMX operation leaves SMIs blocked, until VMXOFF unless IA32_SMM_MONITOR_CTL[2] is 1', () => {
    for (const [control, blocked] of [
      [1n, 0n],
      [5n, 1n],
    ] as const) {
      const { cpu } = guest('nop\nvmcall');
      runToExit(cpu);
      smi(cpu);
      cpu.set('inSmx', 1n);
      cpu.wrmsr(0x9b, control);
      cpu.vmwrite('vmEntryControls', cpu.vmread('vmEntryControls').value | DEACTIVATE);
      expect(cpu.vmresume()).toEqual(ENTRY);
      expect(cpu.get('blockingBySmi')).toBe(1n);
      expect(cpu.vmxoff().kind).toBe('VMsucceed');
      expect(cpu.get('blockingBySmi')).toBe(blocked);
    }
  });

  it('leaves nothing of the treatment behind RESET', () => {
    const { cpu } = guest('nop');
    smi(cpu);
    cpu.reset();
    expect([cpu.operation, cpu.get('inSmm'), cpu.rdmsr(0x9b), cpu.unit.vmx.smmTransfer]).toEqual([
      'outside',
      0n,
      0n,
      -1,
    ]);
    expect(cpu.vmcall()).toEqual(UD);
  });
});
