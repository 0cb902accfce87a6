/** Checks of the manual that are no check here, and why. `docs/deviations.md` lists them too. */

const NO_SEAM = 'There is no SEAM: VM entry always starts outside it.';

/** By the id that the check would have. */
export const NOT_CHECKED_HERE: Readonly<Record<string, string>> = {
  'ctrl.seam.needs-ept': NO_SEAM,
  'ctrl.seam.shared-eptp-align': NO_SEAM,
  'ctrl.seam.shared-eptp-width': NO_SEAM,
  'basic.vmresume-after-vmxoff':
    'After VMXOFF a processor keeps no VMCS active, so that VMRESUME finds the launch state that is in memory. What is wrong is reported as hazard `vmcs.corrupted-use`.',
  'mc.during-entry':
    'A machine check is no property of a VMCS: whoever uses the machine raises it, and VM entry fails with exit reason 41.',
  'rel.seam-keyid':
    'The rows on the width of addresses say it: IA32_TME_ACTIVATE takes the bits of private KeyIDs away from them.',
  'rel.pt-in-vmx':
    'The rows `ctrl.proc2.allowed1`, `ctrl.exit.allowed1` and `ctrl.entry.allowed1` say it: no processor with IA32_VMX_MISC[14] = 0 allows these controls.',
};
