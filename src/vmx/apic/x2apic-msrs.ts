/** RDMSR and WRMSR of 800H–8FFH with "virtualize x2APIC mode" (SDM §32.5). */
import type { MsrAccess } from '../../cpu/msr-catalogue.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { type ControlRef, controlRef, isOn } from '../effective-controls.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import { noteApicWrite } from './apic-writes.ts';
import { virtualApicPage } from './virtual-apic-page.ts';

const X2APIC_MODE = controlRef('proc2.virtualizeX2apicMode');
const REGISTERS = controlRef('proc2.apicRegisterVirtualization');
const TPR_MSR = 0x808;

/** MSRs whose writes are virtualized: bits that have to be 0, and the control besides "virtualize x2APIC mode". */
const WRITES: ReadonlyMap<number, { readonly reserved: bigint; readonly control?: ControlRef }> = new Map([
  [TPR_MSR, { reserved: 0xffff_ffff_ffff_ff00n }],
  [0x80b, { reserved: 0xffff_ffff_ffff_ffffn, control: controlRef('proc2.virtualInterruptDelivery') }],
  [0x830, { reserved: 0xfff3_2000n, control: controlRef('proc3.ipiVirtualization') }],
  [0x83f, { reserved: 0xffff_ffff_ffff_ff00n, control: controlRef('proc2.virtualInterruptDelivery') }],
]);

/** The MSR is one of a local APIC. */
export function isApicMsr(index: number): boolean {
  return index >>> 8 === 8;
}

const offsetOf = (index: number) => (index & 0xff) << 4;

/** What RDMSR of an APIC's MSR gives, or undefined if it does what it does elsewhere. */
export function readVirtualApicMsr(p: VmxProcessor, copy: ProcessorCopy, index: number): bigint | undefined {
  if (!isOn(copy, p.capabilities, X2APIC_MODE)) return undefined;
  if (index !== TPR_MSR && !isOn(copy, p.capabilities, REGISTERS)) return undefined;
  return p.cpu.memory.read64(virtualApicPage(copy) + offsetOf(index));
}

/** WRMSR of an APIC's MSR; undefined if it does what it does elsewhere. */
export function writeVirtualApicMsr(
  p: VmxProcessor,
  copy: ProcessorCopy,
  index: number,
  value: bigint,
): MsrAccess | undefined {
  if (!isOn(copy, p.capabilities, X2APIC_MODE)) return undefined;
  const row = WRITES.get(index);
  if (row === undefined || (row.control !== undefined && !isOn(copy, p.capabilities, row.control))) {
    return undefined;
  }
  if ((value & row.reserved) !== 0n) return 'reserved-bit';
  const offset = offsetOf(index);
  p.cpu.memory.write64(virtualApicPage(copy) + offset, value);
  noteApicWrite(p, offset, 8);
  return 'ok';
}
