/** The templates, and the cases that a seed makes of them. */
import { CaseBuilder } from './case-builder.ts';
import type { NativeCase } from './native-case.ts';
import { ARITHMETIC } from './templates/arithmetic.ts';
import { BITS } from './templates/bits.ts';
import { CODE32 } from './templates/code32.ts';
import { CONTROL } from './templates/control.ts';
import { MOVES } from './templates/moves.ts';
import { PACKED_INTEGER } from './templates/packed-integer.ts';
import { SEGMENTS } from './templates/segments.ts';
import { SSE_FLOAT } from './templates/sse-float.ts';
import type { Template } from './templates/template.ts';
import { X87 } from './templates/x87.ts';

const CODE64: readonly Template[] = [...ARITHMETIC, ...BITS, ...MOVES, ...CONTROL, ...SEGMENTS];

/** Templates that code of 32 bits has not, or whose bytes mean something else there. */
const ONLY_64: ReadonlySet<string> = new Set([
  'cmpxchg16b',
  'movsxd',
  'vex.bad-prefix',
  'invalid',
  'lock.invalid',
  'fetch.too-long',
  'fetch.page-end',
]);

const ALSO_32 = CODE64.filter(({ name }) => !ONLY_64.has(name)).map(
  (template): Template => ({ ...template, name: `${template.name}@32`, bits: 32 }),
);

export const INTEGER_TEMPLATES: readonly Template[] = [...CODE64, ...ALSO_32, ...CODE32];

export const FLOAT_TEMPLATES: readonly Template[] = [...SSE_FLOAT, ...PACKED_INTEGER, ...X87];

export const TEMPLATES: readonly Template[] = [...INTEGER_TEMPLATES, ...FLOAT_TEMPLATES];

/** The case that `seed` makes of a template. */
export function makeCase(template: Template, seed: number): NativeCase {
  const builder = new CaseBuilder(template.name, seed, template.bits);
  template.build(builder);
  return builder.finish();
}
