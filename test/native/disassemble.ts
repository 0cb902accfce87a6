/** An instruction as text, for people who read a difference. */
import { Decoder, DecoderOptions, Formatter, FormatterSyntax } from 'iced-x86';
import { CODE_PAGE } from './native-case.ts';

/** Intel syntax of the instruction at `offset` of the code page. */
export function disassemble(code: Uint8Array, offset: number, bits: 32 | 64): string {
  const decoder = new Decoder(bits, code, DecoderOptions.None);
  decoder.ip = BigInt(CODE_PAGE + offset);
  const instruction = decoder.decode();
  const formatter = new Formatter(FormatterSyntax.Intel);
  const text = formatter.format(instruction);
  for (const object of [instruction, formatter, decoder]) object.free();
  return text;
}
