/**
 * Whether the cost of an operation depends on how many CPUs and VMCSs there are. One loop serves all
 * machines, so that the compiler knows none of them; its floor is the same loop over bare arrays.
 */
import { FIELDS, type LogicalProcessor, Machine } from '../src/index.ts';
import { LAUNCHED, vmcsAddress } from './guest.ts';
import { type Measurement, measure } from './measure.ts';

const READS = 200_000;
const LOADS = 10_000;

export interface ScalingRow {
  readonly cpus: number;
  readonly vmcss: number;
  /** In floors of the same loop over bare arrays. */
  readonly vmread: Measurement;
  /** In floors of a loop that finds the region in a map and reads its header. */
  readonly vmptrld: Measurement;
}

function readLoop(cpu: LogicalProcessor, registers: Uint32Array, encodings: Uint32Array): void {
  const { unit } = cpu;
  for (let i = 0; i < READS; i++) {
    registers[2] = encodings[i & 15] as number;
    unit.vmreadRegister(1, 0);
  }
}

function readFloor(
  registers: Uint32Array,
  fields: Uint32Array,
  table: Int16Array,
  encodings: Uint32Array,
): void {
  for (let i = 0; i < READS; i++) {
    registers[2] = encodings[i & 15] as number;
    const slot = table[registers[2] as number] as number;
    if (slot < 0) throw new Error('unreachable');
    registers[0] = fields[2 * slot] as number;
    registers[1] = fields[2 * slot + 1] as number;
    registers[34] = (registers[34] as number) & ~0x8d5;
  }
}

function loadLoop(cpu: LogicalProcessor, pointers: readonly bigint[]): void {
  for (let i = 0, at = 0; i < LOADS; i++) {
    cpu.vmptrld(pointers[at] as bigint);
    if (++at === pointers.length) at = 0;
  }
}

function loadFloor(regions: ReadonlyMap<number, Uint32Array>, result: Uint32Array): void {
  const count = regions.size;
  for (let i = 0, at = 0; i < LOADS; i++) {
    result[0] = (regions.get(vmcsAddress(at)) as Uint32Array)[0] as number;
    if (++at === count) at = 0;
  }
}

const encodings = Uint32Array.from(FIELDS.slice(0, 16), (field) => field.encoding);
const bareRegisters = new Uint32Array(2 * 256);
const bareFields = new Uint32Array(2 * FIELDS.length).map((_, i) => i);
const bareTable = new Int16Array(0x8000).fill(-1);
for (const field of FIELDS) bareTable[field.encoding] = field.slot;

function scalingRow(cpus: number, vmcss: number): ScalingRow {
  const machine = new Machine({ cpus, hazards: 'report' });
  LAUNCHED.prepareRoot(machine, cpus - 1);
  const cpu = machine.cpu(cpus - 1);
  const regions = new Map<number, Uint32Array>();
  const pointers = Array.from({ length: vmcss }, (_, i) => BigInt(vmcsAddress(i)));
  for (const pointer of pointers) {
    const address = Number(pointer);
    machine.memory.write32(address, cpu.capabilities.revision);
    regions.set(address, new Uint32Array(1024).fill(cpu.capabilities.revision));
    cpu.vmclear(pointer);
    cpu.vmptrld(pointer);
  }
  cpu.set('RCX', 0n);
  const registers = cpu.processor.words;
  const vmread = measure(
    { run: () => readLoop(cpu, registers, encodings), operations: READS },
    { run: () => readFloor(bareRegisters, bareFields, bareTable, encodings), operations: READS },
  );
  const vmptrld = measure(
    { run: () => loadLoop(cpu, pointers), operations: LOADS },
    { run: () => loadFloor(regions, bareRegisters), operations: LOADS },
  );
  return { cpus, vmcss, vmread, vmptrld };
}

/** One row for each number of CPUs and of VMCSs active on the last CPU. */
export function scalingRows(): ScalingRow[] {
  // What all rows run is compiled before the first of them.
  scalingRow(2, 2);
  return [1, 16, 256].flatMap((cpus) => [1, 100, 10_000].map((vmcss) => scalingRow(cpus, vmcss)));
}
