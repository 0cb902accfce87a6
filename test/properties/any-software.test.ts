/** Any software at all: whatever its instructions, operands and modes, an outcome and no JavaScript error. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CHECKS_NEEDED } from '../../src/cpu/registers.ts';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import { FIELDS } from '../../src/vmcs/fields.ts';
import type { FlushPolicy } from '../../src/vmcs/processor-copy.ts';
import { PROFILES } from '../../src/vmx/capabilities/profiles.ts';
import { faultingOperand, type MemoryOperand, REGISTER_FORM } from '../../src/vmx/instructions/operands.ts';
import {
  enterRoot,
  freshRegion,
  launchable,
  MODES,
  rootMachine,
  setMode,
  vmcsRegion,
  vmxonRegion,
} from '../support/machine.ts';
import { runs } from './settings.ts';

const REGION = vmcsRegion(0);
const U64 = fc.oneof(
  fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  fc.nat({ max: 63 }).map((n) => 1n << BigInt(n)),
  fc.nat().map(BigInt),
);
const profile = fc.constantFrom(...PROFILES.map((p) => p.name));
const policy = fc.constantFrom<FlushPolicy>('at-vmclear', 'write-through', 'seeded');
const operand: fc.Arbitrary<MemoryOperand> = fc.oneof(
  U64,
  U64.map((n) => n & ~0xfffn & 0x3f_ffffn),
  fc.constant(REGISTER_FORM),
  fc.constantFrom(6, 12, 13, 14, 17).map((v) => faultingOperand(v, v === 6 ? undefined : 0)),
);
const KINDS = [
  'VMsucceed',
  'VMfailInvalid',
  'VMfailValid',
  'fault',
  'VMentry',
  'VMexit',
  'VMentryFailure',
  'VMXabort',
  'notExecuted',
];

describe('any software at all', () => {
  it('a legal VMCS with some bits turned: VM entry and VM exit', () => {
    const turned = fc.array(fc.tuple(fc.constantFrom(...FIELDS), fc.nat({ max: 63 })), { maxLength: 6 });
    fc.assert(
      fc.property(turned, profile, policy, (flips, name, flushPolicy) => {
        const machine = rootMachine({ profile: name, flushPolicy });
        const cpu = machine.cpu(0);
        launchable(cpu, REGION);
        for (const [field, position] of flips) {
          const { value } = cpu.vmread(field.encoding);
          cpu.vmwrite(field.encoding, value ^ (1n << BigInt(position)));
        }
        cpu.explain();
        expect(KINDS).toContain(cpu.vmlaunch().kind);
        if (cpu.operation === 'non-root') {
          expect(KINDS).toContain(cpu.vmexit({ reason: 10, instructionLength: 2 }).kind);
        }
        expect(KINDS).toContain(cpu.vmresume().kind);
      }),
      runs(300),
    );
  });

  it('random instructions with random operands in random modes', () => {
    const step = fc.tuple(fc.nat({ max: 15 }), U64, operand, U64);
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 40, size: 'max' }),
        fc.constantFrom(...MODES),
        fc.constantFrom(0, 3),
        profile,
        policy,
        fc.boolean(),
        (steps, mode, cpl, name, flushPolicy, guest) => {
          const machine = rootMachine({ profile: name, flushPolicy, cpus: 2 });
          const cpu = machine.cpu(0);
          launchable(cpu, REGION);
          if (guest) cpu.vmlaunch();
          setMode(cpu, mode, mode === 'real' ? 0 : cpl);
          for (const [which, number, memory, descriptor] of steps) {
            const wide = typeof memory === 'bigint' ? (descriptor << 64n) | memory : memory;
            const outcome = anInstruction(cpu, which, number, memory, wide);
            expect(KINDS).toContain(outcome.kind);
          }
          machine.restore(machine.snapshot());
        },
      ),
      runs(150),
    );
  });

  it('the fast paths do what the checked ones do, whatever happens between accesses', () => {
    const supported = FIELDS.flatMap((f) =>
      f.highEncoding === undefined ? [f.encoding] : [f.encoding, f.highEncoding],
    ).map(BigInt);
    const access = fc.record({
      kind: fc.constantFrom('read' as const, 'write' as const),
      encoding: fc.oneof({ weight: 6, arbitrary: fc.constantFrom(...supported) }, U64),
      value: U64,
    });
    const change = fc.record({
      kind: fc.constantFrom(
        'mode' as const,
        'clear' as const,
        'load' as const,
        'enter' as const,
        'exit' as const,
        'flags' as const,
        'block' as const,
        'off' as const,
        'repair' as const,
      ),
      mode: fc.constantFrom(...MODES),
      cpl: fc.constantFrom(0, 3),
      which: fc.nat({ max: 1 }),
    });
    fc.assert(
      fc.property(
        fc.array(fc.oneof({ weight: 4, arbitrary: access }, { weight: 1, arbitrary: change }), {
          maxLength: 60,
          size: 'max',
        }),
        profile,
        policy,
        (steps, name, flushPolicy) => {
          const machines = [0, 1].map(() => rootMachine({ profile: name, flushPolicy, hazards: 'ignore' }));
          const seen = machines.map((machine, index) => {
            const cpu = machine.cpu(0);
            freshRegion(cpu, vmcsRegion(1));
            launchable(cpu, REGION);
            return steps.map((s) => {
              if (s.kind === 'read' || s.kind === 'write') {
                const needed = cpu.processor.i32[CHECKS_NEEDED] as number;
                cpu.set('RAX', s.encoding);
                cpu.set('RCX', s.value);
                // Registers the fast paths use do not end their trust in what they found before.
                if (index === 0) cpu.processor.i32[CHECKS_NEEDED] = needed;
                const outcome = s.kind === 'read' ? cpu.vmreadRegister(0, 2) : cpu.vmwriteRegister(0, 1);
                return [outcome, cpu.get('RDX'), cpu.get('RFLAGS')];
              }
              return [disturb(cpu, s as Change), cpu.get('RFLAGS')];
            });
          });
          expect(seen[0]).toEqual(seen[1]);
          expect(machines[0]?.snapshot()).toEqual(machines[1]?.snapshot());
        },
      ),
      runs(150),
    );
  });
});

interface Change {
  readonly kind: 'mode' | 'clear' | 'load' | 'enter' | 'exit' | 'flags' | 'block' | 'off' | 'repair';
  readonly mode: (typeof MODES)[number];
  readonly cpl: number;
  readonly which: number;
}

function disturb(cpu: LogicalProcessor, change: Change): unknown {
  const pointer = BigInt(vmcsRegion(change.which));
  switch (change.kind) {
    case 'mode':
      return setMode(cpu, change.mode, change.mode === 'real' ? 0 : change.cpl);
    case 'clear':
      return cpu.vmclear(pointer);
    case 'load':
      return cpu.vmptrld(pointer);
    case 'enter':
      return change.which === 0 ? cpu.vmlaunch() : cpu.vmresume();
    case 'exit':
      return cpu.operation === 'non-root' ? cpu.vmexit({ reason: 10, instructionLength: 2 }) : undefined;
    case 'flags':
      return cpu.set('RFLAGS', cpu.get('RFLAGS') | 0x8d5n);
    case 'block':
      return cpu.set('blockingByMovSs', 1n);
    case 'off':
      return [cpu.vmxoff(), cpu.vmxon(BigInt(vmxonRegion(0)))];
    default:
      if (cpu.operation === 'outside') enterRoot(cpu);
      return setMode(cpu, '64-bit');
  }
}

function isRegister(operand: MemoryOperand): operand is typeof REGISTER_FORM & { readonly kind: 'register' } {
  return typeof operand !== 'bigint' && operand.kind === 'register';
}

function anInstruction(
  cpu: LogicalProcessor,
  which: number,
  number: bigint,
  memory: MemoryOperand,
  descriptor: MemoryOperand,
): { readonly kind: string } {
  switch (which) {
    case 0:
      return cpu.vmxon(memory);
    case 1:
      return cpu.vmxoff();
    case 2:
      return cpu.vmclear(memory);
    case 3:
      return cpu.vmptrld(memory);
    case 4:
      return cpu.vmptrst().outcome;
    case 5:
      return cpu.vmread(number).outcome;
    case 6:
      return cpu.unit.vmwrite(number, isRegister(memory) ? number : memory);
    case 7:
      return cpu.vmlaunch();
    case 8:
      return cpu.vmresume();
    case 9:
      return cpu.vmcall();
    case 10:
      cpu.set('RAX', number);
      return cpu.vmfunc();
    case 11:
      return cpu.invept(number, descriptor);
    case 12:
      return cpu.invvpid(number & 3n, descriptor);
    case 13:
      return cpu.vmreadRegister(Number(number & 15n), Number((number >> 4n) & 15n));
    case 14:
      return cpu.vmwriteRegister(Number(number & 15n), Number((number >> 4n) & 15n));
    default:
      return cpu.operation === 'non-root'
        ? cpu.vmexit({ reason: 10, instructionLength: 2 })
        : cpu.invept(number & 3n, descriptor);
  }
}
