/**
 * Guest programs that change the TPR, send themselves IPIs, end interrupts and change RFLAGS.IF, through
 * CR8, MSRs or the APIC-access page, against a model of a virtual APIC and of interrupt delivery that is
 * written from the text of SDM §32.1–§32.5 alone.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Machine } from '../../../src/machine/machine.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { ApicRegister } from '../../../src/vmx/apic/virtual-apic-page.ts';
import { assemble } from '../../support/assemble.ts';
import { exitFields, GUEST, GUEST_STACK } from '../../support/guest.ts';
import { ENTRY, succeeds } from '../../support/machine.ts';
import { ACCESS_PAGE, APIC_PAGE, apicGuest, bitsOf, DELIVERY } from './apic-guest.ts';

const { PPR, ISR, IRR } = ApicRegister;
/** The handler notes its vector and the address it returns to. */
const LOG = 0x8_0000;
const HANDLER_CODE = `
  mov r12, [rsp]
  shl r12, 8
  mov r12b, r15b
  mov [r13], r12
  add r13, 8
  iretq`;

type Step =
  | { readonly kind: 'tpr' | 'self-ipi'; readonly value: number }
  | { readonly kind: 'eoi' | 'sti' | 'cli' | 'nop' };

type Interface = 'MSRs' | 'page';
const CONTROLS: Record<Interface, readonly ControlId[]> = {
  MSRs: [...DELIVERY, 'proc.useMsrBitmaps', 'proc2.virtualizeX2apicMode'],
  page: [...DELIVERY, 'proc2.virtualizeApicAccesses'],
};

const wrmsr = (index: number, value: number) => `mov ecx, ${index}\nmov eax, ${value}\nxor edx, edx\nwrmsr\n`;
const store = (offset: number, value: number) => `mov dword ptr [${ACCESS_PAGE + offset}], ${value}\n`;

function codeOf(step: Step, through: Interface): string {
  switch (step.kind) {
    case 'tpr':
      // CR8 holds the class alone.
      if (step.value % 16 === 0) return `mov eax, ${step.value >> 4}\nmov cr8, rax\n`;
      return through === 'MSRs' ? wrmsr(0x808, step.value) : store(0x80, step.value);
    case 'self-ipi':
      return through === 'MSRs' ? wrmsr(0x83f, step.value) : store(0x300, 0x4_0000 | step.value);
    case 'eoi':
      return through === 'MSRs' ? wrmsr(0x80b, 0) : store(0xb0, 0);
    default:
      return `${step.kind}\n`;
  }
}

/** What becomes of a program, step by step: a step has some instructions, of which the last one acts. */
class Model {
  tpr = 0;
  ppr = 0;
  rvi = 0;
  svi = 0;
  recognised = false;
  enabled = false;
  readonly requested = new Set<number>();
  readonly inService = new Set<number>();
  /** Vectors delivered, and the step before which each was. */
  readonly log: [vector: number, before: number][] = [];

  private priority(): void {
    this.ppr = this.tpr >> 4 >= this.svi >> 4 ? this.tpr : this.svi & 0xf0;
  }

  private evaluate(): void {
    this.recognised = this.rvi >> 4 > this.ppr >> 4;
  }

  step(step: Step): void {
    switch (step.kind) {
      case 'tpr':
        this.tpr = step.value;
        this.priority();
        this.evaluate();
        break;
      case 'self-ipi':
        this.requested.add(step.value);
        this.rvi = Math.max(this.rvi, step.value);
        this.evaluate();
        break;
      case 'eoi':
        this.inService.delete(this.svi);
        this.svi = Math.max(0, ...this.inService);
        this.priority();
        this.evaluate();
        break;
      case 'sti':
        this.enabled = true;
        break;
      case 'cli':
        this.enabled = false;
        break;
    }
  }

  /** Between two instructions of the program. The handler runs with interrupts disabled and returns. */
  boundary(before: number): void {
    if (!this.recognised || !this.enabled) return;
    const vector = this.rvi;
    this.inService.add(vector);
    this.svi = vector;
    this.ppr = vector & 0xf0;
    this.requested.delete(vector);
    this.rvi = Math.max(0, ...this.requested);
    this.recognised = false;
    this.log.push([vector, before]);
  }
}

const vector = fc.oneof(fc.integer({ min: 16, max: 255 }), fc.constantFrom(0x1f, 0x20, 0x40, 0x41, 0xff));
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('tpr' as const), value: fc.integer({ min: 0, max: 255 }) }),
  fc.record({ kind: fc.constant('tpr' as const), value: fc.integer({ min: 0, max: 15 }).map((n) => n << 4) }),
  fc.record({ kind: fc.constant('self-ipi' as const), value: vector }),
  fc.record({ kind: fc.constant('self-ipi' as const), value: vector }),
  fc.record({
    kind: fc.constantFrom('eoi' as const, 'sti' as const, 'sti' as const, 'cli' as const, 'nop' as const),
  }),
);

/** Runs the program `code` from the start with an empty virtual APIC. */
function run(machine: Machine, code: Uint8Array): void {
  const cpu = machine.cpu(0);
  const { memory } = machine;
  memory.writeBytes(APIC_PAGE, new Uint8Array(4096));
  memory.writeBytes(GUEST, code);
  for (const [name, value] of [
    ['guestRip', GUEST],
    ['guestRsp', GUEST_STACK],
    ['guestRflags', 2],
    ['guestInterruptStatus', 0],
    ['guestInterruptibilityState', 0],
  ] as const)
    succeeds(cpu.vmwrite(name, value));
  cpu.set('R13', BigInt(LOG));
  expect(cpu.vmresume()).toEqual(ENTRY);
  for (let n = 0; n < 50 && cpu.operation === 'non-root'; n++) cpu.run(100);
  expect(exitFields(cpu, 'exitReason').exitReason).toBe(18n);
}

describe('guest programs', () => {
  for (const through of ['MSRs', 'page'] as const) {
    it(`agree with a model: ${through}`, () => {
      const machine = apicGuest('vmcall', HANDLER_CODE, { controls: CONTROLS[through] });
      const cpu = machine.cpu(0);
      cpu.run(10);
      fc.assert(
        fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
          const model = new Model();
          const texts = steps.map((s) => codeOf(s, through));
          const starts = [GUEST];
          for (const text of texts) {
            const at = starts.at(-1) as number;
            starts.push(at + assemble(text, 64, at).length);
          }
          steps.forEach((s, n) => {
            const text = texts[n] as string;
            // STI holds interrupts back for one more instruction if RFLAGS.IF was 0: that is the first of
            // the next step, which does nothing unless it is the only one.
            const shadow = n > 0 && steps[n - 1]?.kind === 'sti' && !wasEnabled(steps, n - 1);
            const inner = text.trim().split('\n').length;
            if (!shadow) model.boundary(starts[n] as number);
            else if (inner > 1) model.boundary((starts[n] as number) + firstLength(text));
            model.step(s);
          });
          const last = steps.length - 1;
          const shadow = last >= 0 && steps[last]?.kind === 'sti' && !wasEnabled(steps, last);
          if (!shadow) model.boundary(starts[steps.length] as number);
          run(machine, Uint8Array.from([...assemble(`${texts.join('')}vmcall`, 64, GUEST)]));
          const entries = (Number(cpu.get('R13')) - LOG) / 8;
          const log = Array.from({ length: entries }, (_, n) => {
            const entry = Number(machine.memory.read64(LOG + 8 * n));
            return [entry & 0xff, Math.floor(entry / 256)];
          });
          expect(log).toEqual(model.log);
          const { guestInterruptStatus } = exitFields(cpu, 'guestInterruptStatus');
          expect({
            status: Number(guestInterruptStatus),
            ppr: machine.memory.read32(APIC_PAGE + PPR),
            requested: bitsOf(machine.memory, IRR),
            inService: bitsOf(machine.memory, ISR),
          }).toEqual({
            status: (model.svi << 8) | model.rvi,
            ppr: model.ppr,
            requested: [...model.requested].sort((a, b) => a - b),
            inService: [...model.inService].sort((a, b) => a - b),
          });
        }),
        { numRuns: 40 },
      );
    });
  }
});

/** RFLAGS.IF before step `n`. */
function wasEnabled(steps: readonly Step[], n: number): boolean {
  for (let at = n - 1; at >= 0; at--) {
    if (steps[at]?.kind === 'sti') return true;
    if (steps[at]?.kind === 'cli') return false;
  }
  return false;
}

/** Bytes of the first instruction of a step that has several. */
function firstLength(text: string): number {
  return assemble(text.slice(0, text.indexOf('\n')), 64, GUEST).length;
}
