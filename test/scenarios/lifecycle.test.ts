/** The life of a VMCS through the public API: launch, exit, resume, migration, and what goes wrong without VMCLEAR. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LAUNCHED, launch, vmcsAddress } from '../../bench/guest.ts';
import { ExitReason, FIELDS, type FlushPolicy, Machine } from '../../src/index.ts';

const POLICIES: readonly FlushPolicy[] = ['at-vmclear', 'write-through', 'seeded'];
const VMCS = BigInt(vmcsAddress(0));

function fieldsOf(machine: Machine, cpu = 0): Record<string, bigint> {
  return Object.fromEntries(FIELDS.map((f) => [f.key, machine.cpu(cpu).vmread(f.encoding).value]));
}

describe('launch, exit, resume', () => {
  it.each(POLICIES)('works under the flush policy %s', (flushPolicy) => {
    const machine = new Machine({ cpus: 2, flushPolicy, seed: 7 });
    launch(machine, 0);
    const cpu = machine.cpu(0);
    expect(cpu.operation).toBe('non-root');
    expect(cpu.vmexit({ reason: ExitReason.Cpuid, instructionLength: 2 })).toEqual({
      kind: 'VMexit',
      reason: 10,
    });
    expect(cpu.operation).toBe('root');
    expect(cpu.vmread('exitReason').value).toBe(10n);
    expect(cpu.vmread('vmExitInstructionLength').value).toBe(2n);
    expect(cpu.vmlaunch()).toEqual({ kind: 'VMfailValid', error: 4 });
    expect(cpu.vmread('vmInstructionError').value).toBe(4n);
    expect(cpu.vmresume().kind).toBe('VMentry');
    expect(machine.hazards).toEqual([]);
  });

  it('leaves guest state as it was when nothing happens between entry and exit', () => {
    const machine = new Machine();
    launch(machine, 0);
    const cpu = machine.cpu(0);
    cpu.vmexit({ reason: ExitReason.ExternalInterrupt });
    const before = fieldsOf(machine);
    cpu.vmresume();
    cpu.vmexit({ reason: ExitReason.ExternalInterrupt });
    expect(fieldsOf(machine)).toEqual(before);
  });

  it('loads host state: RFLAGS 2, DR7 400H, TR limit 67H, 64-bit mode at CPL 0', () => {
    const machine = new Machine();
    launch(machine, 0);
    const cpu = machine.cpu(0);
    cpu.set('DR7', 0xffffn);
    cpu.set('RFLAGS', 0x246n);
    cpu.vmexit({ reason: ExitReason.Hlt, instructionLength: 1 });
    expect([cpu.get('RFLAGS'), cpu.get('DR7'), cpu.get('TR.limit'), cpu.get('RIP')]).toEqual([
      2n,
      0x400n,
      0x67n,
      0x1000n,
    ]);
    expect(cpu.get('CS.accessRights')).toBe(0xa09bn);
    expect(cpu.cpl).toBe(0);
    expect(cpu.vmread('guestRflags').value).toBe(0x246n);
  });

  it('refuses bad guest state with exit reason 80000021H and changes nothing else', () => {
    const machine = new Machine();
    launch(machine, 0);
    const cpu = machine.cpu(0);
    cpu.vmexit({ reason: ExitReason.Cpuid, instructionLength: 2 });
    cpu.vmwrite('guestRflags', 0n);
    const before = fieldsOf(machine);
    expect(cpu.explain().failures.map((f) => f.id)).toEqual(['guest.rflags.bit1']);
    expect(cpu.vmresume()).toEqual({ kind: 'VMentryFailure', reason: 33 });
    expect(fieldsOf(machine)).toEqual({ ...before, exitReason: 0x8000_0021n, exitQualification: 0n });
    expect(cpu.operation).toBe('root');
  });
});

describe('migration', () => {
  it.each(POLICIES)('carries every field under the flush policy %s', (flushPolicy) => {
    const machine = new Machine({ cpus: 2, flushPolicy, seed: 3 });
    launch(machine, 0);
    LAUNCHED.prepareRoot(machine, 1);
    const [from, to] = [machine.cpu(0), machine.cpu(1)];
    from.vmexit({ reason: ExitReason.Cpuid, instructionLength: 2 });
    const before = fieldsOf(machine, 0);
    from.vmclear(VMCS);
    expect(from.activeVmcss).toEqual([]);
    expect(to.vmptrld(VMCS).kind).toBe('VMsucceed');
    expect(fieldsOf(machine, 1)).toEqual(before);
    expect(to.vmresume()).toEqual({ kind: 'VMfailValid', error: 5 });
    expect(to.vmlaunch().kind).toBe('VMentry');
    expect(machine.hazards).toEqual([]);
  });

  it('without VMCLEAR is reported, with CPU, instruction and address', () => {
    const machine = new Machine({ cpus: 2 });
    launch(machine, 0);
    LAUNCHED.prepareRoot(machine, 1);
    machine.cpu(0).vmexit({ reason: ExitReason.Cpuid, instructionLength: 2 });
    machine.cpu(1).vmptrld(VMCS);
    expect(machine.hazards).toMatchObject([
      { id: 'vmcs.active-elsewhere', cpu: 1, instruction: 'VMPTRLD', address: Number(VMCS) },
    ]);
  });

  it('stops a machine that is asked to stop', () => {
    const machine = new Machine({ cpus: 2, hazards: 'stop' });
    launch(machine, 0);
    LAUNCHED.prepareRoot(machine, 1);
    expect(machine.cpu(1).vmptrld(VMCS)).toEqual({ kind: 'notExecuted', because: 'hazard' });
    expect(machine.stoppedAt?.id).toBe('vmcs.active-elsewhere');
    expect(machine.cpu(0).vmcall()).toEqual({ kind: 'notExecuted', because: 'hazard' });
  });

  it('to a processor of another revision fails with error 11', () => {
    const machine = new Machine({ cpus: 2, profile: ['skylake', 'tiger-lake'] });
    launch(machine, 0);
    LAUNCHED.prepareRoot(machine, 1);
    machine.cpu(0).vmexit({ reason: ExitReason.Cpuid, instructionLength: 2 });
    machine.cpu(0).vmclear(VMCS);
    const other = BigInt(vmcsAddress(1));
    machine.memory.write32(Number(other), machine.cpu(1).capabilities.revision);
    machine.cpu(1).vmclear(other);
    machine.cpu(1).vmptrld(other);
    expect(machine.cpu(1).vmptrld(VMCS)).toEqual({ kind: 'VMfailValid', error: 11 });
  });
});

describe('ordinary memory accesses', () => {
  it('to an active region, a VMXON region and a bitmap in use are reported', () => {
    const machine = new Machine({ cpus: 2 });
    launch(machine, 0);
    const cpu = machine.cpu(0);
    cpu.vmexit({ reason: ExitReason.Cpuid, instructionLength: 2 });
    cpu.vmwrite('msrBitmapAddress', 0x5000n);
    cpu.vmwrite(
      'primaryProcessorBasedControls',
      cpu.vmread('primaryProcessorBasedControls').value | (1n << 28n),
    );
    expect(cpu.vmresume().kind).toBe('VMentry');
    machine.cpu(1).store32(0x5000, 1);
    machine.cpu(1).store64(Number(VMCS) + 0x40, 1n);
    machine.cpu(1).load32(Number(VMCS) + 0x40);
    machine.cpu(1).load32(0x10_0000);
    machine.cpu(1).store32(Number(VMCS), cpu.capabilities.revision + 0x8000_0000);
    expect(machine.hazards.map((h) => h.id)).toEqual([
      'structure.modified-in-use',
      'vmcs.memory-write',
      'vmcs.memory-read',
      'vmxon.memory-access',
      'vmcs.shadow-indicator-changed',
    ]);
  });

  it('of a debugger, through the memory itself, are not', () => {
    const machine = new Machine();
    launch(machine, 0);
    machine.memory.write32(Number(VMCS) + 0x40, 1);
    expect(machine.hazards).toEqual([]);
  });
});

describe('snapshots', () => {
  it('restore bit for bit, and a run from them repeats', () => {
    const machine = new Machine({ cpus: 2, flushPolicy: 'seeded', seed: 5 });
    launch(machine, 0);
    const snapshot = machine.snapshot();
    const run = () => {
      const cpu = machine.cpu(0);
      cpu.vmexit({ reason: ExitReason.EptViolation, qualification: 0x181n, guestPhysicalAddress: 0x1000n });
      cpu.vmwrite('guestRip', 0x2000n);
      cpu.vmresume();
      return machine.snapshot();
    };
    const first = run();
    machine.restore(snapshot);
    expect(machine.snapshot()).toEqual(snapshot);
    expect(run()).toEqual(first);
  });
});

describe('skipping what was verified', () => {
  const writable = FIELDS.filter((f) => f.type !== 'exit-information');
  it('never changes the verdict of a VM entry', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            field: fc.constantFrom(...writable),
            value: fc.oneof(
              fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
              fc.nat(63).map((n) => 1n << BigInt(n)),
            ),
            undo: fc.boolean(),
          }),
          { minLength: 1, maxLength: 12 },
        ),
        (changes) => {
          const machine = new Machine();
          launch(machine, 0);
          const cpu = machine.cpu(0);
          cpu.vmexit({ reason: ExitReason.ExternalInterrupt });
          for (const { field, value, undo } of changes) {
            const old = cpu.vmread(field.encoding).value;
            cpu.vmwrite(field.encoding, value);
            const before = machine.snapshot();
            const skipping = cpu.vmresume();
            const reason = cpu.vmread('exitReason').value;
            machine.restore(before);
            const { current } = cpu.unit.vmx;
            if (current !== undefined) current.verifiedState = -1;
            if (current !== undefined) current.unverified = 0xffff_ffff;
            expect(cpu.vmresume()).toEqual(skipping);
            if (skipping.kind !== 'VMentry') expect(cpu.vmread('exitReason').value).toBe(reason);
            machine.restore(before);
            if (undo) cpu.vmwrite(field.encoding, old);
          }
        },
      ),
      { numRuns: 150 },
    );
  });
});
