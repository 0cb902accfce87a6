/** Guests that sleep until a timer of the PC wakes them, through the 8259 pair and through the I/O APIC. */
import { describe, expect, it } from 'vitest';
import { isProblem } from '../../src/machine/boot/boot-plan.ts';
import { bootMachine } from '../../src/machine/boot/firmware.ts';
import { planMultiboot } from '../../src/machine/boot/multiboot.ts';
import { Machine } from '../../src/machine/machine.ts';
import { type RunEnd, runMachine } from '../../src/machine/run-machine.ts';
import { assemble } from '../support/assemble.ts';
import { multibootElf } from '../support/elf-builder.ts';

const RAM = 16 * 2 ** 20;
const CODE = 0x10_000c;
const IDT = 0x7000;

/** A 32-bit kernel whose IDT sends every vector to `handler`, a label of its code. */
function kernel(code: string): string {
  return `mov esp, 0x6000
    call start
    jmp handler
    start: pop ebp
    mov edi, ${IDT}
    mov ecx, 256
    fill: mov edx, ebp
    mov [edi], dx
    mov word ptr [edi + 2], 8
    mov word ptr [edi + 4], 0x8e00
    shr edx, 16
    mov [edi + 6], dx
    add edi, 8
    loop fill
    mov word ptr [0x6ff0], 0x7ff
    mov dword ptr [0x6ff2], ${IDT}
    lidt [0x6ff0]
    xor ebx, ebx
    ${code}`;
}

const out = (port: number, value: number) => `mov dx, ${port}; mov al, ${value}; out dx, al`;
/** Both 8259A: vectors from 20H and 28H, cascade; only the lines of `mask` open. */
const controllers = (open: number) =>
  [
    [0x20, 0x11],
    [0xa0, 0x11],
    [0x21, 0x20],
    [0xa1, 0x28],
    [0x21, 4],
    [0xa1, 2],
    [0x21, 1],
    [0xa1, 1],
    [0x21, ~open & 0xff],
    [0xa1, (~open >> 8) & 0xff],
  ]
    .map(([port, value]) => out(port as number, value as number))
    .join('\n');
/** Counter 0 of the 8254: mode 2, 11932 ticks, which is 10 ms. */
const TIMER = [out(0x43, 0x34), out(0x40, 11932 & 0xff), out(0x40, 11932 >> 8)].join('\n');
/** Sleeps until the handler has counted five times, then ends with the count. */
const FIVE_TIMES = 'sti; sleep: hlt; cmp ebx, 5; jb sleep; cli; mov eax, ebx; out 0xf4, eax';

function run(code: string): { machine: Machine; end: RunEnd | undefined } {
  const machine = new Machine({ memory: RAM, level: 'complete', devices: {} });
  const plan = planMultiboot(multibootElf(assemble(kernel(code), 32, CODE)), { ramSize: RAM });
  if (isProblem(plan)) throw new Error(plan.problem);
  bootMachine(machine, plan);
  return { machine, end: runMachine(machine, 100_000) };
}

const MILLISECOND = 1_000_000;

describe('the 8254', () => {
  it('wakes through the 8259 pair in virtual wire mode', () => {
    const { machine, end } = run(`${controllers(1)}; ${TIMER}; ${FIVE_TIMES}
      handler: inc ebx; push eax; mov al, 0x20; out 0x20, al; pop eax; iretd`);
    expect(end).toEqual({ kind: 'exit-port', code: 11 });
    expect(Math.round(machine.time / MILLISECOND)).toBe(50);
    expect(machine.executed).toBeLessThan(4000);
  });

  it('wakes through input 2 of the I/O APIC', () => {
    const { machine, end } = run(`${TIMER}
      mov dword ptr [0xfec00000], 0x14; mov dword ptr [0xfec00010], 0x40
      ${FIVE_TIMES}
      handler: inc ebx; mov dword ptr [0xfee000b0], 0; iretd`);
    expect(end).toEqual({ kind: 'exit-port', code: 11 });
    expect(Math.round(machine.time / MILLISECOND)).toBe(50);
  });

  it('wakes nobody while its line is masked everywhere', () => {
    expect(run(`${TIMER}; sti; hlt; handler: iretd`).end).toEqual({ kind: 'halted', state: 'HLT' });
  });

  it('wakes a processor with interrupts disabled as NMI', () => {
    const { end } = run(`${TIMER}
      mov dword ptr [0xfec00000], 0x14; mov dword ptr [0xfec00010], 0x400
      cli; sleep: hlt; cmp ebx, 3; jb sleep; mov eax, ebx; out 0xf4, eax
      handler: inc ebx; iretd`);
    expect(end).toEqual({ kind: 'exit-port', code: 7 });
  });
});

describe('the real-time clock', () => {
  it('wakes through line 8 of the 8259 pair', () => {
    const { machine, end } = run(`${controllers(0x104)}
      ${out(0x70, 0x0b)}; ${out(0x71, 0x42)}
      ${FIVE_TIMES}
      handler: inc ebx; push eax
      mov al, 0x0c; out 0x70, al; in al, 0x71
      mov al, 0x20; out 0xa0, al; out 0x20, al; pop eax; iretd`);
    expect(end).toEqual({ kind: 'exit-port', code: 11 });
    // 1024 Hz.
    expect(Math.round(machine.time / 976_562)).toBe(5);
  });
});

describe('LINT0', () => {
  it('in fixed delivery mode takes the output of the 8259 pair as its own interrupt', () => {
    const { end } = run(`${controllers(1)}; ${TIMER}
      mov dword ptr [0xfee00350], 0x55
      ${FIVE_TIMES}
      handler: inc ebx; mov dword ptr [0xfee000b0], 0
      push eax; mov al, 0x0c; out 0x20, al; in al, 0x20; mov al, 0x20; out 0x20, al; pop eax; iretd`);
    expect(end).toEqual({ kind: 'exit-port', code: 11 });
  });

  it('is the INTR pin of a processor that has disabled its APIC', () => {
    const { end } = run(`${controllers(1)}; ${TIMER}
      mov ecx, 0x1b; mov eax, 0xfee00100; xor edx, edx; wrmsr
      ${FIVE_TIMES}
      handler: inc ebx; push eax; mov al, 0x20; out 0x20, al; pop eax; iretd`);
    expect(end).toEqual({ kind: 'exit-port', code: 11 });
  });
});
