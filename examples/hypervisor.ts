/**
 * The hypervisor of hypervisor.asm on a machine with two CPUs: assembles it, puts it into memory, and
 * lets the CPUs execute in turn until it shuts down.
 */
import { readFileSync } from 'node:fs';
import { Keystone, loadKeystone } from 'keystone-wasm';
import { FIELDS, type LogicalProcessor, Machine } from '../src/index.ts';

const CODE = 0x1_0000;
const STACK_TOPS = [0x8_0000, 0x9_0000] as const;
const PAGE_TABLES = { pml4: 0x20_0000, pdpt: 0x20_1000, directory: 0x20_2000 } as const;
const SYMBOLS: Readonly<Record<string, string>> = {
  VMXON_REGION_0: '0x100000',
  VMXON_REGION_1: '0x101000',
  VMCS_REGION: '0x102000',
  GUEST_STACK: '0xa0000',
  CONSOLE: '0xe9',
};
const SLICE = 500;
const MOST_SLICES = 1000;

/** What one run came to. */
export interface HypervisorRun {
  /** What the guest printed. */
  readonly output: string;
  /** One line for each VMX instruction but VMREAD and VMWRITE, VM entry and VM exit. */
  readonly events: readonly string[];
  readonly stop: string;
  readonly instructions: readonly number[];
  readonly hazards: number;
}

/** Machine code of hypervisor.asm at {@link CODE}, and where CPU 1 begins. */
async function assembleHypervisor(): Promise<{ code: Uint8Array; beginCpu1: number }> {
  await loadKeystone();
  const encodings = new Map(FIELDS.map((f) => [f.key as string, `0x${f.encoding.toString(16)}`]));
  const source = readFileSync(new URL('hypervisor.asm', import.meta.url), 'utf8')
    .split('\n')
    .map((line) => line.replace(/#.*/, ''))
    .join('\n')
    .replace(/\{(\w+)\}/g, (_, name: string) => encodings.get(name) ?? name)
    .replace(/\b[A-Z][A-Z_0-9]+\b/g, (name) => SYMBOLS[name] ?? name);
  const assembler = new Keystone(4, 8);
  // The same bytes up to the label tell where it is.
  const beforeCpu1 = source.slice(0, source.indexOf('begin_cpu_1:'));
  const code = assembler.asm(source, { address: CODE });
  const marked = assembler.asm(
    `${beforeCpu1}\n.quad 0x1122334455667788\n${source.slice(beforeCpu1.length)}`,
    {
      address: CODE,
    },
  );
  const mark = [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11];
  const at = marked.findIndex((_, n) => mark.every((byte, k) => marked[n + k] === byte));
  return { code, beginCpu1: CODE + at };
}

/** Maps the first GByte one to one. */
function mapMemory(machine: Machine): void {
  const { pml4, pdpt, directory } = PAGE_TABLES;
  machine.memory.write64(pml4, BigInt(pdpt) | 3n);
  machine.memory.write64(pdpt, BigInt(directory) | 3n);
  for (let n = 0; n < 512; n++) machine.memory.write64(directory + 8 * n, BigInt(n * 0x20_0000) | 0x83n);
}

/** Notes what VT-x does on `cpu`. */
function watch(cpu: LogicalProcessor, events: string[]): void {
  cpu.unit.observe({
    instruction(mnemonic, _operand, outcome) {
      if (mnemonic === 'VMREAD' || mnemonic === 'VMWRITE' || outcome.kind === 'VMexit') return;
      events.push(`CPU ${cpu.index}: ${mnemonic} — ${outcome.kind}`);
    },
    exit() {
      events.push(`CPU ${cpu.index}: VM exit`);
    },
  });
}

/** Runs the hypervisor until it shuts the machine down. */
export async function runHypervisor(): Promise<HypervisorRun> {
  const { code, beginCpu1 } = await assembleHypervisor();
  let output = '';
  const machine = new Machine({
    level: 'complete',
    cpus: 2,
    memory: 0x40_0000,
    devices: {
      debugConsole: (byte) => {
        output += String.fromCharCode(byte);
      },
    },
  });
  machine.memory.writeBytes(CODE, code);
  mapMemory(machine);
  const events: string[] = [];
  for (const cpu of machine.processors) {
    cpu.enterLongMode();
    cpu.set('CR3', BigInt(PAGE_TABLES.pml4));
    cpu.set('RIP', BigInt(cpu.index === 0 ? CODE : beginCpu1));
    cpu.set('RSP', BigInt(STACK_TOPS[cpu.index as 0 | 1]));
    watch(cpu, events);
  }
  const stop = () => machine.platform?.stop;
  for (let n = 0; n < MOST_SLICES && stop() === undefined; n++) {
    for (const cpu of machine.processors) if (stop() === undefined) cpu.run(SLICE);
  }
  return {
    output,
    events,
    stop: stop()?.kind ?? 'did not end',
    instructions: machine.processors.map((cpu) => cpu.processor.executed),
    hazards: machine.hazardCount,
  };
}
