/** A machine with a guest that has been launched once: what the benches start from. */
import { CONTROL_GROUPS, FIELDS, type FieldName, type Machine } from '../src/index.ts';

const VMXON_REGIONS = 0x10_0000;
const VMCS_REGIONS = 0x100_0000;

/** Address of VMCS region `index`. */
export function vmcsAddress(index: number): number {
  return VMCS_REGIONS + 0x1000 * index;
}

const FIELD_VALUES: Partial<Record<FieldName, bigint>> = {
  hostCr0: 0x8000_0021n,
  hostCr4: 0x2020n,
  hostCsSelector: 0x8n,
  hostSsSelector: 0x10n,
  hostTrSelector: 0x18n,
  hostRip: 0x1000n,
  guestCr0: 0x8000_0021n,
  guestCr4: 0x2020n,
  guestDr7: 0x400n,
  guestRflags: 2n,
  guestRip: 0x1000n,
  guestCsSelector: 0x8n,
  guestCsLimit: 0xffff_ffffn,
  guestCsAccessRights: 0xa09bn,
  guestSsAccessRights: 0x1_4000n,
  guestDsAccessRights: 0x1_0000n,
  guestEsAccessRights: 0x1_0000n,
  guestFsAccessRights: 0x1_0000n,
  guestGsAccessRights: 0x1_0000n,
  guestLdtrAccessRights: 0x1_0000n,
  guestTrSelector: 0x18n,
  guestTrLimit: 0x67n,
  guestTrAccessRights: 0x8bn,
  vmcsLinkPointer: 0xffff_ffff_ffff_ffffn,
};

/** Brings CPU `index` into VMX root operation. */
function prepareRoot(machine: Machine, index: number): void {
  const cpu = machine.cpu(index).enterLongMode();
  const region = VMXON_REGIONS + 0x1000 * index;
  machine.memory.write32(region, cpu.capabilities.revision);
  cpu.vmxon(BigInt(region));
}

export const LAUNCHED = { prepareRoot };

const PAGE_TABLES = { pml4: 0x20_0000, pdpt: 0x20_1000, directory: 0x20_2000 } as const;

/** Maps the first GByte one to one; answers what CR3 has to be. */
export function mapIdentity(machine: Machine): bigint {
  const { pml4, pdpt, directory } = PAGE_TABLES;
  machine.memory.write64(pml4, BigInt(pdpt) | 3n);
  machine.memory.write64(pdpt, BigInt(directory) | 3n);
  for (let n = 0; n < 512; n++) machine.memory.write64(directory + 8 * n, BigInt(n * 0x20_0000) | 0x83n);
  return BigInt(pml4);
}

/** Launches a guest on CPU `index` with VMCS region 0, and with `fields` changed. */
export function launch(
  machine: Machine,
  index: number,
  fields: Partial<Record<FieldName, bigint>> = {},
): void {
  prepareRoot(machine, index);
  const cpu = machine.cpu(index);
  const address = vmcsAddress(0);
  machine.memory.write32(address, cpu.capabilities.revision);
  cpu.vmclear(BigInt(address));
  cpu.vmptrld(BigInt(address));
  const { must1, fieldExists } = cpu.capabilities;
  for (const { slot, encoding } of FIELDS) if (fieldExists[slot]) cpu.vmwrite(encoding, 0n);
  for (const [group, row] of Object.entries(CONTROL_GROUPS)) {
    cpu.vmwrite(row.field, must1[group as keyof typeof must1]);
  }
  cpu.vmwrite('primaryVmExitControls', must1.exit | (1n << 9n));
  cpu.vmwrite('vmEntryControls', must1.entry | (1n << 9n));
  for (const [field, value] of Object.entries({ ...FIELD_VALUES, ...fields }))
    cpu.vmwrite(field, value as bigint);
  const outcome = cpu.vmlaunch();
  if (outcome.kind !== 'VMentry')
    throw new Error(`VMLAUNCH: ${JSON.stringify(cpu.explain().failures[0] ?? outcome)}`);
}
