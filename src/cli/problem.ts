/** Input that cannot be used: one line on standard error and exit status 2. */
export class Problem extends Error {
  override readonly name = 'Problem';

  constructor(message: string) {
    super(message.replaceAll(/\s+/g, ' ').trim());
  }
}

/** `a, b or c`. */
export function alternatives(names: readonly string[]): string {
  return names.length < 2
    ? names.join('')
    : `${names.slice(0, -1).join(', ')} or ${names[names.length - 1] as string}`;
}
