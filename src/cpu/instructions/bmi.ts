/**
 * Bit manipulation (SDM vol. 2: ANDN, BEXTR, BLSI, BLSMSK, BLSR, BZHI, MULX, PDEP, PEXT, RORX, SARX,
 * SHLX, SHRX, ADCX, ADOX, CRC32, MOVBE). Flags that the manual leaves undefined: AF and PF are
 * unchanged by ANDN, BLSI, BLSMSK, BLSR and BZHI; after BEXTR, SF, AF and PF are.
 */
import { materialise, replaceFlags } from '../flags.ts';
import { type Execute, Next } from '../instruction.ts';
import type { OpcodeRow, SizedExecute } from '../opcode-row.ts';
import { write32, write64, writeLow } from '../operand-values.ts';
import type { Processor } from '../processor.ts';
import { Register } from '../registers.ts';
import { reversed } from './bit.ts';

const CF = 1;
const ZF = 0x40;
const SF = 0x80;
const OF = 0x800;
const RDX = 8 * Register.RDX;

type Width = 32 | 64;

/** Operation by width on unsigned values; these are too rare to be written twice. */
function byWidth(
  operation: (cpu: Processor, d: number, s: number, t: number, width: Width) => void,
): SizedExecute {
  return {
    32: (cpu, i) => {
      operation(cpu, i.d, i.s, i.t, 32);
      return Next.Sequential;
    },
    64: (cpu, i) => {
      operation(cpu, i.d, i.s, i.t, 64);
      return Next.Sequential;
    },
  };
}

function valueAt(cpu: Processor, at: number, width: Width): bigint {
  return width === 64 ? (cpu.quads[at >> 3] as bigint) : BigInt((cpu.i32[at >> 2] as number) >>> 0);
}

/** Writes `value` modulo 2 to the `width`, and answers what was written. */
function put(cpu: Processor, at: number, width: Width, value: bigint): bigint {
  const result = BigInt.asUintN(width, value);
  cpu.quads[at >> 3] = result;
  return result;
}

const signed = (value: bigint, width: Width) => BigInt.asIntN(width, value) < 0n;

/** ZF and SF by the result, CF as given, OF 0. */
function resultFlags(cpu: Processor, result: bigint, width: Width, carry: boolean): void {
  const sign = signed(result, width) ? SF : 0;
  replaceFlags(cpu, CF | ZF | SF | OF, (carry ? CF : 0) | (result === 0n ? ZF : 0) | sign);
}

const andn = byWidth((cpu, d, s, t, width) => {
  resultFlags(cpu, put(cpu, d, width, ~valueAt(cpu, s, width) & valueAt(cpu, t, width)), width, false);
});

/** Bits from the start in bits 7:0 of the control on, as many as its bits 15:8 say. */
const bextr = byWidth((cpu, d, s, t, width) => {
  const start = BigInt(cpu.u8[t] as number);
  const length = cpu.u8[t + 1] as number;
  const result = put(cpu, d, width, BigInt.asUintN(length, valueAt(cpu, s, width) >> start));
  replaceFlags(cpu, CF | ZF | OF, result === 0n ? ZF : 0);
});

/** BLSI, BLSMSK, BLSR: CF says whether the source was 0, of BLSI whether it was not. */
function lowestBit(operation: (a: bigint) => bigint, carryIfZero: boolean): SizedExecute {
  return byWidth((cpu, d, s, _, width) => {
    const a = valueAt(cpu, s, width);
    resultFlags(cpu, put(cpu, d, width, operation(a)), width, (a === 0n) === carryIfZero);
  });
}

const bzhi = byWidth((cpu, d, s, t, width) => {
  const from = cpu.u8[t] as number;
  const value = valueAt(cpu, s, width);
  const result = put(cpu, d, width, from < width ? BigInt.asUintN(from, value) : value);
  resultFlags(cpu, result, width, from >= width);
});

/** The low half is written first: if both destinations are one, it has the high half. */
const mulx = byWidth((cpu, d, s, t, width) => {
  const product = valueAt(cpu, RDX, width) * valueAt(cpu, t, width);
  put(cpu, s, width, product);
  put(cpu, d, width, product >> BigInt(width));
});

/** PDEP: the low bits of the source go, in order, to where the mask has ones. */
const pdep = byWidth((cpu, d, s, t, width) => {
  const source = valueAt(cpu, s, width);
  const mask = valueAt(cpu, t, width);
  let result = 0n;
  let taken = 0n;
  for (let n = 0n; n < width; n++) {
    if (((mask >> n) & 1n) === 0n) continue;
    result |= ((source >> taken) & 1n) << n;
    taken++;
  }
  put(cpu, d, width, result);
});

/** PEXT: the bits of the source where the mask has ones go, in order, to the low bits. */
const pext = byWidth((cpu, d, s, t, width) => {
  const source = valueAt(cpu, s, width);
  const mask = valueAt(cpu, t, width);
  let result = 0n;
  let given = 0n;
  for (let n = 0n; n < width; n++) {
    if (((mask >> n) & 1n) === 0n) continue;
    result |= ((source >> n) & 1n) << given;
    given++;
  }
  put(cpu, d, width, result);
});

const countOf = (cpu: Processor, at: number, width: Width) => BigInt((cpu.u8[at] as number) & (width - 1));

const rorx = byWidth((cpu, d, s, t, width) => {
  const value = valueAt(cpu, s, width);
  const count = countOf(cpu, t, width);
  put(cpu, d, width, (value >> count) | (value << (BigInt(width) - count)));
});

const sarx = byWidth((cpu, d, s, t, width) => {
  put(cpu, d, width, BigInt.asIntN(width, valueAt(cpu, s, width)) >> countOf(cpu, t, width));
});

const shlx = byWidth((cpu, d, s, t, width) => {
  put(cpu, d, width, valueAt(cpu, s, width) << countOf(cpu, t, width));
});

const shrx = byWidth((cpu, d, s, t, width) => {
  put(cpu, d, width, valueAt(cpu, s, width) >> countOf(cpu, t, width));
});

/** ADCX carries through CF, ADOX through OF; the other flags stay. */
function addWithFlag(flag: number): SizedExecute {
  return byWidth((cpu, d, s, _, width) => {
    const carry = (materialise(cpu) & flag) !== 0 ? 1n : 0n;
    const sum = valueAt(cpu, d, width) + valueAt(cpu, s, width) + carry;
    put(cpu, d, width, sum);
    replaceFlags(cpu, flag, sum >> BigInt(width) !== 0n ? flag : 0);
  });
}

/** CRC-32C by byte: the polynomial 11EDC6F41H, reflected. */
const CRC = Int32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let n = 0; n < 8; n++) crc = (crc >>> 1) ^ ((crc & 1) !== 0 ? 0x82f6_3b78 : 0);
  return crc;
});

/** CRC32 over the bytes of the source; the result has 32 bits. */
function crc32(bytes: number): Execute {
  return (cpu, i) => {
    let crc = cpu.i32[i.d >> 2] as number;
    for (let n = 0; n < bytes; n++) {
      crc = (crc >>> 8) ^ (CRC[(crc ^ (cpu.u8[i.s + n] as number)) & 0xff] as number);
    }
    return write32(cpu, i.d, crc);
  };
}

const crc32Byte = crc32(1);

const movbe: SizedExecute = {
  16: (cpu, i) => writeLow(cpu, i.d, 16, reversed(cpu.u16[i.s >> 1] as number) >>> 16),
  32: (cpu, i) => write32(cpu, i.d, reversed(cpu.i32[i.s >> 2] as number)),
  64: (cpu, i) => {
    const w = cpu.i32;
    return write64(cpu, i.d, reversed(w[(i.s >> 2) + 1] as number), reversed(w[i.s >> 2] as number));
  },
};

const blsi = lowestBit((a) => a & -a, false);
const blsmsk = lowestBit((a) => a ^ (a - 1n), true);
const blsr = lowestBit((a) => a & (a - 1n), true);

type Vex = (opcode: string, mnemonic: string, operands: string, execute: SizedExecute) => OpcodeRow;
const vex =
  (feature: NonNullable<OpcodeRow['feature']>): Vex =>
  (opcode, mnemonic, operands, execute) => ({
    opcode: `VEX.L0.${opcode}`,
    mnemonic,
    operands,
    execute,
    feature,
  });
const bmi1 = vex((f) => f.bmi1);
const bmi2 = vex((f) => f.bmi2);

export const BMI_ROWS: readonly OpcodeRow[] = [
  bmi1('NP.0F38 F2', 'ANDN', 'Gy By Ey', andn),
  bmi1('NP.0F38 F7', 'BEXTR', 'Gy Ey By', bextr),
  bmi1('NP.0F38 F3 /3', 'BLSI', 'By Ey', blsi),
  bmi1('NP.0F38 F3 /2', 'BLSMSK', 'By Ey', blsmsk),
  bmi1('NP.0F38 F3 /1', 'BLSR', 'By Ey', blsr),
  bmi2('NP.0F38 F5', 'BZHI', 'Gy Ey By', bzhi),
  bmi2('F2.0F38 F6', 'MULX', 'Gy By Ey', mulx),
  bmi2('F2.0F38 F5', 'PDEP', 'Gy By Ey', pdep),
  bmi2('F3.0F38 F5', 'PEXT', 'Gy By Ey', pext),
  bmi2('F2.0F3A F0', 'RORX', 'Gy Ey Ib', rorx),
  bmi2('F3.0F38 F7', 'SARX', 'Gy Ey By', sarx),
  bmi2('66.0F38 F7', 'SHLX', 'Gy Ey By', shlx),
  bmi2('F2.0F38 F7', 'SHRX', 'Gy Ey By', shrx),
  {
    opcode: '66 0F 38 F6',
    mnemonic: 'ADCX',
    operands: 'Gy Ey',
    execute: addWithFlag(CF),
    feature: (f) => f.adx,
  },
  {
    opcode: 'F3 0F 38 F6',
    mnemonic: 'ADOX',
    operands: 'Gy Ey',
    execute: addWithFlag(OF),
    feature: (f) => f.adx,
  },
  {
    opcode: 'F2 0F 38 F0',
    mnemonic: 'CRC32',
    operands: 'Gy Eb',
    execute: { 16: crc32Byte, 32: crc32Byte, 64: crc32Byte },
  },
  {
    opcode: 'F2 0F 38 F1',
    mnemonic: 'CRC32',
    operands: 'Gy Ev',
    execute: { 16: crc32(2), 32: crc32(4), 64: crc32(8) },
  },
  {
    opcode: 'NFx 0F 38 F0 mod!=3',
    mnemonic: 'MOVBE',
    operands: 'Gv Mv',
    execute: movbe,
    feature: (f) => f.movbe,
  },
  {
    opcode: 'NFx 0F 38 F1 mod!=3',
    mnemonic: 'MOVBE',
    operands: 'Mv= Gv',
    execute: movbe,
    feature: (f) => f.movbe,
  },
];
