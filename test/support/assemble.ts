/** Guest programs of tests: Intel-syntax assembly to machine code. */
import { Keystone, loadKeystone } from 'keystone-wasm';

await loadKeystone();

const ARCHITECTURE_X86 = 4;
const MODES = { 16: 2, 32: 4, 64: 8 } as const;

const assemblers = new Map<number, Keystone>();
/** What was assembled already: the handlers of a guest are the same in every test. */
const known = new Map<string, Uint8Array>();

/** Machine code of `source` (instructions separated by newlines or semicolons) for code of `bits` bits at `address`. */
export function assemble(source: string, bits: 16 | 32 | 64 = 64, address = 0): Uint8Array {
  const key = `${bits} ${address} ${source}`;
  let code = known.get(key);
  if (code === undefined) {
    code = assembleAnew(source, bits, address);
    known.set(key, code);
  }
  return code.slice();
}

function assembleAnew(source: string, bits: 16 | 32 | 64, address: number): Uint8Array {
  let assembler = assemblers.get(bits);
  if (assembler === undefined) {
    assembler = new Keystone(ARCHITECTURE_X86, MODES[bits]);
    assemblers.set(bits, assembler);
  }
  const text = source
    .split('\n')
    .map((line) => line.replace(/#.*/, ''))
    .join('\n');
  try {
    return assembler.asm(text, { address });
  } catch (error) {
    throw new Error(`cannot assemble: ${(error as Error).message}\n${source}`);
  }
}
