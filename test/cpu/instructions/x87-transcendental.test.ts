import { describe, expect, it } from 'vitest';
import { LN2, PI } from '../../../src/cpu/float/transcendental.ts';
import type { RegisterName } from '../../../src/cpu/registers.ts';
import { SingleInstruction } from '../../support/single-instruction.ts';

const CODES = {
  f2xm1: 0xf0,
  fyl2x: 0xf1,
  fptan: 0xf2,
  fpatan: 0xf3,
  fyl2xp1: 0xf9,
  fsincos: 0xfb,
  fsin: 0xfe,
  fcos: 0xff,
} as const;
type Name = keyof typeof CODES;

const TOP = 4;
const C1 = 0x200;
const C2 = 0x400;
const NEAREST = 0x37f;
const one = new SingleInstruction();

interface Result {
  /** Exceptions, C1 and C2, without SF and TOP. */
  readonly status: number;
  /** ST(0) and the others that are in use. */
  readonly stack: readonly string[];
}

const text = (exponent: bigint, significand: bigint) =>
  `${exponent.toString(16).padStart(4, '0')}_${significand.toString(16).padStart(16, '0')}`;

/** Executes one instruction with ST(0), ST(1), … holding `values`. */
function run(name: Name, values: readonly string[], fcw = NEAREST, vector?: number): Result {
  let tags = 0xffff;
  values.forEach((value, n) => {
    const at = (TOP + n) & 7;
    const [exponent, significand] = value.split('_').map((part) => BigInt(`0x${part}`));
    tags &= ~(3 << (2 * at));
    one.set({
      [`FPR${at}.exponent` as RegisterName]: exponent as bigint,
      [`FPR${at}.significand` as RegisterName]: significand as bigint,
    });
  });
  const state = { CR0: 0x33n, CR4: 0x620n, RIP: 0x1_0000n, FSW: BigInt(TOP << 11) };
  one.set({ ...state, FCW: BigInt(fcw), FTW: BigInt(tags) });
  expect(one.run(Uint8Array.of(0xd9, CODES[name])).vector).toBe(vector);
  const fsw = Number(one.get('FSW'));
  const ftw = Number(one.get('FTW'));
  const stack: string[] = [];
  for (let n = 0; n < 8; n++) {
    const at = ((fsw >> 11) + n) & 7;
    if (((ftw >> (2 * at)) & 3) === 3) continue;
    stack.push(
      text(one.get(`FPR${at}.exponent` as RegisterName), one.get(`FPR${at}.significand` as RegisterName)),
    );
  }
  return { status: fsw & 0x63f, stack };
}

/** Operands and the nearest result, which a program of arbitrary precision computed with 1200 bits. */
const COMPUTED: Readonly<Partial<Record<Name, string>>> = {
  fsin: `
    bfff_f8b51d289ce1136b bffe_ee77fc1f199cbfbf
    bffe_8f3f3458265662bc bffe_87e3485524ca65d3
    bffe_9e1a8fcbc29e4024 bffe_943e36c8b26147e0
    3ffe_fd73adbf902bbc34 3ffe_d607773d6a9b0951
    bfff_9e90355b8b5067a9 bffe_f204cc2dfa4f8fa1
    bffe_bfae088a21b58c96 bffe_ae43de67e9ef1636
    bfcf_b5a97dd49503b535 bfcf_b5a97dd49503b535
    3fe3_e02b2d5e39ca916a 3fe3_e02b2d5e39ca90f7
    3fcd_bb7656d5830e051c 3fcd_bb7656d5830e051c
    c005_b4060bafc9909331 bffe_e37e2675b518356d
    4003_89384dba2f8318e4 bffe_fdf641ca30cc5659
    c00a_e2d4c9a02ff8e813 3ffe_b04f6272c97e1794
    402f_92448501a95801bc 3ffe_8b4dc6faf11aa432
    c03c_812d6d7ba67afd82 3ffe_b43189196130015a
    c02d_ca232ba50355d74f bffe_91048e850b2e97f3
    ac43_890ba64212025218 ac43_890ba64212025218`,
  fcos: `
    c000_e88a91c38f5ed5ab bffe_e1a6f1f45d604aab
    bffe_9659db0adb544ea5 3ffe_d51a76e199f8a472
    bffe_e9eda071527acfaf 3ffe_9c5a766733592dd9
    4000_b9086d9890248d21 bffe_f8034a048eeb9a95
    4000_ebe22628d2ceadda bffe_db08ac30809fc24f
    bffe_f4978f80e1cef0c3 3ffe_93c6c068921276de
    bff0_8479b2e9ca908199 3ffe_fffffffddb922d23
    bfc8_bd7c4b6bb4579f41 3fff_8000000000000000
    3fc9_9b187a855aead097 3fff_8000000000000000
    c00f_f6eedc2c492763e6 3ffe_dc46452c17a2a1ea
    c003_b93bd8868067a460 bffd_cb04b59c0098246c
    4023_997099db619e1cab bffd_b2f22025b21cbe76
    4035_92200118affa8832 bffe_f0ad9ea46912bc8c
    c03a_f85786d8c7e319e0 bffb_a2e61c99156cf36b
    403a_80e9f432ca14a5db 3ffe_d4a6b3555f601de8
    3b25_820d5feb044cedc3 3fff_8000000000000000`,
  fptan: `
    4000_ae55186ad0f72a5c bffd_e333ea5c1c108c38
    bffe_969ab002d057368e bffe_aac69edff86e62a8
    bfff_a6680f7934679f27 c000_e694737aa8c040c1
    bffe_991ba3d8672e37cb bffe_ae6aeaf3dcc5a028
    c000_c99852aefecb560d bff8_8878dbb429434b0a
    c000_d2c0ae076d48ec86 bffc_9c3f5f73516fc566
    3fc8_e4aca8592ad1f4c6 3fc8_e4aca8592ad1f4c6
    bfcc_fc5a30223dbecf1f bfcc_fc5a30223dbecf1f
    3ffd_dd34f03d4aca7739 3ffd_ec1505da2297f45a
    c008_98cca109f983cfee 4001_c96aa0b36b761256
    401a_91c6cd93fab6082c 4000_de36d4fe94494aac
    c01c_e763a527bc8839b0 bfff_bbd11d5349aa7c98
    402c_c3f6410cb08be6a9 4000_82c1590e3383a505
    403c_f0dda4daa587d00f bffe_9dd4bdee7fd8d1a9
    4032_d092d268346d91dd 3ffe_837b6da7172a0449
    3dbc_b8722c6aba026ff2 3dbc_b8722c6aba026ff2`,
  f2xm1: `
    bffe_d9fcf020b579d87d bffd_e43f9d8503e6681c
    bffd_c88c33f04d84f219 bffc_f37900f5b0b2b8fb
    3ffd_86fd97fdf446064e 3ffc_cd53d2b7b99cfbd6
    bffd_9d89c5144487da15 bffc_c4ad1b77c5cc858f
    3ffc_e630647e382ddc86 3ffc_aca8315f946bdf4c
    bffe_d6ed89de996e4b0b bffd_e1e33d33a5d81c67
    3ffe_bc409cec9a5bfeb3 3ffe_aa313e677736fa3f
    bffc_e3b3d799bc9ff0d4 bffc_9244fc6355d910f9
    bff8_d51a811c44592c04 bff8_930c5a219fd5123c
    3fc0_f261d64519746f35 3fc0_a801ab689eab18f1
    bfc0_864d5d58b1fd8d58 bfbf_ba2eb121b5533799
    3ff2_bb7cabe039b9b1f8 3ff2_81f6d1b2848829c6
    3fe0_f24b4f4561e52432 3fe0_a7f20e08734cfdec
    0c30_ae4a5f1c082cc750 0c2f_f19e3264468fb64c`,
  fyl2x: `
    3fff_e9ee4767ff6a9ab4 40b9_c5b16bfd06690b27 40b9_abfb0d7f7d8b4f87
    3fff_9d568dbda4fbc3f9 4075_b8a621c5b162b0cd 4073_dbe5dc2e383f6e34
    3ffe_e354782add1ef30f bf23_988c9897752fb19c 3f20_d11f2b69ec632b92
    3ffe_cd50246c7278ff94 3edf_f4a41429cf1ce8d3 bede_9bbf58372d01f924
    3fff_89c118ec9d261ba5 40c2_b4fbf43b074bb285 40bf_996839adbdbcb695
    3ffe_ead1c14ce23271d2 bfd2_d48902bd42483997 3fcf_d3d7a0b040b8f288
    0d8b_8424da28da1a794a c0d4_fb98e4c399074ea4 40e2_c6574994cffcc93e
    27b3_92fe1753a60ec23c 4113_9486ef54b922d704 c11f_e18a0d9a5f1b1d85
    4bf3_8ad62d461f42ff39 bf4e_a0c6f3b482d1ba0c bf59_f03b9e5640c60b27
    19b7_f1f8ddbd92da1224 bfb0_87a5414756f49ffd 3fbd_a2418c67aa1293e8
    4000_8fef5f63e9839930 3ed8_bb5c21a84d8c2d20 3ed8_db1337db9d0934c0
    4002_abf40241ca91133d 3ed5_89632e1239837b1f 3ed6_eb55fa1feedff4bb
    3ffb_c6b6cd9dc75ccb34 3ef3_e8e56be0319cc26d bef5_c3f33971cb9e0bc3
    4002_c5287a684957b88f c129_89cc3a284bf4ee98 c12a_f9a293c616c9fa3a
    3fff_8000000000000001 3ffe_9a4ba5298fc2d88a 3fbf_de99f133d33a501f
    3fff_8000000001234567 4002_fde7c4832dfaa49e 3fdc_d06376e327358e00
    3ffe_ffffffffffffffff 4002_fde7c4832dfaa49e bfc3_b7276bd437e86c94`,
  fyl2xp1: `
    3ffb_b2f6a75504f48d3c 3f2f_b0f2ce2e4d69ec85 3f2c_ab174d933c60edea
    3ffb_e61a18e3ebeee3b8 c04c_9e636e6fb20521d8 c049_c2a610d83c40aeb0
    3ffb_f77d90787cef5238 406e_9c6c4cf5e7ccd78e 406b_cdf616130f4102eb
    3ffb_96cb92e6fd61850f 3efb_ab49501e058d332b 3ef8_8c7391a5849571d6
    3ffd_a01a2e416215a886 bfb0_ac545e1f3e6e1769 bfaf_874a9c2419f3fffa
    bffb_bd2b891769eec6df 4015_8f14f6641f8be913 c012_a00bf6dad69c3635
    bfe6_a6290240f166628a bfbc_d71971e44ade0367 3fa4_c96b4d2be91a6ed4
    3fe2_f860e82922697e83 bf31_cb18653d1e6f9a10 bf16_8e2406475c5b1438
    bfd7_93af1316e57b8c8a 3eeb_8fe7e70c62707590 bec3_ef89fa3374adb26b
    bfce_92f08457bba9b6d6 bf52_ef37ce954fa760b3 3f22_c617904a69adb0cc
    3fd9_b60417b6dde7d0da bf73_c2ea13c366171649 bf4e_c7ef41cf04f66e71
    be9b_c227e70a3326bc88 3f6a_9172536a21ea8b1f be07_9f24b5ba4d6b5762
    be12_95b6d8d34c61b15a 3fb4_883039221eae8e00 bdc7_e5cf329a1439f4e2`,
  fpatan: `
    bffd_843971c35f5172b2 4001_d849014893dc1c88 3fff_cdf34680cc591814
    bfff_e4920a7ba63dcf5b c001_ff3ff818e016db9a bfff_e5409cca3136d866
    bffd_fd2b08ef2e6d56b5 c001_d87e3fd0d3765608 bfff_d2668b3be8b1fb84
    3fff_e64ffa9f9724902b 3ffd_e17e7947aaa86923 3ffc_f5cfad2b4db6066e
    4001_e2bd2771bf2489e3 3ffd_dce081da269050fc 3ffa_f912fb65dd62830d
    3ffe_dca0f54384475d08 3fff_9dd2d3b553652346 3ffe_f5f45f09328ee232
    c000_ccc8408f4cabb694 bffd_807768375306ea71 c000_c40db3b678d7a479
    bffd_f4e114f355d3a233 3ffe_dd0f01ef981b3957 4000_84e73797ca624f5f
    c000_d94ed577f9c839d1 c001_b94d91fc3b79f0f5 c000_8678d44c700141f4
    c000_ecb17642ce99ba70 bffd_ba001dab72f55d21 c000_c2cb9f45d6bf0e50
    c025_ee0a143f7fde01e8 c00e_f1befd926f9614e8 c000_c90fda2023279ae0
    bffb_aa42f74e6efb01d4 401e_de1f2b7993e60fb9 3fff_c90fdaa22dac708a
    401e_cda341630f51e5a8 3fe7_db97387b0dac97ab 3fc8_88af623a254d2a4e
    3ff9_b1a2fbf54d6d8ef3 c026_96c34dab4ca0c577 bfff_c90fdaa221640bad
    bfe6_f3cc3a4ffe5b931f bfdc_d3a94e5f9f268f60 c000_c901f68d4c696c17
    368d_81977271810aa9af b2da_ddd682469e7c6369 bc4c_db1d080ed7970931
    c36c_e3af088e1d1f4779 c0a3_d301ca9efad7f941 c000_c90fdaa22168c235
    4bd3_fcf5d7723c43a63b 3609_fa17ff483ecd2f95 2a34_fd195660df2ba499
    3bef_d1399522a2f5b7eb af85_a93962b8bf7ddd21 b394_cf0e77e35c4fd030
    b8d4_884a9db0f9e99616 ccf9_bb8dcf3d0a81ed30 bfff_c90fdaa22168c235`,
};

const CASES = Object.entries(COMPUTED).flatMap(([name, lines]) =>
  lines
    .trim()
    .split('\n')
    .map((line) => {
      const values = line.trim().split(' ');
      return { name: name as Name, operands: values.slice(0, -1), nearest: values.at(-1) as string };
    }),
);

/** Number of a value among those of its sign. */
function ordinal(value: string): bigint {
  const [exponent, significand] = value.split('_').map((part) => BigInt(`0x${part}`)) as [bigint, bigint];
  return ((exponent & 0x7fffn) << 63n) + BigInt.asUintN(63, significand);
}

/** Where the result is: FPTAN pushes 1.0 above it. */
const resultOf = (name: Name, { stack }: Result) => stack[name === 'fptan' ? 1 : 0] as string;

describe('transcendental instructions', () => {
  it.each(['fsin', 'fcos', 'fptan', 'f2xm1', 'fyl2x', 'fyl2xp1', 'fpatan'] as const)(
    '%s gives the nearest result',
    (name) => {
      const cases = CASES.filter((c) => c.name === name);
      expect(cases.length).toBeGreaterThan(12);
      for (const { operands, nearest } of cases) {
        const result = run(name, operands);
        expect(resultOf(name, result), operands.join()).toBe(nearest);
        expect(result.status & ~C1).toBe(0x20);
      }
    },
  );

  it('round as FCW.RC says, to the full precision, and C1 tells the direction', () => {
    for (const { name, operands, nearest } of CASES) {
      // FCW.PC is 24 bits.
      const [even, down, up, zero] = [0x07f, 0x47f, 0x87f, 0xc7f].map((fcw) => run(name, operands, fcw)) as [
        Result,
        Result,
        Result,
        Result,
      ];
      const isNegative = Number.parseInt(nearest, 16) >= 0x8000;
      const [inner, outer] = isNegative ? [up, down] : [down, up];
      expect(resultOf(name, even)).toBe(nearest);
      expect(ordinal(resultOf(name, outer)) - ordinal(resultOf(name, inner))).toBe(1n);
      expect([resultOf(name, inner), resultOf(name, outer)]).toContain(nearest);
      expect(resultOf(name, zero)).toBe(resultOf(name, inner));
      expect([inner.status, outer.status, zero.status]).toEqual([0x20, 0x220, 0x20]);
      expect(even.status).toBe(nearest === resultOf(name, outer) ? 0x220 : 0x20);
    }
  });

  it('have π and ln 2 to all the bits that are used', () => {
    const bits = 200n;
    const inverse = (n: bigint) => {
      let sum = 0n;
      for (let k = 0n, power = (1n << bits) / n; power !== 0n; k++, power /= n * n) {
        const term = power / (2n * k + 1n);
        sum += k % 2n === 0n ? term : -term;
      }
      return sum;
    };
    // Machin: π/4 = 4 arctan 1/5 − arctan 1/239.
    expect((4n * (4n * inverse(5n) - inverse(239n))) >> 40n).toBe(PI);
    let ln2 = 0n;
    for (let k = 1n; k < bits; k++) ln2 += (1n << (bits - k)) / k;
    expect(ln2 >> 40n).toBe(LN2);
  });
});

const VALUES = {
  '-inf': 'ffff_8000000000000000',
  '-2': 'c000_8000000000000000',
  '-1/4': 'bffd_8000000000000000',
  '-0': '8000_0000000000000000',
  '+0': '0000_0000000000000000',
  '+1/4': '3ffd_8000000000000000',
  '+1': '3fff_8000000000000000',
  '+2': '4000_8000000000000000',
  '+4': '4001_8000000000000000',
  '-4': 'c001_8000000000000000',
  '+inf': '7fff_8000000000000000',
  qnan: '7fff_c000000000000123',
  snan: '7fff_a000000000000000',
  bad: '3fff_4000000000000000',
  tiny: '0000_0000000000000004',
} as const;
type Value = keyof typeof VALUES;
const INDEFINITE = 'ffff_c000000000000000';

/** Rows of `table`: ST(1) first, then what becomes of each ST(0) of the head. `*` is #IA, `Z` before a result is #Z. */
function twoOperands(name: Name, table: string, results: Readonly<Record<string, string>>): void {
  const [head, ...rows] = table
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/));
  for (const [y, ...cells] of rows as string[][]) {
    cells.forEach((cell, n) => {
      const x = head?.[n] as Value;
      const result = run(name, [VALUES[x], VALUES[y as Value]]);
      const divides = cell.startsWith('Z');
      const known = cell.replace('Z', '');
      const expected = results[known] ?? VALUES[known as Value];
      const shown = `${name} ${x} ${y}`;
      if (cell === '*') expect({ ...result, shown }).toEqual({ status: 1, stack: [INDEFINITE], shown });
      else {
        expect({ stack: result.stack, shown }).toEqual({ stack: [expected], shown });
        expect(result.status & 0x1f).toBe(divides ? 4 : 0);
      }
    });
  }
}

describe('special operands', () => {
  it('of FYL2X are as in the table of the manual', () => {
    twoOperands(
      'fyl2x',
      `       -inf -2   -0    +0    +1/4  +1  +2    +inf  qnan
       -inf    *    *    +inf  +inf  +inf  *   -inf  -inf  qnan
       -2      *    *    Z+inf Z+inf +4    -0  -2    -inf  qnan
       -0      *    *    *     *     +0    -0  -0    *     qnan
       +0      *    *    *     *     -0    +0  +0    *     qnan
       +2      *    *    Z-inf Z-inf -4    +0  +2    +inf  qnan
       +inf    *    *    -inf  -inf  -inf  *   +inf  +inf  qnan
       qnan    qnan qnan qnan  qnan  qnan  qnan qnan qnan  qnan`,
      {},
    );
  });

  it('of FYL2XP1 are as in the table of the manual', () => {
    const minus = run('fyl2xp1', [VALUES['-1/4'], VALUES['+2']]).stack[0] as string;
    const plus = run('fyl2xp1', [VALUES['+1/4'], VALUES['+2']]).stack[0] as string;
    // 2 log2 0.75 and 2 log2 1.25, to twelve digits.
    expect([minus.slice(0, 12), plus.slice(0, 12)]).toEqual(['bffe_d47fcb8', '3ffe_a4d3c25']);
    const negated = (value: string) => (Number.parseInt(value, 16) ^ 0x8000).toString(16) + value.slice(4);
    twoOperands(
      'fyl2xp1',
      `       -1/4 -0   +0   +1/4 qnan
       -inf    +inf *    *    -inf qnan
       -2      -m   +0   -0   -p   qnan
       -0      +0   +0   -0   -0   qnan
       +0      -0   -0   +0   +0   qnan
       +2      +m   -0   +0   +p   qnan
       +inf    -inf *    *    +inf qnan
       qnan    qnan qnan qnan qnan qnan`,
      { '+m': minus, '-m': negated(minus), '+p': plus, '-p': negated(plus) },
    );
  });

  it('of FPATAN are as in the table of the manual', () => {
    const pi = 'c90fdaa22168c235';
    twoOperands(
      'fpatan',
      `       -inf  -2    -0    +0    +2    +inf  qnan
       -inf    -3q   -2q   -2q   -2q   -2q   -q    qnan
       -2      -4q   -3q   -2q   -2q   -q    -0    qnan
       -0      -4q   -4q   -4q   -0    -0    -0    qnan
       +0      +4q   +4q   +4q   +0    +0    +0    qnan
       +2      +4q   +3q   +2q   +2q   +q    +0    qnan
       +inf    +3q   +2q   +2q   +2q   +2q   +q    qnan
       qnan    qnan  qnan  qnan  qnan  qnan  qnan  qnan`,
      {
        '+q': `3ffe_${pi}`,
        '-q': `bffe_${pi}`,
        '+2q': `3fff_${pi}`,
        '-2q': `bfff_${pi}`,
        '+3q': '4000_96cbe3f9990e91a8',
        '-3q': 'c000_96cbe3f9990e91a8',
        '+4q': `4000_${pi}`,
        '-4q': `c000_${pi}`,
      },
    );
    expect(run('fpatan', [VALUES['+0'], VALUES['+2']]).status).toBe(C1 | 0x20);
    expect(run('fpatan', [VALUES['+2'], VALUES['+0']]).status).toBe(0);
  });

  it.each([
    ['f2xm1', '-0', ['-0'], 0],
    ['f2xm1', '+0', ['+0'], 0],
    ['f2xm1', '+1', ['+1'], 0],
    ['f2xm1', 'qnan', ['qnan'], 0],
    ['f2xm1', '+4', ['+4'], 0],
    ['f2xm1', '+inf', ['+inf'], 0],
    ['f2xm1', 'bad', [INDEFINITE], 1],
    ['fsin', '-0', ['-0'], 0],
    ['fsin', '+inf', [INDEFINITE], 1],
    ['fsin', 'snan', ['7fff_e000000000000000'], 1],
    ['fcos', '-0', ['+1'], 0],
    ['fcos', '-inf', [INDEFINITE], 1],
    ['fptan', '-0', ['+1', '-0'], 0],
    ['fptan', '+inf', [INDEFINITE, INDEFINITE], 1],
    ['fptan', 'qnan', ['qnan', 'qnan'], 0],
    ['fsincos', '+0', ['+1', '+0'], 0],
    ['fsincos', '-inf', [INDEFINITE, INDEFINITE], 1],
    ['fsincos', 'tiny', ['+1', 'tiny'], 0x232],
    ['fcos', 'tiny', ['+1'], 0x222],
    ['fptan', 'tiny', ['+1', 'tiny'], 0x32],
    ['f2xm1', 'tiny', ['0000_0000000000000003'], 0x232],
  ] as const)('%s of %s', (name, operand, results, status) => {
    const result = run(name, [VALUES[operand]]);
    expect(result.stack).toEqual(results.map((value) => VALUES[value as Value] ?? value));
    expect(result.status).toBe(status);
  });

  it('F2XM1 of −1 is −1/2', () => {
    expect(run('f2xm1', ['bfff_8000000000000000'])).toEqual({ status: 0, stack: ['bffe_8000000000000000'] });
    expect(run('f2xm1', [VALUES['-inf']]).stack).toEqual(['bfff_8000000000000000']);
  });

  it('exact results of logarithms are reported as such', () => {
    expect(run('fyl2x', [VALUES['+4'], 'bfff_c000000000000000'])).toEqual({
      status: 0,
      stack: ['c000_c000000000000000'],
    });
    expect(run('fyl2xp1', ['4000_c000000000000000', VALUES['+2']])).toEqual({
      status: 0,
      stack: [VALUES['+4']],
    });
  });

  it('sums of 1 and what FYL2XP1 is given are formed without loss', () => {
    // log2 (1 + 2^-300) = 2^-300 / ln 2; log2 (1 + 2^300) is above 300.
    expect(run('fyl2xp1', ['3ed3_8000000000000000', VALUES['+1']]).stack).toEqual(['3ed3_b8aa3b295c17f0bc']);
    expect(run('fyl2xp1', ['412b_8000000000000000', VALUES['+1']], 0xb7f).stack).toEqual([
      '4007_9600000000000001',
    ]);
    expect(run('fyl2xp1', [VALUES['-2'], VALUES['+1']])).toEqual({ status: 1, stack: [INDEFINITE] });
    expect(run('fyl2xp1', [VALUES['+inf'], VALUES['-2']]).stack).toEqual([VALUES['-inf']]);
    expect(run('fyl2xp1', [VALUES['-inf'], VALUES['-2']]).stack).toEqual([INDEFINITE]);
  });

  it('overflow and underflow', () => {
    expect(run('fyl2x', [VALUES['+4'], '7ffe_ffffffffffffffff'])).toEqual({
      status: 0x228,
      stack: [VALUES['+inf']],
    });
    expect(run('fpatan', ['7ffe_8000000000000000', '0001_8000000000000000'])).toEqual({
      status: 0x30,
      stack: [VALUES['+0']],
    });
    // Unmasked: the exponent is wrapped.
    expect(run('fyl2x', [VALUES['+4'], '7ffe_8000000000000000'], 0x377)).toEqual({
      status: 8,
      stack: ['1fff_8000000000000000'],
    });
  });
});

describe.each(['fsin', 'fcos', 'fsincos', 'fptan'] as const)('%s of a source out of range', (name) => {
  it('sets C2 and leaves the stack alone', () => {
    for (const far of ['403e_8000000000000000', 'c03e_8000000000000000', '7ffe_ffffffffffffffff']) {
      expect(run(name, [far])).toEqual({ status: C2, stack: [far] });
    }
    expect(run(name, ['403d_ffffffffffffffff']).status & C2).toBe(0);
  });
});

describe('unmasked exceptions before the computation', () => {
  it.each(['f2xm1', 'fsin', 'fcos', 'fsincos', 'fptan'] as const)('%s keeps its operand', (name) => {
    expect(run(name, [VALUES.snan], 0x37e)).toEqual({ status: 1, stack: [VALUES.snan] });
    expect(run(name, [VALUES.tiny], 0x37d)).toEqual({ status: 2, stack: [VALUES.tiny] });
  });

  it.each(['fyl2x', 'fyl2xp1', 'fpatan'] as const)('%s keeps and pops nothing', (name) => {
    const operands = [VALUES['+1'], VALUES.snan];
    expect(run(name, operands, 0x37e)).toEqual({ status: 1, stack: operands });
    expect(run('fyl2x', [VALUES['+0'], VALUES['+2']], 0x37b)).toEqual({
      status: 4,
      stack: [VALUES['+0'], VALUES['+2']],
    });
  });
});

describe('stack faults', () => {
  it.each(Object.keys(CODES) as Name[])('%s of an empty register', (name) => {
    const pushes = name === 'fsincos' || name === 'fptan';
    const result = run(name, []);
    expect(result.stack).toEqual(pushes ? [INDEFINITE, INDEFINITE] : [INDEFINITE]);
    expect(Number(one.get('FSW')) & 0x241).toBe(0x41);
  });

  it.each(['fsincos', 'fptan'] as const)('%s without room', (name) => {
    const full = Array.from({ length: 8 }, () => VALUES['+1']);
    expect(run(name, full).stack.slice(0, 2)).toEqual([INDEFINITE, INDEFINITE]);
    expect(Number(one.get('FSW')) & 0x241).toBe(0x241);
  });
});
