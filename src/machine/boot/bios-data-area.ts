/**
 * The BIOS data area and the start of its extension, as far as software reads them without calling the
 * BIOS: serial port, equipment, base memory. There is no BIOS to call: interrupt vectors are 0.
 */
import { COM1 } from '../devices/serial-port.ts';
import { LOWER_KIB } from '../memory-map.ts';
import type { MemoryPiece } from './boot-plan.ts';
import { TableWriter } from './table-writer.ts';

const START = 0x400;
const SIZE = 0x100;
/** Bytes from {@link START}. */
const Place = { SerialPort: 0x00, ExtendedAreaSegment: 0x0e, Equipment: 0x10, BaseMemory: 0x13 } as const;
/** A floating-point unit, and one serial port in bits 11:9. */
const EQUIPMENT = 0x0202;
const EXTENDED_AREA = LOWER_KIB * 1024;

/** Both areas, one piece of memory each. */
export function biosDataAreas(): readonly MemoryPiece[] {
  const area = new TableWriter(SIZE)
    .u16(Place.SerialPort, COM1)
    .u16(Place.ExtendedAreaSegment, EXTENDED_AREA >> 4)
    .u16(Place.Equipment, EQUIPMENT)
    .u16(Place.BaseMemory, LOWER_KIB);
  // The extended area begins with its size in KBytes.
  return [
    { start: START, bytes: area.bytes },
    { start: EXTENDED_AREA, bytes: Uint8Array.of(1) },
  ];
}
