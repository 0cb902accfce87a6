/**
 * Logs that name the thread or processor of each line, as `[ 12.345678][ T1234]` and ftrace's
 * `qemu-1234 [003]` do: two dumps printed at the same time are told apart by it.
 */

const CALLER = /\[\s{0,8}([TC]\d{1,9})\]|-(\d{1,9})\s{1,4}\[\d{3}\]\s/;
/** A caller stands at the beginning of a line. */
const ROOM = 160;
const HEADER = /\b(?:Guest|Host|Control) State\b/;

function callerOf(line: string): string | undefined {
  const found = CALLER.exec(line.slice(0, ROOM));
  return found?.[1] ?? found?.[2];
}

/**
 * The text once for each caller that prints a dump, with the lines of the others left empty; undefined
 * unless there are at least two.
 */
export function textsByCaller(text: string): ReadonlyMap<string, string> | undefined {
  if (!CALLER.test(text)) return undefined;
  const lines = text.split('\n');
  const callers = lines.map(callerOf);
  const printers = new Set<string>();
  lines.forEach((line, i) => {
    const caller = callers[i];
    if (caller !== undefined && HEADER.test(line)) printers.add(caller);
  });
  // More than a machine has at work at once is a log of many failures: one after the other.
  if (printers.size < 2 || printers.size > 64) return undefined;
  const texts = new Map<string, string>();
  for (const printer of printers) {
    const own = lines.map((line, i) => {
      const caller = callers[i];
      return caller !== undefined && caller !== printer && printers.has(caller) ? '' : line;
    });
    texts.set(printer, own.join('\n'));
  }
  return texts;
}
