import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { U64_MAX } from '../../src/bits/u64.ts';
import {
  AR_RESERVED,
  AR_UNUSABLE,
  decodeAccessRights,
  decodeEptPointer,
  decodeEvent,
  decodeInterruptStatus,
  EVENT_ERROR_CODE,
  EVENT_VALID,
  EventType,
  ExitReasonBit,
  encodeAccessRights,
  encodeEptPointer,
  encodeEvent,
  encodeInterruptStatus,
  Interruptibility,
  PendingDebug,
} from '../../src/vmcs/formats.ts';

const dword = fc.integer({ min: 0, max: 0xffff_ffff });
const flag = fc.boolean();

describe('access rights (SDM Table 27-2)', () => {
  it('reads a 64-bit code segment', () => {
    expect(decodeAccessRights(0xa09b)).toEqual({
      type: 0xb,
      s: true,
      dpl: 0,
      p: true,
      avl: false,
      l: true,
      db: false,
      g: true,
      unusable: false,
      reserved: 0,
    });
  });

  it.each([
    ['s', 1 << 4],
    ['p', 1 << 7],
    ['avl', 1 << 12],
    ['l', 1 << 13],
    ['db', 1 << 14],
    ['g', 1 << 15],
    ['unusable', AR_UNUSABLE],
  ] as const)('has %s at 0x%i alone', (name, bit) => {
    expect(decodeAccessRights(bit)).toEqual({ ...decodeAccessRights(0), [name]: true });
    expect(encodeAccessRights({ ...decodeAccessRights(0), [name]: true })).toBe(bit);
  });

  it('has the DPL in bits 6:5', () => expect(decodeAccessRights(3 << 5).dpl).toBe(3));

  it('gives back every value, reserved bits too', () => {
    fc.assert(fc.property(dword, (value) => encodeAccessRights(decodeAccessRights(value)) === value));
  });

  it('does not let one part spill into another', () => {
    const wild = { ...decodeAccessRights(0), type: 0xff, dpl: 0xff, reserved: 0xffff_ffff };
    expect(encodeAccessRights(wild)).toBe((AR_RESERVED | 0x6f) >>> 0);
  });
});

describe('event identification (SDM Tables 27-18, 27-20, 27-21)', () => {
  it('reads an injected #GP with an error code', () => {
    expect(decodeEvent(0x8000_0b0d)).toEqual({
      vector: 13,
      type: EventType.HardwareException,
      errorCode: true,
      nmiUnblocking: false,
      nested: false,
      valid: true,
    });
  });

  it('gives back every value but for bits 30:14', () => {
    fc.assert(fc.property(dword, (value) => encodeEvent(decodeEvent(value)) === (value & 0x8000_3fff) >>> 0));
  });

  it('gives back every event', () => {
    fc.assert(
      fc.property(
        fc.record({
          vector: fc.integer({ min: 0, max: 255 }),
          type: fc.constantFrom(...Object.values(EventType)),
          errorCode: flag,
          nmiUnblocking: flag,
          nested: flag,
          valid: flag,
        }),
        (event) => {
          expect(decodeEvent(encodeEvent(event))).toEqual(event);
        },
      ),
    );
  });

  it('has "error code" at bit 11 and "valid" at bit 31', () => {
    expect(encodeEvent({ ...decodeEvent(0), errorCode: true })).toBe(EVENT_ERROR_CODE);
    expect(encodeEvent({ ...decodeEvent(0), valid: true })).toBe(EVENT_VALID);
    expect([EVENT_ERROR_CODE, EVENT_VALID]).toEqual([2 ** 11, 2 ** 31]);
  });
});

describe('EPT pointer (SDM Table 27-9)', () => {
  it('reads a pointer to a write-back PML4 with accessed and dirty flags', () => {
    expect(decodeEptPointer(0x1_2345_605en)).toEqual({
      memoryType: 6,
      walkLength: 4,
      enableAccessedDirty: true,
      enforceSupervisorShadowStack: false,
      reserved: 0,
      address: 0x1_2345_6000n,
    });
  });

  it('gives back every value', () => {
    fc.assert(
      fc.property(fc.bigInt(0n, U64_MAX), (value) => encodeEptPointer(decodeEptPointer(value)) === value),
    );
  });

  it('does not let one part spill into another', () => {
    const pointer = {
      ...decodeEptPointer(0n),
      memoryType: 8,
      walkLength: 9,
      reserved: 0x10,
      address: 0xfffn,
    };
    expect(encodeEptPointer(pointer)).toBe(0n);
  });
});

describe('guest interrupt status', () => {
  it('has RVI below SVI and gives back every value', () => {
    expect(decodeInterruptStatus(0x5130)).toEqual({ rvi: 0x30, svi: 0x51 });
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 0xffff }),
        (value) => encodeInterruptStatus(decodeInterruptStatus(value)) === value,
      ),
    );
  });

  it('keeps each half to a byte', () =>
    expect(encodeInterruptStatus({ rvi: 0x1ff, svi: 0x180 })).toBe(0x80ff));
});

describe('bit positions', () => {
  const positions = (values: Record<string, number>) => Object.values(values).map((v) => Math.log2(v));

  it('are those of the manual', () => {
    expect(positions(Interruptibility)).toEqual([0, 1, 2, 3, 4]);
    expect(positions(PendingDebug)).toEqual([0, 1, 2, 3, 11, 12, 14, 16]);
    expect(positions(ExitReasonBit)).toEqual([25, 26, 27, 28, 29, 31]);
  });
});
