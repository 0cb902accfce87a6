/** A processor that executes machine code: one CPU, RAM, 64-bit, 32-bit or 16-bit mode without paging where that exists. */
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import { Machine, type MachineOptions } from '../../src/machine/machine.ts';
import { assemble } from './assemble.ts';

export const CODE = 0x1_0000;
export const STACK_TOP = 0x9_0000;
const RAM = 0x10_0000;

export interface CodeOptions extends MachineOptions {
  /** Size of the code: 16 is real-address mode, 32 flat protected mode, 64 flat 64-bit mode. */
  readonly bits?: 16 | 32 | 64;
}

/** A machine whose CPU 0 is about to execute at {@link CODE}. */
export function codeMachine(options: CodeOptions = {}): Machine {
  const { bits = 64, ...rest } = options;
  const machine = new Machine({ memory: RAM, ...rest });
  const cpu = machine.cpu(0);
  if (bits === 64) {
    cpu.enterLongMode();
    // 64-bit mode needs paging; without PG translation is the identity, which is enough for instructions.
    cpu.set('CR0', cpu.get('CR0') & ~(1n << 31n));
  } else if (bits === 32) {
    cpu.set('CR0', 0x11n);
    for (const segment of ['CS', 'SS', 'DS', 'ES', 'FS', 'GS'] as const) {
      cpu.set(`${segment}.selector`, segment === 'CS' ? 0x10n : 0x18n);
      cpu.set(`${segment}.base`, 0n);
      cpu.set(`${segment}.limit`, 0xffff_ffffn);
      cpu.set(`${segment}.accessRights`, segment === 'CS' ? 0xc09bn : 0xc093n);
    }
  } else {
    cpu.set('CS.selector', 0n);
    cpu.set('CS.base', 0n);
  }
  cpu.set('RSP', BigInt(bits === 16 ? 0xf000 : STACK_TOP));
  if (bits === 16) {
    cpu.set('CS.selector', BigInt(CODE >> 4));
    cpu.set('CS.base', BigInt(CODE));
    cpu.set('RIP', 0n);
  } else cpu.set('RIP', BigInt(CODE));
  return machine;
}

/** Puts machine code or assembly at {@link CODE}; answers its length. */
export function loadCode(machine: Machine, code: string | Uint8Array, bits: 16 | 32 | 64 = 64): number {
  const bytes = typeof code === 'string' ? assemble(code, bits, bits === 16 ? 0 : CODE) : code;
  machine.memory.writeBytes(CODE, bytes);
  return bytes.length;
}

/** Executes `instructions` instructions of `code`. */
export function execute(
  code: string | Uint8Array,
  instructions: number,
  options: CodeOptions = {},
): LogicalProcessor {
  const machine = codeMachine(options);
  loadCode(machine, code, options.bits ?? 64);
  const cpu = machine.cpu(0);
  cpu.run(instructions);
  return cpu;
}
