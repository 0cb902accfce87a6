/**
 * What firmware leaves behind when it hands over a machine: tables that tell of processors and interrupt
 * controllers, the first processor in virtual wire mode, the others waiting for a start-up IPI.
 */
import { ApicRegister } from '../apic/apic-registers.ts';
import { IO_APIC_BASE } from '../devices/io-apic.ts';
import type { LogicalProcessor } from '../logical-processor.ts';
import type { Machine } from '../machine.ts';
import { acpiTables } from './acpi-tables.ts';
import { biosDataAreas } from './bios-data-area.ts';
import { applyBootPlan, type BootPlan } from './boot-plan.ts';
import { mpTables } from './mp-tables.ts';

/** Firmware's own memory below 1 MByte, where tables are searched for. */
const ACPI_START = 0xf_0000;
const MP_START = 0xf_8000;
/** Enabled by software; spurious vector FFH. */
const SPURIOUS = 0x1ff;
const EXT_INT = 0x700;
const NMI = 0x400;
const WAIT_FOR_SIPI = 3n;
const APIC_FEATURE = 1 << 9;
/** Identifiers of I/O APICs have four bits. */
const MOST_IDS = 16;

/** Boots a machine after RESET whose memory nothing has been written to. */
export function bootMachine(machine: Machine, plan: BootPlan): void {
  leaveFirmwareState(machine);
  applyBootPlan(plan, machine.memory, machine.cpu(0).processor);
}

/** Does what firmware does before it loads an image. */
export function leaveFirmwareState(machine: Machine): void {
  const { memory, processors, platform } = machine;
  const [bootstrap, ...others] = processors as [LogicalProcessor, ...LogicalProcessor[]];
  const cpus = processors.length;
  const ioApicId = cpus < MOST_IDS ? cpus : 0;
  const [signature, , , features] = bootstrap.processor.cpuid.read(1, 0);
  const tables = [
    ...biosDataAreas(),
    acpiTables(ACPI_START, { cpus, ioApicId }),
    mpTables(MP_START, { cpus, ioApicId, signature, features: features | APIC_FEATURE }),
  ];
  if (platform !== undefined) {
    for (const { start, bytes } of tables) memory.writeBytes(start, bytes);
    platform.ioApic.store(IO_APIC_BASE, 0);
    platform.ioApic.store(IO_APIC_BASE + 0x10, ioApicId << 24);
    platform.ioApic.store(IO_APIC_BASE, 0);
  }
  const { localApic } = bootstrap.processor;
  localApic.store(ApicRegister.SpuriousInterruptVector, SPURIOUS);
  localApic.store(ApicRegister.LvtLint0, EXT_INT);
  localApic.store(ApicRegister.LvtLint1, NMI);
  for (const { processor } of others) {
    if (processor.features.vmx) processor.write('IA32_FEATURE_CONTROL', 5n);
    processor.write('activityState', WAIT_FOR_SIPI);
  }
}
