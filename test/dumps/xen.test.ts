import { describe, expect, it } from 'vitest';
import { readDump } from '../../src/dumps/read-dump.ts';
import { prefixed, quotedPrintable, withNoBreakSpaces, wrapped, XEN_PREFIXES } from './transformations.ts';

const SEGMENTS = `       sel  attr  limit   base
  CS: f000 0009b 0000ffff 00000000ffff0000
  DS: 0001 00093 0000ffff 0000000000000010
  SS: 0002 00093 0000ffff 0000000000000020
  ES: 0003 00093 0000ffff 0000000000000030
  FS: 0004 00093 0000ffff 0000000000000040
  GS: 0005 00093 0000ffff 0000000000000050
GDTR:            0000fff0 0000000000001000
LDTR: 0006 00082 0000fff1 0000000000002000
IDTR:            0000fff2 0000000000003000
  TR: 0007 0008b 0000fff3 0000000000004000
`;

const DUMP = `*** Guest State ***
CR0: actual=0x0000000080050033, shadow=0x0000000060000010, gh_mask=ffffffffffffffff
CR4: actual=0x0000000000002050, shadow=0x0000000000000000, gh_mask=fffffffffffff871
CR3 = 0x00000000feffc000
PDPTE0 = 0x0000000000000011  PDPTE1 = 0x0000000000000012
PDPTE2 = 0x0000000000000013  PDPTE3 = 0x0000000000000014
RSP = 0x0000000000000100 (0x0000000000000101)  RIP = 0x000000000000fff0 (0x000000000000fff1)
RFLAGS=0x00010002 (0x00010003)  DR7 = 0x0000000000000400
Sysenter RSP=0000000000000001 CS:RIP=0008:0000000000000003
${SEGMENTS}EFER(VMCS) = 0x0000000000000500  PAT = 0x0000050100070406
PreemptionTimer = 0x00001234  SM Base = 0x0003f000
DebugCtl = 0x0000000000000001  DebugExceptions = 0x0000000000001000
Interruptibility = 00000001  ActivityState = 00000002
InterruptStatus = 1200
*** Host State ***
RIP = 0xffff82d08030f8b0 (vmx_asm_vmexit_handler)  RSP = 0xffff8320259bff70
CS=e008 SS=0000 DS=0000 ES=0000 FS=0000 GS=0000 TR=e040
FSBase=0000000000000000 GSBase=0000000000000000 TRBase=ffff8320259c2c00
GDTBase=ffff8320259b2000 IDTBase=ffff8320259b6000
CR0=0000000080050033 CR3=000000201bc45000 CR4=00000000003526e0
Sysenter RSP=ffff8320259bffa0 CS:RIP=e008:ffff82d080354420
EFER = 0x0000000000000d01  PAT = 0x0000050100070406
*** Control State ***
PinBased=0000003f CPUBased=b6a1edfa SecondaryExec=000214eb
EntryControls=000011ff ExitControls=002fefff
ExceptionBitmap=00060042 PFECmask=00000000 PFECmatch=00000000
VMEntry: intr_info=8000030d errcode=00000000 ilen=00000000
VMExit: intr_info=00000000 errcode=00000000 ilen=00000005
        reason=00000030 qualification=0000000000000181
IDTVectoring: info=80000b0d errcode=0000f000
TSC Offset = 0xfff9d10bc60f4ad6  TSC Multiplier = 0x0000000000000000
TPR Threshold = 0x00  PostedIntrVec = 0xf4
EPT pointer = 0x000000207dd3b01e  EPTP index = 0x0001
CR3 target0=0000000000000021 target1=0000000000000022
PLE Gap=00000080 Window=00001000
Virtual processor ID = 0x3540 VMfunc controls = 0000000000000001
**************************************
domain_crash called from vmcs.c:1777
RIP:    f000:[<000000000000fff0>]
`;

const xen = (text: string) => prefixed('(XEN) ')(text);

describe('Xen dumps', () => {
  it('reads the fields and not their cached copies', () => {
    const image = readDump(xen(`d2v0 VMLAUNCH error: 0x7\n${DUMP}`));
    expect(image).toMatchObject({ format: 'xen', variant: 'X2' });
    expect(Object.fromEntries(image.values)).toMatchObject({
      guestRsp: 0x100n,
      guestRip: 0xfff0n,
      guestRflags: 0x1_0002n,
      guestPdpte3: 0x14n,
      guestCsSelector: 0xf000n,
      guestCsBase: 0xffff_0000n,
      guestGsSelector: 5n,
      guestGsBase: 0x50n,
      guestGdtrLimit: 0xfff0n,
      guestGdtrBase: 0x1000n,
      guestLdtrAccessRights: 0x82n,
      guestIdtrBase: 0x3000n,
      guestTrLimit: 0xfff3n,
      guestIa32Efer: 0x500n,
      guestIa32Pat: 0x0000_0501_0007_0406n,
      vmxPreemptionTimerValue: 0x1234n,
      guestSmbase: 0x3f000n,
      guestInterruptStatus: 0x1200n,
      hostRip: 0xffff_82d0_8030_f8b0n,
      hostRsp: 0xffff_8320_259b_ff70n,
      hostCsSelector: 0xe008n,
      hostIa32Efer: 0xd01n,
      eptpIndex: 1n,
      vmFunctionControls: 1n,
      cr3TargetValue0: 0x21n,
      cr3TargetValue1: 0x22n,
      vpid: 0x3540n,
    });
  });

  it('reports the VM-instruction error; the exit reason is stale', () => {
    for (const line of ['d2v0 VMLAUNCH error: 0x7', 'd2v0 VMRESUME error: 0x7']) {
      const image = readDump(xen(`${line}\n${DUMP}`));
      expect(image.reported).toEqual({ instructionError: 7, source: line });
      expect(image.values.get('exitReason')).toBe(0x30n);
      expect(image.notes).toContain('the exit reason 0x30 in the dump is left from an earlier VM exit');
    }
  });

  it.each([
    ['d24v1 vmentry failure (reason 0x80000021): Invalid guest state (2)', 0x8000_0021, 2n],
    ['d24v1 vmentry failure (reason 0x80000022): MSR loading (entry 1)', 0x8000_0022, 2n],
    ['Failed vm entry (exit reason 0x80000021) caused by invalid guest state (4).', 0x8000_0021, 4n],
    ['Failed vm entry (exit reason 0x80000022) caused by MSR entry 3 loading.', 0x8000_0022, 3n],
    ['Failed vm entry (exit reason 0x80000029) caused by machine check.', 0x8000_0029, undefined],
  ])('%s', (line, exitReason, exitQualification) => {
    const dump = DUMP.replace('reason=00000030', `reason=${exitReason.toString(16)}`).replace(
      '0000000000000181',
      `000000000000000${exitQualification ?? 0}`,
    );
    const { reported } = readDump(xen(`${line}\n************* VMCS Area **************\n${dump}`));
    expect(reported).toEqual({ exitReason, exitQualification: exitQualification ?? 0n, source: line });
  });

  it('names the MSR that would not load', () => {
    const { notes, reported } = readDump(
      xen(
        `d24v1 vmentry failure (reason 0x80000022): MSR loading (entry 1)\n  msr 000001dd val 1ffff80676f52be5 (mbz 0)\n${DUMP}`,
      ),
    );
    expect(reported).toMatchObject({ exitReason: 0x8000_0022, exitQualification: 2n });
    expect(notes.join('\n')).toContain('loading MSR 0x1dd with value 0x1ffff80676f52be5 failed');
  });

  it('gives each of several dumps its own report', () => {
    const text = xen(`d1v0 VMLAUNCH error: 0x8\n${DUMP}d2v0 VMLAUNCH error: 0x7\n${DUMP}`);
    const image = readDump(text);
    expect(image.reported.instructionError).toBe(8);
    expect(image.notes[0]).toBe('the text holds one more dump: this is the first complete one, from line 2');
  });

  it('reads an area that the v key prints', () => {
    const text = `*********** VMCS Areas **************\n\n>>> Domain 2 <<<\n\tVCPU 0\n${DUMP}`;
    expect(readDump(xen(text)).reported).toMatchObject({ exitReason: 0x30, exitQualification: 0x181n });
  });

  it('does not take an MSR-area entry for EFER', () => {
    const image = readDump(xen(DUMP.replace('EFER(VMCS)', 'EFER(MSR LL)')));
    expect(image.values.has('guestIa32Efer')).toBe(false);
    expect(image.notes.join('\n')).toContain('guest IA32_EFER is unknown');
    expect(readDump(xen(DUMP.replace('EFER(VMCS)', 'EFER'))).variant).toBe('X1');
  });

  it('reads the layout of old releases', () => {
    const old = xen(
      DUMP.replace(SEGMENTS, 'CS: sel=0x0010, attr=0x0a09b, limit=0xffffffff, base=0x0000000000000001\n')
        .replace(
          'CR3 = 0x00000000feffc000',
          'CR3: actual=0x00000000feffc000, target_count=2\n     target0=0000000000000005, target1=0000000000000006',
        )
        .replace(/EFER\(VMCS\).*\n/, 'Guest PAT = 0x0007040600070406\n')
        .replace(/PreemptionTimer.*\n/, ''),
    );
    const image = readDump(old);
    expect(image.variant).toBe('X0');
    expect(Object.fromEntries(image.values)).toMatchObject({
      guestCr3: 0xfeff_c000n,
      cr3TargetCount: 2n,
      cr3TargetValue1: 6n,
      guestCsBase: 1n,
      guestIa32Pat: 0x0007_0406_0007_0406n,
    });
  });

  it.each(XEN_PREFIXES)('strips the prefix %j', (prefix) => {
    const image = readDump(prefixed(prefix)(`d2v0 VMLAUNCH error: 0x7\n${DUMP}`));
    expect(image.values).toEqual(readDump(DUMP).values);
    expect(image.reported.source).toBe('d2v0 VMLAUNCH error: 0x7');
  });

  it('survives wrapping and quoted-printable', () => {
    const expected = readDump(xen(DUMP)).values;
    for (const width of [20, 40, 60, 76]) {
      expect(readDump(wrapped(width)(xen(DUMP))).values).toEqual(expected);
      expect(readDump(quotedPrintable(withNoBreakSpaces(wrapped(width)(xen(DUMP))))).values).toEqual(
        expected,
      );
    }
  });

  it('names line and label of a damaged value', () => {
    const damaged = xen(DUMP.replace('0009b 0000ffff', '0009b 0000fffg'));
    expect(() => readDump(damaged)).toThrow('line 11: CS: "0000fffg" is no hexadecimal number');
  });
});
