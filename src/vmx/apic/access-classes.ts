/**
 * Which accesses to the APIC-access page are virtualized and which exit (SDM §32.4.2, §32.4.3.1): two
 * tables by register. What an access is apart from its place (wider than 32 bits, a fetch, one after a
 * virtualized write) is decided by the caller and by the width here.
 */
import type { EffectiveControls } from '../effective-controls.ts';
import { controlRef } from '../effective-controls.ts';

/** Controls on which it depends, as bits. */
export const ApicControl = {
  /** "Use TPR shadow". */
  TprShadow: 1,
  /** "Virtual-interrupt delivery". */
  InterruptDelivery: 2,
  /** "APIC-register virtualization". */
  Registers: 4,
  /** "IPI virtualization". */
  Ipis: 8,
} as const;
export type ApicControls = number;

const CONTROLS = [
  controlRef('proc.useTprShadow'),
  controlRef('proc2.virtualInterruptDelivery'),
  controlRef('proc2.apicRegisterVirtualization'),
  controlRef('proc3.ipiVirtualization'),
];

/** The bits of {@link ApicControl} that are on. */
export function apicControls(controls: EffectiveControls): ApicControls {
  let bits = 0;
  for (let n = 0; n < CONTROLS.length; n++) {
    if (controls.isOn(CONTROLS[n] as (typeof CONTROLS)[number])) bits |= 1 << n;
  }
  return bits;
}

const { TprShadow, InterruptDelivery, Registers, Ipis } = ApicControl;

/** Registers that "APIC-register virtualization" lets be written. */
const WRITABLE = [
  0x020, 0x080, 0x0b0, 0x0d0, 0x0e0, 0x0f0, 0x280, 0x300, 0x310, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370,
  0x380, 0x3e0,
];
/** Besides these it lets be read: version, ISR, TMR and IRR. */
const READABLE = [0x030, ...Array.from({ length: 24 }, (_, n) => 0x100 + 16 * n)];

/** By register: the controls under which an access that starts at its offset is virtualized. */
function table(registers: readonly number[], icrLow: ApicControls): Uint8Array {
  const controls = new Uint8Array(256);
  for (const offset of registers) controls[offset >> 4] = Registers;
  const add = (offset: number, bits: ApicControls) => {
    controls[offset >> 4] = (controls[offset >> 4] as number) | bits;
  };
  add(0x080, TprShadow);
  add(0x0b0, InterruptDelivery);
  add(0x300, icrLow);
  return controls;
}

const READS = table([...WRITABLE, ...READABLE], InterruptDelivery);
const WRITES = table(WRITABLE, InterruptDelivery | Ipis);

/**
 * An access is within the low four bytes of an aligned 16-byte region; only "APIC-register
 * virtualization" lets it start elsewhere than at the register's offset.
 */
function isVirtualized(
  registers: Uint8Array,
  controls: ApicControls,
  offset: number,
  bytes: number,
): boolean {
  const within = offset & 15;
  if ((controls & TprShadow) === 0 || within + bytes > 4) return false;
  const under = (registers[offset >> 4] as number) & controls;
  return within === 0 ? under !== 0 : (under & Registers) !== 0;
}

/** A read of `bytes` bytes at page offset `offset` is virtualized. */
export function isReadVirtualized(controls: ApicControls, offset: number, bytes: number): boolean {
  return isVirtualized(READS, controls, offset, bytes);
}

/** A write of `bytes` bytes at page offset `offset` is virtualized. */
export function isWriteVirtualized(controls: ApicControls, offset: number, bytes: number): boolean {
  return isVirtualized(WRITES, controls, offset, bytes);
}
