import { describe, expect, it } from 'vitest';
import { CODE, STACK_TOP } from '../support/code.ts';
import { SingleInstruction } from '../support/single-instruction.ts';
import {
  delivered,
  enterRing,
  GDT,
  LDT,
  Selector,
  segment,
  setDescriptor,
  stackItems,
  type World,
  world,
} from '../support/tables.ts';

const FLAT = 0xf_ffff;

/** Executes `code` once with a free descriptor of these access rights; answers what was delivered. */
function load(
  code: string,
  rights: number,
  options: { bits?: 32 | 64; ring?: 1 | 3; selector?: number } = {},
): World {
  const w = world(code, { bits: options.bits ?? 32 });
  setDescriptor(w, Selector.Free, segment(0x1234, FLAT, rights));
  if (options.ring !== undefined) enterRing(w, options.ring);
  w.cpu.set('RAX', BigInt(options.selector ?? Selector.Free));
  w.cpu.run(1);
  return w;
}

describe('MOV to a data segment register', () => {
  it('loads base, limit and access rights, and sets the accessed bit in memory', () => {
    const w = load('mov es, ax', 0xc092);
    expect(w.cpu.get('ES.selector')).toBe(0x80n);
    expect(w.cpu.get('ES.base')).toBe(0x1234n);
    expect(w.cpu.get('ES.limit')).toBe(0xffff_ffffn);
    expect(w.cpu.get('ES.accessRights')).toBe(0xc093n);
    expect(w.machine.memory.read8(GDT + 0x80 + 5)).toBe(0x93);
  });

  it('keeps the limit of a byte-granular segment', () => {
    const w = world('mov fs, ax', { bits: 32 });
    setDescriptor(w, Selector.Free, segment(0, 0x1_2345, 0x4092));
    w.cpu.set('RAX', 0x80n);
    w.cpu.run(1);
    expect(w.cpu.get('FS.limit')).toBe(0x1_2345n);
  });

  const faults: [string, number, { ring?: 1 | 3; selector?: number }, number, number][] = [
    ['execute-only code', 0xc098, {}, 13, 0x80],
    ['a system descriptor', 0x0082, {}, 13, 0x80],
    ['CPL above DPL', 0xc092, { ring: 3, selector: 0x83 }, 13, 0x80],
    ['RPL above DPL', 0xc092, { selector: 0x81 }, 13, 0x80],
    ['non-conforming readable code of a lower DPL', 0xc09a, { ring: 3 }, 13, 0x80],
    ['a segment that is not present', 0xc012, {}, 11, 0x80],
    ['a selector beyond the limit of the GDT', 0xc092, { selector: 0x100 }, 13, 0x100],
    ['a selector of the LDT without LDT', 0xc092, { selector: 0x84 }, 13, 0x84],
  ];
  for (const [name, rights, options, vector, errorCode] of faults) {
    it(`refuses ${name}`, () => {
      const w = load('mov ds, ax', rights, options);
      expect(delivered(w)).toEqual({ vector, errorCode, rip: CODE });
      expect(w.machine.memory.read8(GDT + 0x80 + 5)).toBe(rights & 0xff);
    });
  }

  it('accepts conforming code whatever the privilege', () => {
    const w = load('mov ds, ax', 0xc09e, { ring: 3, selector: 0x83 });
    expect(w.cpu.get('DS.selector')).toBe(0x83n);
  });

  it('takes a null selector, and faults when it is used', () => {
    const w = world('mov ds, ax\nmov ebx, [0x1000]', { bits: 32 });
    w.cpu.set('RAX', 3n);
    w.cpu.run(1);
    expect(w.cpu.get('DS.selector')).toBe(3n);
    expect(w.cpu.get('DS.accessRights') & 0x1_0000n).toBe(0x1_0000n);
    w.cpu.run(1);
    expect(delivered(w)).toEqual({ vector: 13, errorCode: 0, rip: CODE + 3 });
  });

  it('reads the LDT', () => {
    const w = world('mov gs, ax', { bits: 32 });
    w.machine.memory.write64(LDT + 8, segment(0x5000, 0xff, 0x40f2));
    w.cpu.set('LDTR.base', BigInt(LDT));
    w.cpu.set('LDTR.limit', 0xfn);
    w.cpu.set('LDTR.accessRights', 0x82n);
    w.cpu.set('RAX', 0xfn);
    w.cpu.run(1);
    expect(w.cpu.get('GS.base')).toBe(0x5000n);
  });
});

describe('MOV to SS', () => {
  const faults: [string, number, { ring?: 1 | 3; selector?: number; bits?: 32 | 64 }, number, number][] = [
    ['a null selector', 0xc092, { selector: 0 }, 13, 0],
    ['a null selector at CPL 3 in 64-bit mode', 0xc092, { selector: 3, bits: 64, ring: 3 }, 13, 0],
    ['a null selector of another RPL in 64-bit mode', 0xc092, { selector: 1, bits: 64 }, 13, 0],
    ['another RPL', 0xc092, { selector: 0x81 }, 13, 0x80],
    ['another DPL', 0xc0f2, {}, 13, 0x80],
    ['read-only data', 0xc090, {}, 13, 0x80],
    ['code', 0xc09a, {}, 13, 0x80],
    ['a segment that is not present', 0xc012, {}, 12, 0x80],
    ['a selector beyond the table', 0xc092, { selector: 0x100 }, 13, 0x100],
  ];
  for (const [name, rights, options, vector, errorCode] of faults) {
    it(`refuses ${name}`, () => {
      expect(delivered(load('mov ss, ax', rights, options))).toEqual({ vector, errorCode, rip: CODE });
    });
  }

  it('takes a null selector below CPL 3 in 64-bit mode', () => {
    const w = load('mov ss, ax', 0, { bits: 64, selector: 0 });
    expect(w.cpu.get('SS.accessRights') & 0x1_0000n).toBe(0x1_0000n);
    expect(w.cpu.cpl).toBe(0);
  });

  it('changes the size of the stack pointer', () => {
    const w = world('mov ss, ax\npush eax', { bits: 32 });
    w.cpu.set('RAX', BigInt(Selector.Data16));
    w.cpu.set('RSP', 0x12_0000n);
    w.cpu.run(1);
    expect(w.cpu.processor.stackBits).toBe(16);
  });

  it('blocks interrupts and debug traps for one instruction', () => {
    const w = world('mov ss, ax\nmov ebx, 1\nmov ecx, 2', { bits: 32 });
    w.cpu.set('RAX', BigInt(Selector.Data0));
    w.cpu.run(1);
    expect(w.cpu.get('blockingByMovSs')).toBe(1n);
    w.cpu.run(1);
    expect(w.cpu.get('blockingByMovSs')).toBe(0n);
  });
});

describe('other moves of segment registers', () => {
  it('MOV from a segment register zero-extends to the operand size', () => {
    const w = world('mov eax, ds\nmov rbx, ds\nmov cx, ds\nmov [0x5000], ds');
    for (const name of ['RAX', 'RBX', 'RCX'] as const) w.cpu.set(name, 0xffff_ffff_ffff_ffffn);
    w.machine.memory.write32(0x5000, 0xffff_ffff);
    w.cpu.run(4);
    expect(w.cpu.get('RAX')).toBe(0x18n);
    expect(w.cpu.get('RBX')).toBe(0x18n);
    expect(w.cpu.get('RCX')).toBe(0xffff_ffff_ffff_0018n);
    expect(w.machine.memory.read32(0x5000)).toBe(0xffff_0018);
  });

  it('CS cannot be loaded, and there are six segment registers', () => {
    for (const bytes of [
      [0x8e, 0xc8],
      [0x8e, 0xf0],
      [0x8c, 0xf8],
    ]) {
      const w = world(Uint8Array.from(bytes), { bits: 32 });
      w.cpu.run(1);
      expect(delivered(w)).toEqual({ vector: 6, rip: CODE });
    }
  });

  it('PUSH and POP move RSP by the operand size', () => {
    const w = world('push fs\npop gs');
    w.cpu.set('FS.selector', BigInt(Selector.Data3));
    w.cpu.run(1);
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK_TOP - 8));
    w.cpu.run(1);
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK_TOP));
    expect(w.cpu.get('GS.selector')).toBe(BigInt(Selector.Data3));
  });

  it('POP that faults leaves RSP', () => {
    const w = world('pop ds', { bits: 32 });
    w.machine.memory.write32(STACK_TOP, 0x100);
    w.cpu.run(1);
    expect(stackItems(w, 2, 4)).toEqual([0x100, CODE]);
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK_TOP - 16));
  });

  it('LES loads offset and selector, and neither if the selector is refused', () => {
    const w = world('les ebx, [0x5000]\nles ecx, [0x5008]', { bits: 32 });
    w.machine.memory.write32(0x5000, 0x1122_3344);
    w.machine.memory.write16(0x5004, Selector.Data3);
    w.machine.memory.write32(0x5008, 0x5566_7788);
    w.machine.memory.write16(0x500c, 0x100);
    w.cpu.set('RCX', 7n);
    w.cpu.run(2);
    expect(w.cpu.get('RBX')).toBe(0x1122_3344n);
    expect(w.cpu.get('ES.selector')).toBe(BigInt(Selector.Data3));
    expect(w.cpu.get('RCX')).toBe(7n);
    expect(delivered(w).errorCode).toBe(0x100);
  });

  it('a far pointer of 48 bits is aligned to four bytes', () => {
    for (const [address, faults] of [
      [0x5004, false],
      [0x5002, true],
    ] as const) {
      const w = world(`les ebx, [${address}]`, { bits: 32 });
      enterRing(w, 3);
      w.cpu.set('CR0', 0x4_0011n);
      w.cpu.set('RFLAGS', 0x4_0002n);
      w.machine.memory.write16(address + 4, Selector.Data3);
      w.cpu.run(1);
      if (faults) expect(delivered(w)).toEqual({ vector: 17, errorCode: 0, rip: CODE });
      else expect(w.cpu.get('ES.selector')).toBe(BigInt(Selector.Data3));
    }
  });

  it('LFS with REX.W loads a 64-bit offset', () => {
    const w = world(
      'rex64 lfs rbx, [0x5000]'.replace(
        'rex64 lfs rbx, [0x5000]',
        '.byte 0x48,0x0f,0xb4,0x1c,0x25,0,0x50,0,0',
      ),
    );
    w.machine.memory.write64(0x5000, 0x1122_3344_5566_7788n);
    w.machine.memory.write16(0x5008, Selector.Data0);
    w.cpu.run(1);
    expect(w.cpu.get('RBX')).toBe(0x1122_3344_5566_7788n);
    expect(w.cpu.get('FS.selector')).toBe(0x18n);
  });

  it('in real-address mode only selector and base change', () => {
    const w = world('mov ax, 0x1234\nmov ds, ax', { bits: 16 });
    w.cpu.set('RIP', 0n);
    w.cpu.set('DS.limit', 0xf_ffffn);
    w.cpu.run(2);
    expect(w.cpu.get('DS.base')).toBe(0x1_2340n);
    expect(w.cpu.get('DS.limit')).toBe(0xf_ffffn);
  });
});

describe('descriptor-table registers', () => {
  it('LGDT takes 24 bits of base with 16-bit operands, SGDT stores all', () => {
    const w = world('.byte 0x0f,0x01,0x15,0,0x50,0,0\n.byte 0x0f,0x01,0x05,0x10,0x50,0,0', { bits: 32 });
    w.machine.memory.writeBytes(0x5000, Uint8Array.from([0xff, 0x01, 0x44, 0x33, 0x22, 0x11]));
    w.cpu.run(2);
    expect(w.cpu.get('GDTR.base')).toBe(0x1122_3344n);
    expect(w.cpu.get('GDTR.limit')).toBe(0x1ffn);
    expect([...w.machine.memory.readBytes(0x5010, 6)]).toEqual([0xff, 0x01, 0x44, 0x33, 0x22, 0x11]);
    const narrow = world(Uint8Array.from([0x66, 0x0f, 0x01, 0x15, 0, 0x50, 0, 0]), { bits: 32 });
    narrow.machine.memory.writeBytes(0x5000, Uint8Array.from([0xff, 0x01, 0x44, 0x33, 0x22, 0x11]));
    narrow.cpu.run(1);
    expect(narrow.cpu.get('GDTR.base')).toBe(0x22_3344n);
  });

  it('LIDT in 64-bit mode takes ten bytes and wants a canonical base', () => {
    const w = world('lidt [0x5000]');
    w.machine.memory.write16(0x5000, 0xfff);
    w.machine.memory.write64(0x5002, 0xffff_8000_0000_1000n);
    w.cpu.run(1);
    expect(w.cpu.get('IDTR.base')).toBe(0xffff_8000_0000_1000n);
    const bad = world('lidt [0x5000]');
    bad.machine.memory.write64(0x5002, 0x0100_0000_0000_0000n);
    bad.cpu.run(1);
    expect(delivered(bad)).toEqual({ vector: 13, errorCode: 0, rip: CODE });
  });

  it('LTR makes the TSS busy and takes 64 bits of base in IA-32e mode', () => {
    const w = world('ltr ax');
    setDescriptor(w, Selector.Free, segment(0x5000, 0x67, 0x89), 0xffff_8000n);
    w.cpu.set('RAX', 0x80n);
    w.cpu.run(1);
    expect(w.cpu.get('TR.base')).toBe(0xffff_8000_0000_5000n);
    expect(w.cpu.get('TR.accessRights')).toBe(0x8bn);
    expect(w.machine.memory.read8(GDT + 0x85)).toBe(0x8b);
  });

  const refused: [string, string, number, number, number][] = [
    ['LTR of a null selector', 'ltr ax', 0x89, 0, 13],
    ['LTR of a busy TSS', 'ltr ax', 0x8b, 0x80, 13],
    ['LTR of a TSS that is not present', 'ltr ax', 0x09, 0x80, 11],
    ['LTR from the LDT', 'ltr ax', 0x89, 0x84, 13],
    ['LLDT of a data segment', 'lldt ax', 0x92, 0x80, 13],
    ['LLDT of an LDT that is not present', 'lldt ax', 0x02, 0x80, 11],
  ];
  for (const [name, code, rights, selector, vector] of refused) {
    it(`refuses ${name}`, () => {
      const w = load(code, rights, { selector });
      expect(delivered(w)).toEqual({ vector, errorCode: selector, rip: CODE });
    });
  }

  it('a 16-byte descriptor must lie within the limit, and its upper type be 0', () => {
    const w = world('ltr ax');
    setDescriptor(w, 0xf8, segment(0x5000, 0x67, 0x89));
    w.cpu.set('RAX', 0xf8n);
    w.cpu.run(1);
    expect(delivered(w)).toEqual({ vector: 13, errorCode: 0xf8, rip: CODE });
    const typed = world('ltr ax');
    setDescriptor(typed, Selector.Free, segment(0x5000, 0x67, 0x89), 0x100_0000_0000n);
    typed.cpu.set('RAX', 0x80n);
    typed.cpu.run(1);
    expect(delivered(typed)).toEqual({ vector: 13, errorCode: 0x80, rip: CODE });
  });

  it('are for CPL 0, and with UMIP their contents too', () => {
    for (const code of ['lgdt [0x5000]', 'lidt [0x5000]', 'lldt ax', 'ltr ax']) {
      const w = world(code, { bits: 32 });
      enterRing(w, 3);
      w.cpu.run(1);
      expect(delivered(w)).toEqual({ vector: 13, errorCode: 0, rip: CODE });
    }
    for (const code of ['sgdt [0x5000]', 'sidt [0x5000]', 'sldt ax', 'str ax']) {
      for (const umip of [0n, 1n << 11n]) {
        const w = world(code, { bits: 32 });
        enterRing(w, 3);
        w.cpu.set('CR4', umip);
        w.cpu.run(1);
        if (umip === 0n) expect(w.cpu.get('RIP')).not.toBe(BigInt(CODE));
        else expect(delivered(w)).toEqual({ vector: 13, errorCode: 0, rip: CODE });
      }
    }
  });
});

describe('LAR, LSL, VERR, VERW, ARPL', () => {
  const ZF = 0x40n;
  it('LAR gives the second word of what is visible', () => {
    const w = load('lar ebx, eax', 0xc0f2);
    expect(w.cpu.get('RFLAGS') & ZF).toBe(ZF);
    expect(w.cpu.get('RBX')).toBe(0xc0_f200n);
  });

  it('LSL gives the limit in bytes', () => {
    const w = load('lsl ebx, eax', 0xc0f2);
    expect(w.cpu.get('RBX')).toBe(0xffff_ffffn);
  });

  const answers: [string, number, { ring?: 3; selector?: number; bits?: 32 | 64 }, boolean][] = [
    ['lar ebx, eax', 0xc092, { ring: 3 }, false],
    ['lar ebx, eax', 0xc092, { selector: 0x83 }, false],
    ['lar ebx, eax', 0xc09e, { ring: 3, selector: 0x83 }, true],
    ['lar ebx, eax', 0x0085, {}, true],
    ['lar ebx, eax', 0x0085, { bits: 64 }, false],
    ['lar ebx, eax', 0x008e, {}, false],
    ['lar ebx, eax', 0xc092, { selector: 0 }, false],
    ['lar ebx, eax', 0xc092, { selector: 0x100 }, false],
    ['lsl ebx, eax', 0x008c, {}, false],
    ['lsl ebx, eax', 0x0089, {}, true],
    ['lsl ebx, eax', 0x0083, {}, true],
    ['lsl ebx, eax', 0x0083, { bits: 64 }, false],
    ['verr ax', 0xc092, {}, true],
    ['verr ax', 0xc098, {}, false],
    ['verr ax', 0x0089, {}, false],
    ['verr ax', 0xc09a, { ring: 3 }, false],
    ['verw ax', 0xc092, {}, true],
    ['verw ax', 0xc090, {}, false],
    ['verw ax', 0xc09a, {}, false],
  ];
  for (const [code, rights, options, holds] of answers) {
    it(`${code} of ${rights.toString(16)} with ${JSON.stringify(options)}: ${holds}`, () => {
      const w = load(code, rights, options);
      expect(w.cpu.get('RIP')).toBe(BigInt(CODE + 3));
      expect(w.cpu.get('RFLAGS') & ZF).toBe(holds ? ZF : 0n);
    });
  }

  it('ARPL raises the RPL', () => {
    const w = world('arpl ax, bx', { bits: 32 });
    w.cpu.set('RAX', 0x81n);
    w.cpu.set('RBX', 0x3n);
    w.cpu.run(1);
    expect(w.cpu.get('RAX')).toBe(0x83n);
    expect(w.cpu.get('RFLAGS') & ZF).toBe(ZF);
  });

  it('are undefined in real-address mode', () => {
    for (const code of ['lar bx, ax', 'verr ax', 'sldt ax', 'ltr ax', 'arpl ax, bx']) {
      const w = world(code, { bits: 16 });
      w.cpu.set('IDTR.base', 0n);
      w.cpu.set('IDTR.limit', 0x3ffn);
      w.machine.memory.write32(6 * 4, 0x0000_0700);
      w.cpu.set('RIP', 0n);
      w.cpu.run(1);
      expect(w.cpu.get('RIP')).toBe(0x700n);
      expect(w.cpu.get('CS.base')).toBe(0n);
    }
  });
});

describe('bases of FS and GS', () => {
  it('SWAPGS exchanges GS.base with its MSR at CPL 0', () => {
    const w = world('swapgs');
    w.cpu.set('GS.base', 0x1111n);
    w.cpu.set('IA32_KERNEL_GS_BASE', 0x2222_0000_0000n);
    w.cpu.run(1);
    expect(w.cpu.get('GS.base')).toBe(0x2222_0000_0000n);
    expect(w.cpu.get('IA32_KERNEL_GS_BASE')).toBe(0x1111n);
    const user = world('swapgs');
    enterRing(user, 3);
    user.cpu.run(1);
    expect(delivered(user)).toEqual({ vector: 13, errorCode: 0, rip: CODE });
  });

  it('WRGSBASE and RDGSBASE need CR4.FSGSBASE', () => {
    const w = world('wrgsbase rax\nrdgsbase rbx\nrdgsbase ecx');
    w.cpu.set('CR4', w.cpu.get('CR4') | (1n << 16n));
    w.cpu.set('RAX', 0x7fff_1234_5678n);
    w.cpu.run(3);
    expect(w.cpu.get('RBX')).toBe(0x7fff_1234_5678n);
    expect(w.cpu.get('RCX')).toBe(0x1234_5678n);
    const off = world('wrfsbase rax');
    off.cpu.run(1);
    expect(delivered(off)).toEqual({ vector: 6, rip: CODE });
    const bad = world('wrfsbase rax');
    bad.cpu.set('CR4', bad.cpu.get('CR4') | (1n << 16n));
    bad.cpu.set('RAX', 1n << 62n);
    bad.cpu.run(1);
    expect(delivered(bad)).toEqual({ vector: 13, errorCode: 0, rip: CODE });
  });
});

describe('REX.R', () => {
  it('is no part of the number of a segment register', () => {
    const one = new SingleInstruction();
    // MOV FS, AX and MOV EAX, FS with REX.R; without it number 4 would be 12.
    expect(one.run(Uint8Array.from([0x44, 0x8e, 0xe0]), { RAX: 0n }).vector).toBeUndefined();
    expect(one.get('FS.selector')).toBe(0n);
    expect(one.run(Uint8Array.from([0x44, 0x8c, 0xe0]), { RAX: 5n }).vector).toBeUndefined();
    expect(one.get('RAX')).toBe(0n);
  });
});
