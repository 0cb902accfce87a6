/**
 * VMX non-root operation as an executing processor sees it (SDM §28.1, §28.3): which instructions
 * exit, and what the others do differently.
 */
import type { Instruction } from '../../cpu/instruction.ts';
import { Enabling, type Intercept } from '../../cpu/intercept.ts';
import type { MsrAccess } from '../../cpu/msr-catalogue.ts';
import { checkMsrWrite, IA32_BIOS_UPDT_TRIG, writeMsr } from '../../cpu/msrs.ts';
import { Register } from '../../cpu/registers.ts';
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { shadowTpr, writeShadowTpr } from '../apic/apic-writes.ts';
import { IA32_TSC_DEADLINE, readDeadline, writeDeadline } from '../apic/guest-timer.ts';
import { writeSenduipi } from '../apic/senduipi.ts';
import { isApicMsr, readVirtualApicMsr, writeVirtualApicMsr } from '../apic/x2apic-msrs.ts';
import { type ControlRef, controlRef, isOn } from '../effective-controls.ts';
import { rebaseTimer } from '../events/preemption-timer.ts';
import type { ExitRequest } from '../exit/exit-request.ts';
import type { VmxProcessor } from '../vmx-state.ts';
import { keepMasked, readThroughShadow } from './control-registers.ts';
import { guestTsc, physicalDelay } from './guest-time.ts';
import { INTERCEPTS } from './intercept-list.ts';

const IA32_TIME_STAMP_COUNTER = 0x10;
const IA32_SPEC_CTRL = 0x48;
const INTERRUPT_WINDOW = controlRef('proc.interruptWindowExiting');
const VIRTUALIZE_SPEC_CTRL = controlRef('proc3.virtualizeIa32SpecCtrl');
const TPR_SHADOW = controlRef('proc.useTprShadow');
const MAX_LENGTH = 15;

const ENABLING: Readonly<Record<Enabling, ControlRef>> = {
  [Enabling.RDTSCP]: controlRef('proc2.enableRdtscp'),
  [Enabling.INVPCID]: controlRef('proc2.enableInvpcid'),
  [Enabling.XSAVES]: controlRef('proc2.enableXsavesXrstors'),
  [Enabling.USER_WAIT_AND_PAUSE]: controlRef('proc2.enableUserWaitAndPause'),
  [Enabling.MSR_LISTS]: controlRef('proc3.enableMsrListInstructions'),
};

/** Requests of rows that say nothing but reason and length, made once: by cause and length. */
const PLAIN: (readonly ExitRequest[] | undefined)[] = [];
for (const [cause, { reason, qualification, information }] of Object.entries(INTERCEPTS)) {
  if (qualification !== undefined || information !== undefined) continue;
  PLAIN[Number(cause)] = Array.from({ length: MAX_LENGTH + 1 }, (_, instructionLength) =>
    Object.freeze({ reason, instructionLength }),
  );
}

export class NonRootOperation {
  private readonly p: VmxProcessor;

  constructor(p: VmxProcessor) {
    this.p = p;
  }

  private get copy(): ProcessorCopy {
    return this.p.active.resident(this.p.vmx.current as ProcessorCopy);
  }

  private isOn(control: ControlRef): boolean {
    return isOn(this.copy, this.p.capabilities, control);
  }

  /** The exit that instruction `i` causes for `cause`, or undefined. */
  exitOf(i: Instruction, cause: Intercept, a: number, b: number): ExitRequest | undefined {
    const row = INTERCEPTS[cause];
    const plain = PLAIN[cause];
    if (plain !== undefined && row.when === undefined) return plain[i.length];
    const execution = { p: this.p, copy: this.copy, i, a, b };
    if (row.when !== undefined && !row.when(execution)) return undefined;
    return (
      plain?.[i.length] ?? {
        reason: row.reason,
        instructionLength: i.length,
        ...(row.qualification && { qualification: row.qualification(execution) }),
        ...(row.information && { instructionInformation: row.information(execution) }),
        ...(row.msrData && { msrData: row.msrData(execution) }),
        ...(row.linearAddress && { guestLinearAddress: this.p.cpu.quads[Register.linear] as bigint }),
      }
    );
  }

  enables(enabling: Enabling): boolean {
    return this.isOn(ENABLING[enabling]);
  }

  visibleControlRegister(register: 'CR0' | 'CR4'): bigint {
    return readThroughShadow(this.copy, register, this.p.cpu.read(register));
  }

  writtenControlRegister(register: 'CR0' | 'CR4', source: bigint): bigint {
    return keepMasked(this.copy, register, source, this.p.cpu.read(register));
  }

  visibleTsc(tsc: bigint): bigint {
    return guestTsc(this.copy, this.p.capabilities, tsc);
  }

  physicalDelay(virtual: bigint): bigint {
    return physicalDelay(this.copy, this.p.capabilities, virtual);
  }

  mwaitGoesOn(): boolean {
    return this.isOn(INTERRUPT_WINDOW) || this.p.vmx.virtualInterruptPending;
  }

  readSpecialTpr(): number {
    return this.isOn(TPR_SHADOW) ? shadowTpr(this.p, this.copy) : -1;
  }

  writeSpecialTpr(value: number): boolean {
    if (!this.isOn(TPR_SHADOW)) return false;
    writeShadowTpr(this.p, this.copy, value);
    return true;
  }

  virtualizesSenduipi(vector: number, destination: number): boolean {
    if (!this.isOn(TPR_SHADOW)) return false;
    writeSenduipi(this.p, this.copy, vector, destination);
    return true;
  }

  readSpecialMsr(index: number): bigint | undefined {
    if (index === IA32_TIME_STAMP_COUNTER) return this.visibleTsc(this.p.cpu.read('IA32_TIME_STAMP_COUNTER'));
    if (index === IA32_SPEC_CTRL && this.isOn(VIRTUALIZE_SPEC_CTRL)) {
      return this.copy.quads[Field.ia32SpecCtrlShadow] as bigint;
    }
    if (isApicMsr(index)) return readVirtualApicMsr(this.p, this.copy, index);
    if (index === IA32_TSC_DEADLINE) return readDeadline(this.p, this.copy);
    return undefined;
  }

  writeSpecialMsr(index: number, value: bigint): MsrAccess | undefined {
    // No microcode update happens in non-root operation: the write completes and does nothing.
    if (index === IA32_BIOS_UPDT_TRIG) return 'ok';
    if (index === IA32_TIME_STAMP_COUNTER) rebaseTimer(this.p, value);
    if (isApicMsr(index)) return writeVirtualApicMsr(this.p, this.copy, index, value);
    if (index === IA32_TSC_DEADLINE) return writeDeadline(this.p, this.copy, value) ? 'ok' : undefined;
    if (index !== IA32_SPEC_CTRL || !this.isOn(VIRTUALIZE_SPEC_CTRL)) return undefined;
    const { copy, p } = this;
    const mask = copy.quads[Field.ia32SpecCtrlMask] as bigint;
    const written = (p.cpu.read('IA32_SPEC_CTRL') & mask) | (value & ~mask);
    const access = checkMsrWrite(p.cpu, index, written);
    if (access !== 'ok') return access;
    writeMsr(p.cpu, index, written);
    copy.quads[Field.ia32SpecCtrlShadow] = value;
    copy.fieldSaved(Field.ia32SpecCtrlShadow);
    p.active.fieldChanged(copy, Field.ia32SpecCtrlShadow);
    return 'ok';
  }
}
