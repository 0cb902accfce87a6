/**
 * Sees every translation that a processor uses. While there is one, the TLB of the fast path keeps
 * nothing, so that each access comes here.
 */
export interface TranslationWatch {
  /**
   * The page of linear address `hi`:`lo` is accessed at `physical`, with the rights `need` (bits of
   * `Access`, shifted by the class of access). `rights` as `TranslationCache` has them.
   */
  used(lo: number, hi: number, need: number, physical: number, rights: number): void;
}
