/**
 * Interrupts between processors that reach a running guest without a VM exit (SDM §32.1.6, §32.6): posted
 * by software with a notification, and by the IPIs of another guest.
 */
import { describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import type { Machine, MachineOptions } from '../../src/machine/machine.ts';
import type { ControlId } from '../../src/vmcs/controls.ts';
import { Field, type FieldName } from '../../src/vmcs/fields.ts';
import type { ProcessorCopy } from '../../src/vmcs/processor-copy.ts';
import { storeApic, vectorsOf } from '../support/apic.ts';
import { assemble } from '../support/assemble.ts';
import { exitFields, GUEST, runToExit } from '../support/guest.ts';
import { ENTRY, enterRoot, launchable, succeeds, vmcsRegion } from '../support/machine.ts';
import {
  APIC_PAGE,
  apicGuest,
  DESCRIPTOR,
  HANDLER,
  PID_TABLE,
  POSTING,
  vectorsAt,
} from '../vmx/apic/apic-guest.ts';

const NOTIFICATION = 0xf2;
const CODE1 = 0x1_8000;
const APIC_PAGE1 = 0x9_6000;
const COUNTERS = 0x8_0000;
const TOTAL = 0x8_0800;

/** CPU 0 runs a guest with posted interrupts, CPU 1 is in root operation; their APICs are enabled. */
function machineOf(
  code: string,
  handler: string,
  controls: readonly ControlId[] = [],
  options: MachineOptions = {},
): Machine {
  const machine = apicGuest(code, handler, {
    ...options,
    cpus: 2,
    controls: [...POSTING, ...controls],
    fields: { guestRflags: 0x202n },
  });
  for (const cpu of machine.processors) storeApic(cpu, 'SpuriousInterruptVector', 0x1ff);
  machine.memory.write32(DESCRIPTOR + 32, NOTIFICATION << 16);
  return machine;
}

/** Lets CPU 1 post `vector` as software does: PIR, then ON, then the notification. */
function postFrom(machine: Machine, vector: number): void {
  const cpu = machine.cpu(1);
  cpu.enterLongMode();
  cpu.set('CR0', cpu.get('CR0') & ~(1n << 31n));
  const code = `
      lock bts dword ptr [${DESCRIPTOR + 4 * (vector >> 5)}], ${vector & 31}
      lock bts dword ptr [${DESCRIPTOR + 32}], 0
      jc done
      mov rbx, 0xfee00000
      mov dword ptr [rbx + 0x310], 0
      mov dword ptr [rbx + 0x300], ${NOTIFICATION}
    done:
      jmp done`;
  machine.memory.writeBytes(CODE1, assemble(code, 64, CODE1));
  cpu.set('RIP', BigInt(CODE1));
}

function run(machine: Machine, cpu: LogicalProcessor, operation: string, most = 60_000): void {
  for (let n = 0; n < most && cpu.operation === operation; n += 500) machine.scheduler.run(500);
}

describe('posting by software on another processor', () => {
  for (const [state, code] of [
    ['a guest that executes', 'here: jmp here'],
    ['a guest in HLT', 'here: hlt\njmp here'],
    ['a guest in HLT with RFLAGS.IF = 0 is not woken, but the interrupt is there', 'cli\nhlt'],
  ] as const) {
    it(state, () => {
      const machine = machineOf(code, 'vmcall');
      postFrom(machine, 0x9a);
      const cpu = machine.cpu(0);
      const isMasked = code.startsWith('cli');
      if (isMasked) cpu.run(2);
      run(machine, cpu, 'non-root', 4000);
      expect(cpu.operation).toBe(isMasked ? 'non-root' : 'root');
      if (isMasked) expect(vectorsAt(machine.memory, APIC_PAGE + 0x200, 16)).toEqual([0x9a]);
      else {
        expect(exitFields(cpu, 'exitReason', 'guestInterruptStatus')).toEqual({
          exitReason: 18n,
          guestInterruptStatus: 0x9a00n,
        });
        expect(cpu.get('R15')).toBe(0x9an);
      }
      expect(vectorsAt(machine.memory, DESCRIPTOR, 4)).toEqual([]);
      expect(machine.memory.read32(DESCRIPTOR + 32)).toBe(NOTIFICATION << 16);
      // The notification has been acknowledged and ended.
      expect([vectorsOf(cpu, 'InService'), vectorsOf(cpu, 'InterruptRequest')]).toEqual([[], []]);
    });
  }

  it('while ON is 1 no second notification is sent', () => {
    const machine = machineOf('here: jmp here', 'vmcall');
    machine.memory.write32(DESCRIPTOR + 32, (NOTIFICATION << 16) | 1);
    postFrom(machine, 0x9a);
    run(machine, machine.cpu(0), 'non-root', 4000);
    expect(machine.cpu(0).operation).toBe('non-root');
    expect(vectorsAt(machine.memory, DESCRIPTOR, 4)).toEqual([0x9a]);
  });

  it('in root operation the notification is an interrupt like others', () => {
    const machine = machineOf('vmcall', 'cli\nhlt');
    const cpu = machine.cpu(0);
    runToExit(cpu);
    for (const [name, value] of [
      ['IDTR.base', 0x7_0000n],
      ['IDTR.limit', 0xfffn],
      ['GDTR.base', 0x7_2000n],
      ['GDTR.limit', 0x1fn],
      ['RFLAGS', 0x202n],
    ] as const)
      cpu.set(name, value);
    postFrom(machine, 0x9a);
    machine.scheduler.run(4000);
    expect(cpu.operation).toBe('root');
    expect(cpu.get('R15')).toBe(BigInt(NOTIFICATION));
    expect(vectorsAt(machine.memory, DESCRIPTOR, 4)).toEqual([0x9a]);
    expect(vectorsOf(cpu, 'InService')).toEqual([NOTIFICATION]);
    // What was posted is still there for the next notification.
    expect(machine.memory.read32(DESCRIPTOR + 32) & 1).toBe(1);
  });

  it('an interrupt that arrives before VM entry is processed right after it', () => {
    const machine = machineOf('vmcall\nnop\nvmcall', 'vmcall');
    const cpu = machine.cpu(0);
    runToExit(cpu);
    postFrom(machine, 0x9a);
    machine.scheduler.run(4000);
    expect(vectorsOf(cpu, 'InterruptRequest')).toEqual([NOTIFICATION]);
    succeeds(cpu.vmwrite('guestRip', GUEST + 3));
    expect(cpu.vmresume()).toEqual(ENTRY);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'guestRip')).toEqual({
      exitReason: 18n,
      guestRip: BigInt(HANDLER + 0x1000),
    });
    expect(cpu.get('R15')).toBe(0x9an);
  });
});

describe('IPIs from guest to guest ("IPI virtualization")', () => {
  /** What the second guest has like the first. */
  const LIKE: readonly FieldName[] = [
    'guestCr3',
    'hostCr3',
    'hostRip',
    'hostRsp',
    'guestSsSelector',
    'guestSsAccessRights',
    'guestSsLimit',
    'guestDsSelector',
    'guestDsAccessRights',
    'guestDsLimit',
    'msrBitmapAddress',
    'pidPointerTableAddress',
    'lastPidPointerIndex',
  ];
  const SENT = 64;
  const FIRST = 0x30;
  const X2APIC: readonly ControlId[] = ['proc.useMsrBitmaps', 'proc2.virtualizeX2apicMode'];
  const SENDER = `
      mov ebx, ${FIRST}
    next:
      mov ecx, 0x830
      mov eax, ebx
      xor edx, edx
      wrmsr
      inc ebx
      cmp ebx, ${FIRST + SENT}
      jne next
      vmcall`;
  const RECEIVER = `
    next:
      cmp dword ptr [${TOTAL}], ${SENT}
      jne next
      vmcall`;
  /** Counts its vector, and ends the interrupt. */
  const COUNT = `
      movzx eax, r15b
      inc dword ptr [4*rax + ${COUNTERS}]
      inc dword ptr [${TOTAL}]
      mov ecx, 0x80b
      xor eax, eax
      xor edx, edx
      wrmsr
      iretq`;

  function twoGuests(receiver: string, options: MachineOptions): Machine {
    const machine = machineOf(receiver, COUNT, X2APIC, options);
    const { quads } = machine.cpu(0).unit.vmx.current as ProcessorCopy;
    const like = (name: FieldName) => [name, quads[Field[name]] as bigint] as const;
    const values = Object.fromEntries(LIKE.map(like));
    machine.memory.write64(PID_TABLE, BigInt(DESCRIPTOR) | 1n);
    machine.memory.writeBytes(CODE1, assemble(SENDER, 64, CODE1));
    const cpu = machine.cpu(1);
    enterRoot(cpu);
    cpu.set('CR3', 0x30_0000n);
    launchable(
      cpu,
      vmcsRegion(1),
      {
        ...values,
        guestRip: BigInt(CODE1),
        guestRsp: 0x5_8000n,
        virtualApicAddress: BigInt(APIC_PAGE1),
        guestRflags: 2n,
      },
      ['proc.useTprShadow', 'proc3.ipiVirtualization', ...X2APIC],
    );
    expect(cpu.vmlaunch()).toEqual(ENTRY);
    return machine;
  }

  for (const [name, receiver] of [
    ['executes', RECEIVER],
    [
      'waits in HLT',
      RECEIVER.replace('cmp', 'cli\ncmp').replace('jne next', 'je done\nsti\nhlt\njmp next\ndone:'),
    ],
  ] as const) {
    it(`each is delivered exactly once, whatever the interleaving, to a guest that ${name}`, () => {
      for (const interleaving of [
        {},
        { quantum: 1 },
        ...[1, 2, 3, 4, 5, 6].map((seed) => ({ seed, quantum: 40 })),
      ]) {
        const machine = twoGuests(receiver, { interleaving });
        const [cpu0, cpu1] = [machine.cpu(0), machine.cpu(1)];
        run(machine, cpu0, 'non-root');
        expect([cpu0.operation, cpu1.operation]).toEqual(['root', 'root']);
        expect(exitFields(cpu0, 'exitReason').exitReason).toBe(18n);
        expect(exitFields(cpu1, 'exitReason').exitReason).toBe(18n);
        const counts = Array.from({ length: SENT }, (_, n) =>
          machine.memory.read32(COUNTERS + 4 * (FIRST + n)),
        );
        expect(counts).toEqual(counts.map(() => 1));
        expect(exitFields(cpu0, 'guestInterruptStatus').guestInterruptStatus).toBe(0n);
      }
    });
  }

  it('a run repeats to the bit with its seed', () => {
    const runs = [0, 1].map(() => {
      const machine = twoGuests(RECEIVER, { interleaving: { seed: 77, quantum: 30 } });
      run(machine, machine.cpu(0), 'non-root');
      return machine.snapshot();
    });
    expect(runs[1]).toEqual(runs[0]);
  });
});
