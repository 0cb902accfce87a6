/** What translation of addresses costs: TLB hits in root and non-root operation, misses under EPT, invalidations, EPTP switching. */
import { Machine, type MachineOptions } from '../src/index.ts';
import { assemble } from '../test/support/assemble.ts';
import type { CodeRow } from './code.ts';
import { launch, mapIdentity } from './guest.ts';
import { type Batch, measure } from './measure.ts';

const CODE = 0x40_0000;
const DATA = 0x42_0000;
const RAM = 0x200_0000;
const EPT = 0x30_0000;
const EPTP_LIST = 0x31_0000;
const INSTRUCTIONS = 10_000;
const FEW = 200;
const ACTIVATE_SECONDARY_CONTROLS = 1n << 31n;
const ENABLE_EPT = 1n << 1n;
const ENABLE_VPID = 1n << 5n;
const ENABLE_VM_FUNCTIONS = 1n << 13n;

const HITS = 'again: mov rax, [rsi]\nadd rax, 1\nmov [rsi + 8], rax\nsub rcx, 1\njmp again';
const LOADS = `again: ${'mov rax, [rsi]\n'.repeat(60)} jmp again`;
const SWITCHES = `xor eax, eax\nagain: ${'xor ecx, 1\nvmfunc\n'.repeat(20)} jmp again`;

/** Maps the first GByte one to one: with pages of 4 KBytes where code, data and the guest's tables are. */
function mapEpt(machine: Machine): bigint {
  const { memory } = machine;
  memory.write64(EPT, BigInt(EPT + 0x1000) | 7n);
  memory.write64(EPT + 0x1000, BigInt(EPT + 0x2000) | 7n);
  for (let n = 0; n < 512; n++) memory.write64(EPT + 0x2000 + 8 * n, BigInt(n * 0x20_0000) | 0xb7n);
  for (const [table, first] of [
    [EPT + 0x3000, 0x20_0000],
    [EPT + 0x4000, CODE],
  ] as const) {
    memory.write64(EPT + 0x2000 + 8 * (first >> 21), BigInt(table) | 7n);
    for (let n = 0; n < 512; n++) memory.write64(table + 8 * n, BigInt(first + 0x1000 * n) | 0x37n);
  }
  return BigInt(EPT) | 0x1en;
}

/** Lets the guest map code and data by pages of 4 KBytes, so that a walk has four levels. */
function mapSmallPages(machine: Machine): void {
  const { memory } = machine;
  const table = 0x20_3000;
  memory.write64(0x20_2000 + 8 * (CODE >> 21), BigInt(table) | 3n);
  for (let n = 0; n < 512; n++) memory.write64(table + 8 * n, BigInt(CODE + 0x1000 * n) | 3n);
}

interface Started {
  readonly machine: Machine;
  readonly eptp: bigint;
}

/** A guest about to execute `source`, with the secondary controls `controls`. */
function guest(source: string, controls: bigint, options: MachineOptions = {}): Started {
  const machine = new Machine({ memory: RAM, hazards: 'ignore', ...options });
  const cpu = machine.cpu(0);
  const cr3 = mapIdentity(machine);
  mapSmallPages(machine);
  const eptp = mapEpt(machine);
  const { proc, proc2 } = cpu.capabilities.must1;
  for (const n of [0, 1]) machine.memory.write64(EPTP_LIST + 8 * n, eptp);
  launch(machine, 0, {
    ...(controls !== 0n && {
      primaryProcessorBasedControls: proc | ACTIVATE_SECONDARY_CONTROLS,
      secondaryProcessorBasedControls: proc2 | controls,
      vmFunctionControls: 1n,
      eptpListAddress: BigInt(EPTP_LIST),
      eptPointer: eptp,
      vpid: 1n,
    }),
    guestRip: BigInt(CODE),
    guestCr3: cr3,
    hostRip: BigInt(CODE),
    hostCr3: cr3,
  });
  machine.memory.writeBytes(CODE, assemble(source, 64, CODE));
  cpu.set('RSI', BigInt(DATA));
  return { machine, eptp };
}

function loop(source: string, controls: bigint, options: MachineOptions = {}): Batch {
  const cpu = guest(source, controls, options).machine.cpu(0);
  return { run: () => cpu.run(INSTRUCTIONS), operations: INSTRUCTIONS };
}

/** The same code in root operation. */
function rootLoop(source: string, options: MachineOptions = {}): Batch {
  const cpu = guest(source, 0n, options).machine.cpu(0);
  cpu.vmexit({ reason: 10, instructionLength: 2 });
  return { run: () => cpu.run(INSTRUCTIONS), operations: INSTRUCTIONS };
}

/** An invalidation in root operation, on a processor that has run a guest. */
function invalidation(name: 'INVEPT' | 'INVVPID'): Batch {
  const { machine, eptp } = guest(HITS, ENABLE_EPT | ENABLE_VPID);
  const cpu = machine.cpu(0);
  cpu.run(4);
  cpu.vmexit({ reason: 10, instructionLength: 2 });
  const run = () => {
    for (let n = 0; n < FEW; n++) {
      if (name === 'INVEPT') cpu.invept(1, eptp);
      else cpu.invvpid(1, 1n);
    }
  };
  return { run, operations: FEW };
}

/**
 * Rows of translation. TLB hits are measured beside the same loop in root operation, and have to cost at
 * most a tenth more; the rest beside `floor`.
 */
export function translationRows(floor: Batch): readonly CodeRow[] {
  const root = rootLoop(HITS);
  const hit = (name: string, batch: Batch, bar?: number): CodeRow => ({
    name: `${name}, beside root`,
    per: 'instruction',
    ...measure(batch, root),
    ...(bar === undefined ? {} : { bar }),
  });
  const row = (name: string, per: CodeRow['per'], batch: Batch): CodeRow => ({
    name,
    per,
    ...measure(batch, floor),
  });
  return [
    row('TLB hits in root operation', 'instruction', root),
    hit('TLB hits in non-root operation', loop(HITS, 0n), 1.1),
    hit('TLB hits with EPT', loop(HITS, ENABLE_EPT | ENABLE_VPID), 1.1),
    hit('with the detector of stale translations', loop(HITS, ENABLE_EPT, { detectStaleTranslations: true })),
    row('TLB miss, walk of 4 levels', 'instruction', rootLoop(LOADS, { translations: 'none' })),
    row('TLB miss, walk of 4 × 4 levels', 'instruction', loop(LOADS, ENABLE_EPT, { translations: 'none' })),
    row('INVEPT', 'operation', invalidation('INVEPT')),
    row('INVVPID', 'operation', invalidation('INVVPID')),
    row(
      'EPTP switch (XOR and VMFUNC)',
      'instruction',
      loop(SWITCHES, ENABLE_EPT | ENABLE_VPID | ENABLE_VM_FUNCTIONS),
    ),
  ];
}
