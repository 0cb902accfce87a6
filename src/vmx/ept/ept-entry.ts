/**
 * Entries of EPT paging structures (SDM §31.3.2, Tables 31-1 to 31-7): their bits, and which settings
 * of a present entry are misconfigurations (§31.3.3.1). An entry is handled as two signed 32-bit words.
 */

/** Bits of the low word. In entries that do not map a page, of these only those up to `PageSize` and `UserExecute`. */
export const EptBit = {
  Read: 1 << 0,
  Write: 1 << 1,
  /** Execute; with mode-based execute control from supervisor-mode linear addresses. */
  Execute: 1 << 2,
  IgnorePat: 1 << 6,
  PageSize: 1 << 7,
  Accessed: 1 << 8,
  Dirty: 1 << 9,
  /** With mode-based execute control: execute from user-mode linear addresses. */
  UserExecute: 1 << 10,
} as const;

/** Bits of the high word, in entries that map a page; the last one also in entries that are not present. */
export const EptHighBit = {
  VerifyGuestPaging: 1 << (57 - 32),
  PagingWrite: 1 << (58 - 32),
  SupervisorShadowStack: 1 << (60 - 32),
  SubPageWrite: 1 << (61 - 32),
  SuppressVe: 1 << (63 - 32),
} as const;

export const MEMORY_TYPE_SHIFT = 3;
/** Memory types 2, 3 and 7 are reserved. */
const RESERVED_MEMORY_TYPES = (1 << 2) | (1 << 3) | (1 << 7);

/** What decides how entries are read: the EPTP, controls and the processor's capabilities. */
export interface EptRules {
  /** Physical address of the first structure. */
  root: number;
  /** 4 or 5. */
  levels: number;
  /** Bits 51:MAXPHYADDR, in the high word. */
  reservedHigh: number;
  executeOnly: boolean;
  largePages: boolean;
  hugePages: boolean;
  modeBasedExecute: boolean;
  pagingWriteControl: boolean;
}

/** Whether an entry is present: any of bits 2:0 or, with mode-based execute control, bit 10. */
export function isPresent(low: number, rules: EptRules): boolean {
  return (low & (rules.modeBasedExecute ? 0x407 : 0x7)) !== 0;
}

/** Whether a present entry at `level` (1 = page table) maps a page. */
export function mapsPage(low: number, level: number): boolean {
  return level === 1 || (level <= 3 && (low & EptBit.PageSize) !== 0);
}

/** Low bits that must be 0, by level, in an entry that references another structure. */
const RESERVED_NON_LEAF = [0, 0, 0x78, 0x78, 0xf8, 0xf8] as const;
/** … and in an entry that maps a page: address bits within the page. */
const RESERVED_LEAF = [0, 0, 0x1f_f000, 0x3fff_f000] as const;

/** Whether a present entry at `level` is misconfigured. */
export function isMisconfigured(low: number, high: number, level: number, rules: EptRules): boolean {
  const leaf = mapsPage(low, level);
  if ((low & EptBit.Read) === 0) {
    if ((low & EptBit.Write) !== 0) return true;
    const executes =
      (low & EptBit.Execute) !== 0 || (rules.modeBasedExecute && (low & EptBit.UserExecute) !== 0);
    if (executes && !rules.executeOnly) return true;
    if (leaf && rules.pagingWriteControl && (high & EptHighBit.PagingWrite) !== 0) return true;
  }
  if ((high & rules.reservedHigh) !== 0) return true;
  if (!leaf) return (low & (RESERVED_NON_LEAF[level] as number)) !== 0;
  if (level === 2 && !rules.largePages) return true;
  if (level === 3 && !rules.hugePages) return true;
  if ((low & (RESERVED_LEAF[level] as number)) !== 0) return true;
  return ((RESERVED_MEMORY_TYPES >> ((low >> MEMORY_TYPE_SHIFT) & 7)) & 1) !== 0;
}
