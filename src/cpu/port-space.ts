/**
 * The I/O address space as the processor sees it: what IN, OUT, INS and OUTS reach. The machine puts
 * its devices behind it; a processor without devices has {@link NO_PORTS}.
 */

/** Size of a port access in bytes. */
export type PortAccessSize = 1 | 2 | 4;

export interface PortSpace {
  /** Reads `size` bytes at `port` (0–FFFFH), unsigned. A byte that no device claims reads FFH. */
  read(port: number, size: PortAccessSize): number;
  /** Writes the low `size` bytes of `value`, unsigned. A byte that no device claims is dropped. */
  write(port: number, size: PortAccessSize, value: number): void;
}

/** What a read of `size` bytes gives where nothing answers. */
export function allOnes(size: PortAccessSize): number {
  return size === 1 ? 0xff : size === 2 ? 0xffff : 0xffff_ffff;
}

/** An I/O address space without any device. */
export const NO_PORTS: PortSpace = {
  read: (_port, size) => allOnes(size),
  write: () => {},
};
