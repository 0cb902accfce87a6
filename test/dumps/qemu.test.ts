import { describe, expect, it } from 'vitest';
import { checkImage } from '../../src/dumps/check-image.ts';
import { readDump } from '../../src/dumps/read-dump.ts';
import { mailQuoted } from './transformations.ts';

const REAL_MODE = `KVM: entry failed, hardware error 0x80000021

If you're running a guest on an Intel machine without unrestricted mode
support, the failure can be most likely due to the guest entering an invalid
state for Intel VT.

EAX=00000000 EBX=00000000 ECX=00000000 EDX=000206c1
ESI=00000000 EDI=00000000 EBP=00000000 ESP=00006d7c
EIP=0000fff0 EFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
ES =0000 00000000 0000ffff 00009300
CS =f000 ffff0000 0000ffff 00009b00
SS =0010 00000000 ffffffff 00cf9300 DPL=0 DS   [-WA]
DS =0000 00000000 0000ffff 00009300
FS =0000 00000000 00000000 00000000
GS =0000 00000000 0000ffff 00009300
LDT=0000 00000000 0000ffff 00008200 DPL=0 LDT
TR =0000 00000000 0000ffff 00008b00 DPL=0 TSS32-busy
GDT=     000f6be8 00000037
IDT=     00000000 000003ff
CR0=60000010 CR2=00000000 CR3=00001000 CR4=00000000
DR0=0000000000000000 DR1=0000000000000000 DR2=0000000000000000 DR3=0000000000000000
DR6=00000000ffff0ff0 DR7=0000000000000400
EFER=0000000000000000
Code=<ea> 5b e0 00 f0 30 36 2f 32 33 2f 39 39 00 fc 00 ?? ?? 00
`;

const LONG_MODE = `RAX=0000000000000000 RBX=ffffff80011f6000 RCX=0000000000000001 RDX=ffffff0000000438
RSI=ffffff800116b000 RDI=00007ffffffff000 RBP=fffffe006000be90 RSP=fffffe006000be50
R8 =0000800000000000 R9 =ffff800000000000 R10=00007f800116a000 R11=0000000000000000
RIP=ffffff800004ddf7 RFL=00000002 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0
CS =0008 0000000000000000 ffffffff 00a09b00 DPL=0 CS64 [-RA]
TR =0080 fffffe0000003000 00004087 00008b00 DPL=0 TSS64-busy
GDT=     fffffe0000001000 0000007f
CR0=80010033 CR2=0000000000000000 CR3=0000008000f76000 CR4=00340af0
EFER=0000000000000d01
`;

describe('QEMU register states', () => {
  it('reads a real-mode guest', () => {
    const image = readDump(REAL_MODE);
    expect(image).toMatchObject({
      format: 'qemu',
      variant: '32-bit',
      reported: { exitReason: 0x8000_0021, source: 'KVM: entry failed, hardware error 0x80000021' },
    });
    expect(Object.fromEntries(image.values)).toMatchObject({
      guestRip: 0xfff0n,
      guestRsp: 0x6d7cn,
      guestRflags: 2n,
      guestCsSelector: 0xf000n,
      guestCsBase: 0xffff_0000n,
      guestCsLimit: 0xffffn,
      guestCsAccessRights: 0x9bn,
      guestLdtrAccessRights: 0x82n,
      guestTrAccessRights: 0x8bn,
      guestGdtrBase: 0xf6be8n,
      guestGdtrLimit: 0x37n,
      guestIdtrLimit: 0x3ffn,
      guestCr3: 0x1000n,
      guestDr7: 0x400n,
      guestIa32Efer: 0n,
    });
    expect(image.values.has('vmEntryControls')).toBe(false);
    expect(image.values.has('hostRip')).toBe(false);
  });

  it('leaves the limit out of the access rights', () => {
    expect(readDump(REAL_MODE).values.get('guestSsAccessRights')).toBe(0xc093n);
  });

  it('marks a segment unusable that is not present', () => {
    expect(readDump(REAL_MODE).values.get('guestFsAccessRights')).toBe(0x1_0000n);
  });

  it('adds the bits that KVM keeps set, and says so', () => {
    const { values, notes } = readDump(REAL_MODE);
    expect(values.get('guestCr0')).toBe(0x6000_0030n);
    expect(values.get('guestCr4')).toBe(0x2000n);
    expect(notes.join('\n')).toContain('CR0.NE and CR4.VMXE');
    expect(notes.join('\n')).toContain('may differ from the VMCS');
  });

  it('reads a 64-bit guest', () => {
    const { variant, values } = readDump(LONG_MODE);
    expect(variant).toBe('64-bit');
    expect(values.get('guestRip')).toBe(0xffff_ff80_0004_ddf7n);
    expect(values.get('guestTrBase')).toBe(0xffff_fe00_0000_3000n);
    expect(values.get('guestCr3')).toBe(0x80_00f7_6000n);
    expect(values.get('guestCsAccessRights')).toBe(0xa09bn);
  });

  it.each([
    ['0x7', { instructionError: 7 }],
    ['0x8', { instructionError: 8 }],
    ['0x80000022', { exitReason: 0x8000_0022 }],
    ['0x0', {}],
  ])('hardware error %s', (error, reported) => {
    const image = readDump(REAL_MODE.replace('0x80000021', error));
    expect(image.reported).toEqual({ ...reported, source: `KVM: entry failed, hardware error ${error}` });
  });

  it('has no use for the state of an AMD processor', () => {
    expect(() => readDump(REAL_MODE.replace('0x80000021', '0xffffffff'))).toThrow(
      'line 1: "hardware error 0xffffffff" is what KVM prints on an AMD processor',
    );
  });

  it('doubts RFLAGS and segments of a real-mode guest, which KVM may run in virtual-8086 mode', () => {
    const image = readDump(REAL_MODE.replace('00cf9300', '00cff300').replace('EFL=00000002', 'EFL=00000000'));
    const { failures, unknown } = checkImage(image);
    expect(failures).toEqual([]);
    expect(unknown.find((u) => u.id === 'guest.ss.dpl-zero-real-mode')?.missing).toContain(
      'Guest SS access rights',
    );
    const { doubtful, values } = readDump(REAL_MODE.replace('CR0=60000010', 'CR0=60000011'));
    expect(doubtful).toBeUndefined();
    expect(values.get('guestRflags')).toBe(2n);
  });

  it('does not blame what an old processor cannot do when the controls are unknown', () => {
    const image = readDump(
      REAL_MODE.replace('CR0=60000010', 'CR0=60000011').replace('CR4=00000000', 'CR4=001406d0'),
    );
    const report = checkImage(image);
    expect(report.cpuDependent.map((d) => d.id)).toEqual(['guest.cr4.fixed']);
    expect(report).toMatchObject({ verdict: 'no-failing-check', failures: [], cause: [], agrees: undefined });
  });

  it('reads quoted mail and the first of several states', () => {
    const image = readDump(mailQuoted(2)(`${REAL_MODE}${LONG_MODE}`));
    expect(image.values).toEqual(readDump(REAL_MODE).values);
    expect(image.notes.at(-1)).toBe('the text holds one more register state: this is the first complete one');
  });

  it('uses what is there of a state that is cut off', () => {
    const whole = readDump(LONG_MODE).values;
    for (let end = LONG_MODE.indexOf('CS =') + 2; end < LONG_MODE.length; end++) {
      for (const [name, value] of readDump(LONG_MODE.slice(0, end)).values) {
        if (name.endsWith('AccessRights')) continue;
        expect(value, `${name}, cut at ${end}`).toBe(whole.get(name));
      }
    }
    expect(readDump(LONG_MODE.slice(0, LONG_MODE.indexOf('CR0'))).notes.join('\n')).toContain('cut off');
  });

  it('says that a failure line alone is no dump', () => {
    expect(() => readDump('KVM: entry failed, hardware error 0x80000021\n')).toThrow(
      'the text says that a VM entry failed but holds no dump and no register state',
    );
  });

  it('names line and label of a damaged value', () => {
    expect(() => readDump(REAL_MODE.replace('ffff0000', 'ffff000g'))).toThrow(
      'line 11: CS: "ffff000g" is no hexadecimal number',
    );
  });
});
