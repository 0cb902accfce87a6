/** MONITOR and MWAIT on several processors: what ends a wait, and what does not. */
import { describe, expect, it } from 'vitest';
import { runMachine } from '../../src/machine/run-machine.ts';
import { processors } from '../support/processors.ts';

const LINE = 0x6_0040;
/** Counts here what follows MWAIT. */
const COUNT = 0x7_0000;

const arm = (address = LINE) => `mov eax, ${address}; xor ecx, ecx; xor edx, edx; monitor`;
const count = `inc dword ptr [${COUNT}]`;
const waiter = (flags = 'cli', extensions = 0) =>
  `${flags}; ${arm()}; mov ecx, ${extensions}; mwait; ${count}; cli; end: jmp end`;
const forever = 'end: jmp end';
/** Gives the other processor time to wait. */
const delay = 'mov ecx, 100; wait: dec ecx; jnz wait';

/** How often the first processor went on while the second one executed `code`. */
function timesGoneOn(code: string, first = waiter()): number {
  const machine = processors([first, `${delay}; ${code}; ${forever}`], { interleaving: { quantum: 20 } });
  runMachine(machine, 2000);
  return machine.memory.read32(COUNT);
}

describe('a store ends MWAIT', () => {
  it.each([
    ['of a byte at the beginning of the line', `mov byte ptr [${LINE}], 1`],
    ['of the last byte of the line', `mov byte ptr [${LINE + 63}], 1`],
    ['that reaches into the line', `mov qword ptr [${LINE - 7}], 1`],
    ['that begins in the line', `mov dword ptr [${LINE + 63}], 1`],
    ['of what is there already', `mov dword ptr [${LINE}], 0`],
    ['that is locked', `mov eax, 1; lock xadd [${LINE}], eax`],
    ['of a string', `mov edi, ${LINE - 64}; mov ecx, 72; xor eax, eax; rep stosb`],
    [
      'of sixteen bytes',
      `mov rax, cr4; or eax, 0x200; mov cr4, rax; xorps xmm0, xmm0; movups [${LINE + 8}], xmm0`,
    ],
    ['of x87 state across the line', `fnsave [${LINE - 20}]`],
  ])('%s', (_, code) => expect(timesGoneOn(code)).toBe(1));

  it.each([
    ['right before the line', `mov byte ptr [${LINE - 1}], 1`],
    ['right behind it', `mov byte ptr [${LINE + 64}], 1`],
    [
      'elsewhere in the page, again and again',
      `mov ecx, 50; more: inc dword ptr [${LINE + 0x100}]; dec ecx; jnz more`,
    ],
    ['in another page at the same offset', `mov dword ptr [${LINE + 0x1000}], 1`],
  ])('but not one %s', (_, code) => expect(timesGoneOn(code)).toBe(0));

  it('a load does not', () => expect(timesGoneOn(`mov eax, [${LINE}]; lea eax, [${LINE}]`)).toBe(0));

  it('between MONITOR and MWAIT, which then goes on', () => {
    const machine = processors([
      `cli; ${arm()}; mov dword ptr [${LINE + 4}], 1; mwait; ${count}; ${forever}`,
    ]);
    runMachine(machine, 100);
    expect(machine.memory.read32(COUNT)).toBe(1);
  });

  it('to the line that was monitored last', () => {
    const moved = `cli; ${arm(LINE + 0x40)}; ${arm()}; mwait; ${count}; ${forever}`;
    expect(timesGoneOn(`mov byte ptr [${LINE + 0x40}], 1`, moved)).toBe(0);
    expect(timesGoneOn(`mov byte ptr [${LINE}], 1`, moved)).toBe(1);
  });

  it('of somebody outside, too', () => {
    const machine = processors([waiter()]);
    expect(runMachine(machine, 100)).toEqual({ kind: 'halted', state: 'MWAIT' });
    machine.memory.write8(LINE + 64, 1);
    expect(runMachine(machine, 100)).toEqual({ kind: 'halted', state: 'MWAIT' });
    machine.memory.writeBytes(LINE - 100, new Uint8Array(101));
    expect(runMachine(machine, 100)).toBeUndefined();
    expect(machine.memory.read32(COUNT)).toBe(1);
  });

  it('of all who wait for it', () => {
    const second = waiter().replaceAll(`${COUNT}`, `${COUNT + 4}`);
    const machine = processors([waiter(), second, `${delay}; mov byte ptr [${LINE}], 1; ${forever}`]);
    runMachine(machine, 10_000);
    expect([machine.memory.read32(COUNT), machine.memory.read32(COUNT + 4)]).toEqual([1, 1]);
  });
});

describe('a processor in MWAIT', () => {
  it('executes nothing, and its time-stamp counter goes on', () => {
    const machine = processors([waiter(), forever], { interleaving: { quantum: 10 } });
    runMachine(machine, 5000);
    expect(machine.cpu(0).processor.executed).toBe(7);
    machine.memory.write8(LINE, 1);
    runMachine(machine, 100);
    expect(machine.cpu(0).get('IA32_TIME_STAMP_COUNTER')).toBeGreaterThan(5000n);
  });

  it('is woken by the store also after a snapshot, here and in another machine', () => {
    const make = () => processors([waiter(), `${delay}; mov byte ptr [${LINE}], 1; ${forever}`]);
    const machine = make();
    runMachine(machine, 50);
    const snapshot = machine.snapshot();
    for (const target of [machine, make()]) {
      target.restore(snapshot);
      expect(target.memory.read32(COUNT)).toBe(0);
      runMachine(target, 2000);
      expect(target.memory.read32(COUNT)).toBe(1);
    }
  });

  it.each([
    ['sti', 0, 1],
    ['cli', 0, 0],
    ['cli', 1, 1],
  ])('%s, ECX = %i: an interrupt ends it %i times', (flags, extensions, times) => {
    // An interrupt that comes to the first processor while it waits.
    const send =
      'mov eax, 0xfee00310; mov dword ptr [rax], 0; mov eax, 0xfee00300; mov dword ptr [rax], 0x40';
    expect(timesGoneOn(send, waiter(flags, extensions))).toBe(times);
  });
});
