/** VM entry step by step: what makes it look again, how it ends, and what it tells the hazard monitor. */
import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../../src/machine/logical-processor.ts';
import { Field } from '../../../src/vmcs/fields.ts';
import { LaunchState } from '../../../src/vmcs/region.ts';
import {
  freshRegion,
  held,
  launchable,
  launched,
  legalValues,
  rootMachine,
  succeeds,
  vmcsRegion,
} from '../../support/machine.ts';
import { Guest, LINK } from '../exit/guest.ts';

const EXIT = { reason: 10, instructionLength: 2 } as const;
const ENTRY = { kind: 'VMentry' };
const A = vmcsRegion(0);
const B = vmcsRegion(1);

/** VMRESUME, and back to root operation if it succeeds. */
function resume(cpu: LogicalProcessor) {
  const outcome = cpu.vmresume();
  if (outcome.kind === 'VMentry') cpu.vmexit(EXIT);
  return outcome;
}

/** A guest that was launched and has exited. */
function exited(guest: Guest): Guest {
  guest.launch().cpu.vmexit(EXIT);
  return guest;
}

describe('an unchanged VMCS', () => {
  it('is not verified again', () => {
    const { cpu } = exited(new Guest());
    const copy = cpu.unit.active.get(cpu.currentVmcs as number);
    // Not a VMWRITE: nothing notes the change.
    if (copy !== undefined) copy.quads[Field.hostTrSelector] = 0n;
    expect(cpu.vmresume()).toEqual(ENTRY);
  });

  it('is verified again when keys take bits of the physical address', () => {
    const guest = exited(new Guest().on('proc.useMsrBitmaps').fields({ msrBitmapAddress: 1n << 46n }));
    const { cpu } = guest;
    expect(resume(cpu)).toEqual(ENTRY);
    cpu.set('IA32_TME_ACTIVATE', (6n << 36n) | 1n);
    expect(resume(cpu)).toEqual({ kind: 'VMfailValid', error: 7 });
    cpu.set('IA32_TME_ACTIVATE', (5n << 36n) | 1n);
    expect(resume(cpu)).toEqual(ENTRY);
    cpu.set('IA32_TME_ACTIVATE', 6n << 36n);
    expect(resume(cpu)).toEqual(ENTRY);
  });

  it('is verified again outside IA-32e mode', () => {
    const { cpu } = exited(new Guest());
    cpu.set('IA32_EFER', 0n);
    cpu.set('CS.accessRights', 0xc09bn);
    expect(resume(cpu)).toEqual({ kind: 'VMfailValid', error: 8 });
    cpu.set('IA32_EFER', 0x500n);
    cpu.set('CS.accessRights', 0xa09bn);
    expect(resume(cpu)).toEqual(ENTRY);
  });

  it('is verified again while tracing', () => {
    const { cpu } = exited(new Guest().on('entry.loadIa32RtitCtl'));
    cpu.set('IA32_RTIT_CTL', 1n);
    expect(resume(cpu)).toEqual({ kind: 'VMfailValid', error: 7 });
    cpu.set('IA32_RTIT_CTL', 0n);
    expect(resume(cpu)).toEqual(ENTRY);
  });

  it('is verified again outside SMM', () => {
    const guest = new Guest().on('entry.entryToSmm').fields({ guestInterruptibilityState: 4n });
    guest.cpu.set('inSmm', 1n);
    guest.cpu.set('blockingBySmi', 1n);
    guest.launch().cpu.vmexit(EXIT);
    expect(guest.read('guestInterruptibilityState')).toBe(4n);
    expect(resume(guest.cpu)).toEqual(ENTRY);
    guest.cpu.set('inSmm', 0n);
    expect(resume(guest.cpu)).toEqual({ kind: 'VMfailValid', error: 7 });
  });

  it('has its PDPTEs looked at once CR3 is another', () => {
    const guest = new Guest({ host32: true }).fields({ guestCr3: 0x7_0000n, hostCr3: 0x8_0000n });
    const { cpu, machine } = guest;
    // Reserved bits: the entries in use are not examined, others are.
    machine.memory.write64(0x7_0000, 3n);
    cpu.set('CR3', 0x7_0000n);
    guest.launch().cpu.vmexit(EXIT);
    cpu.set('CR3', 0x7_0000n);
    expect(resume(cpu)).toEqual(ENTRY);
    expect(cpu.get('CR3')).toBe(0x8_0000n);
    expect(resume(cpu)).toEqual({ kind: 'VMentryFailure', reason: 33 });
    expect(guest.read('exitQualification')).toBe(2n);
  });
});

describe('a VM entry that fails late', () => {
  it('strikes a machine check once', () => {
    const { cpu } = exited(new Guest());
    cpu.raiseMachineCheckAtEntry();
    expect(resume(cpu)).toEqual({ kind: 'VMentryFailure', reason: 41 });
    expect(resume(cpu)).toEqual(ENTRY);
  });

  it('names the entry of the MSR-load area, and the launch state stays clear', () => {
    const guest = new Guest().area('entryLoad', [
      { index: 0x174, data: 8n },
      { index: 0xc000_0100 },
      { index: 0x174 },
    ]);
    expect(guest.tryLaunch()).toEqual({ kind: 'VMentryFailure', reason: 34 });
    expect(guest.read('exitQualification')).toBe(2n);
    expect(guest.read('exitReason')).toBe(0x8000_0022n);
    expect(guest.cpu.operation).toBe('root');
    expect(guest.cpu.vmresume()).toEqual({ kind: 'VMfailValid', error: 5 });
    guest.area('entryLoad', [{ index: 0x174, data: 8n }]);
    expect(guest.tryLaunch()).toEqual(ENTRY);
    expect(guest.cpu.get('IA32_SYSENTER_CS')).toBe(8n);
  });

  it('leaves the launch state launched on success', () => {
    const { cpu } = exited(new Guest());
    const copy = cpu.unit.active.get(cpu.currentVmcs as number);
    expect(copy?.launchState).toBe(LaunchState.Launched);
    expect(cpu.vmlaunch()).toEqual({ kind: 'VMfailValid', error: 4 });
  });

  it('writes the launch state through where the policy says so', () => {
    const machine = rootMachine({ flushPolicy: 'write-through' });
    const cpu = machine.cpu(0);
    launched(cpu, A);
    const { format } = cpu.capabilities;
    expect(machine.memory.read32(A + format.launchStateOffset)).toBe(format.launchStateValues.launched);
  });
});

describe('the VMCS link pointer', () => {
  const link = (shadowing: boolean, pointer: bigint, shadow: boolean) => {
    const guest = new Guest().fields({ vmcsLinkPointer: pointer });
    if (shadowing) guest.on('proc2.vmcsShadowing');
    guest.machine.memory.write32(LINK, (guest.cpu.capabilities.revision | (shadow ? 0x8000_0000 : 0)) >>> 0);
    guest.launch();
    return guest.cpu;
  };

  it('activates nothing without VMCS shadowing', () => {
    const cpu = link(false, BigInt(LINK), false);
    expect(cpu.activeVmcss).not.toContain(LINK);
    expect(cpu.unit.vmx.link).toBeUndefined();
  });

  it('activates nothing if it is FFFFFFFF_FFFFFFFFH', () => {
    const cpu = link(true, 0xffff_ffff_ffff_ffffn, true);
    expect(cpu.activeVmcss).toHaveLength(1);
    expect(cpu.unit.vmx.link).toBeUndefined();
  });

  it('is forgotten by a VM entry without VMCS shadowing', () => {
    const cpu = link(true, BigInt(LINK), true);
    expect(cpu.unit.vmx.link?.address).toBe(LINK);
    cpu.vmexit(EXIT);
    cpu.vmwrite('vmcsLinkPointer', 0xffff_ffff_ffff_ffffn);
    expect(cpu.vmresume()).toEqual(ENTRY);
    expect(cpu.unit.vmx.link).toBeUndefined();
  });

  const linked = (fields = {}) => ({
    vmcsLinkPointer: BigInt(B),
    vmreadBitmapAddress: 0x40_0000n,
    vmwriteBitmapAddress: 0x40_0000n,
    ...fields,
  });

  it('to a shadow VMCS that this processor has active is no hazard; then it is active here', () => {
    const machine = rootMachine({ cpus: 2 });
    const [cpu, other] = [machine.cpu(0), machine.cpu(1)];
    freshRegion(cpu, B, true);
    succeeds(cpu.vmptrld(BigInt(B)));
    launchable(cpu, A, linked(), ['proc2.vmcsShadowing']);
    expect(cpu.vmlaunch()).toEqual(ENTRY);
    expect(machine.hazards).toEqual([]);
    other.vmptrld(BigInt(B));
    expect(machine.hazards.map((h) => [h.id, h.cpu])).toEqual([['vmcs.active-elsewhere', 1]]);
  });

  it('makes a VMCS active that no instruction has made active', () => {
    const machine = rootMachine({ cpus: 2 });
    const [cpu, other] = [machine.cpu(0), machine.cpu(1)];
    freshRegion(cpu, B, true);
    launched(cpu, A, linked(), ['proc2.vmcsShadowing']);
    expect(machine.hazards).toEqual([]);
    other.vmptrld(BigInt(B));
    expect(machine.hazards.map((h) => [h.id, h.cpu])).toEqual([['vmcs.active-elsewhere', 1]]);
  });

  it('to a shadow VMCS that is active elsewhere is as good as any on a machine that ignores hazards', () => {
    const machine = rootMachine({ cpus: 2, hazards: 'ignore' });
    freshRegion(machine.cpu(1), B, true);
    succeeds(machine.cpu(1).vmptrld(BigInt(B)));
    launched(machine.cpu(0), A, linked(), ['proc2.vmcsShadowing']);
    expect(machine.hazards).toEqual([]);
  });
});

describe('a field that software never wrote', () => {
  /** Everything written but host RIP. */
  const incomplete = (hazards: 'report' | 'stop') => {
    const machine = rootMachine({ hazards });
    const cpu = machine.cpu(0);
    freshRegion(cpu, A);
    succeeds(cpu.vmptrld(BigInt(A)));
    for (const [name, value] of Object.entries(legalValues(cpu))) succeeds(cpu.vmwrite(name, value));
    const written = cpu.unit.active.get(A)?.written as Uint8Array;
    written.fill(1);
    written[Field.hostRip] = 0;
    return machine;
  };

  it('is reported, and the launch goes on', () => {
    const machine = incomplete('report');
    const cpu = machine.cpu(0);
    expect(cpu.vmlaunch()).toEqual(ENTRY);
    expect(machine.hazards).toMatchObject([
      { id: 'vmcs.uninitialised-field', cpu: 0, instruction: 'VMLAUNCH', address: A },
    ]);
    expect(machine.hazards[0]?.detail).toBe('Host RIP was never written');
  });

  it('stops a machine that stops at hazards, before anything is loaded', () => {
    const machine = incomplete('stop');
    const cpu = machine.cpu(0);
    expect(cpu.vmlaunch()).toEqual({ kind: 'notExecuted', because: 'hazard' });
    expect(cpu.operation).toBe('root');
    expect(held(cpu, A, 'exitReason')).toBe(0n);
    expect(cpu.unit.active.get(A)?.launchState).toBe(LaunchState.Clear);
  });
});

describe('a VMCS that may be corrupted', () => {
  const ids = (machine: ReturnType<typeof rootMachine>) => machine.hazards.map((h) => h.id);

  it('is not made sound by a launch', () => {
    const machine = rootMachine({ cpus: 2 });
    const [one, two] = [machine.cpu(0), machine.cpu(1)];
    launchable(one, A);
    succeeds(two.vmptrld(BigInt(A)));
    expect(one.vmlaunch()).toEqual(ENTRY);
    succeeds(two.vmclear(BigInt(A)));
    succeeds(two.vmptrld(BigInt(A)));
    expect(ids(machine)).toEqual(['vmcs.active-elsewhere', 'vmcs.corrupted-use']);
  });

  it('is sound after VMCLEAR, VMWRITEs of every field and a launch, and stays so', () => {
    const machine = rootMachine({ cpus: 2 });
    const [one, two] = [machine.cpu(0), machine.cpu(1)];
    launchable(one, A);
    succeeds(one.vmxoff());
    launchable(two, A);
    expect(two.vmlaunch()).toEqual(ENTRY);
    two.vmexit(EXIT);
    succeeds(two.vmclear(BigInt(A)));
    succeeds(two.vmptrld(BigInt(A)));
    expect(two.vmlaunch()).toEqual(ENTRY);
    expect(ids(machine)).toEqual(['vmcs.left-active', 'vmcs.needless-migration']);
  });
});

describe('a launch after VMCLEAR', () => {
  it('is needless on the processor of the launch before, and no hazard after a VMRESUME or elsewhere', () => {
    const machine = rootMachine({ cpus: 2 });
    const [cpu, other] = [machine.cpu(0), machine.cpu(1)];
    launched(cpu, A);
    cpu.vmexit(EXIT);
    expect(resume(cpu)).toEqual(ENTRY);
    expect(machine.hazards).toEqual([]);
    succeeds(cpu.vmclear(BigInt(A)));
    succeeds(other.vmptrld(BigInt(A)));
    expect(other.vmlaunch()).toEqual(ENTRY);
    expect(machine.hazards).toEqual([]);
    other.vmexit(EXIT);
    succeeds(other.vmclear(BigInt(A)));
    succeeds(other.vmptrld(BigInt(A)));
    expect(other.vmlaunch()).toEqual(ENTRY);
    expect(machine.hazards).toMatchObject([{ id: 'vmcs.needless-migration', cpu: 1 }]);
  });
});

describe('INIT', () => {
  it('is blocked in VMX root operation, and by VM entry no longer', () => {
    const cpu = rootMachine().cpu(0);
    expect(cpu.unit.vmx.initBlocked).toBe(true);
    launched(cpu, A);
    expect(cpu.unit.vmx.initBlocked).toBe(false);
  });
});
