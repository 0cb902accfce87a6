/**
 * The tables of the MultiProcessor Specification 1.4: floating pointer and configuration table, with
 * processors, the ISA bus, the I/O APIC and who interrupts where. Virtual wire mode: there is no IMCR.
 */
import { APIC_VERSION } from '../apic/apic-registers.ts';
import { IO_APIC_BASE } from '../devices/io-apic.ts';
import { ioApicInput } from '../devices/platform.ts';
import type { MemoryPiece } from './boot-plan.ts';
import { TableWriter } from './table-writer.ts';

const FLOATING_SIZE = 16;
const HEADER = 44;
const LOCAL_APIC = 0xfee0_0000;
const ISA = 0;
const EVERY_APIC = 0xff;
const MOST_PROCESSORS = 255;
const Source = { Interrupt: 0, Nmi: 1, ExtInt: 3 } as const;

export interface MpOptions {
  readonly cpus: number;
  readonly ioApicId: number;
  /** CPUID.01H: EAX and EDX. */
  readonly signature: number;
  readonly features: number;
}

const word = (value: number) => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);

function entriesOf({ cpus, ioApicId, signature, features }: MpOptions): number[][] {
  const version = APIC_VERSION & 0xff;
  const processors = Array.from({ length: Math.min(cpus, MOST_PROCESSORS) }, (_, id) => [
    ...[0, id, version, id === 0 ? 3 : 1],
    ...word(signature),
    ...word(features),
    ...new Array<number>(8).fill(0),
  ]);
  const bus = [1, ISA, ...[...'ISA   '].map((c) => c.charCodeAt(0))];
  const ioApic = [2, ioApicId, 0x20, 1, ...word(IO_APIC_BASE)];
  const lines = Array.from({ length: 16 }, (_, line) => line)
    .filter((line) => line !== 2)
    .map((line) => [3, Source.Interrupt, 0, 0, ISA, line, ioApicId, ioApicInput(line)]);
  const external = [3, Source.ExtInt, 0, 0, ISA, 0, ioApicId, 0];
  const local = [
    [4, Source.ExtInt, 0, 0, ISA, 0, 0, 0],
    [4, Source.Nmi, 0, 0, ISA, 0, EVERY_APIC, 1],
  ];
  return [...processors, bus, ioApic, external, ...lines, ...local];
}

/** Both tables as one piece of memory at `start`, a multiple of 16 where they are searched for. */
export function mpTables(start: number, options: MpOptions): MemoryPiece {
  const entries = entriesOf(options);
  const body = entries.flat();
  const configuration = new TableWriter(HEADER + body.length)
    .text(0, 'PCMP')
    .u16(4, HEADER + body.length)
    .u8(6, 4)
    .text(8, 'VMXON   ')
    .text(16, 'VMXON       ')
    .u16(34, entries.length)
    .u32(36, LOCAL_APIC)
    .u8(HEADER, ...body)
    .checksum(7).bytes;
  const floating = new TableWriter(FLOATING_SIZE)
    .text(0, '_MP_')
    .u32(4, start + FLOATING_SIZE)
    .u8(8, 1, 4)
    .checksum(10).bytes;
  const bytes = new Uint8Array(FLOATING_SIZE + configuration.length);
  bytes.set(floating);
  bytes.set(configuration, FLOATING_SIZE);
  return { start, bytes };
}
