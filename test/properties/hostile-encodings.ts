/** Encodings that need not be those of fields, at every entrance of VMREAD and VMWRITE. */
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import type { Machine, MachineSnapshot } from '../../src/machine/machine.ts';
import { decodeEncoding } from '../../src/vmcs/encoding.ts';
import { findField } from '../../src/vmcs/field-names.ts';
import { FIELDS } from '../../src/vmcs/fields.ts';
import { freshRegion, rootMachine, setMode, vmcsRegion } from '../support/machine.ts';
import type { Draw } from './campaign.ts';

const [RAX, RCX, RDX] = [0, 1, 2];
const READ_ONLY_ERROR = 13;
const UNSUPPORTED_ERROR = 12;

interface Prepared {
  readonly machine: Machine;
  readonly fresh: MachineSnapshot;
}

const machines = new Map<string, Prepared>();

/** Two processors alike, each with a current VMCS. */
function prepared(profile: string): readonly [LogicalProcessor, LogicalProcessor] {
  let found = machines.get(profile);
  if (found === undefined) {
    const machine = rootMachine({ profile, cpus: 2, hazards: 'ignore' });
    for (const cpu of machine.processors) {
      freshRegion(cpu, vmcsRegion(cpu.index));
      cpu.vmptrld(BigInt(vmcsRegion(cpu.index)));
    }
    found = { machine, fresh: machine.snapshot() };
    machines.set(profile, found);
  }
  found.machine.restore(found.fresh);
  return [found.machine.cpu(0), found.machine.cpu(1)];
}

function encoding(random: Draw): bigint {
  switch (random.below(4)) {
    case 0:
      return random.interesting();
    case 1:
      return BigInt(random.below(0x8000));
    default: {
      // A field, perhaps with one bit turned.
      const field = BigInt(random.pick(FIELDS).encoding);
      return random.once(2) ? field : field ^ (1n << BigInt(random.below(random.once(4) ? 64 : 16)));
    }
  }
}

function same(what: string, left: unknown, right: unknown): void {
  if (left !== right) throw new Error(`${what}: ${String(left)} is not ${String(right)}`);
}

/** VMREAD and VMWRITE by number and by register agree with each other and with the catalogue. */
export function encodingTrial(random: Draw, profile: string): void {
  const [one, two] = prepared(profile);
  const number = encoding(random);
  const value = random.interesting();
  const wide = !random.once(4);
  const seen = wide ? number : BigInt.asUintN(32, number);
  for (const cpu of [one, two]) {
    if (!wide) setMode(cpu, 'protected');
    cpu.set('RAX', number);
    cpu.set('RCX', value);
  }
  const written = two.vmwrite(number, value);
  same('VMWRITE', JSON.stringify(one.vmwriteRegister(RAX, RCX)), JSON.stringify(written));
  const read = two.vmread(number);
  same('VMREAD', JSON.stringify(one.vmreadRegister(RAX, RDX)), JSON.stringify(read.outcome));
  // Again, perhaps on the fast path.
  one.processor.quads[RAX] = number;
  same('VMREAD again', JSON.stringify(one.vmreadRegister(RAX, RDX)), JSON.stringify(read.outcome));
  const succeeded = read.outcome.kind === 'VMsucceed';
  if (succeeded) same('value read', one.get('RDX'), read.value);

  const known = seen < 0x8000n ? decodeEncoding(Number(seen)) : undefined;
  const reference = known && findField(Number(seen));
  const exists = reference !== undefined && one.capabilities.fieldExists[reference.field.slot] === 1;
  same('exists', succeeded, exists);
  if (!exists || reference === undefined) {
    same('error', JSON.stringify(written), JSON.stringify({ kind: 'VMfailValid', error: UNSUPPORTED_ERROR }));
    return;
  }
  const { field, access } = reference;
  if (written.kind === 'VMfailValid') {
    same('error', written.error, READ_ONLY_ERROR);
    same('type', field.type, 'exit-information');
    return;
  }
  const bits = access === 'high' || !wide ? Math.min(field.bits, 32) : field.bits;
  same('VMREAD after VMWRITE', read.value, BigInt.asUintN(bits, value));
}
