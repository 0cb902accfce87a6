/** Accesses of the processor that use physical addresses, not guest-physical ones: EPT has nothing for these pages (SDM §27.11.4, §31.3.1). */
import { describe, expect, it } from 'vitest';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import type { FieldName } from '../../../src/vmcs/fields.ts';
import { DATA, Ept, EptTables, eptGuest, FRAME } from '../../support/ept.ts';
import { runToExit } from '../../support/guest.ts';

const STRUCTURE = 0x28_0000;

interface Row {
  readonly name: string;
  readonly code: string;
  readonly controls: readonly ControlId[];
  readonly fields: Partial<Record<FieldName, bigint>>;
  /** Puts into the structure what is to be found there. */
  readonly fill?: (memory: EptTables['memory']) => void;
  readonly eptpFlags?: bigint;
  readonly entry?: bigint;
  /** The exit. */
  readonly reason: bigint;
  /** What is in memory afterwards. */
  readonly left?: readonly [address: number, value: bigint];
}

const AT = BigInt(STRUCTURE);
const APIC: readonly ControlId[] = ['proc.useTprShadow'];

const ROWS: readonly Row[] = [
  {
    name: 'I/O bitmaps',
    code: 'in al, 0x80',
    controls: ['proc.useIoBitmaps'],
    fields: { ioBitmapAAddress: AT, ioBitmapBAddress: AT + 0x1000n },
    fill: (memory) => memory.write32(STRUCTURE + 16, 1),
    reason: 30n,
  },
  {
    name: 'MSR bitmaps',
    code: 'mov ecx, 0x10\nrdmsr',
    controls: ['proc.useMsrBitmaps'],
    fields: { msrBitmapAddress: AT },
    fill: (memory) => memory.write32(STRUCTURE, 1 << 16),
    reason: 31n,
  },
  {
    name: 'the virtual-APIC page',
    code: 'mov eax, 5\nmov cr8, rax\nvmcall',
    controls: APIC,
    fields: { virtualApicAddress: AT },
    reason: 18n,
    left: [STRUCTURE + 0x80, 0x50n],
  },
  {
    name: 'the VMREAD bitmap',
    code: 'mov eax, 0x4400\nvmread rbx, rax',
    controls: ['proc2.vmcsShadowing'],
    fields: { vmreadBitmapAddress: AT, vmwriteBitmapAddress: AT },
    fill: (memory) => memory.write64(STRUCTURE + 0x880, 1n),
    reason: 23n,
  },
  {
    name: 'the page-modification log',
    code: `mov [${DATA}], rax\nvmcall`,
    controls: ['proc2.enablePml'],
    fields: { pmlAddress: AT, pmlIndex: 511n },
    eptpFlags: 0x40n,
    reason: 18n,
    // Three paging structures come before.
    left: [STRUCTURE + 8 * 508, BigInt(DATA)],
  },
  {
    name: 'sub-page permission tables',
    code: `mov [${DATA}], rax\nvmcall`,
    controls: ['proc2.subPageWritePermissionsForEpt'],
    fields: { sppTablePointer: AT },
    entry: Ept.R | Ept.X | Ept.WB | Ept.SubPages,
    fill: (memory) => {
      for (let n = 0; n < 3; n++)
        memory.write64(STRUCTURE + 0x1000 * n, (AT + BigInt(0x1000 * (n + 1))) | 1n);
      memory.write64(STRUCTURE + 0x3000 + 8 * (DATA >> 12), 1n);
    },
    reason: 18n,
  },
  {
    name: 'the area of virtualization exceptions',
    code: `mov rax, [${DATA}]`,
    controls: ['proc2.eptViolationVe'],
    fields: { virtualizationExceptionInformationAddress: AT, exceptionBitmap: 1n << 20n },
    entry: 0n,
    reason: 0n,
    left: [STRUCTURE, 0xffff_ffff_0000_0030n],
  },
  {
    name: 'the EPTP list',
    code: 'xor eax, eax\nxor ecx, ecx\nvmfunc\nvmcall',
    controls: ['proc2.enableVmFunctions'],
    fields: { vmFunctionControls: 1n, eptpListAddress: AT },
    fill: (memory) => {
      const other = new EptTables(memory, 0x2a_0000);
      other.identity(0, 0x400);
      memory.write64(STRUCTURE, other.eptp());
    },
    reason: 18n,
  },
  {
    name: 'the area of MSRs that VM exit stores',
    code: 'vmcall',
    controls: [],
    fields: { vmExitMsrStoreAddress: AT, vmExitMsrStoreCount: 1n },
    fill: (memory) => memory.write64(STRUCTURE, 0x174n),
    reason: 18n,
    left: [STRUCTURE, 0x174n],
  },
];

describe('physical addresses', () => {
  it.each(ROWS)('$name', ({ code, controls, fields, fill, entry, eptpFlags = 0n, reason, left }) => {
    const { cpu, machine } = eptGuest(code, {
      controls,
      fields,
      eptpFlags,
      prepare: (tables, { memory }) => {
        fill?.(memory);
        if (entry !== undefined) tables.map(DATA, FRAME, entry);
        for (let n = 0; n < 4; n++) tables.map(STRUCTURE + 0x1000 * n, 0n, 0n);
      },
    });
    runToExit(cpu);
    expect(cpu.vmread('exitReason').value).toBe(reason);
    if (left !== undefined) expect(machine.memory.read64(left[0])).toBe(left[1]);
  });
});
