/**
 * `npm run bench`: what VMX instructions cost, beside a floor measured in the same run: the bare
 * typed-array loop that touches the same data after a table look-up.
 */
import Table from 'cli-table3';
import { Command } from 'commander';
import { tableStyle } from '../src/cli/colours.ts';
import { ExitReason, FIELDS, Field, type FieldName, Machine } from '../src/index.ts';
import { codeRows } from './code.ts';
import { LAUNCHED, launch, vmcsAddress } from './guest.ts';
import { allocatedBytes, type Measurement, measure } from './measure.ts';
import { scalingRows } from './scaling.ts';
import { translationRows } from './translation.ts';

const OPERATIONS = 200_000;
const FEW = 1_000;

interface Row extends Measurement {
  readonly name: string;
  readonly bar?: number;
  readonly bytes?: number;
}

const options = new Command('bench')
  .description('measure VMX instructions against a floor of the same run')
  .option('--json', 'print JSON')
  .parse()
  .opts<{ json?: boolean }>();

/** Sixteen fields of every width, as a mixed workload. */
const MIXED: readonly FieldName[] = [
  'guestRip',
  'guestRsp',
  'guestRflags',
  'guestCr3',
  'exitReason',
  'exitQualification',
  'guestCsSelector',
  'guestSsSelector',
  'guestCsAccessRights',
  'guestInterruptibilityState',
  'vmcsLinkPointer',
  'tscOffset',
  'eptPointer',
  'guestIa32Efer',
  'hostRsp',
  'injectedEventIdentification',
];
const SETS: [string, readonly FieldName[]][] = [
  ['16 bits', ['guestCsSelector']],
  ['32 bits', ['guestCsAccessRights']],
  ['64 bits', ['tscOffset']],
  ['natural width', ['guestRip']],
  ['mixed over 16 fields', MIXED],
];

const machine = new Machine({ cpus: 2, hazards: 'report' });
const cpu = machine.cpu(0);
launch(machine, 0);
cpu.vmexit({ reason: ExitReason.Cpuid, instructionLength: 2 });
cpu.set('RCX', 0n);

// The loops of the floor and of its subjects have one shape: all they touch is constant to them.
const { unit } = cpu;
const registers = cpu.processor.words;
const encodings = new Uint32Array(16);
const floorRegisters = new Uint32Array(2 * 256);
const floorFields = new Uint32Array(2 * FIELDS.length).map((_, i) => i);
const floorTable = new Int16Array(0x8000).fill(-1);
for (const field of FIELDS) floorTable[field.encoding] = field.slot;

function floorLoop(): void {
  for (let i = 0; i < OPERATIONS; i++) {
    floorRegisters[2] = encodings[i & 15] as number;
    const slot = floorTable[floorRegisters[2] as number] as number;
    if (slot < 0) throw new Error('unreachable');
    floorRegisters[0] = floorFields[2 * slot] as number;
    floorRegisters[1] = floorFields[2 * slot + 1] as number;
    floorRegisters[34] = (floorRegisters[34] as number) & ~0x8d5;
  }
}

function readLoop(): void {
  for (let i = 0; i < OPERATIONS; i++) {
    registers[2] = encodings[i & 15] as number;
    unit.vmreadRegister(1, 0);
  }
}

function writeLoop(): void {
  for (let i = 0; i < OPERATIONS; i++) {
    registers[2] = encodings[i & 15] as number;
    unit.vmwriteRegister(1, 0);
  }
}

const FLOOR = { run: floorLoop, operations: OPERATIONS };
const rows: Row[] = [];

function add(
  name: string,
  operations: number,
  run: () => void,
  extra: { bar?: number; allocation?: boolean } = {},
): void {
  const batch = { run, operations };
  const { bar, allocation } = extra;
  rows.push({
    name,
    ...measure(batch, FLOOR),
    ...(bar === undefined ? {} : { bar }),
    ...(allocation ? { bytes: allocatedBytes(batch) } : {}),
  });
}

function use(names: readonly FieldName[]): void {
  for (let i = 0; i < 16; i++) {
    encodings[i] = (FIELDS[Field[names[i % names.length] as FieldName]] as { encoding: number }).encoding;
  }
}

use(MIXED);
add('floor: table look-up and copy', OPERATIONS, floorLoop);
const HOT = { bar: 2, allocation: true };
for (const [name, fields] of SETS) {
  use(fields);
  add(`VMREAD ${name}, into a register`, OPERATIONS, readLoop, HOT);
}
const saved = unit.vmx.current?.words.slice();
for (const [name, fields] of SETS) {
  use(fields);
  add(`VMWRITE ${name}, from a register`, OPERATIONS, writeLoop, HOT);
}
if (saved) unit.vmx.current?.words.set(saved);
use(MIXED);
add('VMREAD guest RIP, at the API', FEW, () => {
  for (let i = 0; i < FEW; i++) cpu.vmread(0x681e);
});
add('VMWRITE guest RSP, at the API', FEW, () => {
  for (let i = 0; i < FEW; i++) cpu.vmwrite(0x681c, 0x1000n);
});

const request = { reason: ExitReason.ExternalInterrupt } as const;
const roundTrip = () => {
  for (let i = 0; i < FEW; i++) {
    unit.enter('VMRESUME');
    unit.exit(request);
  }
};
add('VMRESUME + exit, unchanged VMCS', FEW, roundTrip, { bar: 350, allocation: true });
const launches = 20;
const region = BigInt(vmcsAddress(0));
add('VMCLEAR + VMPTRLD + VMLAUNCH + exit', launches, () => {
  for (let i = 0; i < launches; i++) {
    cpu.vmclear(region);
    cpu.vmptrld(region);
    unit.enter('VMLAUNCH');
    unit.exit(request);
  }
});
LAUNCHED.prepareRoot(machine, 1);
let [from, to] = [machine.cpu(0), machine.cpu(1)];
add('migration: VMCLEAR on one CPU, VMPTRLD on the other', launches, () => {
  for (let i = 0; i < launches; i++) {
    from.vmclear(region);
    to.vmptrld(region);
    [from, to] = [to, from];
  }
});
cpu.vmclear(region);
machine.cpu(1).vmclear(region);
cpu.vmptrld(region);
add('explain: all checks of one VMCS', 10, () => {
  for (let i = 0; i < 10; i++) cpu.explain();
});

const code = [...codeRows(FLOOR), ...translationRows(FLOOR)];
const scaling = scalingRows();
const bytesPerVmcs = cpu.unit.active.bytesPerVmcs;
const missed = [...rows, ...code].filter(
  (r) => r.bar !== undefined && (r.floors > r.bar || ('bytes' in r && r.bytes !== undefined && r.bytes >= 1)),
);
const floorNanoseconds = (rows[0] as Row).nanoseconds;
if (options.json) {
  console.log(
    JSON.stringify(
      { floorNanoseconds, rows, code, scaling, bytesPerVmcs, missed: missed.map((r) => r.name) },
      undefined,
      2,
    ),
  );
} else {
  const table = new Table({
    style: tableStyle,
    head: ['operation', 'ns', 'floors', 'bar (floors)', 'bytes allocated'],
  });
  for (const r of rows) {
    table.push([
      r.name,
      r.nanoseconds.toFixed(2),
      r.floors.toFixed(2),
      r.bar?.toString() ?? '',
      r.bytes?.toFixed(2) ?? '',
    ]);
  }
  console.log(table.toString());
  const ofCode = new Table({
    style: tableStyle,
    head: ['machine code', 'ns', 'per', 'floors', 'bar (floors)'],
  });
  for (const r of code) {
    ofCode.push([r.name, r.nanoseconds.toFixed(1), r.per, r.floors.toFixed(1), r.bar?.toString() ?? '']);
  }
  console.log(ofCode.toString());
  const scale = new Table({
    style: tableStyle,
    head: ['CPUs', 'active VMCSs', 'VMREAD: ns', 'floors', 'VMPTRLD: ns', 'floors'],
  });
  for (const s of scaling) {
    scale.push([
      s.cpus,
      s.vmcss,
      s.vmread.nanoseconds.toFixed(2),
      s.vmread.floors.toFixed(2),
      s.vmptrld.nanoseconds.toFixed(0),
      s.vmptrld.floors.toFixed(1),
    ]);
  }
  console.log(scale.toString());
  console.log('In this second table each cost stands beside a floor of its own that touches as many VMCSs.');
  console.log(`memory per active VMCS: ${bytesPerVmcs} bytes of field data and bookkeeping on the processor`);
  console.log(missed.length === 0 ? 'all bars met' : `bars missed: ${missed.map((r) => r.name).join(', ')}`);
}
