import {
  DecoderOptions,
  Formatter,
  FormatterSyntax,
  MemorySizeOptions,
  Decoder as Reference,
} from 'iced-x86';
import { describe, expect, it } from 'vitest';
import { Prng } from '../../src/bits/prng.ts';
import { Decoder } from '../../src/cpu/decoder.ts';
import { disassemble } from '../../src/cpu/disassembly.ts';
import { OPCODES } from '../../src/cpu/opcode-map.ts';
import { findProfile } from '../../src/vmx/capabilities/profiles.ts';
import { assemble } from '../support/assemble.ts';

const { features } = findProfile('full')!;

function text(source: string, bits: 16 | 32 | 64, address = 0x1000): string {
  const bytes = assemble(source, bits, address);
  const decoded = new Decoder(OPCODES, features).decode(bytes, bytes.length, bits);
  if (typeof decoded === 'number') throw new Error(`${source} does not decode`);
  return disassemble(decoded, BigInt(address));
}

describe('disassembly', () => {
  it.each([
    ['mov eax, [rbx + rcx*4 - 0x10]', 'MOV EAX, DWORD PTR [RBX+RCX*4-10H]'],
    ['mov byte ptr fs:[rbx], 0xff', 'MOV BYTE PTR FS:[RBX], 0FFH'],
    ['mov rax, 0x1122334455667788', 'MOV RAX, 1122334455667788H'],
    ['mov qword ptr [rip + 0x20], -1', 'MOV QWORD PTR [RIP+20H], 0FFFFFFFFFFFFFFFFH'],
    ['lock add word ptr [r13], r9w', 'LOCK ADD WORD PTR [R13], R9W'],
    ['add ah, dl', 'ADD AH, DL'],
    ['add sil, r8b', 'ADD SIL, R8B'],
    ['movzx r10d, bl', 'MOVZX R10D, BL'],
    ['lea rsp, [rbp + 8]', 'LEA RSP, [RBP+8H]'],
    ['mov eax, [ebx]', 'MOV EAX, DWORD PTR [EBX]'],
    ['jmp 0x1080', 'JMP 1080H'],
    ['je 0xff0', 'JE 0FF0H'],
    ['rep movsb', 'REP MOVSB ES:[RDI], [RSI]'],
    ['repne scasb', 'REPNE SCASB AL, ES:[RDI]'],
    ['nop', 'NOP'],
  ])('of 64-bit code: %s', (source, expected) => {
    expect(text(source, 64)).toBe(expected);
  });

  it.each([
    ['mov ax, [bx + si + 5]', 'MOV AX, WORD PTR [BX+SI+5H]'],
    ['mov cx, [bp - 2]', 'MOV CX, WORD PTR [BP-2H]'],
    ['.byte 0x3e, 0x8b, 0x4e, 0xfe', 'MOV CX, WORD PTR DS:[BP-2H]'],
    ['mov al, [0x8000]', 'MOV AL, BYTE PTR [8000H]'],
    ['jmp 0x900', 'JMP 900H'],
    ['lodsw', 'LODSW AX, [SI]'],
  ])('of 16-bit code: %s', (source, expected) => {
    expect(text(source, 16)).toBe(expected);
  });

  it('agrees with another disassembler on the operands of random instructions', () => {
    const formatter = new Formatter(FormatterSyntax.Intel);
    formatter.memorySizeOptions = MemorySizeOptions.Always;
    formatter.ripRelativeAddresses = true;
    formatter.branchLeadingZeros = false;
    formatter.smallHexNumbersInDecimal = false;
    const random = new Prng(5);
    const differences: string[] = [];
    let compared = 0;
    for (let n = 0; n < 20_000; n++) {
      const bits = ([16, 32, 64] as const)[n % 3]!;
      const bytes = Uint8Array.from({ length: 15 }, () => random.below(256));
      const decoded = new Decoder(OPCODES, features).decode(bytes, 15, bits);
      if (typeof decoded === 'number' || decoded.row.mnemonic === '(bad)') continue;
      const reference = new Reference(bits, bytes, DecoderOptions.None);
      reference.ip = 0x1000n;
      const instruction = reference.decode();
      const [ours, theirs] = [disassemble(decoded, 0x1000n), formatter.format(instruction)];
      for (const object of [instruction, reference]) object.free();
      if (!COMPARED.test(decoded.row.mnemonic) || theirs.endsWith('(bad)')) continue;
      compared++;
      if (normalised(ours) !== normalised(theirs))
        differences.push(`${bits} ${Buffer.from(bytes).toString('hex')}: ${ours} | ${theirs}`);
    }
    formatter.free();
    expect(differences).toEqual([]);
    expect(compared).toBeGreaterThan(3000);
  });
});

/** Instructions that both write alike. */
const COMPARED =
  /^(MOV|MOV[SZ]X|ADD|OR|ADC|SBB|AND|SUB|XOR|CMP|TEST|XCHG|LEA|JMP|J[A-Z]+|CALL|PUSH|POP|INC|DEC|NOT|NEG|MUL|DIV|RO[LR]|RC[LR]|SH[LR]D?|SAR|BT[SRC]?|BS[FR]|CMOV[A-Z]+|SET[A-Z]+|BSWAP|BOUND|L[DEFGS]S|ENTER)$/;

/** The operands alone, in one spelling. */
function normalised(line: string): string {
  return (
    line
      .toLowerCase()
      .replace(
        /^((lock|rep|repe|repne|xacquire|xrelease|bnd|notrack|hnt|ht|data16|data32|hint-taken|hint-not-taken|addr16|addr32|[c-gs]s) )*\S+ ?/,
        '',
      )
      // LEA has no segment, and not everybody shows a prefix that says otherwise.
      .replace(/^(.*, ?)[c-gs]s:(?=\[)/, line.startsWith('LEA') ? '$1' : '$&')
      .replace(/^far ([0-9a-f]+h),([0-9a-f]+h)$/, '$2:$1')
      .replaceAll(/(short|near|far) /g, '')
      .replace(/,\s*1h$/, ',1')
      .replaceAll(/\s/g, '')
  );
}
