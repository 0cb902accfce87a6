/** Several processors that execute 64-bit code over one GDT and one IDT, with local APICs enabled. */

import type { RegisterName } from '../../src/cpu/registers.ts';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { storeApic } from './apic.ts';
import { assemble } from './assemble.ts';
import { CODE, type CodeOptions } from './code.ts';
import { HANDLERS, world } from './tables.ts';

/** Counts of interrupts: a doubleword for each vector, 1 KByte for each CPU. */
export const COUNTS = 0x5_0000;
const COMMON = 0x4_0000;
const STACKS = 0x9_0000;

const COPIED: readonly RegisterName[] = [
  'CR0',
  'CR4',
  'IA32_EFER',
  ...(['CS', 'SS', 'DS', 'ES', 'FS', 'GS', 'TR', 'LDTR'] as const).flatMap((s): RegisterName[] => [
    `${s}.selector`,
    `${s}.base`,
    `${s}.limit`,
    `${s}.accessRights`,
  ]),
  'GDTR.base',
  'GDTR.limit',
  'IDTR.base',
  'IDTR.limit',
];

/** Every vector from 32 on is counted for the CPU that takes it, and ended. */
const COUNTING_HANDLER = `
  push rax
  push rbx
  mov rbx, [rsp + 16]
  mov eax, 0xfee00020
  mov eax, [rax]
  shr eax, 24
  shl eax, 8
  add eax, ebx
  inc dword ptr [rax * 4 + ${COUNTS}]
  mov eax, 0xfee000b0
  mov dword ptr [rax], 0
  pop rbx
  pop rax
  add rsp, 8
  iretq`;

/** A machine with a processor for each of `codes`, about to execute it; code n is at CODE + n × 4096. */
export function processors(codes: readonly string[], options: CodeOptions = {}): Machine {
  const { machine } = world('', { devices: {}, level: 'complete', ...options, cpus: codes.length });
  const first = machine.cpu(0);
  machine.memory.writeBytes(COMMON, assemble(COUNTING_HANDLER, 64, COMMON));
  for (let vector = 32; vector < 256; vector++) {
    const at = HANDLERS + 16 * vector;
    // PUSH imm32, JMP rel32.
    const jump = COMMON - (at + 10);
    const bytes = new Uint8Array(10);
    const view = new DataView(bytes.buffer);
    view.setUint8(0, 0x68);
    view.setInt32(1, vector, true);
    view.setUint8(5, 0xe9);
    view.setInt32(6, jump, true);
    machine.memory.writeBytes(at, bytes);
  }
  codes.forEach((code, index) => {
    const cpu = machine.cpu(index);
    const at = CODE + 0x1000 * index;
    machine.memory.writeBytes(at, assemble(code, 64, at));
    for (const name of COPIED) cpu.set(name, first.get(name));
    cpu.set('RIP', BigInt(at));
    cpu.set('RSP', BigInt(STACKS + 0x1000 * (index + 1)));
    storeApic(cpu, 'SpuriousInterruptVector', 0x1ff);
  });
  return machine;
}

/** How often `cpu` took `vector`. */
export function timesTaken(machine: Machine, cpu: LogicalProcessor, vector: number): number {
  return machine.memory.read32(COUNTS + 1024 * cpu.index + 4 * vector);
}
