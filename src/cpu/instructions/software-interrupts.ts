/** Software interrupts and exceptions (SDM vol. 2A: INT n, INT1, INT3, INTO). */
import { EventType } from '../event.ts';
import { deliverSoftware } from '../events.ts';
import { raiseWithCode, Vector } from '../exceptions.ts';
import { materialise } from '../flags.ts';
import { type Execute, Next } from '../instruction.ts';
import { Redirection, redirectionOf } from '../interrupt-vectors.ts';
import { Mode } from '../mode.ts';
import type { OpcodeRow } from '../opcode-row.ts';
import { RFLAGS } from '../registers.ts';

const IOPL = 3 << RFLAGS.IOPL;
const OF = 1 << RFLAGS.OF;

/** In virtual-8086 mode with IOPL below 3 only what is redirected to the 16-bit vectors may happen. */
const int: Execute = (cpu, i) => {
  const vector = i.immediate & 0xff;
  if (cpu.mode === Mode.Virtual8086 && (materialise(cpu) & IOPL) !== IOPL) {
    const redirection = redirectionOf(cpu, vector);
    if (redirection === Redirection.Fault) return Next.Fault;
    if (redirection === Redirection.ToGates) return raiseWithCode(cpu, Vector.GP, 0);
  }
  return deliverSoftware(cpu, i, EventType.SoftwareInterrupt, vector);
};

const int1: Execute = (cpu, i) => deliverSoftware(cpu, i, EventType.PrivilegedSoftwareException, Vector.DB);

const int3: Execute = (cpu, i) => deliverSoftware(cpu, i, EventType.SoftwareException, Vector.BP);

const into: Execute = (cpu, i) =>
  (materialise(cpu) & OF) !== 0
    ? deliverSoftware(cpu, i, EventType.SoftwareException, Vector.OF)
    : Next.Sequential;

export const SOFTWARE_INTERRUPT_ROWS: readonly OpcodeRow[] = [
  { opcode: 'CD', mnemonic: 'INT', operands: 'Ib', execute: int, ends: true },
  { opcode: 'F1', mnemonic: 'INT1', operands: '', execute: int1, ends: true },
  { opcode: 'CC', mnemonic: 'INT3', operands: '', execute: int3, ends: true },
  { opcode: 'CE', mnemonic: 'INTO', operands: '', execute: into, mode: 'no64' },
];
