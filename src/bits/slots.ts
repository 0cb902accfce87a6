/** Part of a table of slots: a small object whose numbers the compiler can treat as constants. */
export function slotsOf<T extends object, const K extends keyof T>(
  table: T,
  names: readonly K[],
): Readonly<Pick<T, K>> {
  const part = {} as Pick<T, K>;
  for (const name of names) part[name] = table[name];
  return part;
}
