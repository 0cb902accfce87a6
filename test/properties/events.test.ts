/** Events at any time, under any controls: how a run is divided changes nothing, and a hypervisor can always resume. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Attention } from '../../src/cpu/attention.ts';
import { REGISTERS, Register } from '../../src/cpu/registers.ts';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import type { ControlId } from '../../src/vmcs/controls.ts';
import { Field } from '../../src/vmcs/fields.ts';
import type { ProcessorCopy } from '../../src/vmcs/processor-copy.ts';
import { assemble } from '../support/assemble.ts';
import { HOST } from '../support/guest.ts';
import { eventGuest } from '../support/guest-events.ts';
import { runs } from './settings.ts';

/** Blocking, single steps, software events, waiting, repetition, faults and locked accesses. */
const GUEST_CODE = `
  again:
  sti
  nop
  mov ecx, 5
  mov edi, 0x80000
  rep stosb
  mov ss, edx
  nop
  int3
  pushfq
  or dword ptr [rsp], 0x100
  popfq
  inc ebx
  pushfq
  and dword ptr [rsp], 0xfffffeff
  popfq
  lock inc dword ptr [0x8103e]
  cli
  int 0x30
  sti
  hlt
  jmp again`;
const HANDLER = 'inc esi\niretq';
const RSM = Uint8Array.of(0x0f, 0xaa);
const UNTIL = 400;

const EVENTS = ['NMI', 'SMI', 'INIT', 'interrupt', 'machine check'] as const;
interface Arrival {
  readonly at: number;
  readonly event: (typeof EVENTS)[number];
}
interface Setting {
  readonly controls: readonly ControlId[];
  readonly exceptionBitmap: number;
  readonly timer: number;
  readonly arrivals: readonly Arrival[];
}

/** Controls in groups of which VM entry accepts any selection. */
const GROUPS: readonly (readonly ControlId[])[] = [
  ['pin.externalInterruptExiting'],
  ['exit.acknowledgeInterruptOnExit'],
  ['proc.interruptWindowExiting'],
  ['proc.monitorTrapFlag'],
  ['pin.activateVmxPreemptionTimer'],
  ['pin.activateVmxPreemptionTimer', 'exit.saveVmxPreemptionTimerValue'],
  ['pin.nmiExiting'],
  ['pin.nmiExiting', 'pin.virtualNmis'],
  ['pin.nmiExiting', 'pin.virtualNmis', 'proc.nmiWindowExiting'],
  ['proc2.vmmBusLockDetection'],
  ['proc2.instructionTimeout'],
];

const setting: fc.Arbitrary<Setting> = fc.record({
  controls: fc.subarray([...GROUPS]).map((groups) => [...new Set(groups.flat())]),
  exceptionBitmap: fc.constantFrom(0, 1 << 1, 1 << 3, 1 << 18, 0x4_000a),
  timer: fc.nat({ max: 9 }),
  arrivals: fc
    .array(fc.record({ at: fc.nat({ max: UNTIL - 1 }), event: fc.constantFrom(...EVENTS) }), { maxLength: 8 })
    .map((arrivals) => [...arrivals].sort((a, b) => a.at - b.at)),
});

function launch({ controls, exceptionBitmap, timer }: Setting): LogicalProcessor {
  const machine = eventGuest(
    GUEST_CODE,
    {
      controls,
      fields: {
        exceptionBitmap: BigInt(exceptionBitmap),
        vmxPreemptionTimerValue: BigInt(timer),
        guestCr4: 0x2060n,
        instructionTimeoutControl: 1n,
      },
    },
    HANDLER,
  );
  machine.memory.writeBytes(HOST, assemble('vmresume', 64, HOST));
  machine.memory.writeBytes(0x3_8000, RSM);
  const cpu = machine.cpu(0);
  cpu.set('RDX', 0x10n);
  return cpu;
}

function arrive({ processor }: LogicalProcessor, event: Arrival['event']): void {
  if (event === 'NMI') processor.requestNmi();
  else if (event === 'SMI') processor.requestSmi();
  else if (event === 'INIT') processor.requestInit();
  else if (event === 'machine check') processor.requestMachineCheck();
  else {
    let requested = true;
    processor.interrupts = {
      requested: () => requested,
      acknowledge: () => {
        requested = false;
        return 0x40;
      },
    };
    processor.requestAttention(Attention.Event);
  }
}

/** Runs to `time`, in pieces of `slice`; a processor that waits for an event is left waiting. */
function runTo(cpu: LogicalProcessor, time: number, slice: number): void {
  const { processor } = cpu;
  for (let before = -1; processor.executed < time && processor.executed !== before; ) {
    before = processor.executed;
    cpu.run(Math.min(slice, time - before));
  }
}

interface Outcome {
  readonly exits: readonly string[];
  readonly refused: readonly string[];
  readonly registers: readonly bigint[];
  readonly fields: readonly bigint[];
  readonly stack: string;
}

function outcomeOf(s: Setting, slice: number): Outcome {
  const cpu = launch(s);
  const exits: string[] = [];
  const refused: string[] = [];
  cpu.unit.observe({
    exit: (copy: ProcessorCopy) => {
      exits.push(`${copy.words[2 * Field.exitReason]} at ${copy.words[2 * Field.guestRip]}`);
    },
    instruction: (mnemonic, _, outcome) => {
      if (outcome.kind !== 'VMentry') refused.push(`${mnemonic}: ${outcome.kind}`);
    },
  });
  for (const { at, event } of s.arrivals) {
    runTo(cpu, at, slice);
    arrive(cpu, event);
  }
  runTo(cpu, UNTIL, slice);
  const { processor } = cpu;
  return {
    exits,
    refused,
    registers: [
      ...processor.quads.subarray(0, REGISTERS.indexOf('ZERO')),
      processor.quads[Register.nmiPending] as bigint,
    ],
    fields: [...(cpu.unit.vmx.current?.quads ?? [])],
    stack: Buffer.from(processor.memory.readBytes(0x4_f000, 0x1000)).toString('hex'),
  };
}

describe('events at any time, under any controls', () => {
  it('come to the same however the run is divided', () => {
    fc.assert(
      fc.property(setting, fc.integer({ min: 1, max: 50 }), (s, slice) => {
        expect(outcomeOf(s, slice)).toEqual(outcomeOf(s, UNTIL));
      }),
      runs(25),
    );
  });

  it('leave a VMCS that VM entry accepts', () => {
    fc.assert(
      fc.property(setting, (s) => {
        expect(outcomeOf(s, UNTIL).refused).toEqual([]);
      }),
      runs(40),
    );
  });
});
