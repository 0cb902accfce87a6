/**
 * What VMCS and capabilities say about the translation of guest-physical addresses, read at VM entry
 * and by EPTP switching (SDM §27.6.11, §31.3).
 */
import type { HlatPaging } from '../../cpu/guest-physical.ts';
import { Field } from '../../vmcs/fields.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { EptVpidCap } from '../capabilities/capability-msrs.ts';
import { controlRef, type EffectiveControls } from '../effective-controls.ts';
import { tmeReduction, type VmxProcessor } from '../vmx-state.ts';
import type { EptRules } from './ept-entry.ts';
import { EPTP_ACCESSED_DIRTY, EPTP_ADDRESS, EPTP_SUPERVISOR_SHADOW_STACK, EPTP_WALK_LENGTH } from './eptp.ts';

export const ENABLE_EPT = controlRef('proc2.enableEpt');
const ENABLE_PML = controlRef('proc2.enablePml');
const EPT_VIOLATION_VE = controlRef('proc2.eptViolationVe');
const MODE_BASED_EXECUTE = controlRef('proc2.modeBasedExecuteControlForEpt');
const SUB_PAGES = controlRef('proc2.subPageWritePermissionsForEpt');
const PAGING_WRITE = controlRef('proc3.eptPagingWriteControl');
const ENABLE_HLAT = controlRef('proc3.enableHlat');
const GUEST_PAGING_VERIFICATION = controlRef('proc3.guestPagingVerification');

export class EptSettings implements EptRules {
  root = 0;
  levels = 4;
  reservedHigh = 0;
  executeOnly = false;
  largePages = false;
  hugePages = false;
  modeBasedExecute = false;
  pagingWriteControl = false;
  /** EPTP[2:0]. */
  structureType = 0;
  /** EPTP[6]. */
  accessedDirty = false;
  /** EPTP[7]. */
  supervisorShadowStack = false;
  /** Both "guest-paging verification" and "EPT paging-write control". */
  verifiesGuestPaging = false;
  subPages = false;
  logsModifications = false;
  convertsViolations = false;
  /** HLAT paging (SDM §27.6.22). */
  hlat: HlatPaging | undefined = undefined;
  /** Bits 11:9 of exit qualifications are reported. */
  advancedInformation = false;

  /** Takes over what `copy` says; "enable EPT" is 1. */
  read(p: VmxProcessor, copy: ProcessorCopy, controls: EffectiveControls): void {
    const { capabilities, cpu } = p;
    const eptp = copy.quads[Field.eptPointer] as bigint;
    this.root = Number(eptp & EPTP_ADDRESS);
    this.structureType = Number(eptp & 7n);
    this.levels = Number((eptp & EPTP_WALK_LENGTH) >> 3n) + 1;
    this.accessedDirty = (eptp & EPTP_ACCESSED_DIRTY) !== 0n;
    this.supervisorShadowStack = (eptp & EPTP_SUPERVISOR_SHADOW_STACK) !== 0n;
    const width = cpu.features.physicalAddressBits - tmeReduction(p);
    this.reservedHigh = width >= 52 ? 0 : 0xf_ffff & ~(2 ** (width - 32) - 1);
    this.executeOnly = capabilities.has('eptVpidCap', EptVpidCap.EXECUTE_ONLY);
    this.largePages = capabilities.has('eptVpidCap', EptVpidCap.PAGE_2M);
    this.hugePages = capabilities.has('eptVpidCap', EptVpidCap.PAGE_1G);
    this.advancedInformation = capabilities.has('eptVpidCap', EptVpidCap.ADVANCED_EXIT_INFORMATION);
    this.modeBasedExecute = controls.isOn(MODE_BASED_EXECUTE);
    this.pagingWriteControl = controls.isOn(PAGING_WRITE);
    this.verifiesGuestPaging = this.pagingWriteControl && controls.isOn(GUEST_PAGING_VERIFICATION);
    this.subPages = controls.isOn(SUB_PAGES);
    this.logsModifications = controls.isOn(ENABLE_PML);
    this.hlat = controls.isOn(ENABLE_HLAT)
      ? {
          root: Number((copy.quads[Field.hlatPointer] as bigint) & EPTP_ADDRESS),
          prefixSize: copy.words[2 * Field.hlatPrefixSize] as number,
          caching: (copy.words[2 * Field.hlatPointer] as number) & 0x18,
        }
      : undefined;
    this.convertsViolations = controls.isOn(EPT_VIOLATION_VE);
  }
}
