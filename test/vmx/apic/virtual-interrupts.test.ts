import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ApicRegister } from '../../../src/vmx/apic/virtual-apic-page.ts';
import {
  acknowledgeVirtualInterrupt,
  evaluatePending,
  requestVector,
  virtualizeEoi,
  virtualizePpr,
  virtualizeSelfIpi,
  virtualizeTpr,
} from '../../../src/vmx/apic/virtual-interrupts.ts';
import { type GuestProcessor, guestProcessor } from '../../support/vmx-processor.ts';
import { APIC_PAGE, bitsOf, DELIVERY } from './apic-guest.ts';

const { TPR, PPR, ISR, IRR } = ApicRegister;

function processor(fields = {}, controls = DELIVERY): GuestProcessor {
  return guestProcessor({ controls, fields: { virtualApicAddress: BigInt(APIC_PAGE), ...fields } });
}

describe('PPR virtualization (SDM §32.1.3)', () => {
  it('for every VTPR and SVI', () => {
    const p = processor();
    const { memory } = p.cpu;
    for (let vtpr = 0; vtpr < 256; vtpr++) {
      for (let svi = 0; svi < 256; svi++) {
        memory.write32(APIC_PAGE + TPR, (0xabcd_ef00 | vtpr) >>> 0);
        memory.write32(APIC_PAGE + PPR, 0xffff_ffff);
        p.vmx.svi = svi;
        virtualizePpr(p, p.copy);
        const class_ = (vector: number) => Math.floor(vector / 16);
        const vppr = class_(vtpr) >= class_(svi) ? vtpr : 16 * class_(svi);
        if (memory.read32(APIC_PAGE + PPR) !== vppr) expect.fail(`VTPR ${vtpr}, SVI ${svi}`);
      }
    }
  });
});

describe('evaluation (SDM §32.2.1)', () => {
  it('every vector × VPPR: recognised if its class is higher', () => {
    const p = processor();
    for (let vppr = 0; vppr < 256; vppr++) {
      p.cpu.memory.write32(APIC_PAGE + PPR, vppr);
      for (let rvi = 0; rvi < 256; rvi++) {
        p.vmx.rvi = rvi;
        p.vmx.virtualInterruptPending = rvi % 2 === 0;
        evaluatePending(p, p.copy);
        const higher = Math.floor(rvi / 16) > Math.floor(vppr / 16);
        if (p.vmx.virtualInterruptPending !== higher) expect.fail(`RVI ${rvi}, VPPR ${vppr}`);
      }
    }
  });

  it('"interrupt-window exiting" withdraws recognition', () => {
    const p = processor({}, [...DELIVERY, 'proc.interruptWindowExiting']);
    p.vmx.rvi = 0xff;
    p.vmx.virtualInterruptPending = true;
    evaluatePending(p, p.copy);
    expect(p.vmx.virtualInterruptPending).toBe(false);
  });

  it('every vector × TPR: a self-IPI is recognised if its class is above that of the TPR', () => {
    for (let tpr = 0; tpr < 256; tpr += 5) {
      for (let vector = 16; vector < 256; vector++) {
        const p = fresh();
        p.cpu.memory.write8(APIC_PAGE + TPR, tpr);
        expect(virtualizeTpr(p, p.copy)).toBeUndefined();
        virtualizeSelfIpi(p, p.copy, vector);
        if (p.vmx.virtualInterruptPending !== vector >> 4 > tpr >> 4) expect.fail(`${tpr} ${vector}`);
      }
    }
  });
});

const shared = processor();
/** The same processor with an empty virtual APIC. */
function fresh(): GuestProcessor {
  shared.cpu.memory.writeBytes(APIC_PAGE, new Uint8Array(4096));
  Object.assign(shared.vmx, { rvi: 0, svi: 0, virtualInterruptPending: false });
  return shared;
}

describe('TPR virtualization (SDM §32.1.2)', () => {
  it('without virtual-interrupt delivery: an exit for every VTPR class below the threshold', () => {
    for (let threshold = 0; threshold < 16; threshold++) {
      const p = processor({ tprThreshold: BigInt(threshold) }, ['proc.useTprShadow']);
      for (let vtpr = 0; vtpr < 256; vtpr++) {
        p.cpu.memory.write8(APIC_PAGE + TPR, vtpr);
        p.cpu.memory.write32(APIC_PAGE + PPR, 0x5a);
        expect(virtualizeTpr(p, p.copy)).toEqual(vtpr >> 4 < threshold ? { reason: 43 } : undefined);
        expect(p.cpu.memory.read32(APIC_PAGE + PPR)).toBe(0x5a);
      }
    }
  });

  it('with it: never an exit, whatever the threshold', () => {
    const p = processor({ tprThreshold: 15n });
    p.vmx.rvi = 0x61;
    for (const [vtpr, pending] of [
      [0x60, false],
      [0x5f, true],
    ] as const) {
      p.cpu.memory.write8(APIC_PAGE + TPR, vtpr);
      expect(virtualizeTpr(p, p.copy)).toBeUndefined();
      expect(p.vmx.virtualInterruptPending).toBe(pending);
    }
  });
});

describe('EOI virtualization (SDM §32.1.4)', () => {
  it('exits for exactly the vectors of the EOI-exit bitmaps, and then evaluates nothing', () => {
    for (let vector = 0; vector < 256; vector++) {
      const bitmap = `eoiExitBitmap${vector >> 6}` as const;
      for (const exits of [true, false]) {
        const bit = 1n << BigInt(vector & 63);
        const p = processor({ [bitmap]: exits ? bit : 0xffff_ffff_ffff_ffffn ^ bit });
        p.vmx.svi = vector;
        p.vmx.rvi = 0xff;
        p.cpu.memory.write8(APIC_PAGE + ISR + ((vector & 0xe0) >> 1) + ((vector & 31) >> 3), 0xff);
        expect(virtualizeEoi(p, p.copy)).toEqual(
          exits ? { reason: 45, qualification: BigInt(vector) } : undefined,
        );
        expect(bitsOf(p.cpu.memory, ISR)).not.toContain(vector);
        expect(p.vmx.svi).toBe((vector | 7) === vector ? vector - 1 : vector | 7);
        const pending = !exits && p.vmx.svi >> 4 < 15;
        expect(p.vmx.virtualInterruptPending).toBe(pending);
      }
    }
  });

  it('with nothing in service clears bit 0 and leaves SVI 0', () => {
    const p = processor();
    p.cpu.memory.write32(APIC_PAGE + ISR, 1);
    virtualizeEoi(p, p.copy);
    expect(p.cpu.memory.read32(APIC_PAGE + ISR)).toBe(0);
    expect(p.vmx.svi).toBe(0);
  });
});

/** A virtual APIC as sets of vectors, from the text of SDM §32.1.2–§32.2.2 alone. */
class Model {
  requested = new Set<number>();
  inService = new Set<number>();
  rvi = 0;
  svi = 0;
  tpr = 0;
  ppr = 0;
  recognised = false;

  private computePpr(): void {
    this.ppr = this.tpr >> 4 >= this.svi >> 4 ? this.tpr : this.svi - (this.svi % 16);
  }

  evaluate(): void {
    this.recognised = this.rvi - (this.rvi % 16) > this.ppr - (this.ppr % 16);
  }

  writeTpr(value: number): void {
    this.tpr = value;
    this.computePpr();
    this.evaluate();
  }

  request(vector: number): void {
    this.requested.add(vector);
    this.rvi = Math.max(this.rvi, vector);
    this.evaluate();
  }

  eoi(exits: ReadonlySet<number>): number | undefined {
    const vector = this.svi;
    this.inService.delete(vector);
    this.svi = Math.max(0, ...this.inService);
    this.computePpr();
    if (exits.has(vector)) return vector;
    this.evaluate();
    return undefined;
  }

  deliver(): number {
    const vector = this.rvi;
    this.inService.add(vector);
    this.svi = vector;
    this.ppr = vector - (vector % 16);
    this.requested.delete(vector);
    this.rvi = Math.max(0, ...this.requested);
    this.recognised = false;
    return vector;
  }
}

describe('virtual interrupts as a whole', () => {
  it('agree with an abstract model after every sequence of operations', () => {
    const vector = fc.oneof(fc.integer({ min: 16, max: 255 }), fc.constantFrom(16, 31, 32, 63, 64, 255));
    const operation = fc.oneof(
      fc.record({ kind: fc.constant('tpr' as const), value: fc.integer({ min: 0, max: 255 }) }),
      fc.record({ kind: fc.constant('request' as const), value: vector }),
      fc.record({ kind: fc.constant('self-ipi' as const), value: vector }),
      fc.record({ kind: fc.constant('eoi' as const), value: fc.constant(0) }),
      fc.record({ kind: fc.constant('deliver' as const), value: fc.constant(0) }),
    );
    const exits = new Set([0x31, 0x40, 0xff]);
    const fields = { eoiExitBitmap0: 1n << 0x31n, eoiExitBitmap1: 1n, eoiExitBitmap3: 1n << 63n };
    const p = processor(fields);
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 40 }), (operations) => {
        // Of each 16 bytes of a vector set only the first four count.
        p.cpu.memory.writeBytes(
          APIC_PAGE,
          Uint8Array.from({ length: 4096 }, (_, n) => ((n & 12) === 0 ? 0 : 0xff)),
        );
        Object.assign(p.vmx, { rvi: 0, svi: 0, virtualInterruptPending: false });
        const model = new Model();
        for (const { kind, value } of operations) {
          if (kind === 'tpr') {
            p.cpu.memory.write8(APIC_PAGE + TPR, value);
            virtualizeTpr(p, p.copy);
            model.writeTpr(value);
          } else if (kind === 'request') {
            requestVector(p, p.copy, value);
            evaluatePending(p, p.copy);
            model.request(value);
          } else if (kind === 'self-ipi') {
            virtualizeSelfIpi(p, p.copy, value);
            model.request(value);
          } else if (kind === 'eoi') {
            const exit = model.eoi(exits);
            const request = exit === undefined ? undefined : { reason: 45, qualification: BigInt(exit) };
            expect(virtualizeEoi(p, p.copy)).toEqual(request);
          } else if (model.recognised) {
            expect(acknowledgeVirtualInterrupt(p, p.copy)).toBe(model.deliver());
          }
          expect({
            rvi: p.vmx.rvi,
            svi: p.vmx.svi,
            recognised: p.vmx.virtualInterruptPending,
            ppr: p.cpu.memory.read32(APIC_PAGE + PPR),
            requested: bitsOf(p.cpu.memory, IRR),
            inService: bitsOf(p.cpu.memory, ISR),
          }).toEqual({
            rvi: model.rvi,
            svi: model.svi,
            recognised: model.recognised,
            ppr: model.ppr,
            requested: [...model.requested].sort((a, b) => a - b),
            inService: [...model.inService].sort((a, b) => a - b),
          });
        }
      }),
      { numRuns: 60 },
    );
  });
});
