/** How facts of the tables are written, for commands and generated documents alike. */
import { hex } from '../bits/u64.ts';
import { type Control, controlOf } from '../vmcs/controls.ts';
import type { FieldCondition, VmcsField } from '../vmcs/fields.ts';
import type { VmxCapabilities } from '../vmx/capabilities/capabilities.ts';

/** `0x681E`-style encoding, four digits. */
export function encodingText(encoding: number): string {
  return hex(encoding, 4);
}

function conditionText(condition: FieldCondition): string {
  if (condition === 'cpuid.fred') return 'CPUID: FRED';
  return `${controlOf(condition).name} (${condition})`;
}

/** `always`, or the controls of which one must be supported. */
export function existenceText(field: VmcsField): string {
  return field.existsIf.length === 0 ? 'always' : field.existsIf.map(conditionText).join(' or ');
}

export function widthText(field: VmcsField): string {
  return field.width === 'natural' ? 'natural' : `${field.width} bits`;
}

/** Settings of a control that VM entry accepts: `0`, `1` or `0, 1`. */
export function allowedText(capabilities: VmxCapabilities, control: Control): string {
  const must1 = (capabilities.must1[control.group] & control.mask) !== 0n;
  const may1 = (capabilities.may1[control.group] & control.mask) !== 0n;
  return must1 ? '1' : may1 ? '0, 1' : '0';
}

/** The value of an MSR, or a dash if it does not exist. */
export function msrText(value: bigint | undefined): string {
  return value === undefined ? '-' : hex(value, 16);
}
