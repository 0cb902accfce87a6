/** A machine with one legal guest, described field by field and driven through the public API only. */

import {
  CONTROLS,
  FIELDS,
  type FieldName,
  Machine,
  type MachineOptions,
  type Outcome,
} from '../../../src/index.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { fieldOf } from '../../../src/vmcs/fields.ts';
import { type FieldValues, legalVmcs, switchControl } from '../../support/legal-vmcs.ts';

export const VMXON_REGION = 0x10_0000;
export const REGION = 0x20_0000;
/** A page of MSR-area entries each (513 entries fit), and other structures. */
const LOAD_AREA = 0x30_0000;
export const STORE_AREA = 0x31_0000;
export const ENTRY_AREA = 0x32_0000;
export const VIRTUAL_APIC = 0x33_0000;
export const LINK = 0x34_0000;

export interface MsrEntry {
  readonly index: number;
  readonly data?: bigint;
  readonly reserved?: number;
}

export interface GuestOptions extends MachineOptions {
  /** The host is in 32-bit protected mode, and so is the guest. */
  readonly host32?: boolean;
}

export class Guest {
  readonly machine: Machine;
  readonly cpu: ReturnType<Machine['cpu']>;
  readonly values: FieldValues;

  constructor(options: GuestOptions = {}) {
    const { host32 = false, ...machineOptions } = options;
    this.machine = new Machine(machineOptions);
    this.cpu = this.machine.cpu(0).enterLongMode();
    this.values = legalVmcs(this.cpu.capabilities);
    if (host32) {
      this.cpu.set('IA32_EFER', 0n);
      this.cpu.set('CS.accessRights', 0xc09bn);
      this.off('exit.hostAddressSpaceSize').guest32();
      this.fields({ hostIa32Efer: 0n });
    }
    const { revision } = this.cpu.capabilities;
    this.machine.memory.write32(VMXON_REGION, revision);
    this.machine.memory.write32(REGION, revision);
    expectKind(this.cpu.vmxon(BigInt(VMXON_REGION)), 'VMsucceed');
    expectKind(this.cpu.vmclear(BigInt(REGION)), 'VMsucceed');
    expectKind(this.cpu.vmptrld(BigInt(REGION)), 'VMsucceed');
    for (const { slot, encoding } of FIELDS) {
      if (this.cpu.capabilities.fieldExists[slot]) this.cpu.vmwrite(encoding, 0n);
    }
  }

  on(...controls: ControlId[]): this {
    for (const id of controls) switchControl(this.values, id, true);
    return this;
  }

  off(...controls: ControlId[]): this {
    for (const id of controls) switchControl(this.values, id, false);
    return this;
  }

  fields(values: FieldValues): this {
    Object.assign(this.values, values);
    return this;
  }

  /** A 32-bit guest with flat segments. */
  guest32(): this {
    return this.off('entry.ia32eModeGuest').fields({ guestCsAccessRights: 0xc09bn, guestIa32Efer: 0n });
  }

  area(which: 'exitLoad' | 'exitStore' | 'entryLoad', entries: readonly MsrEntry[]): this {
    const [at, address, count] = (
      {
        exitLoad: [LOAD_AREA, 'vmExitMsrLoadAddress', 'vmExitMsrLoadCount'],
        exitStore: [STORE_AREA, 'vmExitMsrStoreAddress', 'vmExitMsrStoreCount'],
        entryLoad: [ENTRY_AREA, 'vmEntryMsrLoadAddress', 'vmEntryMsrLoadCount'],
      } as const
    )[which];
    entries.forEach(({ index, data = 0n, reserved = 0 }, i) => {
      this.machine.memory.write32(at + 16 * i, index);
      this.machine.memory.write32(at + 16 * i + 4, reserved);
      this.machine.memory.write64(at + 16 * i + 8, data);
    });
    return this.fields({ [address]: BigInt(at), [count]: BigInt(entries.length) });
  }

  /** VMWRITEs every field. */
  write(): this {
    for (const [name, value] of Object.entries(this.values)) {
      expectKind(this.cpu.vmwrite(name, value as bigint), 'VMsucceed');
      // Outside IA-32e mode the full access has cleared bits 63:32.
      const { highEncoding } = fieldOf(name as FieldName);
      if (highEncoding !== undefined) {
        expectKind(this.cpu.vmwrite(highEncoding, (value as bigint) >> 32n), 'VMsucceed');
      }
    }
    return this;
  }

  launch(): this {
    const outcome = this.write().cpu.vmlaunch();
    if (outcome.kind !== 'VMentry') {
      const why = this.cpu.currentVmcs === undefined ? [] : this.cpu.explain().failures;
      throw new Error(`VMLAUNCH: ${outcome.kind} ${why.map((f) => f.id).join(' ')}`);
    }
    return this;
  }

  /** VMLAUNCH that is to fail. */
  tryLaunch(): Outcome {
    return this.write().cpu.vmlaunch();
  }

  read(name: FieldName): bigint {
    const { outcome, value } = this.cpu.vmread(name);
    expectKind(outcome, 'VMsucceed');
    return value;
  }

  control(id: ControlId): boolean {
    const control = CONTROLS.find((c) => c.id === id);
    if (control === undefined) throw new Error(id);
    const field = {
      pin: 'pinBasedControls',
      proc: 'primaryProcessorBasedControls',
      exit: 'primaryVmExitControls',
      entry: 'vmEntryControls',
    }[control.group as 'pin' | 'proc' | 'exit' | 'entry'] as FieldName;
    return (this.read(field) & control.mask) !== 0n;
  }

  /** Every field whose name starts with `guest` and which belongs to the guest-state area. */
  guestArea(): Record<string, bigint> {
    return Object.fromEntries(
      FIELDS.filter((f) => this.cpu.capabilities.fieldExists[f.slot] && ((f.encoding >> 10) & 3) === 2).map(
        (f) => [f.name, this.cpu.vmread(f.encoding).value],
      ),
    );
  }

  get abortIndicator(): number {
    return this.machine.memory.read32(REGION + 4);
  }
}

function expectKind(outcome: Outcome, kind: Outcome['kind']): void {
  if (outcome.kind !== kind) throw new Error(`${kind} expected: ${JSON.stringify(outcome)}`);
}

/** Identification of a hardware exception. */
export function exception(vector: number, errorCode = false): number {
  return (0x8000_0300 | vector | (errorCode ? 0x800 : 0)) >>> 0;
}

/** Identifications of an NMI, INT 80H, INT1, INT3 and an external interrupt. */
export const NMI = 0x8000_0202;
export const INT_80H = 0x8000_0480;
export const INT1 = 0x8000_0501;
export const INT3 = 0x8000_0603;
export const INTERRUPT = 0x8000_0041;
