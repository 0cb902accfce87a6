/** Checks of the manual that cannot occur here, and why. */

const NO_SEAM = 'There is no SEAM: VM entry always starts outside it.';

/** By the id that the check would have. */
export const NOT_CHECKED_HERE: Readonly<Record<string, string>> = {
  'ctrl.seam.needs-ept': NO_SEAM,
  'ctrl.seam.shared-eptp-align': NO_SEAM,
  'ctrl.seam.shared-eptp-width': NO_SEAM,
  'guest.link.not-executive':
    'There is no dual-monitor treatment: no VM entry in SMM has the control "entry to SMM" at 0.',
};
