/** Operating modes of a processor. */

/** Operating mode (SDM vol. 1 §3.1). */
export const Mode = { Real: 0, Virtual8086: 1, Protected: 2, Compatibility: 3, Bit64: 4 } as const;
export type Mode = (typeof Mode)[keyof typeof Mode];
