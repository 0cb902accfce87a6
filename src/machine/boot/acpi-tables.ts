/**
 * The ACPI tables of a machine: RSDP, RSDT, XSDT, FADT, FACS, DSDT and MADT, so that kernels find the
 * processors, the interrupt controllers and the way to turn the machine off. There is no HPET.
 */
import { IO_APIC_BASE } from '../devices/io-apic.ts';
import { ioApicInput } from '../devices/platform.ts';
import { POWER_MANAGEMENT, SOFT_OFF } from '../devices/power-management.ts';
import type { MemoryPiece } from './boot-plan.ts';
import { TableWriter } from './table-writer.ts';

const HEADER = 36;
const RSDP_SIZE = 36;
const FADT_SIZE = 244;
const FACS_SIZE = 64;
const LOCAL_APIC = 0xfee0_0000;
/** Local APIC identifiers that an xAPIC entry of the MADT can hold. */
const XAPIC_IDS = 255;

export interface AcpiOptions {
  readonly cpus: number;
  /** Identifier of the I/O APIC. */
  readonly ioApicId: number;
}

/** A table with its header; the checksum is still to be set. */
function table(signature: string, revision: number, length: number): TableWriter {
  return new TableWriter(length)
    .text(0, signature)
    .u32(4, length)
    .u8(8, revision)
    .text(10, 'VMXON ')
    .text(16, 'VMXON   ')
    .u32(24, 1)
    .text(28, 'VMXN')
    .u32(32, 1);
}

const sealed = (writer: TableWriter) => writer.checksum(9).bytes;

/** `\_S5`: the sleep type of soft off, in both halves. */
const DSDT_BODY = [
  0x08,
  ...[...'_S5_'].map((c) => c.charCodeAt(0)),
  // A package of four elements: sleep types of PM1a and PM1b, and two reserved ones.
  ...[0x12, 0x08, 4, 0x0a, SOFT_OFF, 0x0a, SOFT_OFF, 0, 0],
];

function dsdt(): Uint8Array {
  return sealed(table('DSDT', 2, HEADER + DSDT_BODY.length).u8(HEADER, ...DSDT_BODY));
}

function facs(): Uint8Array {
  return new TableWriter(FACS_SIZE).text(0, 'FACS').u32(4, FACS_SIZE).u8(32, 2).bytes;
}

const WBINVD = 1 << 0;
const PROC_C1 = 1 << 2;
const NO_POWER_BUTTON = 1 << 4;
const NO_SLEEP_BUTTON = 1 << 5;
const RTC_NOT_FIXED = 1 << 6;
const TIMER_32_BITS = 1 << 8;
const RESET_REGISTER = 1 << 10;
/** Legacy devices and an 8042 are there, no VGA. */
const BOOT_ARCHITECTURE = 0b111;

/** A generic address in the I/O space; `size`: 1 byte, 2 words, 3 doublewords. */
function ioAddress(fadt: TableWriter, at: number, bits: number, size: number, port: number): void {
  fadt.u8(at, 1, bits, 0, size).u64(at + 4, port);
}

function fadt(facsAt: number, dsdtAt: number): Uint8Array {
  const { event, control, timer, sciLine } = POWER_MANAGEMENT;
  const t = table('FACP', 4, FADT_SIZE)
    .u32(36, facsAt, dsdtAt)
    .u8(45, 1)
    .u16(46, sciLine)
    .u32(56, event)
    .u32(64, control)
    .u32(76, timer)
    .u8(88, 4, 2, 0, 4)
    // Latencies of C2 and C3 that mean there are none.
    .u16(96, 0xfff)
    .u16(98, 0xfff)
    // The century of the real-time clock.
    .u8(108, 0x32)
    .u16(109, BOOT_ARCHITECTURE)
    .u32(
      112,
      WBINVD | PROC_C1 | NO_POWER_BUTTON | NO_SLEEP_BUTTON | RTC_NOT_FIXED | TIMER_32_BITS | RESET_REGISTER,
    )
    .u8(128, 0x06)
    .u64(132, facsAt)
    .u64(140, dsdtAt);
  ioAddress(t, 116, 8, 1, 0xcf9);
  ioAddress(t, 148, 32, 2, event);
  ioAddress(t, 172, 16, 2, control);
  ioAddress(t, 208, 32, 3, timer);
  return sealed(t);
}

/** Flags of interrupts: active high and level-triggered. */
const HIGH_LEVEL = 0b1101;

function madt({ cpus, ioApicId }: AcpiOptions): Uint8Array {
  const entries: number[][] = [];
  const word = (value: number) => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
  for (let id = 0; id < cpus; id++) {
    if (id < XAPIC_IDS) entries.push([0, 8, id & 0xff, id, ...word(1)]);
    else entries.push([9, 16, 0, 0, ...word(id), ...word(1), ...word(id)]);
  }
  entries.push([1, 12, ioApicId, 0, ...word(IO_APIC_BASE), ...word(0)]);
  entries.push([2, 10, 0, 0, ...word(ioApicInput(0)), 0, 0]);
  const { sciLine } = POWER_MANAGEMENT;
  entries.push([2, 10, 0, sciLine, ...word(sciLine), HIGH_LEVEL, 0]);
  // LINT1 of every processor is NMI.
  entries.push([4, 6, 0xff, 0, 0, 1]);
  const body = entries.flat();
  // There is an 8259 pair too.
  return sealed(
    table('APIC', 3, HEADER + 8 + body.length)
      .u32(36, LOCAL_APIC, 1)
      .u8(44, ...body),
  );
}

function rsdp(rsdtAt: number, xsdtAt: number): Uint8Array {
  return new TableWriter(RSDP_SIZE)
    .text(0, 'RSD PTR ')
    .text(9, 'VMXON ')
    .u8(15, 2)
    .u32(16, rsdtAt)
    .u32(20, RSDP_SIZE)
    .u64(24, xsdtAt)
    .checksum(8, 20)
    .checksum(32).bytes;
}

/** All tables as one piece of memory at `start`, a multiple of 64 where RSDPs are searched for. */
export function acpiTables(start: number, options: AcpiOptions): MemoryPiece {
  const pieces: [number, Uint8Array][] = [];
  let end = start + RSDP_SIZE;
  const place = (bytes: Uint8Array): number => {
    const at = Math.ceil(end / 64) * 64;
    pieces.push([at, bytes]);
    end = at + bytes.length;
    return at;
  };
  const facsAt = place(facs());
  const tables = [place(fadt(facsAt, place(dsdt()))), place(madt(options))];
  const rsdt = table('RSDT', 1, HEADER + 4 * tables.length);
  const xsdt = table('XSDT', 1, HEADER + 8 * tables.length);
  tables.forEach((at, n) => {
    rsdt.u32(HEADER + 4 * n, at);
    xsdt.u64(HEADER + 8 * n, at);
  });
  pieces.push([start, rsdp(place(sealed(rsdt)), place(sealed(xsdt)))]);
  const bytes = new Uint8Array(end - start);
  for (const [at, piece] of pieces) bytes.set(piece, at - start);
  return { start, bytes };
}
