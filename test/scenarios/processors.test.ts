/** Guests that start further processors, and interrupts between processors, in machine code. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isProblem } from '../../src/machine/boot/boot-plan.ts';
import { bootMachine } from '../../src/machine/boot/firmware.ts';
import { planMultiboot } from '../../src/machine/boot/multiboot.ts';
import { Machine, type MachineOptions } from '../../src/machine/machine.ts';
import { type RunEnd, runMachine } from '../../src/machine/run-machine.ts';
import { runs } from '../properties/settings.ts';
import { assemble } from '../support/assemble.ts';
import { multibootElf } from '../support/elf-builder.ts';
import { processors, timesTaken } from '../support/processors.ts';

const RAM = 16 * 2 ** 20;
const CODE = 0x10_000c;
const TRAMPOLINE = 0x8000;

/** Runs to the end, but no more than `most` instructions. */
function finish(machine: Machine, most = 200_000): RunEnd | undefined {
  return runMachine(machine, most);
}

/** A kernel of 32-bit code, with real-mode code at TRAMPOLINE. */
function booted(code: string, trampoline: string, options: MachineOptions = {}): Machine {
  const machine = new Machine({ memory: RAM, level: 'complete', devices: {}, ...options });
  const plan = planMultiboot(multibootElf(assemble(code, 32, CODE)), { ramSize: RAM });
  if (isProblem(plan)) throw new Error(plan.problem);
  bootMachine(machine, plan);
  machine.memory.writeBytes(TRAMPOLINE, assemble(trampoline, 16, 0));
  return machine;
}

/** INIT, then a start-up IPI with the page of the trampoline, to all but the sender. */
const START_ALL = `mov dword ptr [0xfee00300], 0xc4500
  mov dword ptr [0xfee00300], 0xc4608`;
const exitWith = (value: string) => `mov eax, ${value}; out 0xf4, eax`;

describe('further processors', () => {
  const COUNT_ME = 'lock inc dword ptr [0x9000]; again: cli; hlt; jmp again';

  it.each([2, 3, 8, 17])('start by INIT and SIPI: %i CPUs', (cpus) => {
    const code = `${START_ALL}
      wait: cmp dword ptr [0x9000], ${cpus - 1}; jne wait
      ${exitWith('[0x9000]')}`;
    const machine = booted(code, COUNT_ME, { cpus });
    expect(finish(machine)).toEqual({ kind: 'exit-port', code: 2 * (cpus - 1) + 1 });
    expect(machine.cpu(cpus - 1).get('CS.base')).toBe(BigInt(TRAMPOLINE));
  });

  it('do nothing before, and a SIPI alone starts those that wait for one', () => {
    expect(finish(booted('cli; hlt', COUNT_ME, { cpus: 2 }))).toEqual({ kind: 'halted', state: 'HLT' });
    const machine = booted('mov dword ptr [0xfee00300], 0xc4608; cli; hlt', COUNT_ME, { cpus: 2 });
    finish(machine);
    expect(machine.memory.read32(0x9000)).toBe(1);
  });

  it('a second SIPI is lost, a second INIT starts them anew', () => {
    const delay = 'mov ecx, 3000; d: loop d;';
    const again = `${START_ALL}; ${delay} mov dword ptr [0xfee00300], 0xc4608; ${delay.replaceAll('d:', 'e:').replace('loop d', 'loop e')} hlt`;
    const machine = booted(again, COUNT_ME, { cpus: 2 });
    finish(machine);
    expect(machine.memory.read32(0x9000)).toBe(1);
    const twice = booted(
      `${START_ALL}; mov ecx, 3000; a: loop a; ${START_ALL}; mov ecx, 3000; b: loop b; cli; hlt`,
      COUNT_ME,
      { cpus: 2 },
    );
    finish(twice);
    expect(twice.memory.read32(0x9000)).toBe(2);
  });

  it('go on in a 32-bit mode of their own and answer an interrupt of the first one', () => {
    // The AP loads a flat GDT, enters protected mode, stores its APIC identifier and waits for an NMI.
    const trampoline = `lgdt [0x100]; mov eax, cr0; or al, 1; mov cr0, eax
      .byte 0x66, 0xea; .long 0x8080; .word 8`;
    const machine = booted(
      `${START_ALL}
       wait: cmp dword ptr [0x9000], 0; je wait
       ${exitWith('[0x9000]')}`,
      trampoline,
      { cpus: 2 },
    );
    const { memory } = machine;
    memory.writeBytes(
      TRAMPOLINE + 0x80,
      assemble(
        'mov ax, 16; mov ds, ax; mov eax, [0xfee00020]; shr eax, 24; mov [0x9000], eax; cli; hlt',
        32,
        TRAMPOLINE + 0x80,
      ),
    );
    memory.write16(TRAMPOLINE + 0x100, 23);
    memory.write32(TRAMPOLINE + 0x102, TRAMPOLINE + 0x110);
    memory.write64(TRAMPOLINE + 0x118, 0x00cf_9b00_0000_ffffn);
    memory.write64(TRAMPOLINE + 0x120, 0x00cf_9300_0000_ffffn);
    // In real mode DS is 0 at first; the operand of LGDT is in the trampoline's own segment.
    memory.writeBytes(TRAMPOLINE, assemble(`mov ax, cs; mov ds, ax; ${trampoline}`, 16, 0));
    expect(finish(machine)).toEqual({ kind: 'exit-port', code: 3 });
  });

  it('a triple fault of one of them resets the machine', () => {
    const machine = booted(`${START_ALL}; again: jmp again`, 'lidt [0x7000]; int3', { cpus: 2 });
    expect(finish(machine)).toEqual({ kind: 'reset', by: 'triple fault' });
  });
});

describe('interrupts between two processors', () => {
  const FIRST = 0x20;
  const LAST = 0xef;
  /** Sends every vector once to `target`, pausing for its handlers where `waits`. */
  const sender = (target: number, order: string) => `
    sti
    mov edi, ${LAST - FIRST + 1}
    ${order}
    next:
    mov eax, 0xfee00310; mov dword ptr [rax], ${target << 24}
    mov eax, 0xfee00300; mov [rax], ebx
    add ebx, edx
    dec edi
    jnz next
    again: hlt
    jmp again`;
  const UP = `mov ebx, ${FIRST}; mov edx, 1`;
  const DOWN = `mov ebx, ${LAST}; mov edx, -1`;

  it('arrive exactly once, whatever the interleaving', () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 1, max: 300 }), fc.boolean(), (seed, quantum, up) => {
        const machine = processors([sender(1, up ? UP : DOWN), sender(0, DOWN)], {
          interleaving: { seed, quantum },
        });
        expect(finish(machine)).toEqual({ kind: 'halted', state: 'HLT' });
        for (const cpu of machine.processors) {
          for (let vector = FIRST; vector <= LAST; vector++) {
            expect([vector, timesTaken(machine, cpu, vector)]).toEqual([vector, 1]);
          }
        }
      }),
      runs(15),
    );
  });

  it('and the run repeats to the bit with its seed', () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 1, max: 300 }), (seed, quantum) => {
        const [first, second] = [0, 1].map(() => {
          const machine = processors([sender(1, UP), sender(0, DOWN)], { interleaving: { seed, quantum } });
          finish(machine);
          return machine.snapshot();
        });
        expect(second).toEqual(first);
      }),
      runs(3),
    );
  });

  it('a ping is answered by a pong as often as it is sent', () => {
    const player = (other: number, serves: boolean) => `
      mov eax, 0xfee00310; mov dword ptr [rax], ${other << 24}
      xor edi, edi
      ${serves ? 'jmp serve' : ''}
      wait:
      cli
      cmp [${0x5_0000 + 1024 * (1 - other) + 4 * 0x40}], edi
      jne serve
      sti
      hlt
      jmp wait
      serve:
      inc edi
      cmp edi, 200
      ja done
      mov eax, 0xfee00300; mov dword ptr [rax], 0x40
      sti
      jmp ${serves ? 'waitserved' : 'wait'}
      waitserved:
      cli
      lea ecx, [edi - 1]
      cmp [${0x5_0000 + 1024 * (1 - other) + 4 * 0x40}], ecx
      ja serve
      sti
      hlt
      jmp waitserved
      done: cli; hlt`;
    for (const interleaving of [{ quantum: 1000 }, { quantum: 3, seed: 1 }, { quantum: 60, seed: 2 }]) {
      const machine = processors([player(1, true), player(0, false)], { interleaving });
      expect(finish(machine)?.kind).toBe('halted');
      expect(machine.processors.map((cpu) => timesTaken(machine, cpu, 0x40))).toEqual([200, 200]);
    }
  });

  it('NMIs and interrupts wake from HLT', () => {
    const machine = processors([
      'mov ecx, 3000; d: loop d; mov eax, 0xfee00310; mov dword ptr [rax], 0x1000000; mov eax, 0xfee00300; mov dword ptr [rax], 0x400; cli; hlt',
      'cli; hlt; mov ebx, 5; hlt',
    ]);
    machine.memory.writeBytes(0x2_0020, assemble('iretq', 64));
    finish(machine);
    expect(machine.cpu(1).get('RBX')).toBe(5n);
  });
});
