/** What CPUID says of a processor: its features and who it is. */
import type { InstructionSets } from './instruction-sets.ts';

/**
 * What CPUID enumerates of a processor, as far as register formats, MSRs and VMX depend on it.
 * The names are the feature flags of SDM vol. 2A, CPUID.
 */
export interface CpuidFeatures extends InstructionSets {
  /** CPUID.00H:EAX: highest basic leaf. */
  readonly highestBasicLeaf: number;
  /** CPUID.80000008H:EAX[7:0], 32–52. */
  readonly physicalAddressBits: number;
  /** CPUID.80000008H:EAX[15:8]: 32 without Intel 64, 48, or 57 with 5-level paging. */
  readonly linearAddressBits: number;
  /** CPUID.80000001H:EDX[29]. */
  readonly intel64: boolean;
  /** CPUID.80000001H:EDX[20]: IA32_EFER.NXE. */
  readonly executeDisable: boolean;
  /** CPUID.80000001H:EDX[26]: pages of 1 GByte. */
  readonly gigabytePages: boolean;
  /** CPUID.01H:ECX[5]. */
  readonly vmx: boolean;
  /** CPUID.01H:ECX[6]. */
  readonly smx: boolean;
  /** CPUID.07H.0:EBX[2]. */
  readonly sgx: boolean;
  /** CPUID.07H.0:EBX[11]. */
  readonly rtm: boolean;
  /** CPUID.07H.0:EBX[14]: IA32_BNDCFGS. */
  readonly mpx: boolean;
  /** CPUID.07H.0:EBX[25]: IA32_RTIT_CTL. */
  readonly intelPt: boolean;
  /** CPUID.07H.0:ECX[7]. */
  readonly cetShadowStack: boolean;
  /** CPUID.07H.0:EDX[20]. */
  readonly cetIndirectBranchTracking: boolean;
  /** CPUID.07H.0:ECX[31]: IA32_PKRS. */
  readonly supervisorProtectionKeys: boolean;
  /** CPUID.07H.0:ECX[24]: IA32_DEBUGCTL[2], DR6.BLD. */
  readonly busLockDetection: boolean;
  /** CPUID.07H.0:EDX[5]. */
  readonly userInterrupts: boolean;
  /** CPUID.07H.0:EDX[19]: IA32_LBR_CTL. */
  readonly architecturalLbrs: boolean;
  /** CPUID.07H.1:EAX[17]. */
  readonly fred: boolean;
  /** Bits of IA32_SPEC_CTRL that are not reserved; 0 if the MSR does not exist. */
  readonly specCtrlBits: number;
  /**
   * General-purpose performance counters: CPUID.23H.1:EAX, or CPUID.0AH:EAX[15:8] where there is no
   * leaf 23H; 0 if IA32_PERF_GLOBAL_CTRL does not exist.
   */
  readonly generalPurposeCounters: number;
  /** CPUID.23H.1:EBX, or CPUID.0AH:EDX[4:0] where there is no leaf 23H. */
  readonly fixedCounters: number;
  /** IA32_PERF_CAPABILITIES[15]: IA32_PERF_GLOBAL_CTRL[48]. */
  readonly performanceMetrics: boolean;
  /** CPUID.07H.0:ECX[13]: IA32_TME_ACTIVATE. */
  readonly totalMemoryEncryption: boolean;
  /** CPUID.80000001H:EDX[27] or CPUID.07H.0:ECX[22]: IA32_TSC_AUX. */
  readonly tscAux: boolean;
  /** CPUID.01H:ECX[24]: IA32_TSC_DEADLINE. */
  readonly tscDeadline: boolean;
  /** CPUID.01H:ECX[21]. */
  readonly x2apic: boolean;
  /** Bits of IA32_DEBUGCTL besides those of bus-lock detection and RTM. */
  readonly debugctlBits: number;
  /** Bits of CR4 that software may set. */
  readonly cr4Bits: bigint;
}

/** Who a processor is, as CPUID tells. */
export interface ProcessorIdentity {
  /** CPUID.01H:EAX: type, family, model, stepping. */
  readonly signature: number;
  /** CPUID.80000002H to 80000004H; what exceeds 47 characters is cut off. */
  readonly brand: string;
  /** Logical processors of the machine: one package of cores without hyper-threading. */
  readonly processors: number;
}
