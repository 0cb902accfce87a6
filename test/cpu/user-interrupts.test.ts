import { describe, expect, it } from 'vitest';
import type { RegisterName } from '../../src/cpu/registers.ts';
import { runMachine } from '../../src/machine/run-machine.ts';
import { assemble } from '../support/assemble.ts';
import { CODE } from '../support/code.ts';
import { requestInterrupt } from '../support/guest-events.ts';
import { processors } from '../support/processors.ts';
import { SingleInstruction, type State } from '../support/single-instruction.ts';
import { handler, Selector, type World, world } from '../support/tables.ts';
import {
  CLUI,
  CR4_UINTR,
  SENDUIPI_RAX,
  STUI,
  TESTUI,
  UIRET,
  writeDescriptor,
  writeTarget,
} from '../support/user-interrupts.ts';

const HANDLER = 0x2_8000;
const STACK = 0x6_0000n;
const UPID = 0x5_0000;
const UITT = 0x5_1000;
const GP = 13;

type Registers = Partial<Record<RegisterName, bigint>>;

function set({ cpu }: Pick<World, 'cpu'>, registers: Registers): void {
  for (const [name, value] of Object.entries(registers)) cpu.set(name as RegisterName, value as bigint);
}

const RING3: Registers = {
  'CS.selector': BigInt(Selector.Code3),
  'CS.accessRights': 0xa0fbn,
  'SS.selector': BigInt(Selector.Data3),
  'SS.accessRights': 0xc0f3n,
};
const ON: Registers = {
  IA32_UINTR_HANDLER: BigInt(HANDLER),
  IA32_UINTR_PD: BigInt(UPID),
  IA32_UINTR_TT: BigInt(UITT) | 1n,
  UIF: 1n,
  RSP: STACK,
  RFLAGS: 0x202n,
};

/** User code with user interrupts, of which `requests` wait. */
function user(code: string, requests: bigint, registers: Registers = {}): World {
  const w = world(code, { level: 'complete' });
  set(w, { CR4: w.cpu.get('CR4') | CR4_UINTR, ...RING3, ...ON, ...registers });
  if (w.cpu.wrmsr(0x985, requests) !== 'ok') throw new Error('IA32_UINTR_RR does not exist');
  return w;
}

const quad = ({ machine }: World, address: bigint) => machine.memory.read64(Number(address));
const runs = (w: World, count = 1) => {
  w.cpu.run(count);
  return w.cpu.get('RIP');
};

describe('delivery of user interrupts (SDM vol. 3A §9.4.2)', () => {
  it('pushes RSP, RFLAGS, RIP and the highest vector on an aligned stack, and clears UIF, TF and the request', () => {
    const w = user('nop', (1n << 63n) | (1n << 5n) | 1n, { RSP: STACK - 3n, RFLAGS: 0xad7n });
    expect(runs(w)).toBe(BigInt(HANDLER));
    const rsp = STACK - 0x10n - 32n;
    expect(w.cpu.get('RSP')).toBe(rsp);
    expect([0n, 8n, 16n, 24n].map((at) => quad(w, rsp + at))).toEqual([
      63n,
      BigInt(CODE),
      0xad7n,
      STACK - 3n,
    ]);
    expect(w.cpu.get('RFLAGS')).toBe(0xad7n);
    expect([w.cpu.get('UIF'), w.cpu.get('IA32_UINTR_RR'), w.cpu.get('IA32_UINTR_RR')]).toEqual([
      0n,
      33n,
      33n,
    ]);
    expect(w.cpu.get('CS.selector')).toBe(BigInt(Selector.Code3));
  });

  it.each([
    ['subtracts UISTACKADJUST from RSP', 0x80n, STACK - 0x80n],
    ['loads RSP with it', 0x5_5009n, 0x5_5000n],
  ])('%s', (_, adjust, top) => {
    const w = user('nop', 1n << 32n, { IA32_UINTR_STACKADJUST: adjust });
    expect(runs(w)).toBe(BigInt(HANDLER));
    expect(w.cpu.get('RSP')).toBe(top - 32n);
    expect(quad(w, top - 32n)).toBe(32n);
    expect(quad(w, top - 8n)).toBe(STACK);
  });

  it.each<[string, Registers]>([
    ['with UIF = 0', { UIF: 0n }],
    ['at CPL 0', { 'CS.accessRights': 0xa09bn, 'SS.accessRights': 0xc093n }],
    ['in compatibility mode', { 'CS.accessRights': 0xc0fbn }],
    ['with CR4.UINTR = 0', { CR4: 0x20n }],
    ['with blocking by MOV SS', { blockingByMovSs: 1n }],
  ])('does not come %s', (_, registers) => {
    expect(runs(user('nop; nop', 1n, registers))).toBe(BigInt(CODE) + 1n);
  });

  it('comes when what held it back ends', () => {
    expect(runs(user(`${STUI} nop`, 1n, { UIF: 0n }), 2)).toBe(BigInt(HANDLER));
    expect(runs(user('nop; nop', 1n, { blockingByMovSs: 1n }), 2)).toBe(BigInt(HANDLER));
    expect(runs(user('nop', 1n, { blockingBySti: 1n }))).toBe(BigInt(HANDLER));
    // A return to CPL 3.
    const w = user('.byte 0x48, 0x0f, 0x07', 1n, { 'CS.accessRights': 0xa09bn, 'SS.accessRights': 0xc093n });
    set(w, { IA32_EFER: w.cpu.get('IA32_EFER') | 1n, RCX: 0x1_8000n, R11: 2n, IA32_STAR: 0x18n << 48n });
    w.cpu.run(2);
    expect([w.cpu.get('RIP'), quad(w, STACK - 24n)]).toEqual([BigInt(HANDLER), 0x1_8000n]);
  });

  it('comes after ordinary interrupts, and debug traps', () => {
    const w = user('nop', 1n);
    requestInterrupt(w.cpu, 0x40);
    expect(runs(w)).toBe(BigInt(handler(0x40)));
    const single = user('nop; nop', 1n, { UIF: 0n, RFLAGS: 0x302n });
    single.cpu.run(1);
    set(single, { UIF: 1n });
    expect(runs(single)).toBe(BigInt(handler(1)));
  });

  it.each<[string, Registers, number]>([
    ['a handler that is not canonical', { IA32_UINTR_HANDLER: 1n << 60n }, GP],
    ['a stack that is not', { RSP: 1n << 60n }, 12],
    ['a stack that begins not to be', { RSP: 0x8000_0000_0010n }, 12],
  ])('%s faults and leaves the interrupt pending', (_, registers, vector) => {
    const w = user('nop', 4n, registers);
    expect(runs(w)).toBe(BigInt(handler(vector)));
    expect([w.cpu.get('IA32_UINTR_RR'), w.cpu.get('UIF')]).toEqual([4n, 1n]);
    const rsp = w.cpu.get('RSP');
    const [code, rip, , flags, old] = [0n, 8n, 16n, 24n, 32n].map((at) => quad(w, rsp + at));
    expect([code, rip, old]).toEqual([0n, BigInt(CODE), registers.RSP ?? STACK]);
    expect((flags as bigint) & 0x1_0000n).toBe(0x1_0000n);
  });

  it('UIRET goes back, loads the flags of user code alone, and lets the next one come', () => {
    const w = user('nop; nop', 3n, { RFLAGS: 0x202n });
    // The handler drops the vector and gives CF, IF = 0, IOPL = 3.
    w.machine.memory.writeBytes(
      HANDLER,
      assemble(`add rsp, 8; mov qword ptr [rsp + 8], 0x3001; ${UIRET}`, 64, HANDLER),
    );
    expect(runs(w, 4)).toBe(BigInt(CODE));
    expect([w.cpu.get('RSP'), w.cpu.get('RFLAGS'), w.cpu.get('UIF')]).toEqual([STACK, 0x203n, 1n]);
    expect(runs(w)).toBe(BigInt(HANDLER));
    expect([w.cpu.get('IA32_UINTR_RR'), quad(w, STACK - 32n)]).toEqual([0n, 0n]);
    expect(runs(w, 4)).toBe(BigInt(CODE) + 1n);
  });
});

describe('instructions of user interrupts', () => {
  const ENABLED: State = { CR4: CR4_UINTR | 0x20n, ...(ON as State) };
  const code = (text: string) => assemble(text, 64, CODE);
  const one = () => new SingleInstruction({ level: 'complete' });

  it('CLUI, STUI and TESTUI', () => {
    const cpu = one();
    cpu.run(code(STUI), { ...ENABLED, UIF: 0n });
    expect(cpu.get('UIF')).toBe(1n);
    cpu.run(code(TESTUI), { RFLAGS: 0x8d6n });
    expect(cpu.flags()).toBe(3);
    cpu.run(code(CLUI));
    expect(cpu.get('UIF')).toBe(0n);
    cpu.run(code(TESTUI), { RFLAGS: 0x8d7n });
    expect(cpu.flags()).toBe(2);
  });

  it.each([UIRET, TESTUI, CLUI, STUI, SENDUIPI_RAX])('%s needs CR4.UINTR and 64-bit mode', (text) => {
    expect(one().run(code(text), { ...ENABLED, CR4: 0x20n }).vector).toBe(6);
    const compatibility = new SingleInstruction({ level: 'complete', bits: 32 });
    expect(compatibility.run(code(text), { CR4: CR4_UINTR }).vector).toBe(6);
    expect(
      new SingleInstruction({ level: 'complete', profile: 'skylake' }).run(code(text), ENABLED).vector,
    ).toBe(6);
  });

  it('UIRET faults on a return address that is not canonical', () => {
    const cpu = one();
    cpu.store(0x6_0000, 8, 1n << 50n);
    expect(cpu.run(code(UIRET), { ...ENABLED, UIF: 0n, RSP: 0x6_0000n })).toMatchObject({
      vector: GP,
      errorCode: 0,
    });
    expect([cpu.get('UIF'), cpu.get('RSP')]).toEqual([0n, 0x6_0000n]);
    expect(cpu.run(code(UIRET), { RSP: 1n << 60n }).vector).toBe(12);
  });
});

describe('SENDUIPI', () => {
  const RAX = 2n;
  function sender(registers: State = {}) {
    const cpu = new SingleInstruction({ level: 'complete' });
    const sent: string[] = [];
    cpu.cpu.localApic = {
      ...cpu.cpu.localApic,
      sendFixed: (vector, destination) => sent.push(`${vector.toString(16)} to ${destination.toString(16)}`),
    };
    writeTarget(cpu.machine.memory, UITT, 2, 37, UPID);
    writeDescriptor(cpu.machine.memory, UPID, { vector: 0xec, destination: 0x0500, requests: 1n });
    cpu.set({ CR4: CR4_UINTR | 0x20n, ...ON, IA32_UINTR_MISC: 2n, RAX, ...registers } as State);
    const send = () => cpu.run(assemble(SENDUIPI_RAX, 64, CODE));
    const { memory } = cpu.machine;
    return { cpu, sent, send, memory };
  }

  it('posts the vector and notifies once', () => {
    const { send, sent, memory } = sender();
    expect(send().vector).toBeUndefined();
    expect(memory.read64(UPID)).toBe(0x0000_0500_00ec_0001n);
    expect(memory.read64(UPID + 8)).toBe((1n << 37n) | 1n);
    expect(send().vector).toBeUndefined();
    expect(sent).toEqual(['ec to 500']);
  });

  it.each([1, 2, 3])('sends nothing while ON or SN is 1 (%i)', (control) => {
    const { send, sent, memory } = sender();
    writeDescriptor(memory, UPID, { vector: 0xec, control });
    send();
    expect([memory.read64(UPID + 8), memory.read32(UPID) & 3, sent.length]).toEqual([1n << 37n, control, 0]);
  });

  it.each<[string, number, bigint]>([
    ['an entry that is not valid', UITT + 32, 0x2500n],
    ['reserved bits of an entry', UITT + 32, 0x2503n],
    ['a vector above 63', UITT + 32, 0x4001n],
    ['reserved bits behind the vector', UITT + 32, 0x1_0000_2501n],
    ['a descriptor that is not aligned', UITT + 40, BigInt(UPID) + 32n],
    ['a descriptor address that is not canonical', UITT + 40, 1n << 60n],
    ['reserved bits of the descriptor', UPID, 0xec_0004n],
    ['others', UPID, 0x1ec_0000n],
  ])('refuses %s with #GP(0)', (_, address, value) => {
    const { send, sent, memory } = sender();
    memory.write64(address, value);
    expect(send()).toMatchObject({ vector: GP, errorCode: 0 });
    expect([memory.read64(UPID + 8), sent.length]).toEqual([1n, 0]);
  });

  it('refuses an index above UITTSZ, and is undefined without IA32_UINTR_TT[0]', () => {
    expect(sender({ RAX: 3n }).send()).toMatchObject({ vector: GP, errorCode: 0 });
    expect(sender({ RAX: 1n << 32n }).send()).toMatchObject({ vector: GP, errorCode: 0 });
    expect(sender({ IA32_UINTR_TT: BigInt(UITT) }).send().vector).toBe(6);
  });
});

describe('notifications (SDM vol. 3A §9.5)', () => {
  /** An interrupt with `vector` that waits for a processor with UINV = ECH. */
  function notified(vector: number, registers: Registers = {}, code = 'nop; nop') {
    const w = user(code, 0n, { UIF: 0n, IA32_UINTR_MISC: 0xec_0000_0000n, ...registers });
    let ends = 0;
    w.cpu.processor.localApic = { ...w.cpu.processor.localApic, writeEoi: () => ends++ };
    writeDescriptor(w.machine.memory, UPID, { vector, control: 3, requests: 0x8000_0001_0000_0000n });
    requestInterrupt(w.cpu, vector);
    return { ...w, ends: () => ends };
  }

  it('move requests to UIRR and end the interrupt; nothing is delivered through the IDT', () => {
    const w = notified(0xec);
    set(w, { IA32_UINTR_RR: 1n });
    expect(runs(w)).toBe(BigInt(CODE));
    expect([w.ends(), w.cpu.get('IA32_UINTR_RR')]).toEqual([1, 0x8000_0001_0000_0001n]);
    expect([w.machine.memory.read32(UPID) & 3, w.machine.memory.read64(UPID + 8)]).toEqual([2, 0n]);
    set(w, { UIF: 1n });
    expect(runs(w)).toBe(BigInt(HANDLER));
    expect(quad(w, w.cpu.get('RSP'))).toBe(63n);
  });

  it.each<[string, number, Registers]>([
    ['of another vector', 0x31, {}],
    ['with CR4.UINTR = 0', 0xec, { CR4: 0x20n }],
  ])('are not interrupts %s', (_, vector, registers) => {
    const w = notified(vector, registers);
    expect(runs(w)).toBe(BigInt(handler(vector)));
    expect([w.ends(), w.cpu.get('IA32_UINTR_RR')]).toEqual([0, 0n]);
  });

  it('wait for RFLAGS.IF, come at any privilege level, and leave the processor in the HLT state', () => {
    expect(runs(notified(0xec, { RFLAGS: 2n }))).toBe(BigInt(CODE) + 1n);
    const w = notified(0xec, { 'CS.accessRights': 0xa09bn, 'SS.accessRights': 0xc093n, activityState: 1n });
    w.cpu.run(5);
    expect([w.ends(), w.cpu.get('activityState'), w.cpu.get('RIP')]).toEqual([1, 1n, BigInt(CODE)]);
    expect(w.cpu.get('IA32_UINTR_RR')).toBe(0x8000_0001_0000_0000n);
  });

  it('fault where the descriptor cannot be accessed', () => {
    const w = notified(0xec, { IA32_UINTR_PD: 1n << 60n });
    expect(runs(w)).toBe(BigInt(handler(GP)));
    expect([quad(w, w.cpu.get('RSP')), quad(w, w.cpu.get('RSP') + 8n)]).toEqual([0n, BigInt(CODE)]);
  });

  it('between iterations of a string instruction let it go on', () => {
    const w = user('rep stosb', 0n, { UIF: 0n, IA32_UINTR_MISC: 0xec_0000_0000n, RCX: 100n, RDI: 0x7_0000n });
    w.cpu.run(10);
    requestInterrupt(w.cpu, 0xec);
    w.cpu.run(200);
    expect([w.cpu.get('RCX'), w.cpu.get('RDI')]).toEqual([0n, 0x7_0064n]);
  });
});

describe('a user interrupt from one processor to another', () => {
  it.each([false, true])('goes from CPL 3 to CPL 3 (x2APIC: %s)', (x2apic) => {
    const machine = processors(['wait: jmp wait', `mov eax, 0; ${SENDUIPI_RAX} mov r15, 1; here: jmp here`]);
    const { memory } = machine;
    writeDescriptor(memory, UPID, { vector: 0xec, destination: 0 });
    writeTarget(memory, UITT, 0, 9, UPID);
    memory.writeBytes(HANDLER, assemble(`pop r14; inc r13; ${UIRET}`, 64, HANDLER));
    for (const cpu of machine.processors) {
      if (x2apic) cpu.wrmsr(0x1b, (cpu.rdmsr(0x1b) as bigint) | 0xc00n);
      const rsp = cpu.get('RSP');
      set(
        { cpu },
        { CR4: cpu.get('CR4') | CR4_UINTR, ...RING3, ...ON, RSP: rsp, IA32_UINTR_MISC: 0xec_0000_0000n },
      );
    }
    runMachine(machine, 20_000);
    const [receiver, other] = machine.processors;
    expect(other?.get('R15')).toBe(1n);
    expect([receiver?.get('R14'), receiver?.get('R13'), receiver?.get('RIP')]).toEqual([
      9n,
      1n,
      BigInt(CODE),
    ]);
    expect([memory.read32(UPID) & 1, memory.read64(UPID + 8)]).toEqual([0, 0n]);
  });
});
