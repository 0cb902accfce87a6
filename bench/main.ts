/**
 * `npm run bench`: what VMX instructions cost, beside a floor measured in the same run: the bare
 * typed-array loop that touches the same data after a table look-up.
 */
import Table from 'cli-table3';
import { Command } from 'commander';
import { ExitReason, FIELDS, Field, Machine } from '../src/index.ts';
import { LAUNCHED, launch, vmcsAddress } from './guest.ts';
import { allocatedBytes, nanoseconds } from './measure.ts';

const OPERATIONS = 1_000_000;

interface Row {
  readonly name: string;
  readonly nanoseconds: number;
  readonly floors: number;
  readonly bar?: number;
  readonly bytes?: number;
}

const options = new Command('bench')
  .description('measure VMX instructions against a floor of the same run')
  .option('--json', 'print JSON')
  .parse()
  .opts<{ json?: boolean }>();

/** Sixteen fields of every width, as a mixed workload. */
const MIXED = [
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
] as const;
const encodings = (names: readonly string[]) =>
  Uint32Array.from(names, (n) => (FIELDS[Field[n as keyof typeof Field]] as { encoding: number }).encoding);

function floorOf(list: Uint32Array): number {
  const words = new Uint32Array(2 * FIELDS.length).map((_, i) => i);
  const registers = new Uint32Array(64).fill(2);
  const table = new Int16Array(0x8000).fill(-1);
  for (const f of FIELDS) table[f.encoding] = f.slot;
  const mask = list.length - 1;
  return nanoseconds(() => {
    for (let i = 0; i < OPERATIONS; i++) {
      registers[2] = list[i & mask] as number;
      const slot = table[registers[2] as number] as number;
      if (slot < 0) throw new Error('unreachable');
      registers[0] = words[2 * slot] as number;
      registers[1] = words[2 * slot + 1] as number;
      registers[34] = (registers[34] as number) & ~0x8d5;
    }
  }, OPERATIONS);
}

const rows: Row[] = [];
const machine = new Machine({ cpus: 2, hazards: 'report' });
const cpu = machine.cpu(0);
launch(machine, 0);
cpu.vmexit({ reason: ExitReason.Cpuid, instructionLength: 2 });
cpu.set('RCX', 0n);

const floor = floorOf(encodings(MIXED));
const add = (name: string, ns: number, extra: Partial<Row> = {}) =>
  rows.push({ name, nanoseconds: ns, floors: ns / floor, ...extra });
add('floor: table look-up and copy', floor);

const { unit } = cpu;
const words = cpu.processor.words;
const SETS: [string, readonly string[]][] = [
  ['16 bits', ['guestCsSelector']],
  ['32 bits', ['guestCsAccessRights']],
  ['64 bits', ['tscOffset']],
  ['natural width', ['guestRip']],
  ['mixed over 16 fields', MIXED],
];
/** VMREADs with the encodings of `list` in turn; a power of two of them. */
function readAll(target: typeof unit, registers: Uint32Array, list: Uint32Array): void {
  const mask = list.length - 1;
  for (let i = 0; i < OPERATIONS; i++) {
    registers[2] = list[i & mask] as number;
    target.vmreadRegister(1, 0);
  }
}

function writeAll(target: typeof unit, registers: Uint32Array, list: Uint32Array): void {
  const mask = list.length - 1;
  for (let i = 0; i < OPERATIONS; i++) {
    registers[2] = list[i & mask] as number;
    target.vmwriteRegister(1, 0);
  }
}

for (const [name, fields] of SETS) {
  const list = encodings(fields);
  const read = () => readAll(unit, words, list);
  add(`VMREAD ${name}, into a register`, nanoseconds(read, OPERATIONS), {
    bar: 2,
    bytes: allocatedBytes(read, OPERATIONS),
  });
}
const saved = cpu.unit.vmx.current?.words.slice();
for (const [name, fields] of SETS) {
  const list = encodings(fields);
  const write = () => writeAll(unit, words, list);
  add(`VMWRITE ${name}, from a register`, nanoseconds(write, OPERATIONS), {
    bar: 2,
    bytes: allocatedBytes(write, OPERATIONS),
  });
}
if (saved) cpu.unit.vmx.current?.words.set(saved);
const few = OPERATIONS / 10;
add(
  'VMREAD guest RIP, at the API',
  nanoseconds(() => {
    for (let i = 0; i < few; i++) cpu.vmread(0x681e);
  }, few),
);
add(
  'VMWRITE guest RSP, at the API',
  nanoseconds(() => {
    for (let i = 0; i < few; i++) cpu.vmwrite(0x681c, 0x1000n);
  }, few),
);

const request = { reason: ExitReason.ExternalInterrupt } as const;
const roundTrip = () => {
  for (let i = 0; i < few; i++) {
    unit.enter('VMRESUME');
    unit.exit(request);
  }
};
add('VMRESUME + exit, unchanged VMCS', nanoseconds(roundTrip, few), {
  bar: 350,
  bytes: allocatedBytes(roundTrip, few),
});
const launches = 20_000;
add(
  'VMCLEAR + VMPTRLD + VMLAUNCH + exit',
  nanoseconds(() => {
    for (let i = 0; i < launches; i++) {
      cpu.vmclear(BigInt(vmcsAddress(0)));
      cpu.vmptrld(BigInt(vmcsAddress(0)));
      unit.enter('VMLAUNCH');
      unit.exit(request);
    }
  }, launches),
);
add(
  'migration: VMCLEAR on one CPU, VMPTRLD on the other',
  (() => {
    const [a, b] = [machine.cpu(0), machine.cpu(1)];
    LAUNCHED.prepareRoot(machine, 1);
    let from = a;
    let to = b;
    return nanoseconds(() => {
      for (let i = 0; i < launches; i++) {
        from.vmclear(BigInt(vmcsAddress(0)));
        to.vmptrld(BigInt(vmcsAddress(0)));
        [from, to] = [to, from];
      }
    }, launches);
  })(),
);
cpu.vmclear(BigInt(vmcsAddress(0)));
machine.cpu(1).vmclear(BigInt(vmcsAddress(0)));
cpu.vmptrld(BigInt(vmcsAddress(0)));
add(
  'explain: all checks of one VMCS',
  nanoseconds(
    () => {
      for (let i = 0; i < 500; i++) cpu.explain();
    },
    500,
    3,
  ),
);

/** Cost of VMREAD on one of many CPUs with many VMCSs. */
const scaling = [1, 16, 256].flatMap((cpus) =>
  [1, 100, 10_000].map((vmcss) => {
    const big = new Machine({ cpus, hazards: 'report' });
    const last = cpus - 1;
    LAUNCHED.prepareRoot(big, last);
    const target = big.cpu(last);
    for (let i = 0; i < vmcss; i++) {
      const address = vmcsAddress(i);
      big.memory.write32(address, target.capabilities.revision);
      target.vmclear(BigInt(address));
      target.vmptrld(BigInt(address));
    }
    const registers = target.processor.words;
    const list = encodings(MIXED);
    const read = nanoseconds(
      () => {
        for (let i = 0; i < few; i++) {
          registers[2] = list[i & 15] as number;
          registers[3] = 0;
          target.unit.vmreadRegister(1, 0);
        }
      },
      few,
      5,
    );
    const load = nanoseconds(
      () => {
        for (let i = 0; i < 2_000; i++) target.vmptrld(BigInt(vmcsAddress(i % vmcss)));
      },
      2_000,
      3,
    );
    return { cpus, vmcss, vmreadFloors: read / floor, vmptrldFloors: load / floor };
  }),
);

const bytesPerVmcs = cpu.unit.active.bytesPerVmcs;
const bars = rows.filter((r) => r.bar !== undefined);
const missed = bars.filter((r) => r.floors > (r.bar as number));
if (options.json) {
  console.log(
    JSON.stringify(
      { floorNanoseconds: floor, rows, scaling, bytesPerVmcs, missed: missed.map((r) => r.name) },
      undefined,
      2,
    ),
  );
} else {
  const table = new Table({ head: ['operation', 'ns', 'floors', 'bar (floors)', 'bytes allocated'] });
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
  const scale = new Table({ head: ['CPUs', 'active VMCSs', 'VMREAD (floors)', 'VMPTRLD (floors)'] });
  for (const s of scaling)
    scale.push([s.cpus, s.vmcss, s.vmreadFloors.toFixed(2), s.vmptrldFloors.toFixed(2)]);
  console.log(scale.toString());
  console.log(`memory per active VMCS: ${bytesPerVmcs} bytes of field data and bookkeeping on the processor`);
  console.log(missed.length === 0 ? 'all bars met' : `bars missed: ${missed.map((r) => r.name).join(', ')}`);
}
