/** Regions that nobody initialised as the manual wants it, driven through their whole life. */
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import type { Machine, MachineSnapshot } from '../../src/machine/machine.ts';
import { FIELDS } from '../../src/vmcs/fields.ts';
import type { FlushPolicy } from '../../src/vmcs/processor-copy.ts';
import { launchable, rootMachine, vmcsRegion } from '../support/machine.ts';
import type { Draw } from './campaign.ts';

const ADDRESS = vmcsRegion(0);
const POINTER = BigInt(ADDRESS);
const ENCODINGS = FIELDS.map((f) => BigInt(f.encoding));
const [RAX, RDX] = [0, 2];

interface Prepared {
  readonly machine: Machine;
  readonly fresh: MachineSnapshot;
  /** The region of a VMCS that VM entry accepts, as VMCLEAR leaves it. */
  readonly legal: Uint8Array;
}

const machines = new Map<string, Prepared>();

function prepared(profile: string, flushPolicy: FlushPolicy): Prepared {
  const key = `${profile} ${flushPolicy}`;
  let found = machines.get(key);
  if (found === undefined) {
    const hazards = flushPolicy === 'seeded' ? 'report' : 'ignore';
    const machine = rootMachine({ profile, flushPolicy, hazards });
    const fresh = machine.snapshot();
    launchable(machine.cpu(0), ADDRESS);
    machine.cpu(0).vmclear(POINTER);
    found = { machine, fresh, legal: machine.memory.readBytes(ADDRESS, 4096) };
    machines.set(key, found);
  }
  found.machine.restore(found.fresh);
  return found;
}

/** Random bytes, or a legal region with some bits, bytes or fields replaced. */
function regionImage(random: Draw, cpu: LogicalProcessor, legal: Uint8Array): Uint8Array {
  if (random.once(4)) return random.bytes(4096);
  const image = legal.slice();
  const view = new DataView(image.buffer);
  const { offsets } = cpu.capabilities.format;
  for (let changes = random.below(12); changes > 0; changes--) {
    const field = random.pick(FIELDS);
    const offset = offsets[field.slot] as number;
    if (random.once(3) || offset < 0) image[random.below(4096)] = random.next();
    else if (random.once(2)) {
      const at = offset + random.below(field.bits / 8);
      image[at] = (image[at] as number) ^ (1 << random.below(8));
    } else if (field.bits === 64) view.setBigUint64(offset, random.interesting(), true);
    else if (field.bits === 32) view.setUint32(offset, Number(random.interesting() & 0xffff_ffffn), true);
    else view.setUint16(offset, Number(random.interesting() & 0xffffn), true);
  }
  return image;
}

function readEverything(cpu: LogicalProcessor): void {
  const { quads } = cpu.processor;
  for (const encoding of ENCODINGS) {
    quads[RAX] = encoding;
    const { kind } = cpu.vmreadRegister(RAX, RDX);
    if (kind !== 'VMsucceed' && kind !== 'VMfailValid') throw new Error(`VMREAD ${encoding}: ${kind}`);
  }
}

/** VMPTRLD, VMREAD of everything, explanation, VM entry, VM exit, VM entry again, VMCLEAR, VMXOFF. */
export function regionTrial(random: Draw, profile: string, policy: FlushPolicy): void {
  const { machine, legal } = prepared(profile, policy);
  const cpu = machine.cpu(0);
  const image = regionImage(random, cpu, legal);
  const { revision } = cpu.capabilities;
  if (!random.once(8)) new DataView(image.buffer).setUint32(0, revision, true);
  machine.memory.writeBytes(ADDRESS, image);
  if (!random.once(4)) cpu.vmclear(POINTER);
  const { kind } = cpu.vmptrld(POINTER);
  if (kind === 'VMsucceed') {
    readEverything(cpu);
    if (random.once(4)) cpu.explain();
  } else if (kind !== 'VMfailInvalid') throw new Error(`VMPTRLD: ${kind}`);
  for (const enter of [() => cpu.vmlaunch(), () => cpu.vmresume()]) {
    const outcome = enter();
    if ((outcome.kind === 'VMentry') !== (cpu.operation === 'non-root')) throw new Error(outcome.kind);
    if (outcome.kind === 'VMentry') cpu.vmexit({ reason: 10, instructionLength: 2 });
  }
  cpu.vmclear(POINTER);
  cpu.vmxoff();
}
