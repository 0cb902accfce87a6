/** A witness for every check that VM entries returning from SMM make besides the others (SDM §34.15.4). */
import { FULL_REVISION } from '../../../src/vmx/capabilities/advertise.ts';
import { RETURN_FROM_SMM, RETURN_FROM_SMM_GUEST } from '../../../src/vmx/entry/checks/return-from-smm.ts';
import type { Witness } from '../../support/witness.ts';

export const SMM_LISTS = [RETURN_FROM_SMM, RETURN_FROM_SMM_GUEST] as const;
export type SmmCheckId = (typeof SMM_LISTS)[number]['rows'][number]['id'];

const REVISION = BigInt(FULL_REVISION);
const VMXON_POINTER = 0x2000n;
const EXECUTIVE = 0x3000n;
const environment = { inSmm: true, vmxonPointer: VMXON_POINTER };

/** In SMM, to VMX root operation. */
export const TO_ROOT: Witness = {
  environment,
  fields: { executiveVmcsPointer: VMXON_POINTER },
  memory: [[Number(VMXON_POINTER), REVISION]],
};

/** In SMM, to the guest of an executive VMCS. */
export const TO_NON_ROOT: Witness = {
  environment,
  fields: { executiveVmcsPointer: EXECUTIVE },
  memory: [
    [Number(VMXON_POINTER), REVISION],
    [Number(EXECUTIVE), REVISION],
  ],
  executive: { launched: true },
};

const toRoot = (fields: Witness['fields']): Witness => ({
  ...TO_ROOT,
  fields: { ...TO_ROOT.fields, ...fields },
});
const at = (pointer: bigint): Witness => ({ ...TO_NON_ROOT, fields: { executiveVmcsPointer: pointer } });

export const SMM_WITNESSES: Readonly<Record<SmmCheckId, Witness>> = {
  'smmret.exec-ptr.align': at(EXECUTIVE + 8n),
  'smmret.exec-ptr.width': at(EXECUTIVE + (1n << 52n)),
  'smmret.exec-ptr.revision': {
    ...TO_NON_ROOT,
    memory: [
      [Number(VMXON_POINTER), REVISION],
      [Number(EXECUTIVE), REVISION | 0x8000_0000n],
    ],
  },
  'smmret.exec-vmcs.launched': { ...TO_NON_ROOT, executive: { launched: false } },
  'smmret.deactivate-needs-vmxon-ptr': { ...TO_NON_ROOT, controls: ['entry.deactivateDualMonitorTreatment'] },
  'smmret.exec-ctrls': {
    ...TO_NON_ROOT,
    executive: { launched: true, fields: { cr3TargetCount: 5n } },
  },
  'smmret.no-mtf-into-root': toRoot({ injectedEventIdentification: 0x8000_0700n }),
  'smmret.no-wait-sipi-into-root': toRoot({ guestActivityState: 3n }),
};
