/** Checks of the manual on guest state that cannot occur here, and why. */

/** By the id that the check would have. */
export const NOT_CHECKED_GUEST: Readonly<Record<string, string>> = {
  'guest.link.not-executive':
    'There is no dual-monitor treatment: nothing enters a guest in SMM with "entry to SMM" 0.',
};
