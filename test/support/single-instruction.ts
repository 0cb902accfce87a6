/** One instruction at a time on a processor in a given mode; what it raised is observed before it is delivered. */
import { Decoder } from '../../src/cpu/decoder.ts';
import { materialise } from '../../src/cpu/flags.ts';
import { type Instruction, Next } from '../../src/cpu/instruction.ts';
import { OPCODES } from '../../src/cpu/opcode-map.ts';
import type { Processor } from '../../src/cpu/processor.ts';
import { Register, type RegisterName } from '../../src/cpu/registers.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { assemble } from './assemble.ts';
import { CODE, type CodeOptions, codeMachine } from './code.ts';

export type State = Partial<Record<RegisterName, bigint>>;

export interface SingleResult {
  readonly next: Next;
  /** Vector of the exception raised, and its error code. */
  readonly vector: number | undefined;
  readonly errorCode: number | undefined;
}

export class SingleInstruction {
  readonly machine: Machine;
  readonly cpu: Processor;
  readonly bits: 16 | 32 | 64;
  private readonly decoder: Decoder;

  constructor(options: CodeOptions = {}) {
    this.bits = options.bits ?? 64;
    this.machine = codeMachine(options);
    this.cpu = this.machine.cpu(0).processor;
    this.decoder = new Decoder(OPCODES, this.cpu.features);
  }

  set(state: State): void {
    for (const [name, value] of Object.entries(state)) this.cpu.write(name as RegisterName, value as bigint);
  }

  get(name: RegisterName): bigint {
    return this.cpu.read(name);
  }

  flags(): number {
    return materialise(this.cpu);
  }

  decode(code: string | Uint8Array): Instruction {
    const bytes = typeof code === 'string' ? assemble(code, this.bits, this.bits === 16 ? 0 : CODE) : code;
    const window = new Uint8Array(15);
    window.set(bytes);
    const i = this.decoder.decode(window, 15, this.cpu.codeBits);
    if (typeof i === 'number') throw new Error(`no instruction: ${i}`);
    return i;
  }

  /** Executes `code` (one instruction) to its end, in `state`. After a fault RIP is that of the instruction. */
  run(code: string | Uint8Array, state: State = {}): SingleResult {
    this.set(state);
    const { cpu } = this;
    const i = this.decode(code);
    const start = cpu.read('RIP');
    let next: Next;
    do {
      cpu.executeUntil = cpu.executed + 1000;
      cpu.write('RIP', start + BigInt(i.length));
      next = i.run(cpu, i);
      cpu.executed++;
    } while (next === Next.Again);
    materialise(cpu);
    const faulted = next === Next.Fault;
    if (faulted) cpu.write('RIP', start);
    const fault = 2 * Register.fault;
    return {
      next,
      vector: faulted ? cpu.i32[fault] : undefined,
      errorCode: faulted && cpu.i32[fault + 1] === 1 ? cpu.i32[2 * Register.faultErrorCode] : undefined,
    };
  }

  bytes(address: number, length: number): number[] {
    return Array.from(this.machine.memory.readBytes(address, length));
  }

  /** The little-endian value of `bytes` bytes at `address`. */
  value(address: number, bytes: number): bigint {
    return this.bytes(address, bytes).reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  }

  store(address: number, bytes: number, value: bigint): void {
    const data = Uint8Array.from({ length: bytes }, (_, n) => Number((value >> BigInt(8 * n)) & 0xffn));
    this.machine.memory.writeBytes(address, data);
  }
}
