/**
 * vmxon: a software VT-x. Create a {@link Machine}, drive VMX instructions on its processors, and ask
 * why a VM entry fails. This is the only barrel.
 */

export { CACHING_POLICIES, type CachingPolicy } from './cpu/caching-policy.ts';
export type { MemoryTypeName } from './cpu/memory-types.ts';
export type { UsedEntry } from './cpu/page-walk.ts';
export { PhysicalMemory } from './cpu/physical-memory.ts';
export { Mode } from './cpu/processor.ts';
export type { RegisterName } from './cpu/registers.ts';
export type { TranslationProbe } from './cpu/translation-probe.ts';
export { LogicalProcessor, type VmreadResult } from './machine/logical-processor.ts';
export { Machine, type MachineOptions, type MachineSnapshot } from './machine/machine.ts';
export { type RunEnd, runMachine } from './machine/run-machine.ts';
export type { Interleaving } from './machine/scheduler.ts';
export { EDITION, type SdmSection, sectionTitle } from './sdm/sections.ts';
export { CONTROL_GROUPS, CONTROLS, type Control, type ControlId } from './vmcs/controls.ts';
export { decodeEncoding, encodeField } from './vmcs/encoding.ts';
export { type FieldReference, findField, searchFields } from './vmcs/field-names.ts';
export { FIELDS, Field, type FieldName, type VmcsField } from './vmcs/fields.ts';
export * from './vmcs/formats.ts';
export type { FlushPolicy } from './vmcs/processor-copy.ts';
export { CapabilityMsr, type CapabilityMsrName } from './vmx/capabilities/capability-msrs.ts';
export { CONTROL_STATUS, type ControlStatus } from './vmx/capabilities/control-status.ts';
export { type CpuProfile, capabilitiesOf, findProfile, PROFILES } from './vmx/capabilities/profiles.ts';
export type { Explanation, Failure } from './vmx/entry/explain.ts';
export { allChecks } from './vmx/entry/verify.ts';
export { ExitReason } from './vmx/exit/exit-reasons.ts';
export type { ExitRequest } from './vmx/exit/exit-request.ts';
export { HAZARDS, type HazardId } from './vmx/hazards/hazard-list.ts';
export type { Hazard, HazardMode } from './vmx/hazards/hazard-monitor.ts';
export type { StaleDifference, StaleTranslation, StructureChange } from './vmx/hazards/stale-translations.ts';
export { instructionErrorMeaning } from './vmx/instruction-errors.ts';
export { faultingOperand, type MemoryOperand, REGISTER_FORM } from './vmx/instructions/operands.ts';
export type { Outcome } from './vmx/outcome.ts';
