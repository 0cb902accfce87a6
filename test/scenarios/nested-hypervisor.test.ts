/**
 * A hypervisor inside a guest (SDM §27.10): its VMREADs and VMWRITEs reach the shadow VMCS without exits,
 * and the hypervisor outside enters the guest's guest for it.
 */
import { beforeEach, describe, expect, it } from 'vitest';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import type { Machine } from '../../src/machine/machine.ts';
import { assemble } from '../support/assemble.ts';
import {
  exitFields,
  GUEST,
  GUEST_STACK,
  type GuestOptions,
  guestMachine,
  runToExit,
} from '../support/guest.ts';
import {
  ENTRY,
  encodingOf,
  freshRegion,
  held,
  launchable,
  NO_POINTER,
  succeeds,
  vmcsRegion,
} from '../support/machine.ts';

const READ_BITMAP = 0x9_4000;
const WRITE_BITMAP = 0x9_5000;
const SHADOW = vmcsRegion(1);
const INNER = vmcsRegion(2);
/** The code of the guest's guest. */
const GUEST2 = 0x3_0000;
const DATA = 0x8_0000;
const hex = (name: Parameters<typeof encodingOf>[0]) => `0x${encodingOf(name).toString(16)}`;

function nested(code: string, options: GuestOptions = {}): Machine {
  return guestMachine(code, {
    ...options,
    controls: ['proc2.vmcsShadowing', ...(options.controls ?? [])],
    fields: {
      vmcsLinkPointer: BigInt(SHADOW),
      vmreadBitmapAddress: BigInt(READ_BITMAP),
      vmwriteBitmapAddress: BigInt(WRITE_BITMAP),
      ...options.fields,
    },
    setUp: (machine) => {
      freshRegion(machine.cpu(0), SHADOW, true);
      succeeds(machine.cpu(0).vmptrld(BigInt(vmcsRegion(0))));
      options.setUp?.(machine);
    },
  });
}

function setBit(machine: Machine, bitmap: number, encoding: number): void {
  const at = bitmap + (encoding >> 3);
  machine.memory.write8(at, machine.memory.read8(at) | (1 << (encoding & 7)));
}

/** The hypervisor of the guest: runs its guest, steps over what exits, and ends with its exit reasons at {@link DATA}. */
const HYPERVISOR = `
    mov edi, ${DATA}
    mov eax, ${hex('guestRip')}
    mov ebx, ${GUEST2}
    vmwrite rax, rbx
    mov eax, ${hex('hostRip')}
    lea rbx, [rip + exited]
    vmwrite rax, rbx
    vmlaunch
    ud2
  exited:
    mov eax, ${hex('exitReason')}
    vmread [rdi], rax
    mov rcx, [rdi]
    add edi, 8
    cmp ecx, 12
    je done
    mov eax, ${hex('vmExitInstructionLength')}
    vmread rcx, rax
    mov eax, ${hex('guestRip')}
    vmread rbx, rax
    add rbx, rcx
    vmwrite rax, rbx
    vmresume
    ud2
  done:
    vmcall
`;

/** The hypervisor outside, at its exit for VMLAUNCH or VMRESUME of the guest: enters its guest, reports the exit. */
function enterForGuest(cpu: LogicalProcessor, launched: boolean): void {
  const { exitReason } = exitFields(cpu, 'exitReason');
  expect(exitReason).toBe(launched ? 24n : 20n);
  succeeds(cpu.vmptrld(BigInt(SHADOW)));
  const wanted = exitFields(cpu, 'guestRip', 'hostRip');
  succeeds(cpu.vmptrld(BigInt(INNER)));
  succeeds(cpu.vmwrite('guestRip', wanted.guestRip));
  expect(launched ? cpu.vmresume() : cpu.vmlaunch()).toEqual(ENTRY);
  runToExit(cpu);
  const exit = exitFields(cpu, 'exitReason', 'vmExitInstructionLength', 'guestRip');
  succeeds(cpu.vmptrld(BigInt(SHADOW)));
  for (const [name, value] of Object.entries(exit)) succeeds(cpu.vmwrite(name, value));
  succeeds(cpu.vmptrld(BigInt(vmcsRegion(0))));
  succeeds(cpu.vmwrite('guestRip', wanted.hostRip));
  expect(cpu.vmresume()).toEqual(ENTRY);
}

describe('a hypervisor in a guest', () => {
  it('runs a guest of its own with exits only where it enters that', () => {
    const machine = nested(HYPERVISOR, {
      setUp: (m) => {
        const cpu = m.cpu(0);
        const own = exitFields(cpu, 'guestCr3', 'hostCr3', 'hostRip', 'hostRsp');
        const data = exitFields(cpu, 'guestSsSelector', 'guestSsAccessRights', 'guestSsLimit');
        launchable(cpu, INNER, { ...own, ...data, guestRsp: BigInt(GUEST_STACK) }, ['proc.hltExiting']);
        succeeds(cpu.vmptrld(BigInt(vmcsRegion(0))));
      },
    });
    machine.memory.writeBytes(GUEST2, assemble('cpuid\nvmcall\nhlt', 64, GUEST2));
    const cpu = machine.cpu(0);
    const exits: bigint[] = [];
    for (let entries = 0; ; entries++) {
      runToExit(cpu);
      const { exitReason } = exitFields(cpu, 'exitReason');
      exits.push(exitReason);
      if (exitReason === 18n) break;
      enterForGuest(cpu, entries > 0);
    }
    // Three entries for the guest, and its VMCALL at the end: no VMREAD or VMWRITE among them.
    expect(exits).toEqual([20n, 24n, 24n, 18n]);
    const reasons = [0, 8, 16].map((offset) => machine.memory.read64(DATA + offset));
    expect(reasons).toEqual([10n, 18n, 12n]);
  });

  it('VM entry makes the shadow VMCS active; what the guest writes there is in memory after VMCLEAR alone', () => {
    const machine = nested(
      `mov eax, ${hex('guestRsp')}\nmov rbx, 0x1122334455667788\nvmwrite rax, rbx\nvmcall`,
    );
    const cpu = machine.cpu(0);
    expect(cpu.activeVmcss).toContain(SHADOW);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'guestRsp')).toEqual({
      exitReason: 18n,
      guestRsp: BigInt(GUEST_STACK),
    });
    expect(held(cpu, SHADOW, 'guestRsp')).toBe(0x1122_3344_5566_7788n);
    succeeds(cpu.vmclear(BigInt(SHADOW)));
    succeeds(cpu.vmptrld(BigInt(SHADOW)));
    expect(cpu.vmread('guestRsp').value).toBe(0x1122_3344_5566_7788n);
  });
});

/** Flags as the instruction leaves them: CF for VMfailInvalid, ZF for VMfailValid. */
const FLAGS = 'pushfq\npop r14\nvmcall';
const CF = 1n;
const ZF = 0x40n;

describe('VMREAD and VMWRITE of guest code with "VMCS shadowing" (SDM §28.1.3, §33.3)', () => {
  const RIP_FIELD = encodingOf('guestRip');
  const CASES: readonly (readonly [string, number, string, Partial<Record<string, unknown>>])[] = [
    ['VMREAD', 23, `vmread rbx, rax`, {}],
    ['VMREAD to memory', 23, `vmread [${DATA}], rax`, {}],
    ['VMWRITE', 25, `vmwrite rax, rbx`, {}],
    ['VMWRITE from memory', 25, `vmwrite rax, [${DATA}]`, {}],
  ];
  for (const [name, reason, code] of CASES) {
    it(`${name}: exits by its own bitmap and by bits above 14 of the encoding`, () => {
      const own = reason === 23 ? READ_BITMAP : WRITE_BITMAP;
      const other = reason === 23 ? WRITE_BITMAP : READ_BITMAP;
      for (const [encoding, bitmap, exits] of [
        [BigInt(RIP_FIELD), undefined, false],
        [BigInt(RIP_FIELD), other, false],
        [BigInt(RIP_FIELD), own, true],
        [0x8000n | BigInt(RIP_FIELD), undefined, true],
        [(1n << 32n) | BigInt(RIP_FIELD), undefined, true],
        [(1n << 63n) | BigInt(RIP_FIELD), undefined, true],
      ] as const) {
        const machine = nested(`${code}\n${FLAGS}`);
        const cpu = machine.cpu(0);
        if (bitmap !== undefined) setBit(machine, bitmap, RIP_FIELD);
        cpu.set('RAX', encoding);
        runToExit(cpu);
        const fields = exitFields(cpu, 'exitReason', 'guestRip');
        expect(fields.exitReason).toBe(exits ? BigInt(reason) : 18n);
        if (exits) expect(fields.guestRip).toBe(BigInt(GUEST));
        else expect(cpu.get('R14') & (CF | ZF)).toBe(0n);
      }
    });
  }

  it('without a link pointer: VMfailInvalid', () => {
    for (const code of ['vmread rbx, rax', 'vmwrite rax, rbx']) {
      const cpu = nested(`${code}\n${FLAGS}`, { fields: { vmcsLinkPointer: NO_POINTER } }).cpu(0);
      cpu.set('RAX', BigInt(RIP_FIELD));
      runToExit(cpu);
      expect(cpu.get('R14') & (CF | ZF)).toBe(CF);
    }
  });

  it('an unsupported field: VMfailValid, error 12 in the current VMCS and not in the shadow VMCS', () => {
    for (const code of ['vmread rbx, rax', 'vmwrite rax, rbx']) {
      const cpu = nested(`${code}\n${FLAGS}`).cpu(0);
      cpu.set('RAX', 0x7ffen);
      runToExit(cpu);
      expect(cpu.get('R14') & (CF | ZF)).toBe(ZF);
      expect(exitFields(cpu, 'vmInstructionError').vmInstructionError).toBe(12n);
      expect(held(cpu, SHADOW, 'vmInstructionError')).toBe(0n);
    }
  });

  it('at CPL 3 #GP(0), but an exit by the bitmap comes first', () => {
    for (const [bit, exit] of [
      [false, { exitReason: 0n, exitingEventIdentification: 0x8000_0b0dn }],
      [true, { exitReason: 23n, exitingEventIdentification: 0n }],
    ] as const) {
      const machine = nested('vmread rbx, rax', {
        fields: {
          exceptionBitmap: 1n << 13n,
          guestCsAccessRights: 0xa0fbn,
          guestCsSelector: 0xbn,
          guestSsAccessRights: 0xc0f3n,
          guestSsSelector: 0x13n,
          guestDsAccessRights: 0xc0f3n,
          guestEsAccessRights: 0xc0f3n,
        },
      });
      if (bit) setBit(machine, READ_BITMAP, RIP_FIELD);
      const cpu = machine.cpu(0);
      cpu.set('RAX', BigInt(RIP_FIELD));
      runToExit(cpu);
      expect(exitFields(cpu, 'exitReason', 'exitingEventIdentification')).toEqual(exit);
    }
  });

  it('VMREAD looks at the field before its operand, VMWRITE after', () => {
    for (const [code, encoding, faults] of [
      ['vmread [rsi], rax', RIP_FIELD, true],
      ['vmread [rsi], rax', 0x7ffe, false],
      ['vmwrite rax, [rsi]', RIP_FIELD, true],
      ['vmwrite rax, [rsi]', 0x7ffe, true],
    ] as const) {
      const cpu = nested(`${code}\n${FLAGS}`, { fields: { exceptionBitmap: 1n << 14n } }).cpu(0);
      cpu.set('RAX', BigInt(encoding));
      cpu.set('RSI', 0x80_0000_0000n);
      runToExit(cpu);
      expect([code, exitFields(cpu, 'exitReason').exitReason]).toEqual([code, faults ? 0n : 18n]);
      if (!faults) expect(cpu.get('R14') & ZF).toBe(ZF);
    }
  });

  it('exits report the operand: 32-bit address, registers', () => {
    const cpu = nested('vmread [ebx + 4*ecx + 0x10], rax').cpu(0);
    cpu.set('RAX', 0x8000n);
    runToExit(cpu);
    expect(exitFields(cpu, 'exitReason', 'exitQualification', 'vmExitInstructionInformation')).toEqual({
      exitReason: 23n,
      exitQualification: 0x10n,
      // Scaling 4, 32-bit address, DS, index RCX, base RBX, register RAX.
      vmExitInstructionInformation: 2n | (1n << 7n) | (3n << 15n) | (1n << 18n) | (3n << 23n),
    });
  });
});

describe('in root operation', () => {
  let machine: Machine;
  beforeEach(() => {
    machine = nested('vmcall');
    runToExit(machine.cpu(0));
  });

  it('a shadow VMCS is written like another, and cannot be entered', () => {
    const cpu = machine.cpu(0);
    succeeds(cpu.vmptrld(BigInt(SHADOW)));
    succeeds(cpu.vmwrite('guestRip', 7n));
    expect(cpu.vmlaunch()).toEqual({ kind: 'VMfailInvalid' });
  });

  it('VM entry wants the link pointer to name a shadow VMCS', () => {
    const cpu = machine.cpu(0);
    freshRegion(cpu, INNER);
    succeeds(cpu.vmptrld(BigInt(vmcsRegion(0))));
    succeeds(cpu.vmwrite('vmcsLinkPointer', INNER));
    expect(cpu.vmresume().kind).toBe('VMentryFailure');
    expect(exitFields(cpu, 'exitQualification').exitQualification).toBe(4n);
  });
});
