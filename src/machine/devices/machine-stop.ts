/** Why a machine stops for a reason of its own: what a guest asked of a device, or a triple fault. */

/** What caused a RESET. */
type ResetSource = 'port CF9H' | 'port 92H' | 'keyboard controller' | 'triple fault';

export type MachineStop =
  /** A value was written to the exit port; `code` is that value × 2 + 1. */
  | { readonly kind: 'exit-port'; readonly code: number }
  /** The string `Shutdown` was written to port 8900H. */
  | { readonly kind: 'shutdown' }
  | { readonly kind: 'reset'; readonly by: ResetSource };

/** Asks the machine to stop after the instruction that is executing. */
export type StopRequest = (stop: MachineStop) => void;
