/**
 * SMM VM exits (SDM §34.15.2): from outside SMM to the SMM monitor, in VMX root operation too. They use
 * the SMM-transfer VMCS. DEVIATION(smm-exit-link-pointer)
 */
import { materialise } from '../../cpu/flags.ts';
import { followsIoInstruction } from '../../cpu/io-instruction.ts';
import { EFER, Register } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import { ExitReasonBit } from '../../vmcs/formats.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { saveQuad, saveWord } from '../copy-writes.ts';
import { controlRef, controlsOf } from '../effective-controls.ts';
import { EXIT_REASONS, ExitReason } from '../exit/exit-reasons.ts';
import type { ExitRequest } from '../exit/exit-request.ts';
import { isHost64 } from '../exit/host-state.ts';
import { recordExit } from '../exit/record.ts';
import { saveGuestState } from '../exit/save-guest-state.ts';
import { enterHost } from '../exit/vm-exit.ts';
import { AbortIndicator, abort } from '../exit/vmx-abort.ts';
import { storeMsrArea } from '../msr-area.ts';
import { type Outcome, vmExit } from '../outcome.ts';
import { NO_POINTER_64, Operation, type VmxProcessor } from '../vmx-state.ts';
import { executiveView } from './executive-view.ts';

const PT_GUEST_PHYSICAL = controlRef('proc2.intelPtUsesGuestPhysicalAddresses');

const EFER_LOW = 2 * Register.IA32_EFER;
const IN_SMM = 2 * Register.inSmm;
const SMI = 2 * Register.blockingBySmi;
const NMI = 2 * Register.blockingByNmi;
const SMBASE = 2 * Register.IA32_SMBASE;

/** The VM exit of an SMI that arrives outside SMM. */
export function smiExit(p: VmxProcessor): Outcome {
  const { cpu, vmx } = p;
  if (!followsIoInstruction(cpu)) return transferToMonitor(p, { reason: ExitReason.OtherSmi });
  const { quads } = cpu;
  const transfer = p.active.activate(vmx.smmTransfer);
  saveQuad(transfer, Field.ioRcx, quads[Register.ioRcx] as bigint);
  saveQuad(transfer, Field.ioRsi, quads[Register.ioRsi] as bigint);
  saveQuad(transfer, Field.ioRdi, quads[Register.ioRdi] as bigint);
  saveQuad(transfer, Field.ioRip, quads[Register.ioRip] as bigint);
  return transferToMonitor(p, {
    reason: ExitReason.IoSmi,
    qualification: quads[Register.ioQualification] as bigint,
    guestLinearAddress: quads[Register.ioLinear] as bigint,
  });
}

/** An SMM VM exit that finds dual-monitor treatment active. */
export function transferToMonitor(p: VmxProcessor, request: ExitRequest): Outcome {
  const transfer = beginSmmExit(p, request);
  const controls = controlsOf(transfer, p.capabilities);
  const stored = transfer.words[2 * Field.vmExitMsrStoreCount] as number;
  const area = transfer.quads[Field.vmExitMsrStoreAddress] as bigint;
  if (stored !== 0 && storeMsrArea(p, area, stored) !== 0) {
    return abort(p, transfer, AbortIndicator.SavingGuestMsrs);
  }
  const ia32e = ((p.cpu.words[EFER_LOW] as number) >>> EFER.LMA) & 1;
  if (ia32e === 1 && !isHost64(controls)) return abort(p, transfer, AbortIndicator.Ia32eGuestToLegacyHost);
  return enterHost(p, transfer, controls) ?? vmExit(request.reason);
}

/**
 * What all SMM VM exits do (SDM §34.15.2.2–§34.15.2.5): the executive-VMCS pointer, exit information and
 * guest state go to the SMM-transfer VMCS, which becomes current; the processor is in SMM.
 */
export function beginSmmExit(p: VmxProcessor, request: ExitRequest): ProcessorCopy {
  const { cpu, vmx, capabilities } = p;
  const { words } = cpu;
  materialise(cpu);
  const { current } = vmx;
  const executive =
    vmx.operation === Operation.NonRoot ? p.active.resident(current as ProcessorCopy) : undefined;
  const transfer = p.active.activate(vmx.smmTransfer);
  saveQuad(transfer, Field.executiveVmcsPointer, BigInt(executive?.address ?? vmx.vmxonPointer));
  const link = executive === undefined && current !== undefined ? BigInt(current.address) : NO_POINTER_64;
  saveQuad(transfer, Field.vmcsLinkPointer, link);
  vmx.current = transfer;
  const spec = EXIT_REASONS[request.reason];
  recordExit(p, transfer, request, spec);
  const origin = executive === undefined ? ExitReasonBit.FromRootOperation : 0;
  const pending = vmx.mtfPending ? ExitReasonBit.PendingMtf : 0;
  saveWord(transfer, Field.exitReason, request.reason | origin | pending);
  words[IN_SMM] = 1;
  const view = controlsOf(executiveView(transfer, executive), capabilities);
  saveGuestState(p, transfer, request, spec, view);
  saveWord(transfer, Field.guestSmbase, words[SMBASE] as number);
  p.active.copyChanged(transfer);
  p.observer?.exit(transfer);
  if (view.isOn(PT_GUEST_PHYSICAL)) cpu.quads[Register.IA32_RTIT_CTL] = 0n;
  words[SMI] = 1;
  words[NMI] = 1;
  cpu.translations.invalidateVpid(0, true);
  cpu.tlb.forgetAll();
  return transfer;
}
