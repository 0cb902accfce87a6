import { describe, expect, it } from 'vitest';
import { Attention } from '../../../src/cpu/attention.ts';
import { Register } from '../../../src/cpu/registers.ts';
import { CODE, STACK_TOP } from '../../support/code.ts';
import {
  ENTRY,
  ENTRY_AT_CPL0,
  erets,
  eretu,
  type FredOptions,
  fredWorld,
  GS_OF_SUPERVISOR,
  GS_OF_USER,
  lastFrame,
  stackLevel,
} from '../../support/fred.ts';
import { requestInterrupt } from '../../support/guest-events.ts';
import { Selector, segment, setDescriptor, type World } from '../../support/tables.ts';

const RIP = 0x1_2340n;
const RSP = 0x4_4448n;
/** CS and SS of CPL 3 that IA32_STAR names: 64-bit code, 32-bit code, data. */
const USER_CODE = 0x123n;
const USER_CODE_32 = 0x113n;
const USER_DATA = 0x11bn;

interface Frame {
  readonly rip?: bigint;
  readonly cs?: bigint;
  readonly rflags?: bigint;
  readonly rsp?: bigint;
  readonly ss?: bigint;
}

function put({ machine }: World, frame: Required<Frame>): void {
  const items = [0x55n, frame.rip, frame.cs, frame.rflags, frame.rsp, frame.ss];
  items.forEach((item, n) => {
    machine.memory.write64(STACK_TOP + 8 * n, item);
  });
}

function run(
  code: Uint8Array,
  frame: Required<Frame>,
  options: FredOptions,
  prepare: (w: World) => void,
): World {
  const w = fredWorld(code, options);
  w.cpu.set('IA32_STAR', (w.cpu.get('IA32_STAR') & 0xffff_ffff_ffffn) | (0x113n << 48n));
  put(w, frame);
  prepare(w);
  w.cpu.run(1);
  return w;
}

const toSupervisor = (frame: Frame = {}, options: FredOptions = {}, prepare: (w: World) => void = () => {}) =>
  run(
    erets,
    { rip: RIP, cs: BigInt(Selector.Code0), rflags: 0x202n, rsp: RSP, ss: BigInt(Selector.Data0), ...frame },
    options,
    prepare,
  );

const toUser = (frame: Frame = {}, options: FredOptions = {}, prepare: (w: World) => void = () => {}) =>
  run(
    eretu,
    { rip: RIP, cs: USER_CODE, rflags: 0x202n, rsp: RSP, ss: USER_DATA, ...frame },
    options,
    prepare,
  );

const refusal = (w: World) => {
  const { vector, errorCode, rip, rsp } = lastFrame(w);
  return { vector, errorCode, rip, rsp };
};
const GP = { vector: 13, errorCode: 0n, rip: BigInt(CODE), rsp: BigInt(STACK_TOP) };
const UD = { vector: 6, errorCode: 0n, rip: BigInt(CODE) };

describe('ERETS', () => {
  it('restores RIP, RFLAGS and RSP', () => {
    const w = toSupervisor({ rflags: 0x25_7ed7n });
    expect([w.cpu.get('RIP'), w.cpu.get('RSP'), w.cpu.get('RFLAGS')]).toEqual([RIP, RSP, 0x25_7ed7n]);
    expect(w.cpu.get('GS.base')).toBe(GS_OF_USER);
  });

  it.each([
    [0, 0, 0],
    [3, 1, 1],
    [1, 3, 1],
    [2, 2, 2],
  ])('from stack level %i with %i in the frame goes to level %i', (current, inFrame, expected) => {
    const cs = BigInt(Selector.Code0 | (inFrame << 16));
    expect(stackLevel(toSupervisor({ cs }, { config: current }).cpu)).toBe(expected);
  });

  it.each<[string, Frame]>([
    ['RIP that is not canonical', { rip: 1n << 60n }],
    ['another CS', { cs: BigInt(Selector.Conforming) }],
    ['reserved bits of CS', { cs: BigInt(Selector.Code0 | (1 << 19)) }],
    ['upper bits of CS', { cs: BigInt(Selector.Code0) | (1n << 63n) }],
    ['RFLAGS bit 1 at 0', { rflags: 0x200n }],
    ['a reserved bit of RFLAGS', { rflags: 0x8002n }],
    ['RFLAGS.VM', { rflags: 0x2_0002n }],
    ['upper bits of RFLAGS', { rflags: 0x1_0000_0002n }],
    ['another SS', { ss: 0n }],
    ['reserved bits of SS', { ss: BigInt(Selector.Data0 | (1 << 19)) }],
  ])('refuses %s', (_name, frame) => {
    expect(refusal(toSupervisor(frame, { flags: 2n }))).toEqual(GP);
  });

  it('does not look at the event information', () => {
    const w = toSupervisor({ ss: BigInt(Selector.Data0) | (0xffff_ffffn << 32n) });
    expect(w.cpu.get('RIP')).toBe(RIP);
  });

  it('goes on with blocking by STI for one instruction if IF is 1', () => {
    const blocking = BigInt(Selector.Data0 | (1 << 16));
    for (const [rflags, blocked] of [
      [0x202n, 1n],
      [2n, 0n],
    ] as const) {
      const w = toSupervisor({ ss: blocking, rflags });
      expect(w.cpu.get('blockingBySti'), `${rflags}`).toBe(blocked);
    }
    const w = toSupervisor({ ss: blocking });
    w.machine.memory.writeBytes(Number(RIP), Uint8Array.from([0x90, 0x90]));
    requestInterrupt(w.cpu, 0x40);
    w.cpu.run(2);
    expect(lastFrame(w)).toMatchObject({ vector: 0x40, rip: RIP + 1n });
  });

  it('in the shadow of STI keeps the blocking of the frame', () => {
    const w = fredWorld(Uint8Array.from([0xfb, ...erets]));
    put(w, {
      rip: RIP,
      cs: BigInt(Selector.Code0),
      rflags: 0x202n,
      rsp: RSP,
      ss: BigInt(Selector.Data0 | (1 << 16)),
    });
    w.cpu.run(2);
    expect([w.cpu.get('RIP'), w.cpu.get('blockingBySti')]).toEqual([RIP, 1n]);
  });

  it('ends blocking by NMI if the event was one', () => {
    for (const [bit, blocked] of [
      [1 << 18, 0n],
      [0, 1n],
    ] as const) {
      const w = toSupervisor({ ss: BigInt(Selector.Data0 | bit) }, {}, ({ cpu }) =>
        cpu.set('blockingByNmi', 1n),
      );
      expect(w.cpu.get('blockingByNmi'), `${bit}`).toBe(blocked);
    }
  });

  it('of a system call with TF is followed by the single-step trap of that call', () => {
    const w = toSupervisor({ ss: BigInt(Selector.Data0 | (1 << 17)), rflags: 0x102n });
    w.cpu.run(1);
    expect(lastFrame(w)).toMatchObject({ vector: 1, data: 0x4000n, rip: RIP, rflags: 0x102n });
    const without = toSupervisor({ rflags: 0x102n });
    without.machine.memory.writeBytes(Number(RIP), Uint8Array.from([0x90]));
    without.cpu.run(2);
    expect(lastFrame(without)).toMatchObject({ vector: 1, rip: RIP + 1n });
  });

  it('is undefined at CPL 3 and without FRED', () => {
    for (const code of [erets, eretu]) {
      const w = fredWorld(code, { ring: 3 });
      w.cpu.run(1);
      expect(lastFrame(w)).toMatchObject(UD);
      const off = fredWorld(code);
      off.cpu.set('CR4', off.cpu.get('CR4') & 0xffff_ffffn);
      off.cpu.run(1);
      expect(off.cpu.get('RIP')).toBe(0x2_0060n);
    }
  });
});

describe('ERETU', () => {
  it('to the segments of IA32_STAR needs no descriptors', () => {
    const w = toUser({ rflags: 0x25_4ed7n });
    expect([w.cpu.get('RIP'), w.cpu.get('RSP'), w.cpu.get('RFLAGS')]).toEqual([RIP, RSP, 0x25_4ed7n]);
    expect([w.cpu.get('CS.selector'), w.cpu.get('SS.selector')]).toEqual([USER_CODE, USER_DATA]);
    expect([w.cpu.get('CS.accessRights'), w.cpu.get('SS.accessRights')]).toEqual([0xa0fbn, 0xc0f3n]);
    expect([w.cpu.processor.cpl, w.cpu.mode]).toEqual([3, 4]);
    expect(w.cpu.get('GS.base')).toBe(GS_OF_SUPERVISOR);
    expect(w.cpu.get('IA32_KERNEL_GS_BASE')).toBe(GS_OF_USER);
  });

  it('to the 32-bit code of IA32_STAR takes 32 bits of RIP and RSP', () => {
    const w = toUser({ cs: USER_CODE_32, rip: 0x7fff_0001_2340n, rsp: 0x7fff_0004_4448n });
    expect([w.cpu.get('RIP'), w.cpu.get('RSP')]).toEqual([RIP, RSP]);
    expect([w.cpu.get('CS.accessRights'), w.cpu.mode]).toEqual([0xc0fbn, 3]);
  });

  it('to other segments loads descriptors', () => {
    const w = toUser({ cs: BigInt(Selector.Code3), ss: BigInt(Selector.Data3) });
    expect([w.cpu.get('RIP'), w.cpu.get('CS.selector'), w.cpu.processor.cpl]).toEqual([
      RIP,
      BigInt(Selector.Code3),
      3,
    ]);
    const narrow = toUser({ cs: 0x83n, ss: BigInt(Selector.Data3) }, {}, (x) =>
      setDescriptor(x, Selector.Free, segment(0, 0x1_233f, 0x40fb)),
    );
    expect(refusal(narrow)).toEqual(GP);
    const absent = toUser({ cs: 0x83n, ss: BigInt(Selector.Data3) }, {}, (x) =>
      setDescriptor(x, Selector.Free, segment(0, 0xf_ffff, 0xa07b)),
    );
    expect(refusal(absent)).toEqual({ ...GP, vector: 11, errorCode: 0x80n });
  });

  it.each<[string, Frame]>([
    ['RIP that is not canonical', { rip: 1n << 60n }],
    ['CS of CPL 0', { cs: BigInt(Selector.Code0) }],
    ['a stack level in CS', { cs: USER_CODE | 0x1_0000n }],
    ['upper bits of CS', { cs: USER_CODE | (1n << 32n) }],
    ['upper bits of RFLAGS', { rflags: (1n << 32n) | 2n }],
    ['IOPL', { rflags: 0x1002n }],
    ['RFLAGS.VM', { rflags: 0x2_0002n }],
    ['RFLAGS bit 1 at 0', { rflags: 0n }],
    ['SS of CPL 0', { ss: BigInt(Selector.Data0) }],
    ['reserved bits of SS', { ss: USER_DATA | (1n << 31n) }],
    ['null SS', { cs: BigInt(Selector.Code3), ss: 3n }],
  ])('refuses %s', (_name, frame) => {
    const w = toUser(frame);
    expect(refusal(w)).toEqual(GP);
    expect(w.cpu.get('RIP')).toBe(BigInt(ENTRY_AT_CPL0));
    expect(w.cpu.get('GS.base')).toBe(GS_OF_USER);
  });

  it('of a system call with TF is followed by the single-step trap of that call, at CPL 3', () => {
    const w = toUser({ ss: USER_DATA | (1n << 17n), rflags: 0x102n });
    w.cpu.run(1);
    expect(lastFrame(w)).toMatchObject({
      vector: 1,
      data: 0x4000n,
      rip: RIP,
      rflags: 0x102n,
      cs: USER_CODE,
      call: 0,
    });
    expect(w.cpu.get('RIP')).toBe(BigInt(ENTRY));
  });

  it('is refused above stack level 0', () => {
    expect(refusal(toUser({}, { config: 1 }))).toEqual(GP);
  });

  it('ends blocking by NMI if the event was one', () => {
    const w = toUser({ ss: USER_DATA | (1n << 18n) }, {}, ({ cpu }) => cpu.set('blockingByNmi', 1n));
    expect(w.cpu.get('blockingByNmi')).toBe(0n);
    const kept = toUser({}, {}, ({ cpu }) => cpu.set('blockingByNmi', 1n));
    expect(kept.cpu.get('blockingByNmi')).toBe(1n);
  });
});

describe('a round trip', () => {
  it('of SYSCALL comes back behind it with everything as it was', () => {
    const w = fredWorld(Uint8Array.from([0x0f, 0x05]), { ring: 3, flags: 0x246n });
    w.machine.memory.writeBytes(ENTRY, eretu);
    const names = ['RSP', 'RFLAGS', 'CS.selector', 'SS.selector', 'GS.base', 'IA32_KERNEL_GS_BASE'] as const;
    const before = names.map((name) => w.cpu.get(name));
    w.cpu.run(2);
    expect(w.cpu.get('RIP')).toBe(BigInt(CODE + 2));
    expect(names.map((name) => w.cpu.get(name))).toEqual(before);
  });

  it('of an NMI at CPL 0 on another level comes back and allows the next', () => {
    const w = fredWorld(Uint8Array.from([0x90]), { levels: { 2: 2 } });
    w.machine.memory.writeBytes(ENTRY_AT_CPL0, erets);
    w.cpu.processor.i32[2 * Register.nmiPending] = 1;
    w.cpu.processor.requestAttention(Attention.Event);
    w.cpu.run(1);
    expect([stackLevel(w.cpu), w.cpu.get('blockingByNmi')]).toEqual([2, 1n]);
    w.cpu.run(1);
    expect([stackLevel(w.cpu), w.cpu.get('blockingByNmi'), w.cpu.get('RIP')]).toEqual([0, 0n, BigInt(CODE)]);
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK_TOP));
  });
});

describe('other transfers with FRED', () => {
  const iretq = Uint8Array.from([0x48, 0xcf]);
  const lret = Uint8Array.from([0x48, 0xcb]);

  function transfer(code: Uint8Array, cs: number, ss: number): World {
    const w = fredWorld(code);
    const items =
      code === iretq ? [RIP, BigInt(cs), 0x202n, RSP, BigInt(ss)] : [RIP, BigInt(cs), RSP, BigInt(ss)];
    items.forEach((item, n) => {
      w.machine.memory.write64(STACK_TOP + 8 * n, item);
    });
    w.cpu.set('blockingByNmi', 1n);
    w.cpu.run(1);
    return w;
  }

  it('may not leave CPL 0 or 64-bit mode', () => {
    for (const code of [iretq, lret]) {
      for (const [cs, ss] of [
        [Selector.Code3, Selector.Data3],
        [Selector.Code32, Selector.Data0],
      ] as const) {
        expect(refusal(transfer(code, cs, ss)), `${cs}`).toEqual({ ...GP, errorCode: BigInt(cs & 0xfffc) });
      }
      expect(transfer(code, Selector.Code0, Selector.Data0).cpu.get('RIP')).toBe(RIP);
    }
  });

  it('IRET does not end blocking by NMI', () => {
    expect(transfer(iretq, Selector.Code0, Selector.Data0).cpu.get('blockingByNmi')).toBe(1n);
  });
});

describe('LKGS', () => {
  const lkgs = Uint8Array.from([0xf2, 0x0f, 0x00, 0xf0]);

  it('loads GS but puts its base in IA32_KERNEL_GS_BASE', () => {
    const w = fredWorld(lkgs);
    setDescriptor(w, Selector.Free, segment(0x7654_3210, 0xf_ffff, 0xc0f3));
    w.cpu.set('RAX', BigInt(Selector.Free));
    w.cpu.run(1);
    expect(w.cpu.get('GS.selector')).toBe(BigInt(Selector.Free));
    expect(w.cpu.get('GS.base')).toBe(GS_OF_USER);
    expect(w.cpu.get('IA32_KERNEL_GS_BASE')).toBe(0x7654_3210n);
  });

  it('loads a selector in memory', () => {
    const w = fredWorld(Uint8Array.from([0xf2, 0x0f, 0x00, 0x33]));
    w.cpu.set('RBX', 0x5_0000n);
    w.machine.memory.write16(0x5_0000, Selector.Data0);
    w.cpu.run(1);
    expect([w.cpu.get('GS.selector'), w.cpu.get('IA32_KERNEL_GS_BASE')]).toEqual([
      BigInt(Selector.Data0),
      0n,
    ]);
  });

  it('faults as a load of GS does, with nothing changed', () => {
    const w = fredWorld(lkgs);
    w.cpu.set('RAX', 0x98n);
    w.cpu.run(1);
    expect(lastFrame(w)).toMatchObject({ vector: 13, errorCode: 0x98n });
    expect(w.cpu.get('IA32_KERNEL_GS_BASE')).toBe(GS_OF_SUPERVISOR);
  });

  it('is undefined at CPL 3', () => {
    const w = fredWorld(lkgs, { ring: 3 });
    w.cpu.run(1);
    expect(lastFrame(w)).toMatchObject(UD);
  });
});
