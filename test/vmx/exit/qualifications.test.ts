import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { U64_MAX } from '../../../src/bits/u64.ts';
import {
  type BitFormat,
  decodeParts,
  encodeParts,
  INSTRUCTION_INFORMATION,
  QUALIFICATIONS,
} from '../../../src/vmx/exit/qualifications.ts';

const FORMATS: [string, BitFormat][] = [
  ...Object.entries(QUALIFICATIONS),
  ...Object.entries(INSTRUCTION_INFORMATION),
];

// Defined bits as the manual's tables give them.
const MASKS: Record<string, bigint> = {
  debugException: 0x1_680fn,
  linearAddress: U64_MAX,
  displacement: U64_MAX,
  sipi: 0xffn,
  ioSmi: 0xffff_007fn,
  taskSwitch: 0xc000_ffffn,
  controlRegister: 0xffff_0f7fn,
  movDr: 0xf17n,
  io: 0xffff_007fn,
  wrmsr: 1n,
  mwait: 1n,
  apicAccess: 0x1_ffffn,
  vector: 0xffn,
  eptViolation: 0x1_ffffn,
  wbinvd: 1n,
  apicWrite: 0xfffn,
  pmlFull: 0x1_1000n,
  spp: 0x1_1800n,
  pasid: 0xf_ffffn,
  sourceOperand: 0xffff_ffffn,
  instructionTimeout: 0x1001n,
  msr: 0xffff_ffffn,
  invalidGuestState: 7n,
  msrLoadEntry: 0xffff_ffffn,
  stringIo: 0x3_8380n,
  invalidation: 0xffff_8383n,
  descriptorTable: 0x3fff_8b83n,
  systemSegment: 0x3fff_87fbn,
  random: 0x1878n,
  wait: 0x78n,
  memoryOperand: 0x0fff_8383n,
  vmreadVmwrite: 0xffff_87fbn,
  loadiwkey: 0xf000_0078n,
  msrRegister: 0x78n,
};

describe('formats of exit information', () => {
  it.each(FORMATS)('%s defines the bits of its table', (name, format) => {
    expect(format.mask).toBe(MASKS[name]);
  });

  it.each(FORMATS.filter(([, f]) => Object.keys(f.parts).length > 0))(
    '%s decodes to parts that encode back',
    (_, format) => {
      fc.assert(
        fc.property(fc.bigInt(0n, U64_MAX), (field) => {
          const parts = decodeParts(format, field);
          expect(encodeParts(format, parts)).toBe(field & format.mask);
        }),
      );
    },
  );

  it('has named parts', () => {
    expect(encodeParts(QUALIFICATIONS.taskSwitch, { selector: 0x28, source: 3 })).toBe(0xc000_0028n);
    expect(encodeParts(QUALIFICATIONS.eptViolation, { read: true, linearAddressValid: true })).toBe(0x81n);
    expect(encodeParts(QUALIFICATIONS.io, { size: 3, input: true, port: 0xcf8 })).toBe(0x0cf8_000bn);
    expect(decodeParts(INSTRUCTION_INFORMATION.random, 0x1018n)).toEqual({ register1: 3, operandSize: 2 });
    expect(encodeParts(QUALIFICATIONS.movDr, {})).toBe(0n);
  });

  it('refuses a value that does not fit its part', () => {
    expect(() => encodeParts(QUALIFICATIONS.sipi, { vector: 256 })).toThrow(
      'Start-up IPI: vector has 8 bits, not room for 256',
    );
    expect(() => encodeParts(QUALIFICATIONS.sipi, { vector: -1 })).toThrow(RangeError);
  });
});
