/**
 * An access with a guest-physical address (SDM §31.3.3.2): its kind, and which rights of the last EPT
 * walk it needs.
 */
import { Access, SHADOW_STACK_ACCESSES, USER_ACCESSES } from '../../cpu/tlb.ts';
import { EptBit, EptHighBit } from './ept-entry.ts';
import type { EptSettings } from './ept-settings.ts';
import { EPT_WALK } from './ept-walk.ts';

/** Kinds of access: bits of `Access`, and to what. */
export const Kind = {
  Read: Access.Read,
  Write: Access.Write,
  Fetch: Access.Fetch,
  /** To a guest paging-structure entry. */
  Entry: 8,
  /** To the PDPTEs, for loading their registers. */
  Pdptes: 16,
  /** A shadow-stack access, and one of supervisor mode. */
  ShadowStack: 32,
  SupervisorShadowStack: 64,
} as const;

/** The kind of the accesses `need`, bits of `Access` shifted by their class. */
export function shadowStackKind(need: number): number {
  if ((need & SHADOW_STACK_ACCESSES) === 0) return 0;
  return (need & USER_ACCESSES) !== 0 ? Kind.ShadowStack : Kind.ShadowStack | Kind.SupervisorShadowStack;
}

/** With EPTP[7], the entry that maps the page needs bit 60 rather than bit 1 for supervisor-mode shadow-stack accesses. */
function allowedByBit60(): number {
  const { all, upper, high } = EPT_WALK;
  const allowed =
    (all & EptBit.Read) !== 0 &&
    (upper & EptBit.Write) !== 0 &&
    (high & EptHighBit.SupervisorShadowStack) !== 0;
  return allowed ? Kind.Read | Kind.Write : 0;
}

/** Whether a write to guest paging structures is let through by entries that do not allow writes. */
function allowsPagingWrite(settings: EptSettings): boolean {
  return (
    settings.pagingWriteControl &&
    (EPT_WALK.high & EptHighBit.PagingWrite) !== 0 &&
    (EPT_WALK.upper & EptBit.Write) !== 0
  );
}

/** Accesses, bits of `Access`, that the last walk allows from a linear address of user or of supervisor mode. */
export function allowedByWalk(settings: EptSettings, kind: number, isUser: boolean): number {
  const { all } = EPT_WALK;
  if ((kind & Kind.SupervisorShadowStack) !== 0 && settings.supervisorShadowStack) return allowedByBit60();
  const fetch = settings.modeBasedExecute && isUser ? EptBit.UserExecute : EptBit.Execute;
  const writes = (all & EptBit.Write) !== 0 || ((kind & Kind.Entry) !== 0 && allowsPagingWrite(settings));
  return (
    ((all & EptBit.Read) !== 0 ? Kind.Read : 0) |
    (writes ? Kind.Write : 0) |
    ((all & fetch) !== 0 ? Kind.Fetch : 0)
  );
}
