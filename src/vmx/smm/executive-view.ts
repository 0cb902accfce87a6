/**
 * The SMM-transfer VMCS as SMM VM exits and VM entries that return from SMM use it: VM-execution control
 * fields are those of the executive VMCS, or 0 while the executive monitor itself is in VMX root operation
 * (SDM §34.15.4.2, §34.15.4.4).
 */
import { isAligned } from '../../bits/address.ts';
import { FIELD_COUNT, FIELDS, type FieldName } from '../../vmcs/fields.ts';
import { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { tmeReduction, type VmxProcessor } from '../vmx-state.ts';

/** Control fields that are no VM-execution control fields, and the one that names the executive VMCS. */
const KEPT: ReadonlySet<FieldName> = new Set<FieldName>([
  'primaryVmExitControls',
  'secondaryVmExitControls',
  'vmExitMsrStoreCount',
  'vmExitMsrStoreAddress',
  'vmExitMsrLoadCount',
  'vmExitMsrLoadAddress',
  'vmEntryControls',
  'vmEntryMsrLoadCount',
  'vmEntryMsrLoadAddress',
  'injectedEventIdentification',
  'injectedEventErrorCode',
  'injectedEventData',
  'vmEntryInstructionLength',
  'executiveVmcsPointer',
]);

/** By slot: 1 for a VM-execution control field. */
export const IS_EXECUTION_CONTROL = Uint8Array.from(FIELDS, ({ type, key }) =>
  type === 'control' && !KEPT.has(key) ? 1 : 0,
);

/** A copy of `transfer` with the VM-execution control fields of `executive`, without one 0. */
export function executiveView(transfer: ProcessorCopy, executive: ProcessorCopy | undefined): ProcessorCopy {
  const view = new ProcessorCopy(transfer.address, transfer.format);
  view.words.set(transfer.words);
  for (let slot = 0; slot < FIELD_COUNT; slot++) {
    if (IS_EXECUTION_CONTROL[slot] === 1) view.quads[slot] = executive?.quads[slot] ?? 0n;
  }
  return view;
}

/** The VMCS at `pointer` as the processor holds it, or as it is in memory; undefined if it cannot be one. */
export function vmcsAt(p: VmxProcessor, pointer: bigint): ProcessorCopy | undefined {
  if (!isAligned(pointer, 4096)) return undefined;
  if (pointer >> BigInt(p.capabilities.addressWidth(tmeReduction(p))) !== 0n) return undefined;
  const active = p.active.get(Number(pointer));
  if (active !== undefined) return p.active.resident(active);
  const copy = new ProcessorCopy(Number(pointer), p.capabilities.format);
  copy.load(p.cpu.memory.peek(Number(pointer)));
  return copy;
}
