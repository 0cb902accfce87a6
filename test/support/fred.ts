/** A processor that delivers events by FRED (tables.ts for its segments), and the frames that delivery leaves. */
import { CR4 } from '../../src/cpu/registers.ts';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { enterRing, Selector, type World, world } from './tables.ts';

export const ENTRY = 0x3_0000;
export const ENTRY_AT_CPL0 = ENTRY + 256;
/** Stacks of the four levels. */
export const FRED_STACKS = [0x8_0000, 0x8_1000, 0x8_2000, 0x8_3000] as const;
export const GS_OF_USER = 0x1234_5000n;
export const GS_OF_SUPERVISOR = 0xffff_8000_0000_0000n;
const FRED = 1n << BigInt(CR4.FRED);
/** IA32_STAR: SYSCALL segments 10H and 18H; ERETU to 13H+8 and 13H+16, which are not those of {@link Selector}. */
export const STAR = (0x13n << 48n) | (BigInt(Selector.Code0) << 32n);

export interface FredOptions {
  readonly ring?: 0 | 3;
  /** Parts of IA32_FRED_CONFIG besides the entry point. */
  readonly config?: number;
  /** Stack level of vectors. */
  readonly levels?: Readonly<Record<number, number>>;
  readonly flags?: bigint;
}

/** Turns FRED on. */
export function useFred(cpu: LogicalProcessor, { config = 0, levels = {} }: FredOptions = {}): void {
  cpu.set('CR4', cpu.get('CR4') | FRED);
  cpu.set('IA32_FRED_CONFIG', BigInt(ENTRY | config));
  FRED_STACKS.forEach((stack, level) => {
    cpu.set(`IA32_FRED_RSP${level as 0 | 1 | 2 | 3}`, BigInt(stack));
  });
  const all = Object.entries(levels).map(([vector, level]) => BigInt(level) << (2n * BigInt(vector)));
  cpu.set(
    'IA32_FRED_STKLVLS',
    all.reduce((sum, bits) => sum | bits, 0n),
  );
  cpu.set('IA32_STAR', STAR);
  cpu.set('IA32_EFER', cpu.get('IA32_EFER') | 1n);
  cpu.set('IA32_KERNEL_GS_BASE', GS_OF_SUPERVISOR);
  cpu.set('GS.base', GS_OF_USER);
}

/** A processor that is about to execute `code` with FRED. */
export function fredWorld(code: string | Uint8Array, options: FredOptions = {}): World {
  const w = world(code);
  useFred(w.cpu, options);
  w.cpu.set('CS.selector', BigInt(Selector.Code0));
  w.cpu.set('SS.selector', BigInt(Selector.Data0));
  if (options.ring === 3) enterRing(w, 3);
  w.cpu.set('GS.base', GS_OF_USER);
  w.cpu.set('RFLAGS', options.flags ?? 2n);
  return w;
}

/** The frame at RSP. */
export function frameOf(machine: Machine, rsp: bigint) {
  const item = (n: number) => machine.memory.read64(Number(rsp) + 8 * n);
  const ss = item(5);
  const part = (high: number, low: number) =>
    Number((ss >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n));
  return {
    errorCode: item(0),
    rip: item(1),
    cs: item(2),
    rflags: item(3),
    rsp: item(4),
    ss: part(15, 0),
    blockedBySti: part(16, 16),
    call: part(17, 17),
    nmi: part(18, 18),
    reserved: part(31, 19) | part(47, 40) | part(56, 52) | part(59, 59),
    vector: part(39, 32),
    type: part(51, 48),
    in64BitMode: part(57, 57),
    nested: part(58, 58),
    length: part(63, 60),
    data: item(6),
    zero: item(7),
  };
}

/** The frame that the last event left. */
export const lastFrame = ({ machine, cpu }: World) => frameOf(machine, cpu.get('RSP'));

/** Current stack level. */
export const stackLevel = (cpu: LogicalProcessor) => Number(cpu.get('IA32_FRED_CONFIG') & 3n);

export const eretu = Uint8Array.from([0xf3, 0x0f, 0x01, 0xca]);
export const erets = Uint8Array.from([0xf2, 0x0f, 0x01, 0xca]);
