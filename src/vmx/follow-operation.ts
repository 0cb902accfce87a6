/**
 * What the processor is told when it comes into another kind of VMX operation, or into a guest anew:
 * whether instructions may exit, who translates guest-physical addresses, when VT-x has to be asked.
 */
import { Attention } from '../cpu/attention.ts';
import { abandonDelivery, deliverInjected } from '../cpu/events.ts';
import { forgetEverything } from '../cpu/paging.ts';
import { recogniseAfterTransition } from '../cpu/user-interrupts.ts';
import type { ProcessorCopy } from '../vmcs/processor-copy.ts';
import { controlsOf } from './effective-controls.ts';
import { ENABLE_EPT } from './ept/ept-settings.ts';
import type { ExtendedPageTables } from './ept/extended-page-tables.ts';
import { asksAtBoundaries, updateDeadline } from './events/boundary-exits.ts';
import { Operation, type VmxProcessor } from './vmx-state.ts';

// Constants to the compiler, which imported bindings are not (bench: "VMRESUME + exit").
const NON_ROOT = Operation.NonRoot;
const LOOKUP = Attention.Lookup;
const ENTERED = Attention.Vmx;

type Translating = VmxProcessor & { readonly ept: ExtendedPageTables };

/**
 * After a VM entry or VM exit: whether instructions may exit now, and which translations go. Without
 * "enable VPID" every transition invalidates those of VPID 0000H (SDM §31.4).
 */
export function operationChanged(p: Translating): void {
  const { cpu, vmx } = p;
  if (cpu.vpid === 0 && vmx.vpid === 0) {
    cpu.translations.invalidateVpid(0, true);
    cpu.tlb.forgetAll();
  }
  if (cpu.translations.caching.dropsAtOperation()) {
    p.ept.forgetMappings();
    forgetEverything(cpu);
  }
  abandonDelivery(cpu);
  followOperation(p);
  deliverIntoRoot(p);
  recogniseAfterTransition(cpu);
  // Before the first instruction of a guest comes what VM entry injected or left pending.
  cpu.requestAttention(cpu.portAsks ? ENTERED : LOOKUP);
}

/** What a VM entry that returned from SMM to VMX root operation injected: nothing exits there (SDM §34.15.4.8). */
function deliverIntoRoot({ cpu, vmx }: Translating): void {
  const { injectedEvent } = vmx;
  if (vmx.operation !== Operation.Root || injectedEvent === undefined) return;
  vmx.injectedEvent = undefined;
  const { identification, errorCode, instructionLength, data, blockedBySti } = injectedEvent;
  deliverInjected(cpu, identification | 0, errorCode, instructionLength, true, data, blockedBySti);
}

/** Tells the processor what kind of operation it is in. */
export function followOperation(p: Translating): void {
  const { cpu, vmx } = p;
  cpu.stoppedUntilReset = vmx.shutdown !== 'no';
  cpu.nonRoot = vmx.operation === NON_ROOT;
  // In SMM what the guest uses is remembered, and not in use.
  cpu.vpid = cpu.nonRoot ? vmx.vpid : 0;
  cpu.apicAccessPage = cpu.nonRoot ? vmx.apicAccessPage : -1;
  if (cpu.nonRoot) followGuest(p);
  else {
    cpu.portAsks = false;
    cpu.portDeadline = Infinity;
    cpu.guestPhysical = undefined;
    cpu.addressSpace = 0;
  }
  cpu.tlb.leaveView();
  cpu.stateChanged();
}

/** What the controls of the guest ask of the processor. */
export function followGuest(p: Translating): void {
  const { cpu, ept } = p;
  const copy = p.active.resident(p.vmx.current as ProcessorCopy);
  const controls = p.vmx.controls ?? controlsOf(copy, p.capabilities);
  cpu.portAsks = asksAtBoundaries(p, controls);
  updateDeadline(p);
  const translates = controls.isOn(ENABLE_EPT);
  if (translates) ept.follow(copy, controls);
  cpu.guestPhysical = translates ? ept : undefined;
  cpu.addressSpace = translates ? ept.addressSpace : 0;
}
