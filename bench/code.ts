/** What machine code costs: loops of a processor on its own, and VMX instructions and exits of a hypervisor in machine code. */
import { FIELDS, Field, type FieldName, Machine } from '../src/index.ts';
import { assemble } from '../test/support/assemble.ts';
import { launch, mapIdentity } from './guest.ts';
import { type Batch, type Measurement, measure } from './measure.ts';

const CODE = 0x40_0000;
const HOST = 0x41_0000;
const DATA = 0x42_0000;
const STACK = 0x43_0000;
const RAM = 0x200_0000;
/** Instructions of a batch: a fraction of a millisecond, for no scheduler to cut. */
const INSTRUCTIONS = 10_000;
const OF_HYPERVISOR = 1_100;
const ACTIVATE_SECONDARY_CONTROLS = 1n << 31n;
const ENABLE_VPID = 1n << 5n;

export interface CodeRow extends Measurement {
  readonly name: string;
  /** What one operation is. */
  readonly per: 'instruction' | 'round trip' | 'operation';
  readonly bar?: number;
}

function loopMachine(source: string): Batch {
  const machine = new Machine({ memory: RAM, hazards: 'ignore' });
  const cpu = machine.cpu(0).enterLongMode();
  // Without paging linear addresses are physical ones.
  cpu.set('CR0', cpu.get('CR0') & ~(1n << 31n));
  machine.memory.writeBytes(CODE, assemble(source, 64, CODE));
  cpu.set('RIP', BigInt(CODE));
  cpu.set('RSP', BigInt(STACK));
  cpu.set('RSI', BigInt(DATA));
  return { run: () => cpu.run(INSTRUCTIONS), operations: INSTRUCTIONS };
}

const encoding = (name: FieldName) =>
  `0x${(FIELDS[Field[name]] as { encoding: number }).encoding.toString(16)}`;

/**
 * A hypervisor in root operation with a current VMCS that executes `source`; `guest` is what VMRESUME
 * runs, with a VPID of its own if `vpid` is not 0.
 */
function hypervisor(source: string, guest: string, perOperation: number, vpid = 0): Batch {
  const machine = new Machine({ memory: RAM, hazards: 'ignore' });
  const cpu = machine.cpu(0);
  const cr3 = mapIdentity(machine);
  const { proc, proc2 } = cpu.capabilities.must1;
  const withVpid = {
    primaryProcessorBasedControls: proc | ACTIVATE_SECONDARY_CONTROLS,
    secondaryProcessorBasedControls: proc2 | ENABLE_VPID,
    vpid: BigInt(vpid),
  };
  launch(machine, 0, {
    ...(vpid === 0 ? {} : withVpid),
    guestRip: BigInt(CODE),
    guestCr3: cr3,
    hostRip: BigInt(HOST),
    hostRsp: BigInt(STACK),
    hostCr3: cr3,
  });
  machine.memory.writeBytes(CODE, assemble(guest, 64, CODE));
  machine.memory.writeBytes(HOST, assemble(source, 64, HOST));
  // The guest's first exit brings the processor to the host's code.
  while (cpu.operation === 'non-root') cpu.run(1);
  return { run: () => cpu.run(OF_HYPERVISOR), operations: OF_HYPERVISOR / perOperation };
}

const CPUID_HANDLER = `
  handler: mov edx, ${encoding('exitReason')}
  vmread rax, rdx
  cmp eax, 10
  jne handler
  mov edx, ${encoding('guestRip')}
  vmread rax, rdx
  add rax, 2
  vmwrite rdx, rax
  vmresume`;
const CPUID_GUEST = 'again: cpuid\njmp again';
const VMREADS = `mov edx, ${encoding('guestRip')}\nagain: ${'vmread rax, rdx\n'.repeat(64)} jmp again`;
const VMWRITES = `mov edx, ${encoding('guestRip')}\nmov rax, ${CODE}\nagain: ${'vmwrite rdx, rax\n'.repeat(64)} jmp again`;

/**
 * Measures machine code against `floor`: the table look-up and copy over typed arrays of this run. Bars
 * are for that floor where it takes 3.1 ns.
 */
export function codeRows(floor: Batch): readonly CodeRow[] {
  const row = (name: string, batch: Batch, per: CodeRow['per'], bar?: number): CodeRow => ({
    name,
    per,
    ...measure(batch, floor),
    ...(bar === undefined ? {} : { bar }),
  });
  return [
    row(
      'integer loop',
      loopMachine('again: add rax, rcx\nxor rax, rbx\nadd rbx, 1\nsub rcx, 1\njmp again'),
      'instruction',
      16,
    ),
    row(
      'memory loop',
      loopMachine('again: mov rax, [rsi]\nadd rax, 1\nmov [rsi + 8], rax\nsub rcx, 1\njmp again'),
      'instruction',
    ),
    row('call loop', loopMachine('jmp again\nf: add rax, 1\nret\nagain: call f\njmp again'), 'instruction'),
    row('VMREAD from machine code', hypervisor(VMREADS, 'cpuid', 1), 'instruction', 19),
    row('VMWRITE from machine code', hypervisor(VMWRITES, 'cpuid', 1), 'instruction', 19),
    // Two instructions of the guest, nine of the host.
    row(
      'CPUID exit and VMRESUME, with a VPID',
      hypervisor(CPUID_HANDLER, CPUID_GUEST, 11, 1),
      'round trip',
      800,
    ),
    row('… without: translations go each time', hypervisor(CPUID_HANDLER, CPUID_GUEST, 11), 'round trip'),
  ];
}
