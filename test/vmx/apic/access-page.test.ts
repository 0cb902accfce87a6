import { describe, expect, it } from 'vitest';
import type { Machine } from '../../../src/machine/machine.ts';
import type { ControlId } from '../../../src/vmcs/controls.ts';
import { Field } from '../../../src/vmcs/fields.ts';
import { ApicControl, isReadVirtualized, isWriteVirtualized } from '../../../src/vmx/apic/access-classes.ts';
import { readExit, writeExit } from '../../../src/vmx/apic/access-page.ts';
import { assemble } from '../../support/assemble.ts';
import { exitFields, GUEST, runToExit } from '../../support/guest.ts';
import type { FieldValues } from '../../support/legal-vmcs.ts';
import { ENTRY, succeeds } from '../../support/machine.ts';
import { guestProcessor } from '../../support/vmx-processor.ts';
import {
  ACCESS_PAGE,
  APIC_FIELDS,
  APIC_PAGE,
  apicGuest,
  DELIVERY,
  HANDLER,
  mapSmallPages,
  pageEntry,
} from './apic-guest.ts';

const VAA: ControlId = 'proc2.virtualizeApicAccesses';
const ARV: ControlId = 'proc2.apicRegisterVirtualization';
const IPIV: ControlId = 'proc3.ipiVirtualization';
const READ = 0n;
const WRITE = 0x1000n;
const FETCH = 0x2000n;
const DELIVERING = 0x3000n;

function guest(
  code: string | Uint8Array,
  controls: readonly ControlId[],
  fields: FieldValues = {},
  setUp: (machine: Machine) => void = () => {},
): Machine {
  return apicGuest(typeof code === 'string' ? code : 'nop', 'vmcall', {
    controls: [VAA, ...controls],
    fields,
    setUp: (machine) => {
      if (typeof code !== 'string') machine.memory.writeBytes(GUEST, code);
      machine.memory.writeBytes(ACCESS_PAGE, new Uint8Array(4096).fill(0xee));
      setUp(machine);
    },
  });
}

const basics = (machine: Machine) =>
  exitFields(machine.cpu(0), 'exitReason', 'exitQualification', 'guestRip');

/** Runs `code` with RSI at the page offset `offset`. */
function at(
  offset: number,
  code: string,
  controls: readonly ControlId[],
  fields: FieldValues = {},
  setUp?: (machine: Machine) => void,
): Machine {
  const machine = guest(`${code}\nvmcall`, controls, fields, setUp);
  machine.cpu(0).set('RSI', BigInt(ACCESS_PAGE + offset));
  runToExit(machine.cpu(0));
  return machine;
}

const { TprShadow, InterruptDelivery, Registers, Ipis } = ApicControl;
const SHADOW: ControlId = 'proc.useTprShadow';
const CONFIGURATIONS: readonly (readonly [string, readonly ControlId[], number])[] = [
  ['no TPR shadow', [], 0],
  ['TPR shadow', [SHADOW], TprShadow],
  ['virtual-interrupt delivery', DELIVERY, TprShadow | InterruptDelivery],
  ['APIC-register virtualization', [SHADOW, ARV], TprShadow | Registers],
  ['IPI virtualization', [SHADOW, IPIV], TprShadow | Ipis],
  ['all', [...DELIVERY, ARV, IPIV], TprShadow | InterruptDelivery | Registers | Ipis],
];

describe('every 32-bit access of guest code to the APIC-access page (SDM §32.4.2, §32.4.3)', () => {
  for (const [name, controls, bits] of CONFIGURATIONS) {
    it(name, () => {
      const machine = guest('mov ebx, [rsi]\nvmcall\nmov [rsi], edx\nvmcall', controls);
      const cpu = machine.cpu(0);
      const { memory } = machine;
      const run = (rip: number, offset: number) => {
        if (cpu.operation === 'root') {
          succeeds(cpu.vmwrite('guestRip', rip));
          if (controls.includes(DELIVERY[2] as ControlId)) succeeds(cpu.vmwrite('guestInterruptStatus', 0));
          expect(cpu.vmresume()).toEqual(ENTRY);
        }
        memory.write32(APIC_PAGE + offset, 0x1234_5678);
        cpu.set('RBX', 0xffff_ffff_ffff_ffffn);
        cpu.set('RDX', 0xabcd_ef00n);
        cpu.set('RSI', BigInt(ACCESS_PAGE + offset));
        runToExit(cpu);
        return exitFields(cpu, 'exitReason', 'exitQualification', 'guestRip');
      };
      for (let offset = 0; offset < 0x1000; offset += offset % 0x80 === 0 ? 4 : 16 - (offset % 16)) {
        const read = run(GUEST, offset);
        const readable = isReadVirtualized(bits, offset, 4);
        expect([offset, read]).toEqual([
          offset,
          readable
            ? { exitReason: 18n, exitQualification: 0n, guestRip: BigInt(GUEST + 2) }
            : { exitReason: 44n, exitQualification: READ | BigInt(offset), guestRip: BigInt(GUEST) },
        ]);
        expect(cpu.get('RBX')).toBe(readable ? 0x1234_5678n : 0xffff_ffff_ffff_ffffn);

        const write = run(GUEST + 5, offset);
        const writable = isWriteVirtualized(bits, offset, 4);
        // The TPR, EOI with delivery and the upper half of the ICR complete; the ICR written is no IPI.
        const completes =
          offset === 0x080 || offset === 0x310 || (offset === 0x0b0 && bits & InterruptDelivery);
        expect([offset, write]).toEqual([
          offset,
          !writable
            ? { exitReason: 44n, exitQualification: WRITE | BigInt(offset), guestRip: BigInt(GUEST + 5) }
            : completes
              ? { exitReason: 18n, exitQualification: 0n, guestRip: BigInt(GUEST + 7) }
              : { exitReason: 56n, exitQualification: BigInt(offset), guestRip: BigInt(GUEST + 7) },
        ]);
        const stored = { 128: 0, 176: bits & InterruptDelivery ? 0 : 0xabcd_ef00, 784: 0xab00_0000 };
        const expected = writable ? (stored[offset as keyof typeof stored] ?? 0xabcd_ef00) : 0x1234_5678;
        expect([offset, memory.read32(APIC_PAGE + offset)]).toEqual([offset, expected]);
      }
      // The APIC-access page itself is never touched.
      expect(memory.readBytes(ACCESS_PAGE, 4096)).toEqual(new Uint8Array(4096).fill(0xee));
    });
  }
});

describe('size and place of an access', () => {
  const CASES: readonly (readonly [string, number, readonly ControlId[], bigint | 'virtualized'])[] = [
    ['mov bl, [rsi]', 0x80, [SHADOW], 'virtualized'],
    ['mov bx, [rsi]', 0x80, [SHADOW], 'virtualized'],
    ['mov bl, [rsi]', 0x81, [SHADOW], READ | 0x81n],
    ['mov bl, [rsi]', 0x83, [SHADOW, ARV], 'virtualized'],
    ['mov bx, [rsi]', 0x83, [SHADOW, ARV], READ | 0x83n],
    ['mov ebx, [rsi]', 0x81, [SHADOW, ARV], READ | 0x81n],
    ['mov rbx, [rsi]', 0x80, [SHADOW, ARV], READ | 0x80n],
    ['mov [rsi], rbx', 0x80, [SHADOW, ARV], WRITE | 0x80n],
    ['movq xmm0, [rsi]', 0x80, [SHADOW, ARV], READ | 0x80n],
    ['movd xmm0, [rsi]', 0x80, [SHADOW], 'virtualized'],
    ['push [rsi]', 0x80, [SHADOW, ARV], READ | 0x80n],
    ['lgdt [rsi]', 0x80, [SHADOW, ARV], READ | 0x80n],
    ['fxsave [rsi]', 0x80, [SHADOW, ARV], WRITE | 0x80n],
    ['mov ebx, [rsi]', 0x84, [SHADOW, ARV], READ | 0x84n],
    ['mov byte ptr [rsi], 0x20', 0x80, [SHADOW], 'virtualized'],
    ['mov byte ptr [rsi], 0x20', 0x82, [SHADOW], WRITE | 0x82n],
    ['clflush [rsi]', 0x40, [SHADOW, ARV], 'virtualized'],
    ['prefetcht0 [rsi]', 0x40, [SHADOW], 'virtualized'],
    ['or dword ptr [rsi], 0x10', 0x80, [SHADOW], 'virtualized'],
    ['xor byte ptr [rsi], 0x10', 0x80, [SHADOW], 'virtualized'],
    ['test dword ptr [rsi], 0x10', 0x80, [SHADOW], 'virtualized'],
    ['xchg [rsi], ebx', 0x80, [SHADOW], 'virtualized'],
    ['lock xadd [rsi], ebx', 0x80, [SHADOW], 'virtualized'],
    ['bts dword ptr [rsi], 5', 0x80, [SHADOW], 'virtualized'],
    // A register that may be read but not written: of the two accesses the write exits.
    ['or dword ptr [rsi], 0x10', 0x30, [SHADOW, ARV], WRITE | 0x30n],
    ['or dword ptr [rsi], 0x10', 0x40, [SHADOW, ARV], WRITE | 0x40n],
    ['mov ebx, [rsi]', -2, [SHADOW, ARV], READ],
    ['mov [rsi], ebx', -2, [SHADOW, ARV], WRITE],
    ['mov ebx, [rsi]', 0xffe, [SHADOW, ARV], READ | 0xffen],
    ['mov [rsi], ebx', 0xffe, [SHADOW, ARV], WRITE | 0xffen],
    ['add [rsi], ebx', 0xfff, [SHADOW, ARV], WRITE | 0xfffn],
  ];
  for (const [code, offset, controls, outcome] of CASES) {
    it(`${code} at ${offset.toString(16)} with ${controls.length} controls`, () => {
      // SSE is enabled.
      const machine = at(offset, code, controls, { guestCr4: 0x2220n });
      if (outcome === 'virtualized') {
        expect(basics(machine).exitReason).toBe(18n);
        expect(basics(machine).guestRip).toBeLessThan(HANDLER);
      } else {
        expect(basics(machine)).toEqual({
          exitReason: 44n,
          exitQualification: outcome,
          guestRip: BigInt(GUEST),
        });
      }
    });
  }

  it('a read-modify-write works on the virtual-APIC page, and TPR virtualization follows once', () => {
    const code = 'or dword ptr [rsi], 0x30\nmov rcx, cr8';
    const machine = at(0x80, code, [SHADOW], {}, ({ memory }) => memory.write32(APIC_PAGE + 0x80, 0xff40));
    expect(machine.cpu(0).get('RCX')).toBe(7n);
    expect(machine.memory.read32(APIC_PAGE + 0x80)).toBe(0x70);
  });

  it('0F0H with ARV: a write of one byte is emulated at its own offset, by an exit', () => {
    const machine = at(0xf1, 'mov byte ptr [rsi], 0x77', [SHADOW, ARV]);
    expect(basics(machine)).toMatchObject({ exitReason: 56n, exitQualification: 0xf1n });
    expect(machine.memory.read32(APIC_PAGE + 0xf0)).toBe(0x7700);
  });

  it('without "virtualize APIC accesses" the page is memory', () => {
    const machine = apicGuest('mov ebx, [rsi]\nmov [rsi + 4], ebx\nvmcall', 'vmcall', {
      controls: [SHADOW, ARV],
    });
    machine.memory.write32(ACCESS_PAGE + 0x80, 0x1234);
    machine.cpu(0).set('RSI', BigInt(ACCESS_PAGE + 0x80));
    runToExit(machine.cpu(0));
    expect(basics(machine).exitReason).toBe(18n);
    expect(machine.memory.read32(ACCESS_PAGE + 0x84)).toBe(0x1234);
  });
});

describe('one operation (SDM §32.4.2, §32.4.3.1)', () => {
  it('after a virtualized write reads exit, and writes of another place or size', () => {
    const p = guestProcessor({ controls: [VAA, SHADOW, ARV], fields: APIC_FIELDS });
    p.vmx.apicWrite = 0x80;
    p.vmx.apicWriteBytes = 4;
    expect(readExit(p, 0x80, 4)).toEqual({ reason: 44, qualification: 0x80n });
    expect(writeExit(p, 0x80, 4)).toBeUndefined();
    expect(writeExit(p, 0x80, 2)).toEqual({ reason: 44, qualification: 0x1080n });
    expect(writeExit(p, 0xf0, 4)).toEqual({ reason: 44, qualification: 0x10f0n });
  });

  it('each iteration of a string instruction is one: the TPR written three times, then the next register', () => {
    // MOVSB with DF = 0 moves on from 080H to 081H, which without ARV exits.
    const machine = guest('rep movsb\nvmcall', [SHADOW]);
    const cpu = machine.cpu(0);
    machine.memory.write32(0x8_0000, 0x5566_7788);
    cpu.set('RSI', 0x8_0000n);
    cpu.set('RDI', BigInt(ACCESS_PAGE + 0x80));
    cpu.set('RCX', 4n);
    runToExit(cpu);
    expect(basics(machine)).toEqual({
      exitReason: 44n,
      exitQualification: WRITE | 0x81n,
      guestRip: BigInt(GUEST),
    });
    expect([cpu.get('RCX'), cpu.get('RSI'), cpu.get('RDI')]).toEqual([3n, 0x8_0001n, 0x9_8081n]);
    expect(machine.memory.read32(APIC_PAGE + 0x80)).toBe(0x88);
    expect(exitFields(cpu, 'guestRflags').guestRflags & 0x1_0000n).toBe(0x1_0000n);
  });

  it('between two iterations the exit of the first leaves the rest to do', () => {
    const machine = guest('rep movsb\nvmcall', [SHADOW, ARV], {});
    const cpu = machine.cpu(0);
    cpu.set('RSI', 0x8_0000n);
    cpu.set('RDI', BigInt(ACCESS_PAGE + 0xf0));
    cpu.set('RCX', 4n);
    runToExit(cpu);
    expect(basics(machine)).toEqual({ exitReason: 56n, exitQualification: 0xf0n, guestRip: BigInt(GUEST) });
    expect(cpu.get('RCX')).toBe(3n);
  });

  it('a fault after the write is delivered first; the emulation precedes the handler', () => {
    // ENTER pushes BP to 080H and faults on the page to which the frame goes.
    const tss = 0x7_4000;
    const code = assemble('enter 0x1000, 0', 64, GUEST);
    const machine = guest(
      Uint8Array.of(0x66, ...code),
      [SHADOW],
      { guestTrBase: BigInt(tss), guestRsp: BigInt(ACCESS_PAGE + 0x82) },
      (m) => {
        mapSmallPages(m, { [ACCESS_PAGE - 0x1000]: 0n });
        m.memory.write64(tss + 0x24, 0x8_8000n);
        m.memory.write8(APIC_PAGE + 0x80, 0xff);
      },
    );
    machine.memory.write8(0x7_0000 + 16 * 14 + 4, 1);
    const cpu = machine.cpu(0);
    cpu.unit.vmx.current?.quads.set([5n], Field.tprThreshold);
    cpu.set('RBP', 0x40n);
    runToExit(cpu);
    expect(basics(machine)).toEqual({
      exitReason: 43n,
      exitQualification: 0n,
      guestRip: BigInt(HANDLER + 16 * 14),
    });
    expect(machine.memory.read64(0x8_8000 - 40)).toBe(BigInt(GUEST));
    expect(machine.memory.read32(APIC_PAGE + 0x80)).toBe(0x40);
  });
});

describe('fetches and event delivery (SDM §30.2.1, Table 30-6)', () => {
  it('an instruction fetch exits, also one that only ends on the page', () => {
    const machine = guest('jmp rsi', [SHADOW, ARV]);
    machine.cpu(0).set('RSI', BigInt(ACCESS_PAGE + 0x80));
    runToExit(machine.cpu(0));
    expect(basics(machine)).toEqual({
      exitReason: 44n,
      exitQualification: FETCH | 0x80n,
      guestRip: BigInt(ACCESS_PAGE + 0x80),
    });
    const across = guest('jmp rsi', [SHADOW, ARV], {}, ({ memory }) =>
      memory.writeBytes(ACCESS_PAGE - 2, Uint8Array.of(0x48, 0xb8)),
    );
    across.cpu(0).set('RSI', BigInt(ACCESS_PAGE - 2));
    runToExit(across.cpu(0));
    expect(basics(across)).toEqual({
      exitReason: 44n,
      exitQualification: FETCH,
      guestRip: BigInt(ACCESS_PAGE - 2),
    });
  });

  it('an access of event delivery reports the event, and is never virtualized', () => {
    for (const [code, event, length] of [
      ['ud2', 0x8000_0306n, undefined],
      ['int 0x44', 0x8000_0444n, 2n],
    ] as const) {
      const machine = guest(code, [SHADOW, ARV], { guestRsp: BigInt(ACCESS_PAGE + 0x90) });
      const cpu = machine.cpu(0);
      runToExit(cpu);
      expect(basics(machine)).toEqual({
        exitReason: 44n,
        exitQualification: DELIVERING | 0x88n,
        guestRip: BigInt(GUEST),
      });
      const fields = exitFields(cpu, 'originalEventIdentification', 'vmExitInstructionLength', 'guestRsp');
      expect(fields.originalEventIdentification).toBe(event);
      expect(fields.guestRsp).toBe(BigInt(ACCESS_PAGE + 0x90));
      if (length !== undefined) expect(fields.vmExitInstructionLength).toBe(length);
    }
  });
});

describe('instructions with rules of their own (SDM §32.4.4), and physical accesses (SDM §32.4.6.2)', () => {
  it('MONITOR counts as a read', () => {
    for (const [offset, exits] of [
      [0x40, true],
      [0x80, false],
    ] as const) {
      const machine = guest('monitor\nvmcall', [SHADOW]);
      machine.cpu(0).set('RAX', BigInt(ACCESS_PAGE + offset));
      machine.cpu(0).set('RCX', 0n);
      runToExit(machine.cpu(0));
      expect(basics(machine).exitReason).toBe(exits ? 44n : 18n);
      if (exits) expect(basics(machine).exitQualification).toBe(READ | 0x40n);
    }
  });

  it('MASKMOVDQU counts as a write, with a mask of zeros too', () => {
    const machine = guest('pxor xmm1, xmm1\nmaskmovdqu xmm0, xmm1\nvmcall', [SHADOW], { guestCr4: 0x2220n });
    machine.cpu(0).set('RDI', BigInt(ACCESS_PAGE + 0x80));
    runToExit(machine.cpu(0));
    expect(basics(machine)).toMatchObject({ exitReason: 44n, exitQualification: WRITE | 0x80n });
  });

  it('without EPT a paging structure on the page is read and marked as memory', () => {
    const machine = guest('mov eax, [rsi]\nvmcall', [SHADOW], {}, (m) => {
      // The page table of the first 2 MBytes is moved to the APIC-access page.
      mapSmallPages(m);
      m.memory.writeBytes(ACCESS_PAGE, m.memory.readBytes(0x30_3000, 4096));
      m.memory.write64(0x30_2000, BigInt(ACCESS_PAGE) | 7n);
    });
    machine.cpu(0).set('RSI', 0x8_0000n);
    runToExit(machine.cpu(0));
    expect(basics(machine).exitReason).toBe(18n);
    expect(machine.memory.read64(ACCESS_PAGE + 8 * 0x80)).toBe(0x8_0027n);
  });
});

describe('priority (SDM §32.4.1)', () => {
  it('below page faults of the same access, on either page', () => {
    for (const [offset, code, pages] of [
      [0x40, 'mov ebx, [rsi]', { [ACCESS_PAGE]: 0n }],
      [0x40, 'mov [rsi], ebx', { [ACCESS_PAGE]: BigInt(ACCESS_PAGE) | 5n }],
      [0xffe, 'mov ebx, [rsi]', { [ACCESS_PAGE + 0x1000]: 0n }],
      [-2, 'mov [rsi], ebx', { [ACCESS_PAGE - 0x1000]: 0n }],
    ] as const) {
      const fields = { exceptionBitmap: 1n << 14n, guestCr0: 0x8001_0021n };
      const machine = at(offset, code, [SHADOW], fields, (m) => mapSmallPages(m, pages));
      expect(basics(machine).exitReason).toBe(0n);
    }
  });

  it('accessed and dirty flags are set before the exit', () => {
    for (const [code, flags] of [
      ['mov ebx, [rsi]', 0x27n],
      ['mov [rsi], ebx', 0x67n],
    ] as const) {
      const machine = at(0x40, code, [SHADOW], {}, mapSmallPages);
      expect(basics(machine).exitReason).toBe(44n);
      expect(machine.memory.read64(pageEntry(ACCESS_PAGE))).toBe(BigInt(ACCESS_PAGE) | flags);
    }
  });

  it('every linear address that translates to the page counts', () => {
    const machine = guest('mov ebx, [rsi]\nvmcall', [SHADOW], {}, (m) =>
      mapSmallPages(m, { 655360: BigInt(ACCESS_PAGE) | 7n }),
    );
    machine.cpu(0).set('RSI', 0xa_0020n);
    runToExit(machine.cpu(0));
    expect(basics(machine)).toMatchObject({ exitReason: 44n, exitQualification: 0x20n });
  });

  it('after the exit the host reads and writes the page as memory, and re-entry finds it again', () => {
    const machine = guest('mov ebx, [rsi]\nvmcall', [SHADOW]);
    const cpu = machine.cpu(0);
    cpu.set('RSI', BigInt(ACCESS_PAGE + 0x40));
    runToExit(cpu);
    machine.memory.writeBytes(0x2_0000, assemble('mov ecx, [rsi]\nhere: jmp here', 64, 0x2_0000));
    cpu.run(2);
    expect(cpu.get('RCX')).toBe(0xeeee_eeeen);
    expect(cpu.vmresume()).toEqual(ENTRY);
    runToExit(cpu);
    expect(basics(machine)).toMatchObject({ exitReason: 44n, exitQualification: 0x40n });
  });
});
