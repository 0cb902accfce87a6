import { describe, expect, it } from 'vitest';
import { traceVmx } from '../../src/cli/run-trace.ts';
import { ExitReason } from '../../src/vmx/exit/exit-reasons.ts';
import { launchable, rootMachine, vmcsRegion } from '../support/machine.ts';

/** What a trace tells of what `act` does on a processor with a launchable VMCS. */
function traced(act: (cpu: ReturnType<ReturnType<typeof rootMachine>['cpu']>) => void): string[] {
  const cpu = rootMachine().cpu(0);
  launchable(cpu, vmcsRegion(0), { guestRip: 0x1234n, guestCsSelector: 0x10n });
  let text = '';
  cpu.unit.observe(
    traceVmx(cpu, (line) => {
      text += line;
    }),
  );
  act(cpu);
  return text.split('\n').map((line) => line.replace(/^ +0 cpu0 /, ''));
}

describe('the trace', () => {
  it('tells VMX instructions with operands, fields by name, and outcomes', () => {
    const lines = traced((cpu) => {
      cpu.vmread('guestRip');
      cpu.vmwrite('exitReason', 0);
      cpu.vmread(0x7777);
      cpu.vmptrst();
      cpu.vmclear(0x123n);
      cpu.vmptrld(BigInt(vmcsRegion(0)));
      cpu.vmxoff();
      cpu.vmxoff();
    });
    expect(lines).toEqual([
      'VMREAD 0x681e Guest RIP: VMsucceed',
      'VMWRITE 0x4402 Exit reason: VMsucceed',
      'VMREAD 0x7777: VMfailValid 12, VMREAD or VMWRITE of a field the processor does not support',
      'VMPTRST: VMsucceed',
      expect.stringMatching(/^VMCLEAR 0x123: VMfailValid 2, /),
      'VMPTRLD 0x200000: VMsucceed',
      'VMXOFF: VMsucceed',
      'VMXOFF: fault, vector 6',
      '',
    ]);
  });

  it('tells VM entries and VM exits with what their reasons define', () => {
    const lines = traced((cpu) => {
      cpu.vmlaunch();
      cpu.vmexit({ reason: ExitReason.Cpuid, instructionLength: 2 });
      cpu.vmresume();
      cpu.vmexit({ reason: ExitReason.IoInstruction, instructionLength: 1, qualification: 0x3f8_0000n });
      cpu.vmresume();
      cpu.vmcall();
      cpu.vmresume();
      cpu.vmexit({
        reason: ExitReason.ExceptionOrNmi,
        event: 0x8000_0b0e,
        eventErrorCode: 2,
        qualification: 0x5000n,
      });
    });
    expect(lines).toEqual([
      'VMLAUNCH: VM entry, guest at 0x0010:0x1234',
      'VM exit 10 CPUID, guest at 0x0010:0x1234, length 2',
      'VMRESUME: VM entry, guest at 0x0010:0x1234',
      'VM exit 30 I/O instruction, guest at 0x0010:0x1234, qualification 0x3f80000 (port 0x3f8), length 1',
      'VMRESUME: VM entry, guest at 0x0010:0x1234',
      'VM exit 18 VMCALL, guest at 0x0010:0x1234, length 3',
      'VMRESUME: VM entry, guest at 0x0010:0x1234',
      'VM exit 0 Exception or NMI, guest at 0x0010:0x1234, qualification 0x5000, event exception 14 (0x2)',
      '',
    ]);
  });

  it('tells VM entries that fail', () => {
    const lines = traced((cpu) => {
      cpu.vmwrite('guestRflags', 0);
      cpu.vmlaunch();
      cpu.vmwrite('vmEntryControls', 0);
      cpu.vmlaunch();
    });
    expect(lines[1]).toBe(
      'VM-entry failure 33 invalid guest state, guest at 0x0010:0x1234, qualification 0x0',
    );
    expect(lines[3]).toMatch(/^VMLAUNCH: VMfailValid 7, /);
  });
});
