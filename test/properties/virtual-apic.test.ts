/**
 * Guests that do anything with a virtual APIC, under any controls and with any contents of its structures:
 * no JavaScript error, every exit says only what its reason records, and the state stays within its rules.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ControlId } from '../../src/vmcs/controls.ts';
import { Field } from '../../src/vmcs/fields.ts';
import type { ProcessorCopy } from '../../src/vmcs/processor-copy.ts';
import { checkExitRequest } from '../../src/vmx/exit/exit-request.ts';
import { GUEST, GUEST_STACK } from '../support/guest.ts';
import {
  ACCESS_PAGE,
  APIC_PAGE,
  apicGuest,
  DESCRIPTOR,
  MSR_BITMAP,
  PID_TABLE,
} from '../vmx/apic/apic-guest.ts';
import { runs } from './settings.ts';

const word = (value: number) => [
  value & 0xff,
  (value >> 8) & 0xff,
  (value >> 16) & 0xff,
  (value >> 24) & 0xff,
];
const u32 = fc.oneof(fc.nat(), fc.nat({ max: 0xff }), fc.constantFrom(0x4_0051, 0x61, 0x8000_0000 | 0));

/** Machine code of one step; RSI is the address of the APIC-access page. */
const offset = fc.oneof(
  fc.nat({ max: 0x43 }).map((n) => 16 * n),
  fc.integer({ min: -8, max: 0x1004 }),
  fc.constantFrom(0x80, 0x82, 0xb0, 0x300, 0x301, 0x310),
);
const access = fc
  .tuple(
    fc.constantFrom([0x8a], [0x8b], [0x66, 0x8b], [0x48, 0x8b], [0x88], [0x89], [0x48, 0x89], [0x01], [0x87]),
    offset,
  )
  .map(([opcode, at]) => [...opcode, 0x86, ...word(at)]);
const msr = fc
  .tuple(
    fc.oneof(fc.constantFrom(0x808, 0x80b, 0x830, 0x83f, 0x6e0), fc.integer({ min: 0x800, max: 0x8ff })),
    u32,
    u32,
    fc.boolean(),
  )
  .map(([index, low, high, writes]) => [
    0xb9,
    ...word(index),
    0xb8,
    ...word(low),
    0xba,
    ...word(high),
    0x0f,
    writes ? 0x30 : 0x32,
  ]);
const cr8 = fc
  .tuple(fc.nat({ max: 17 }), fc.boolean())
  .map(([value, writes]) => [0xb8, ...word(value), 0x44, 0x0f, writes ? 0x22 : 0x20, 0xc0]);
const stack = fc
  .constantFrom(GUEST_STACK, ACCESS_PAGE + 0x88, ACCESS_PAGE + 0x84, ACCESS_PAGE + 0x1000)
  .map((at) => [0x48, 0xc7, 0xc4, ...word(at)]);
const strings = fc
  .tuple(fc.nat({ max: 3 }), offset, fc.constantFrom(0xa4, 0xa5, 0xaa, 0xab))
  .map(([count, at, opcode]) => [0xb9, ...word(count), 0xbf, ...word(ACCESS_PAGE + at), 0xf3, opcode]);
/** An EOI, as an MSR or on the page. */
const eoi = fc.constantFrom(
  [0xb9, ...word(0x80b), 0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x30],
  [0xc7, 0x86, ...word(0xb0), ...word(0)],
);
/** STI, CLI, HLT, NOP, UD2, PUSH, POP, JMP RSI, INT 30H, ENTER. */
const others = fc.constantFrom(
  [0xfb],
  [0xfb],
  [0xfa],
  [0xf4],
  [0x90],
  [0x0f, 0x0b],
  [0x50],
  [0x58],
  [0xff, 0xe6],
  [0xcd, 0x30],
  [0x66, 0xc8, 0x10, 0x00, 0x01],
);
const program = fc
  .array(fc.oneof(access, access, msr, eoi, cr8, stack, strings, others), { minLength: 1, maxLength: 14 })
  .map((steps) => Uint8Array.from([...steps.flat(), 0x0f, 0x01, 0xc1]));

const controls = fc
  .record({
    access: fc.constantFrom<ControlId[]>(
      ['proc2.virtualizeApicAccesses'],
      ['proc2.virtualizeApicAccesses'],
      ['proc2.virtualizeX2apicMode'],
      [],
    ),
    delivery: fc.boolean(),
    posting: fc.boolean(),
    timer: fc.boolean(),
    others: fc.subarray<ControlId>([
      'proc2.apicRegisterVirtualization',
      'proc3.ipiVirtualization',
      'pin.externalInterruptExiting',
      'proc.hltExiting',
    ]),
  })
  .map((c): ControlId[] => [
    'proc.useTprShadow',
    'proc.useMsrBitmaps',
    ...c.access,
    ...(c.delivery ? (['pin.externalInterruptExiting', 'proc2.virtualInterruptDelivery'] as const) : []),
    ...(c.delivery && c.posting
      ? (['pin.processPostedInterrupts', 'exit.acknowledgeInterruptOnExit'] as const)
      : []),
    ...(c.delivery && c.timer ? (['proc3.apicTimerVirtualization'] as const) : []),
    ...c.others,
  ]);

describe('any guest with a virtual APIC', () => {
  it('goes on or exits, by the rules', () => {
    const bytes = fc.uint8Array({ minLength: 64, maxLength: 64 });
    const quad = fc.oneof(
      fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
      fc.constant(BigInt(DESCRIPTOR) | 1n),
    );
    const settings = fc.record({
      controls,
      code: program,
      page: bytes,
      descriptor: bytes,
      table: fc.array(quad, { minLength: 4, maxLength: 4 }),
      status: fc.nat({ max: 0xffff }),
      eoiExits: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
      interrupts: fc.array(fc.constantFrom(0xf2, 0xf2, 0x77), { maxLength: 3 }),
      enabled: fc.boolean(),
    });
    fc.assert(
      fc.property(settings, (s) => {
        const machine = apicGuest('nop', 'vmcall', {
          controls: s.controls,
          fields: {
            guestInterruptStatus: BigInt(s.status),
            guestRflags: s.enabled ? 0x202n : 2n,
            eoiExitBitmap0: s.eoiExits,
            eoiExitBitmap1: s.eoiExits,
            eoiExitBitmap2: s.eoiExits,
            eoiExitBitmap3: s.eoiExits,
            virtualTimerVector: 0x55n,
          },
          setUp: ({ memory }) => {
            memory.writeBytes(GUEST, s.code);
            for (let n = 0; n < 4096; n += 64) memory.writeBytes(APIC_PAGE + n, s.page);
            memory.writeBytes(DESCRIPTOR, s.descriptor);
            s.table.forEach((entry, n) => {
              memory.write64(PID_TABLE + 8 * n, entry);
            });
            memory.writeBytes(MSR_BITMAP, new Uint8Array(4096));
          },
        });
        const cpu = machine.cpu(0);
        const { unit } = cpu;
        // VM entry would want VTPR above it.
        (unit.vmx.current as ProcessorCopy).quads[Field.tprThreshold] = 7n;
        const queue = [...s.interrupts];
        cpu.processor.interrupts = {
          requested: () => queue.length > 0,
          acknowledge: () => queue.shift() ?? 0xff,
        };
        const perform = unit.perform.bind(unit);
        unit.perform = (request) => {
          expect([request, checkExitRequest(request, unit)]).toEqual([request, undefined]);
          return perform(request);
        };
        cpu.set('RSI', BigInt(ACCESS_PAGE));
        const delivers = s.controls.includes('proc2.virtualInterruptDelivery');
        for (let n = 0; n < 120; n++) {
          if (n % 9 === 4) cpu.processor.requestAttention(64);
          cpu.run(1);
          if (cpu.operation !== 'non-root') {
            // The host goes on with what follows, a few times.
            if (cpu.operation !== 'root' || n > 100) break;
            queue.shift();
            cpu.vmwrite('tprThreshold', 0);
            const { value: length } = cpu.vmread('vmExitInstructionLength');
            // An access that exited is skipped, whatever its length.
            const skipped = cpu.vmread('exitReason').value === 44n ? 6n : length & 15n;
            cpu.vmwrite('guestRip', cpu.vmread('guestRip').value + skipped);
            cpu.vmwrite('guestRsp', GUEST_STACK);
            if (cpu.vmresume().kind !== 'VMentry') break;
          }
          const { rvi, svi, virtualInterruptPending } = unit.vmx;
          expect([rvi >= 0 && rvi < 256, svi >= 0 && svi < 256]).toEqual([true, true]);
          if (virtualInterruptPending) expect(delivers).toBe(true);
        }
      }),
      runs(40),
    );
  });
});
