/** Templates: packed integers in MMX and XMM registers. */
import type { CaseBuilder } from '../case-builder.ts';
import { DATA_PAGE, DATA_WINDOW, WINDOW } from '../native-case.ts';
import { type Operand, RDI } from '../operands.ts';
import { type Prefix, xmmOrMemory } from './sse-float.ts';
import type { Template } from './template.ts';

/** Opcodes 0F xx that exist for MMX and, with 66H, for XMM. */
const BOTH: readonly (readonly [string, number])[] = [
  ['punpcklbw', 0x60],
  ['punpcklwd', 0x61],
  ['punpckldq', 0x62],
  ['packsswb', 0x63],
  ['pcmpgtb', 0x64],
  ['pcmpgtw', 0x65],
  ['pcmpgtd', 0x66],
  ['packuswb', 0x67],
  ['punpckhbw', 0x68],
  ['punpckhwd', 0x69],
  ['punpckhdq', 0x6a],
  ['packssdw', 0x6b],
  ['pcmpeqb', 0x74],
  ['pcmpeqw', 0x75],
  ['pcmpeqd', 0x76],
  ['psrlw', 0xd1],
  ['psrld', 0xd2],
  ['psrlq', 0xd3],
  ['paddq', 0xd4],
  ['pmullw', 0xd5],
  ['psubusb', 0xd8],
  ['psubusw', 0xd9],
  ['pminub', 0xda],
  ['pand', 0xdb],
  ['paddusb', 0xdc],
  ['paddusw', 0xdd],
  ['pmaxub', 0xde],
  ['pandn', 0xdf],
  ['pavgb', 0xe0],
  ['psraw', 0xe1],
  ['psrad', 0xe2],
  ['pavgw', 0xe3],
  ['pmulhuw', 0xe4],
  ['pmulhw', 0xe5],
  ['psubsb', 0xe8],
  ['psubsw', 0xe9],
  ['pminsw', 0xea],
  ['por', 0xeb],
  ['paddsb', 0xec],
  ['paddsw', 0xed],
  ['pmaxsw', 0xee],
  ['pxor', 0xef],
  ['psllw', 0xf1],
  ['pslld', 0xf2],
  ['psllq', 0xf3],
  ['pmuludq', 0xf4],
  ['pmaddwd', 0xf5],
  ['psadbw', 0xf6],
  ['psubb', 0xf8],
  ['psubw', 0xf9],
  ['psubd', 0xfa],
  ['psubq', 0xfb],
  ['paddb', 0xfc],
  ['paddw', 0xfd],
  ['paddd', 0xfe],
];

const XMM = 160;
const ST = 32;

/** An MMX register: REX.R and REX.B are ignored. */
const mmx = (c: CaseBuilder) => (c.random.chance(10) ? c.register() : c.random.below(8));

function mmxOrMemory(c: CaseBuilder, bytes: number): Operand {
  return c.random.chance(60) ? { register: mmx(c) } : c.memory(bytes);
}

function both(name: string, opcode: number): Template {
  return {
    name: `packed.${name}`,
    build(c) {
      const fx = c.withFx();
      const wide = c.random.chance(60);
      // Memory operands of MMX PUNPCKL are 32 bits.
      const narrow = opcode <= 0x62 ? 4 : 8;
      const rm = wide ? xmmOrMemory(c, 16) : mmxOrMemory(c, narrow);
      const reg = wide ? c.register() : mmx(c);
      const form = { opcode: [0x0f, opcode], reg, rm, redundant: 'segment' } as const;
      c.emit(wide ? { ...form, mandatory: 0x66 } : form);
      const shifts = (opcode & 0xf) <= 3 && opcode >= 0xd1 && opcode !== 0xe0 && opcode !== 0xe3;
      if (shifts && c.random.chance(75)) {
        // A count in range.
        const count = BigInt(c.random.below(70));
        if ('register' in rm) {
          const at = wide ? XMM + 16 * rm.register : ST + 16 * (rm.register & 7);
          fx.setBigUint64(at, count, true);
        } else c.setValue(rm, 64, count);
      }
    },
  };
}

/** Shifts by an immediate: opcode and digit; digits 3 and 7 of 73H only with 66H. */
function shiftImmediate(c: CaseBuilder): void {
  c.withFx();
  const [opcode, digit, onlyWide] = c.random.pick([
    ...[0x71, 0x72].flatMap((o) => [2, 4, 6].map((d) => [o, d, false] as const)),
    [0x73, 2, false],
    [0x73, 6, false],
    [0x73, 3, true],
    [0x73, 7, true],
  ] as const);
  const wide = onlyWide || c.random.chance(60);
  const rm = { register: wide ? c.register() : mmx(c) };
  const immediate = [c.random.chance(80) ? c.random.below(70) : c.random.below(256)];
  const form = { opcode: [0x0f, opcode], digit, rm, immediate, redundant: 'segment' } as const;
  c.emit(wide ? { ...form, mandatory: 0x66 } : form);
}

const SHUFFLES: readonly Prefix[] = [0, 0x66, 0xf3, 0xf2];

function shuffle(c: CaseBuilder): void {
  c.withFx();
  const prefix = c.random.pick(SHUFFLES);
  const rm = prefix === 0 ? mmxOrMemory(c, 8) : xmmOrMemory(c, 16);
  const reg = prefix === 0 ? mmx(c) : c.register();
  const form = {
    opcode: [0x0f, 0x70],
    reg,
    rm,
    immediate: [c.random.below(256)],
    redundant: 'segment',
  } as const;
  c.emit(prefix === 0 ? form : { ...form, mandatory: prefix });
}

/** PUNPCKLQDQ and PUNPCKHQDQ. */
function unpackQuad(c: CaseBuilder): void {
  c.withFx();
  const opcode = [0x0f, c.random.pick([0x6c, 0x6d])];
  c.emit({ opcode, mandatory: 0x66, reg: c.register(), rm: xmmOrMemory(c, 16), redundant: 'segment' });
}

function insertWord(c: CaseBuilder): void {
  c.withFx();
  const wide = c.random.chance(60);
  const reg = wide ? c.register() : mmx(c);
  const rm = c.operand(16);
  const form = {
    opcode: [0x0f, 0xc4],
    reg,
    rm,
    immediate: [c.random.below(256)],
    redundant: 'segment',
  } as const;
  c.emit(wide ? { ...form, mandatory: 0x66 } : form);
}

function extractWord(c: CaseBuilder): void {
  c.withFx();
  const wide = c.random.chance(60);
  const rm = { register: wide ? c.register() : mmx(c) };
  const immediate = [c.random.below(256)];
  const form = { opcode: [0x0f, 0xc5], reg: c.register(), rm, immediate, redundant: 'segment' } as const;
  c.emit(wide ? { ...form, mandatory: 0x66 } : form);
}

/** MOVD, MOVQ, MOVNTQ, PMOVMSKB of MMX registers. */
function mmxMoves(c: CaseBuilder): unknown {
  c.withFx();
  const { random } = c;
  const redundant = 'segment' as const;
  switch (random.below(4)) {
    case 0: {
      const size = random.pick([32, 64] as const);
      const rm = c.operand(size);
      return c.emit({ opcode: [0x0f, random.pick([0x6e, 0x7e])], size, reg: mmx(c), rm, redundant });
    }
    case 1: {
      const rm = mmxOrMemory(c, 8);
      return c.emit({ opcode: [0x0f, random.pick([0x6f, 0x7f])], reg: mmx(c), rm, redundant });
    }
    case 2:
      return c.emit({ opcode: [0x0f, 0xe7], reg: mmx(c), rm: c.memory(8), redundant });
    default:
      return c.emit({ opcode: [0x0f, 0xd7], reg: c.register(), rm: { register: mmx(c) }, redundant });
  }
}

/** MOVQ2DQ, MOVDQ2Q. */
function betweenMmxAndXmm(c: CaseBuilder): void {
  c.withFx();
  const toXmm = c.random.chance(50);
  const [reg, register] = toXmm ? [c.register(), mmx(c)] : [mmx(c), c.register()];
  const mandatory = toXmm ? 0xf3 : 0xf2;
  c.emit({ opcode: [0x0f, 0xd6], mandatory, reg, rm: { register }, redundant: 'segment' });
}

/**
 * CVTPI2PS, CVTPI2PD, CVTPS2PI, CVTPD2PI and the truncating forms. Whether a SIMD exception comes
 * before or after the transition to MMX state is not said: all are masked.
 */
function mmxConversions(c: CaseBuilder): void {
  const fx = c.withFx();
  fx.setUint32(24, fx.getUint32(24, true) | 0x1f80, true);
  const prefix = c.random.pick([0, 0x66]);
  const toMmx = c.random.chance(60);
  const opcode = [0x0f, toMmx ? c.random.pick([0x2c, 0x2d]) : 0x2a];
  const rm = toMmx ? xmmOrMemory(c, prefix ? 16 : 8) : mmxOrMemory(c, 8);
  const form = { opcode, reg: toMmx ? mmx(c) : c.register(), rm, redundant: 'segment' } as const;
  c.emit(prefix ? { ...form, mandatory: prefix } : form);
}

/** MASKMOVDQU and MASKMOVQ: the destination is at RDI. */
function maskMove(c: CaseBuilder): void {
  c.withFx();
  const wide = c.random.chance(60);
  const bytes = wide ? 16 : 8;
  const rm = { register: wide ? c.register() : mmx(c) };
  const form = { opcode: [0x0f, 0xf7], reg: wide ? c.register() : mmx(c), rm, redundant: 'segment' } as const;
  c.emit(wide ? { ...form, mandatory: 0x66 } : form);
  c.gprs[RDI] = BigInt(DATA_PAGE + DATA_WINDOW + c.random.below(WINDOW - bytes + 1));
}

export const PACKED_INTEGER: readonly Template[] = [
  ...BOTH.map(([name, opcode]) => both(name, opcode)),
  { name: 'packed.shift-immediate', build: shiftImmediate },
  { name: 'packed.shuffle', build: shuffle },
  { name: 'packed.punpckqdq', build: unpackQuad },
  { name: 'packed.pinsrw', build: insertWord },
  { name: 'packed.pextrw', build: extractWord },
  { name: 'packed.maskmov', build: maskMove },
  { name: 'mmx.moves', build: mmxMoves },
  { name: 'mmx.xmm', build: betweenMmxAndXmm },
  { name: 'mmx.cvt', build: mmxConversions },
  {
    name: 'mmx.emms',
    build(c) {
      c.withFx();
      c.emit({ opcode: [0x0f, 0x77], redundant: 'segment' });
    },
  },
];
