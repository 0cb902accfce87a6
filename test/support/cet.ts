/** Processors with control-flow enforcement in tests, without paging unless a test turns it on. */
import type { CodeOptions } from './code.ts';
import { enterRing, type World, world } from './tables.ts';

/** Where SSP points at the start, in a shadow stack that grows down from there. */
export const SHADOW_TOP = 0x3_8000;
/** Tokens of supervisor shadow stacks; the 24 bytes below each are in the same 32. */
export const TOKEN0 = 0x3_1ff8;
export const TOKEN1 = 0x3_2ff8;
export const TOKEN_IST = 0x3_3ff8;
export const SSP_TABLE = 0x3_4000;

/** Instructions that the assembler does not know. */
export const ENDBR64 = '.byte 0xf3, 0x0f, 0x1e, 0xfa';
export const ENDBR32 = '.byte 0xf3, 0x0f, 0x1e, 0xfb';
export const RDSSPQ_RAX = '.byte 0xf3, 0x48, 0x0f, 0x1e, 0xc8';
export const RDSSPD_EAX = '.byte 0xf3, 0x0f, 0x1e, 0xc8';
export const INCSSPQ_RAX = '.byte 0xf3, 0x48, 0x0f, 0xae, 0xe8';
export const INCSSPD_EAX = '.byte 0xf3, 0x0f, 0xae, 0xe8';
export const SAVEPREVSSP = '.byte 0xf3, 0x0f, 0x01, 0xea';
/** With the operand at RBX or EBX. */
export const RSTORSSP_RBX = '.byte 0xf3, 0x0f, 0x01, 0x2b';
export const CLRSSBSY_RBX = '.byte 0xf3, 0x0f, 0xae, 0x33';
export const SETSSBSY = '.byte 0xf3, 0x0f, 0x01, 0xe8';
/** EAX or RAX to where RBX points. */
export const WRSSD = '.byte 0x0f, 0x38, 0xf6, 0x03';
export const WRSSQ = '.byte 0x48, 0x0f, 0x38, 0xf6, 0x03';
export const WRUSSD = '.byte 0x66, 0x0f, 0x38, 0xf5, 0x03';
export const WRUSSQ = '.byte 0x66, 0x48, 0x0f, 0x38, 0xf5, 0x03';

/** Bits of IA32_U_CET and IA32_S_CET. */
export const SH_STK_EN = 1n;
export const WR_SHSTK_EN = 2n;
export const ENDBR_EN = 4n;
export const LEG_IW_EN = 8n;
export const NO_TRACK_EN = 16n;
export const SUPPRESS_DIS = 32n;
export const SUPPRESS = 0x400n;
export const TRACKER = 0x800n;

const CR4_CET = 1n << 23n;
const CR0_WP = 1n << 16n;

export interface CetOptions extends CodeOptions {
  readonly ring?: 0 | 1 | 3;
  /** IA32_S_CET and IA32_U_CET. */
  readonly s?: bigint;
  readonly u?: bigint;
}

/** A processor about to execute `code` in `ring`, with CR4.CET, SSP at {@link SHADOW_TOP} and free tokens. */
export function cetWorld(code: string | Uint8Array, options: CetOptions = {}): World {
  const { ring = 0, s = 0n, u = 0n, ...rest } = options;
  const w = world(code, rest);
  const { cpu, machine } = w;
  if (ring !== 0) enterRing(w, ring);
  if (rest.bits === 16) cpu.set('RIP', 0n);
  cpu.set('CR0', cpu.get('CR0') | CR0_WP);
  cpu.set('CR4', cpu.get('CR4') | CR4_CET);
  cpu.set('IA32_S_CET', s);
  cpu.set('IA32_U_CET', u);
  cpu.set('SSP', BigInt(SHADOW_TOP));
  cpu.set('IA32_PL0_SSP', BigInt(TOKEN0));
  cpu.set('IA32_PL1_SSP', BigInt(TOKEN1));
  cpu.set('IA32_PL3_SSP', BigInt(SHADOW_TOP));
  cpu.set('IA32_INTERRUPT_SSP_TABLE_ADDR', BigInt(SSP_TABLE));
  for (const token of [TOKEN0, TOKEN1, TOKEN_IST]) machine.memory.write64(token, BigInt(token));
  machine.memory.write64(SSP_TABLE + 8, BigInt(TOKEN_IST));
  return w;
}

/** Items of the shadow stack from SSP up. */
export function shadowItems({ machine, cpu }: World, count: number, bytes: 4 | 8 = 8): number[] {
  const ssp = Number(cpu.get('SSP'));
  return Array.from({ length: count }, (_, n) =>
    bytes === 4 ? machine.memory.read32(ssp + 4 * n) : Number(machine.memory.read64(ssp + 8 * n)),
  );
}
