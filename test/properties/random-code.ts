/**
 * Random bytes executed as code in random states: every mode, with and without paging, and as guest code
 * in VMX non-root operation with random controls. What a trial does depends on its seed alone, not on
 * the pieces it is executed in.
 */
import { Mode } from '../../src/cpu/mode.ts';
import type { RegisterName } from '../../src/cpu/registers.ts';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import { Machine } from '../../src/machine/machine.ts';
import { CONTROLS } from '../../src/vmcs/controls.ts';
import { FIELDS, Field } from '../../src/vmcs/fields.ts';
import { PROFILES } from '../../src/vmx/capabilities/profiles.ts';
import { ByteStrings } from '../cpu/decoder/byte-strings.ts';
import { switchControl } from '../support/legal-vmcs.ts';
import { enterRoot, freshRegion, legalValues, vmcsRegion, writeAllFields } from '../support/machine.ts';
import { gate, segment } from '../support/tables.ts';
import { Draw } from './campaign.ts';

const RAM = 0x40_0000;
const CODE = 0x1_0000;
const CODE_BYTES = 0x4000;
const GDT = 0x2000;
const LDT = 0x2800;
const IDT = 0x3000;
const TSS = 0x4000;
const STACKS = 0x7_0000;
const HOST = 0x2_0000;
/** Where bitmaps and areas of a VMCS lie. */
const STRUCTURES = 0x2_8000;
const STRUCTURE_PAGES = 24;
const PML4 = 0x30_0000;
const PDPT = 0x30_1000;
const DIRECTORY = 0x30_2000;
const DIRECTORY_32 = 0x30_3000;
const EPT_PML4 = 0x30_4000;
const EPT_PDPT = 0x30_5000;
/** Instructions between two looks at the state. */
const SLICE = 128;
const LARGE_PAGE = 0x20_0000;

const SEGMENTS = ['ES', 'CS', 'SS', 'DS', 'FS', 'GS'] as const;
const GENERAL: readonly RegisterName[] = ['RAX', 'RCX', 'RDX', 'RBX', 'RSP', 'RBP', 'RSI', 'RDI'];
const UPPER: readonly RegisterName[] = ['R8', 'R9', 'R10', 'R11', 'R12', 'R13', 'R14', 'R15'];
const CODE_RIGHTS = [0x9b, 0x9f, 0xbb, 0xdb, 0xfb, 0xff];
/** Fields of which VM entry takes any value. */
const ANY_VALUE =
  /Mask$|ReadShadow$|^cr3Target|xitingBitmap$|^exceptionBitmap|Match$|^tsc|^ple|ExitBitmap|^guestDeadline|^virtualTimer/;
const KINDS = ['real', 'virtual-8086', 'protected', 'compatibility', '64-bit'] as const;

const MODE_NAMES: Readonly<Record<Mode, string>> = {
  [Mode.Real]: 'real-address mode',
  [Mode.Virtual8086]: 'virtual-8086 mode',
  [Mode.Protected]: 'protected mode',
  [Mode.Compatibility]: 'compatibility mode',
  [Mode.Bit64]: '64-bit mode',
};

interface RandomCodeResult {
  readonly executed: number;
  /** Of all registers, RAM and the VMX state. */
  readonly hash: number;
  readonly modes: ReadonlySet<Mode>;
  /** VM exits by reason, and instructions that are not modelled by name: how often. */
  readonly exits: ReadonlyMap<number, number>;
  readonly unmodelled: ReadonlyMap<string, number>;
}

/** Executes at least `instructions` instructions. `cut`: how many of the `left` at once. */
function randomCode(seed: number, instructions: number, cut: (left: number) => number): RandomCodeResult {
  const trial = new RandomCode(seed);
  const { processor } = trial.cpu;
  for (let most = 4 * Math.ceil(instructions / SLICE); most > 0; most--) {
    trial.change();
    const end = processor.executed + SLICE;
    while (processor.executed < end) {
      const before = processor.executed;
      trial.cpu.run(cut(end - before));
      if (processor.executed === before) break;
    }
    trial.look();
    if (processor.executed >= instructions) break;
  }
  return trial.result();
}

/** What a campaign has met. */
export interface Coverage {
  executed: number;
  readonly modes: Set<string>;
  readonly exits: Map<number, number>;
  readonly unmodelled: Map<string, number>;
}

export const newCoverage = (): Coverage => ({
  executed: 0,
  modes: new Set(),
  exits: new Map(),
  unmodelled: new Map(),
});

/** Instructions of a trial. */
const PER_TRIAL = 10_000;
/** A trial that takes longer hangs: the slowest takes a second or two. */
const LONGEST = 30_000;

/** Executes trial `number` as a whole and in pieces; answers what is wrong. */
export function compareRuns(
  seed: number,
  number: number,
  coverage: Coverage,
  instructions = PER_TRIAL,
): string | undefined {
  const mixed = (Math.imul(seed, 0x85eb_ca6b) ^ Math.imul(number + 1, 0x9e37_79b1)) >>> 0;
  const begin = performance.now();
  try {
    const whole = randomCode(mixed, instructions, (left) => left);
    const cuts = new Draw(mixed);
    const pieces = randomCode(mixed, instructions, (left) => 1 + cuts.below(left));
    coverage.executed += whole.executed;
    for (const mode of whole.modes) coverage.modes.add(MODE_NAMES[mode]);
    for (const [reason, n] of whole.exits) coverage.exits.set(reason, (coverage.exits.get(reason) ?? 0) + n);
    for (const [name, n] of whole.unmodelled) {
      coverage.unmodelled.set(name, (coverage.unmodelled.get(name) ?? 0) + n);
    }
    if (whole.hash !== pieces.hash) {
      return `in pieces it comes to something else (${whole.executed} and ${pieces.executed} instructions)`;
    }
  } catch (error) {
    return (error as Error).stack ?? `${error}`;
  }
  const taken = performance.now() - begin;
  return taken > LONGEST ? `it took ${Math.round(taken / 1000)} s` : undefined;
}

const SHADOW_STACK_POINTERS = [
  'IA32_PL0_SSP',
  'IA32_PL1_SSP',
  'IA32_PL2_SSP',
  'IA32_PL3_SSP',
  'IA32_FRED_SSP1',
  'IA32_FRED_SSP2',
  'IA32_INTERRUPT_SSP_TABLE_ADDR',
] as const;

class RandomCode {
  readonly cpu: LogicalProcessor;
  private readonly machine: Machine;
  private readonly draw: Draw;
  private readonly strings: ByteStrings;
  private readonly usesVmx: boolean;
  private readonly modes = new Set<Mode>();
  private readonly exits = new Map<number, number>();

  constructor(seed: number) {
    this.draw = new Draw(seed);
    this.strings = new ByteStrings(seed);
    const profile = this.draw.once(2) ? 'full' : this.draw.pick(PROFILES).name;
    this.machine = new Machine({ memory: RAM, level: 'complete', profile, seed });
    this.cpu = this.machine.cpu(0);
    this.usesVmx = !this.draw.once(3);
    this.writeTables();
    this.writeCode(CODE, CODE_BYTES);
    this.writeCode(HOST, 0x1000);
    for (let page = 0; page < STRUCTURE_PAGES; page++) {
      if (this.draw.once(2))
        this.machine.memory.writeBytes(STRUCTURES + page * 0x1000, this.draw.bytes(0x1000));
    }
    if (this.usesVmx) {
      enterRoot(this.cpu);
      this.cpu.unit.observe({
        exit: (copy) => {
          const reason = (copy.words[2 * Field.exitReason] as number) & 0xffff;
          this.exits.set(reason, (this.exits.get(reason) ?? 0) + 1);
        },
      });
    }
  }

  /** Before a slice: a new state where the last one ended, and sometimes anyway. */
  change(): void {
    const { cpu, draw } = this;
    const ended = cpu.get('activityState') !== 0n || cpu.operation === 'outside';
    if (this.usesVmx && (cpu.operation !== 'non-root' || draw.once(4))) this.enterGuest();
    else if (ended || draw.once(3)) this.randomState();
    if (draw.once(12)) cpu.processor.requestNmi();
    if (draw.once(40)) this.writeTables();
    if (draw.once(10)) this.writeCode(CODE + draw.below(CODE_BYTES), 0x100);
  }

  look(): void {
    this.modes.add(this.cpu.mode);
  }

  result(): RandomCodeResult {
    const { processor } = this.cpu;
    const vmx = JSON.stringify(this.cpu.snapshot().vmx, (_, value: unknown) =>
      typeof value === 'bigint' ? `${value}` : value,
    );
    let hash = processor.executed | 0;
    const add = (value: number) => {
      hash = Math.imul(hash ^ value, 0x0100_0193) ^ (hash >>> 15);
    };
    for (const word of processor.words) add(word);
    const ram = this.machine.memory.readBytes(0, RAM);
    for (const word of new Int32Array(ram.buffer, ram.byteOffset, RAM >> 2)) add(word);
    for (let n = 0; n < vmx.length; n++) add(vmx.charCodeAt(n));
    return {
      executed: processor.executed,
      hash: hash >>> 0,
      modes: this.modes,
      exits: this.exits,
      unmodelled: processor.unmodelled,
    };
  }

  /** Half of it built like instructions, of any size of code. */
  private writeCode(start: number, length: number): void {
    const bytes = this.draw.bytes(length);
    for (let at = 0; at < length - 16; ) {
      if (this.draw.once(3)) {
        at += this.draw.below(6);
        continue;
      }
      const string = this.strings.next(this.draw.pick([16, 32, 64]));
      const used = 2 + this.draw.below(7);
      bytes.set(string.subarray(0, used), at);
      at += used;
    }
    this.machine.memory.writeBytes(start, bytes);
  }

  private address(): number {
    const { draw } = this;
    return draw.pick([
      CODE + draw.below(CODE_BYTES),
      draw.below(RAM),
      STACKS + draw.below(0x1000) * 8,
      draw.below(0x8000),
    ]);
  }

  private writeTables(): void {
    const { draw } = this;
    const { memory } = this.machine;
    const base = () => (draw.once(3) ? this.address() : 0);
    const limit = () => (draw.once(3) ? draw.below(0x10_0000) : 0xf_ffff);
    for (const table of [GDT, LDT]) {
      for (let at = 8; at < 0x200; at += 8) {
        const rights = draw.once(2) ? draw.pick(CODE_RIGHTS) : 0x93 | (draw.below(4) << 5);
        const sizes = draw.pick([0xc000, 0xa000, 0x4000, 0, 0x8000]);
        let descriptor = segment(base(), limit(), rights | sizes);
        const choice = draw.below(16);
        const selector = draw.below(0x40) * 8 + draw.below(8);
        if (choice === 0) descriptor = draw.quad();
        if (choice === 1)
          descriptor = segment(TSS + draw.below(4) * 0x100, 0x2fff, draw.pick([0x89, 0x8b, 0x81]));
        if (choice === 2)
          descriptor = gate(selector, this.address(), draw.pick([0x8c, 0xec, 0xe5, 0x84]), draw.below(4));
        memory.write64(table + at, descriptor);
      }
    }
    for (let at = 0; at < 0x1000; at += 8) {
      const type = draw.pick([0x8e, 0x8f, 0xee, 0x8e, 0x8e, 0x86, 0x85, 0xef]);
      const upper = at % 16 === 8 && draw.once(2);
      const odd = draw.once(30)
        ? draw.quad()
        : gate(draw.below(0x40) * 8 + draw.below(8), this.address(), type);
      memory.write64(IDT + at, upper ? 0n : odd);
    }
    for (let at = 0; at < 0x400; at += 4)
      memory.write32(TSS + at, draw.once(2) ? this.address() : draw.below(0x200));
    this.writePaging();
  }

  /** One to one with pages of 2 and 4 MBytes, with a few entries spoilt; and an EPT. */
  private writePaging(): void {
    const { draw } = this;
    const { memory } = this.machine;
    const spoilt = (entry: bigint) => (draw.once(24) ? entry ^ (1n << BigInt(draw.below(64))) : entry);
    memory.write64(PML4, spoilt(BigInt(PDPT) | 7n));
    memory.write64(PML4 + 8 * 511, BigInt(PDPT) | 7n);
    memory.write64(EPT_PML4, spoilt(BigInt(EPT_PDPT) | 7n));
    memory.write64(EPT_PDPT, spoilt(0xb7n));
    for (let n = 0; n < 4; n++) memory.write64(PDPT + 8 * n, spoilt(BigInt(DIRECTORY) | 7n));
    memory.write64(PDPT + 8 * 510, BigInt(DIRECTORY) | 7n);
    for (let n = 0; n < 8; n++) {
      const flags = draw.once(12) ? draw.pick([0xc1n, 0xc5n]) : 0x87n;
      memory.write64(DIRECTORY + 8 * n, spoilt(BigInt(n * LARGE_PAGE) | flags));
      memory.write32(
        DIRECTORY_32 + 4 * n,
        (n * 2 * LARGE_PAGE) | draw.pick([0x87, 0x87, 0x83, 0x85, 0x1e7, 0xc1, 0xc5]),
      );
    }
  }

  /** A state that software can bring about, more or less: a mode, segments, control and general registers. */
  private randomState(): void {
    const { cpu, draw } = this;
    const kind = draw.pick(KINDS);
    const { features } = cpu.processor;
    const wide = (kind === '64-bit' || kind === 'compatibility') && features.intel64;
    const paging = kind !== 'real' && (draw.once(2) || (wide && !draw.once(3)));
    const pae = wide || draw.once(3);
    cpu.set('activityState', 0n);
    for (const name of ['blockingBySti', 'blockingByMovSs', 'blockingByNmi'] as const) {
      cpu.set(name, draw.once(20) ? 1n : 0n);
    }
    let cr0 =
      0x10n |
      (kind === 'real' ? 0n : 1n) |
      (paging ? 1n << 31n : 0n) |
      (BigInt(draw.below(0x10_0000)) & 0x5_0022n);
    if (draw.once(6)) cr0 |= BigInt(draw.below(16)) & 0xcn;
    let cr4 = draw.quad() & features.cr4Bits & ~0x2030n;
    // More often than not what x87 and SSE need.
    if (!draw.once(3)) cr4 |= 0x600n & features.cr4Bits;
    if (cpu.operation !== 'outside') cr4 |= 0x2000n;
    cr4 |= (pae ? 0x20n : 0n) | 0x10n;
    if (!wide) cr4 &= ~(1n << 17n);
    cr4 &= ~(1n << 12n);
    cpu.set('CR4', cr4);
    cpu.set('IA32_EFER', wide ? 0x500n | BigInt(draw.pick([0, 1, 0x800, 0x801])) : 0n);
    cpu.set('CR3', BigInt(wide || pae ? (wide ? PML4 : PDPT) : DIRECTORY_32));
    for (let n = 0; n < 4; n++) cpu.set(`PDPTE${n}` as RegisterName, BigInt(DIRECTORY) | 1n);
    cpu.set('CR0', cr0);
    this.randomSegments(kind, wide);
    for (const name of wide ? [...GENERAL, ...UPPER] : GENERAL) cpu.set(name, this.randomRegister());
    cpu.set('RSP', BigInt(STACKS + draw.below(0x2000)));
    const flags = BigInt(draw.next() & (draw.once(8) ? 0x3d_7fd5 : 0x20_0ed5)) | 2n;
    cpu.set('RFLAGS', kind === 'virtual-8086' ? flags | 0x2_0000n : flags);
    const offset = BigInt(CODE + draw.below(CODE_BYTES)) - cpu.get('CS.base');
    cpu.set('RIP', offset >= 0n && offset <= cpu.get('CS.limit') ? offset : BigInt(draw.below(CODE_BYTES)));
    this.randomSystemState();
  }

  private randomRegister(): bigint {
    const { draw } = this;
    return draw.pick([
      BigInt(this.address()),
      BigInt(draw.below(64)),
      draw.interesting(),
      BigInt(draw.below(RAM)),
    ]);
  }

  private randomSegments(kind: (typeof KINDS)[number], wide: boolean): void {
    const { cpu, draw } = this;
    const cpl = draw.pick([0, 0, 0, 3, 3, draw.below(4)]);
    for (const name of SEGMENTS) {
      const inReal = kind === 'real' || kind === 'virtual-8086';
      const selector = name === 'CS' ? CODE >> 4 : draw.below(0x8000);
      const flat = wide || !draw.once(3);
      const base = inReal ? BigInt(selector << 4) : flat ? 0n : BigInt(name === 'CS' ? CODE : this.address());
      const size = draw.once(4) ? 0n : 0xc000n;
      const dpl = BigInt(cpl << 5);
      let rights = name === 'CS' ? (kind === '64-bit' && wide ? 0xa09bn : 0x9bn | size) : 0x93n | size;
      if (name !== 'CS' && name !== 'SS' && draw.once(8))
        rights = draw.pick([0x1_0000n, 0x91n, 0x97n, 0xc09bn]);
      if (kind === 'virtual-8086') rights = 0xf3n;
      else if (kind === 'real') rights = name === 'CS' ? 0x9bn : 0x93n;
      else rights |= dpl;
      cpu.set(`${name}.selector`, BigInt(inReal ? selector : draw.below(0x3f) * 8 + cpl));
      cpu.set(`${name}.base`, base);
      cpu.set(`${name}.limit`, inReal ? 0xffffn : flat ? 0xffff_ffffn : BigInt(draw.below(0x10_0000)));
      cpu.set(`${name}.accessRights`, rights);
    }
    cpu.set('GDTR.base', BigInt(GDT));
    cpu.set('GDTR.limit', 0x1ffn);
    cpu.set('IDTR.base', BigInt(kind === 'real' ? draw.pick([0, IDT]) : IDT));
    cpu.set('IDTR.limit', BigInt(draw.once(8) ? draw.below(0x1000) : 0xfff));
    cpu.set('LDTR.base', BigInt(LDT));
    cpu.set('LDTR.limit', 0x1ffn);
    cpu.set('LDTR.accessRights', draw.once(4) ? 0x1_0000n : 0x82n);
    cpu.set('TR.selector', 0x38n);
    cpu.set('TR.base', BigInt(TSS));
    cpu.set('TR.limit', BigInt(draw.once(4) ? draw.below(0x100) : 0x2fff));
    cpu.set('TR.accessRights', draw.once(8) && !wide ? 0x83n : 0x8bn);
  }

  private randomSystemState(): void {
    const { cpu, draw } = this;
    const breakpoints = draw.once(6);
    cpu.set('DR7', breakpoints ? BigInt(draw.next()) | 0x400n : 0x400n);
    for (const name of ['DR0', 'DR1', 'DR2', 'DR3'] as const) cpu.set(name, BigInt(this.address()));
    cpu.set('DR6', 0xffff_0ff0n);
    if (cpu.processor.features.cetShadowStack) this.randomEnforcement();
    cpu.set('IA32_DEBUGCTL', draw.once(8) ? 2n : 0n);
    cpu.set('IA32_STAR', (BigInt(draw.below(0x40) * 8) << 48n) | (BigInt(draw.below(0x40) * 8) << 32n));
    for (const name of [
      'IA32_LSTAR',
      'IA32_SYSENTER_EIP',
      'IA32_KERNEL_GS_BASE',
      'IA32_SYSENTER_ESP',
    ] as const) {
      cpu.set(name, BigInt(this.address()));
    }
    cpu.set('IA32_SYSENTER_CS', BigInt(draw.below(0x40) * 8));
    cpu.set('IA32_FMASK', BigInt(draw.below(0x1_0000)));
    cpu.set('PKRU', draw.once(4) ? BigInt(draw.next()) : 0n);
    cpu.set('XCR0', draw.pick([1n, 3n]));
    cpu.set('FCW', BigInt((draw.next() & 0x1f3f) | 0x40));
    cpu.set('FTW', BigInt(draw.below(0x1_0000)));
    cpu.set('MXCSR', BigInt(draw.next() & 0xffff));
    for (let n = 0; n < 8; n++) {
      cpu.set(`FPR${n}.significand` as RegisterName, draw.interesting());
      cpu.set(
        `FPR${n}.exponent` as RegisterName,
        BigInt(draw.once(2) ? draw.below(0x1_0000) : 0x3fff + draw.below(80) - 40),
      );
    }
  }

  /** Shadow stacks and indirect-branch tracking, now and then; a few tokens are right. */
  private randomEnforcement(): void {
    const { cpu, draw } = this;
    for (const name of ['IA32_S_CET', 'IA32_U_CET'] as const) {
      const controls = (draw.next() & 0x3f) | draw.pick([0, 0, 0x400, 0x800]);
      cpu.set(name, draw.once(3) ? BigInt(STRUCTURES | controls) : 0n);
    }
    cpu.set('SSP', BigInt(STACKS + draw.below(0x400) * 4));
    for (const name of SHADOW_STACK_POINTERS) {
      const token = STACKS + 0x18 + draw.below(0x100) * 32;
      cpu.set(name, BigInt(token + draw.pick([0, 0, 0, 4, 8])));
      this.machine.memory.write64(token, BigInt(token | draw.pick([0, 0, 0, 1])));
    }
  }

  /** VM entry with random controls, then a random state in the guest; or root operation if entry fails. */
  private enterGuest(): void {
    const { cpu, draw } = this;
    if (cpu.operation === 'non-root') cpu.vmexit({ reason: draw.pick([7, 52]) });
    const { processor } = cpu;
    processor.stoppedUntilReset = false;
    enterAgain(cpu);
    const region = vmcsRegion(draw.below(2));
    freshRegion(cpu, region);
    cpu.vmptrld(BigInt(region));
    const { capabilities } = cpu;
    const density = draw.pick([2, 4, 12]);
    const values = { ...legalValues(cpu) };
    for (const { id, group, mask } of CONTROLS) {
      if ((capabilities.may1[group] & mask) !== 0n && draw.once(density)) switchControl(values, id, true);
    }
    for (const field of FIELDS) {
      if (capabilities.fieldExists[field.slot] === 0 || field.type === 'exit-information') continue;
      if (/Address$/.test(field.key))
        values[field.key] = BigInt(STRUCTURES + draw.below(STRUCTURE_PAGES) * 0x1000);
      else if (ANY_VALUE.test(field.key) && draw.once(2)) {
        values[field.key] = field.width === 32 ? BigInt(draw.next()) : draw.interesting();
      }
    }
    values.cr3TargetCount = BigInt(draw.below(5));
    values.vmExitMsrStoreCount = values.vmExitMsrLoadCount = values.vmEntryMsrLoadCount = 0n;
    values.eptPointer = BigInt(EPT_PML4) | 0x1en;
    values.hostRip = BigInt(HOST + draw.below(0x400));
    values.hostRsp = BigInt(STACKS);
    values.hostCr3 = values.guestCr3 = BigInt(PML4);
    values.guestRip = BigInt(CODE + draw.below(CODE_BYTES));
    for (let n = 0; n < 4; n++) values[`guestPdpte${n}` as keyof typeof values] = BigInt(DIRECTORY) | 1n;
    writeAllFields(cpu, values);
    if (cpu.vmlaunch().kind !== 'VMentry') {
      // With the controls that must be 1 alone, and one of the others.
      const few = {
        ...legalValues(cpu),
        hostRip: BigInt(HOST),
        hostCr3: BigInt(PML4),
        guestCr3: BigInt(PML4),
      };
      const { id, group, mask } = draw.pick(CONTROLS);
      if ((capabilities.may1[group] & mask) !== 0n) switchControl(few, id, true);
      writeAllFields(cpu, few);
      cpu.vmlaunch();
    }
    this.randomState();
  }
}

/** Root operation in 64-bit mode, wherever the processor was. */
function enterAgain(cpu: LogicalProcessor): void {
  cpu.reset();
  enterRoot(cpu);
}
