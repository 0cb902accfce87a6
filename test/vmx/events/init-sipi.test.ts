import { describe, expect, it } from 'vitest';
import { codeMachine } from '../../support/code.ts';
import { exitFields, GUEST, guestMachine, HOST, runToExit } from '../../support/guest.ts';
import { succeeds, vmxonRegion, writeRevision } from '../../support/machine.ts';

const guestIn = (state: bigint) => guestMachine('nop\nnop\nnop', { fields: { guestActivityState: state } });

describe('INIT signals and VMX (SDM §26.8, §28.2)', () => {
  it.each([
    ['active', 0n],
    ['HLT', 1n],
    ['shutdown', 2n],
  ])('exit from a guest that is in the state %s, with no register changed', (_, state) => {
    const cpu = guestIn(state).cpu(0);
    cpu.processor.requestInit();
    runToExit(cpu, 1);
    expect(exitFields(cpu, 'exitReason', 'exitQualification', 'guestRip', 'guestActivityState')).toEqual({
      exitReason: 3n,
      exitQualification: 0n,
      guestRip: BigInt(GUEST),
      guestActivityState: state,
    });
    expect([cpu.get('RIP'), cpu.get('activityState')]).toEqual([BigInt(HOST), 0n]);
    cpu.run(5);
    expect(cpu.operation).toBe('root');
  });

  it('are held by a guest that waits for a SIPI until that has come', () => {
    const cpu = guestIn(3n).cpu(0);
    cpu.processor.requestInit();
    cpu.run(5);
    expect(cpu.operation).toBe('non-root');
    cpu.processor.requestSipi(0x9b);
    runToExit(cpu, 1);
    expect(exitFields(cpu, 'exitReason', 'exitQualification', 'guestActivityState', 'guestRip')).toEqual({
      exitReason: 4n,
      exitQualification: 0x9bn,
      guestActivityState: 3n,
      guestRip: BigInt(GUEST),
    });
    // The INIT signal is held in root operation and strikes the next guest.
    cpu.run(5);
    expect([cpu.operation, cpu.get('RIP')]).toEqual(['root', BigInt(HOST)]);
    succeeds(cpu.vmwrite('guestActivityState', 0n));
    expect(cpu.vmresume().kind).toBe('VMentry');
    runToExit(cpu, 1);
    expect(cpu.vmread('exitReason').value).toBe(3n);
    expect(cpu.vmread('guestRip').value).toBe(BigInt(GUEST));
  });

  it('are held in root operation until VMXOFF', () => {
    const machine = codeMachine();
    const cpu = machine.cpu(0);
    cpu.set('CR0', cpu.get('CR0') | (1n << 31n));
    writeRevision(cpu, vmxonRegion(0));
    succeeds(cpu.vmxon(BigInt(vmxonRegion(0))));
    cpu.processor.requestInit();
    cpu.run(0);
    expect(cpu.get('initPending')).toBe(1n);
    succeeds(cpu.vmxoff());
    cpu.run(1);
    expect([cpu.operation, cpu.get('RIP'), cpu.get('CR4')]).toEqual(['outside', 0xfff0n, 0n]);
  });
});

describe('start-up IPIs in non-root operation (SDM §28.2)', () => {
  it.each([
    ['active', 0n],
    ['HLT', 1n],
    ['shutdown', 2n],
  ])('are lost in a guest that is in the state %s', (_, state) => {
    const cpu = guestIn(state).cpu(0);
    cpu.processor.requestSipi(0x9b);
    cpu.run(2);
    expect(cpu.operation).toBe('non-root');
    expect(cpu.get('sipiPending')).toBe(0n);
  });

  it('of one that comes with an INIT signal only that has an effect', () => {
    const cpu = guestIn(0n).cpu(0);
    cpu.processor.requestInit();
    cpu.processor.requestSipi(0x9b);
    runToExit(cpu, 1);
    expect(cpu.vmread('exitReason').value).toBe(3n);
    cpu.run(2);
    expect(cpu.get('sipiPending')).toBe(0n);
  });
});

describe('a VMX abort (SDM §30.7)', () => {
  it('leaves the processor to RESET alone', () => {
    const machine = guestMachine('vmcall', {
      fields: { vmExitMsrLoadCount: 1n, vmExitMsrLoadAddress: 0x9000n },
    });
    machine.memory.write64(0x9000, 0xc000_0100n);
    const cpu = machine.cpu(0);
    cpu.run(1);
    expect(cpu.unit.vmx.shutdown).toBe('vmx-abort');
    const rip = cpu.get('RIP');
    cpu.processor.requestInit();
    cpu.processor.requestNmi();
    cpu.processor.requestSipi(1);
    cpu.run(10);
    expect(cpu.get('RIP')).toBe(rip);
    cpu.reset();
    cpu.run(0);
    expect([cpu.get('RIP'), cpu.get('initPending'), cpu.operation]).toEqual([0xfff0n, 0n, 'outside']);
  });
});
