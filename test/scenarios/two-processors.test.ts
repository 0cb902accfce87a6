/** Two processors and VMX: interrupts for a guest, INIT in root operation, VMCSs that migrate. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Machine } from '../../src/machine/machine.ts';
import { runMachine } from '../../src/machine/run-machine.ts';
import type { Interleaving } from '../../src/machine/scheduler.ts';
import { fieldOf } from '../../src/vmcs/fields.ts';
import { ApicRegister } from '../../src/vmx/apic/virtual-apic-page.ts';
import type { HazardId } from '../../src/vmx/hazards/hazard-list.ts';
import { runs } from '../properties/settings.ts';
import { enterX2apic, loadApic, storeApic } from '../support/apic.ts';
import { assemble } from '../support/assemble.ts';
import { exitFields, type GuestOptions, guestMachine } from '../support/guest.ts';
import { vmcsRegion, vmxonRegion, writeRevision } from '../support/machine.ts';
import { processors } from '../support/processors.ts';
import { apicGuest, bitsOf, DESCRIPTOR, POSTING } from '../vmx/apic/apic-guest.ts';

const REAL_MODE = 0x3_0000;
/** In real mode: sends `command` to `destination` through the ICR of x2APIC mode. */
const send = (command: number, destination = 0) =>
  `mov ecx, 0x830; mov edx, ${destination}; mov eax, ${command}; wrmsr;`;

/** CPU 1 is about to execute `code` in real mode, its local APIC in x2APIC mode; that of CPU 0 is enabled. */
function withSender(machine: Machine, code: string): Machine {
  const sender = machine.cpu(1);
  machine.memory.writeBytes(REAL_MODE, assemble(code, 16, 0));
  sender.set('CS.selector', BigInt(REAL_MODE >> 4));
  sender.set('CS.base', BigInt(REAL_MODE));
  sender.set('RIP', 0n);
  enterX2apic(sender);
  storeApic(machine.cpu(0), 'SpuriousInterruptVector', 0x1ff);
  return machine;
}

function guestAndSender(code: string, sender: string, options: GuestOptions = {}): Machine {
  return withSender(guestMachine(code, { cpus: 2, ...options }), sender);
}

const SLEEP = 'cli; sleep: hlt; jmp sleep';

describe('an IPI for a processor that executes a guest', () => {
  it('exits, acknowledged or not, and is in service only if it was', () => {
    for (const acknowledges of [true, false]) {
      const machine = guestAndSender('again: jmp again', `${send(0x51)} ${SLEEP}`, {
        controls: [
          'pin.externalInterruptExiting',
          ...(acknowledges ? (['exit.acknowledgeInterruptOnExit'] as const) : []),
        ],
      });
      runMachine(machine, 5000);
      const cpu = machine.cpu(0);
      expect(exitFields(cpu, 'exitReason', 'exitingEventIdentification')).toEqual({
        exitReason: 1n,
        exitingEventIdentification: acknowledges ? 0x8000_0051n : 0n,
      });
      const at = 0x51 >> 5;
      const bit = 1 << (0x51 & 31);
      expect([loadApic(cpu, 'InService', at), loadApic(cpu, 'InterruptRequest', at)]).toEqual(
        acknowledges ? [bit, 0] : [0, bit],
      );
    }
  });

  it('wakes a guest from HLT whatever its RFLAGS.IF', () => {
    const machine = guestAndSender('cli; hlt', `mov cx, 5000; d: loop d; ${send(0x51)} ${SLEEP}`, {
      controls: ['pin.externalInterruptExiting'],
    });
    runMachine(machine, 20_000);
    expect(exitFields(machine.cpu(0), 'exitReason', 'guestActivityState')).toEqual({
      exitReason: 1n,
      guestActivityState: 1n,
    });
  });

  it('with posting reaches the guest without an exit, as often as it is posted', () => {
    const VECTORS = [0x31, 0x80, 0xc5, 0x32, 0xf0, 0x90];
    // Each vector is posted as the manual says: PIR, then ON and, if it was 0, the notification.
    const post = (vector: number) => {
      const word = (DESCRIPTOR & 0xffff) + 4 * (vector >> 5);
      return `lock bts dword ptr [${word}], ${vector & 31}
        lock bts dword ptr [${(DESCRIPTOR & 0xffff) + 32}], 0
        jc skip${vector}
        ${send(0xf2)}
        skip${vector}: mov cx, 200; d${vector}: loop d${vector}`;
    };
    const code = `mov ax, ${(DESCRIPTOR >> 4) & 0xf000}; mov ds, ax; ${VECTORS.map(post).join('\n')}
 ${SLEEP}`;
    const handler = `movzx eax, r15b; inc dword ptr [0x60000 + rax * 4]
      mov ecx, 0x80b; xor eax, eax; xor edx, edx; wrmsr; iretq`;
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 1, max: 400 }), (seed, quantum) => {
        const machine = withSender(
          apicGuest('sti; idle: hlt; jmp idle', handler, {
            cpus: 2,
            interleaving: { seed, quantum },
            controls: [...POSTING, 'proc2.virtualizeX2apicMode', 'proc.useMsrBitmaps'],
          }),
          code,
        );
        runMachine(machine, 20_000);
        expect(machine.cpu(0).operation).toBe('non-root');
        const counts = Array.from({ length: 256 }, (_, v) => machine.memory.read32(0x6_0000 + 4 * v));
        expect(counts.map((_, v) => v).filter((v) => counts[v] !== 0)).toEqual(
          [...VECTORS].sort((a, b) => a - b),
        );
        expect(counts.reduce((sum, n) => sum + n, 0)).toBe(VECTORS.length);
        expect(bitsOf(machine.memory, ApicRegister.ISR)).toEqual([]);
        expect(machine.memory.read32(DESCRIPTOR + 32)).toBe(0);
      }),
      runs(8),
    );
  });
});

describe('a guest that sleeps', () => {
  it('is woken by its VMX-preemption timer, in the time of the other processor', () => {
    const options = (other: string): Machine =>
      guestAndSender('hlt', other, {
        controls: ['pin.activateVmxPreemptionTimer'],
        fields: { vmxPreemptionTimerValue: 1000n },
      });
    for (const other of [SLEEP, 'again: jmp again']) {
      const machine = options(other);
      runMachine(machine, other === SLEEP ? 100 : 40_000);
      const cpu = machine.cpu(0);
      expect([cpu.operation, exitFields(cpu, 'exitReason').exitReason]).toEqual(['root', 52n]);
      // The host spins behind the exit, which came after 32,000 ticks.
      expect(machine.time).toBeGreaterThanOrEqual(32_000);
      expect(machine.time).toBeLessThan(41_000);
    }
  });
});

/** Both processors in 64-bit mode with 4 GBytes mapped one to one, ready for VMXON. */
function hosts(codes: readonly [string, string], interleaving: Interleaving = {}): Machine {
  const machine = processors(codes, { interleaving, memory: 0x40_0000 });
  const [pml4, pdpt] = [0x38_0000, 0x38_1000];
  machine.memory.write64(pml4, BigInt(pdpt) | 3n);
  for (let n = 0; n < 4; n++) machine.memory.write64(pdpt + 8 * n, (BigInt(n) << 30n) | 0x83n);
  for (const cpu of machine.processors) {
    cpu.set('IA32_FEATURE_CONTROL', 5n);
    cpu.set('CR3', BigInt(pml4));
    cpu.set('CR4', 0x2020n);
    cpu.set('CR0', 0x8000_0031n);
    writeRevision(cpu, vmxonRegion(cpu.index));
    machine.memory.write64(0x6_1000 + 8 * cpu.index, BigInt(vmxonRegion(cpu.index)));
  }
  writeRevision(machine.cpu(0), vmcsRegion(0));
  machine.memory.write64(0x6_1010, BigInt(vmcsRegion(0)));
  return machine;
}

const VMXON = (cpu: number) => `vmxon [${0x6_1000 + 8 * cpu}]; jbe failed;`;
const FAILED = 'failed: mov dword ptr [0x61100], 1; cli; f: hlt; jmp f;';
const sendFrom64 = (command: number, destination: number) =>
  `mov eax, 0xfee00310; mov dword ptr [rax], ${destination << 24}; mov eax, 0xfee00300; mov dword ptr [rax], ${command};`;

describe('INIT for a processor in VMX root operation', () => {
  const target = (behind: string) => `${VMXON(1)} mov dword ptr [0x61200], 1
    wait: cmp dword ptr [0x61204], 0; je wait
    mov dword ptr [0x61208], 7; ${behind} ${FAILED}`;
  const sender = `wait: cmp dword ptr [0x61200], 0; je wait; ${sendFrom64(0x4500, 1)}
    mov dword ptr [0x61204], 1; cli; s: hlt; jmp s`;

  it('is held back', () => {
    const machine = hosts([sender, target('again: jmp again;')]);
    runMachine(machine, 20_000);
    const cpu = machine.cpu(1);
    expect([cpu.operation, cpu.get('initPending'), cpu.get('activityState')]).toEqual(['root', 1n, 0n]);
    expect(machine.memory.read32(0x6_1208)).toBe(7);
  });

  it('takes effect after VMXOFF, and a start-up IPI follows', () => {
    const withSipi = sender.replace('cli; s:', `mov ecx, 5000; d: loop d; ${sendFrom64(0x4620, 1)} cli; s:`);
    const machine = hosts([withSipi, target('vmxoff; again: jmp again;')]);
    machine.memory.writeBytes(0x2_0000, assemble('mov byte ptr cs:[0x500], 9; cli; hlt', 16, 0));
    runMachine(machine, 40_000);
    const cpu = machine.cpu(1);
    expect([cpu.operation, machine.memory.read8(0x2_0500)]).toEqual(['outside', 9]);
    expect([cpu.get('CR4') & 0x2000n, cpu.get('activityState')]).toEqual([0n, 1n]);
  });
});

describe('a VMCS that migrates from one processor to the other', () => {
  const ENCODING = fieldOf('guestRip').encoding;
  const writer = (release: string) => `${VMXON(0)} vmclear [0x61010]; jbe failed
    vmptrld [0x61010]; jbe failed
    mov eax, ${ENCODING}; mov ebx, 0x1234; vmwrite rax, rbx; jbe failed
    ${release} mov dword ptr [0x61200], 1; cli; w: hlt; jmp w; ${FAILED}`;
  const reader = (
    take: string,
    region = 1,
  ) => `${VMXON(region)} wait: pause; cmp dword ptr [0x61200], 0; je wait
    ${take} vmptrld [0x61010]; jbe failed
    mov eax, ${ENCODING}; vmread rbx, rax; jbe failed
    mov [0x61208], rbx; cli; r: hlt; jmp r; ${FAILED}`;
  const migrate = (release: string, interleaving: Interleaving, take = '', region = 1) => {
    const machine = hosts([writer(release), reader(take, region)], interleaving);
    expect(runMachine(machine, 50_000)?.kind).toBe('halted');
    return { machine, hazards: machine.hazards.map((h) => h.id) };
  };
  const CLEAR = 'vmclear [0x61010]; jbe failed;';

  it('keeps what was written, without a hazard, whatever the interleaving', () => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 1, max: 100 }), (seed, quantum) => {
        const { machine, hazards } = migrate(CLEAR, { seed, quantum });
        expect(machine.memory.read32(0x6_1100)).toBe(0);
        expect([machine.memory.read32(0x6_1208), hazards]).toEqual([0x1234, []]);
      }),
      runs(10),
    );
  });

  const DATA = 'mov esi, 0x61010; mov rsi, [rsi];';
  it.each<[string, readonly HazardId[], Parameters<typeof migrate>[0], string, number]>([
    ['without VMCLEAR', ['vmcs.active-elsewhere'], '', '', 1],
    ['with VMCLEAR by the new processor', ['vmcs.vmclear-elsewhere'], '', CLEAR, 1],
    [
      'after VMXOFF without VMCLEAR',
      ['vmcs.left-active', 'vmcs.corrupted-use'],
      'vmxoff; jbe failed;',
      '',
      1,
    ],
    [
      'while software looks into it',
      ['vmcs.memory-read', 'vmcs.active-elsewhere'],
      '',
      `${DATA} mov eax, [rsi + 0x40];`,
      1,
    ],
    [
      'while software stores into it',
      ['vmcs.memory-write', 'vmcs.active-elsewhere'],
      '',
      `${DATA} mov [rsi + 0x40], eax;`,
      1,
    ],
    ['with one VMXON region for both', ['vmxon.region-shared'], CLEAR, '', 0],
  ])('%s is reported as a hazard, whatever the interleaving', (_, ids, release, take, region) => {
    fc.assert(
      fc.property(fc.nat(), fc.integer({ min: 1, max: 100 }), (seed, quantum) => {
        const { hazards } = migrate(release, { seed, quantum }, take, region);
        expect(hazards.filter((id) => ids.includes(id))).toEqual(ids);
      }),
      runs(3),
    );
  });
});
