/** The environment of entry checks on a processor of a machine with a current VMCS: everything is known. */
import { bit } from '../../bits/u64.ts';
import { Register } from '../../cpu/registers.ts';
import type { ProcessorCopy } from '../../vmcs/processor-copy.ts';
import { LaunchState } from '../../vmcs/region.ts';
import { vmcsAt } from '../smm/executive-view.ts';
import { tmeReduction, type VmxProcessor } from '../vmx-state.ts';
import type { EntryEnvironment } from './check-context.ts';

export function environmentOf(p: VmxProcessor): EntryEnvironment {
  const { cpu, vmx } = p;
  return {
    ia32eMode: () => cpu.ia32eMode,
    inSmm: () => cpu.words[2 * Register.inSmm] !== 0,
    traceEnabled: () => bit(cpu.read('IA32_RTIT_CTL'), 0),
    paePaging: () => cpu.paePaging,
    cr3: () => cpu.read('CR3'),
    tmeReduction: () => tmeReduction(p),
    currentVmcs: () => BigInt((vmx.current as ProcessorCopy).address),
    vmxonPointer: () => BigInt(vmx.vmxonPointer),
    vmcsAt: (pointer) => {
      const copy = vmcsAt(p, pointer);
      return copy && { launched: copy.launchState === LaunchState.Launched, words: copy.words };
    },
    read32: (address) => cpu.memory.read32(address),
    read64: (address) => cpu.memory.read64(address),
  };
}
