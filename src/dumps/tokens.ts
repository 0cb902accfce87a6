/**
 * The words of a text, whatever its line breaks: mail wrapping splits a dump at any space, so the
 * readers see one stream. The stream is lazy and keeps only the words someone has looked ahead at.
 */
import { type LogLine, logLines } from './prefixes.ts';

export interface Token {
  readonly text: string;
  /** 1-based. */
  readonly line: number;
  /** The first word of its line. */
  readonly first: boolean;
  /** The line, without prefixes. */
  readonly source: string;
}

/**
 * A word, or one of the marks that part words; commas, quotes and brackets mean nothing in any dump.
 * `__va::CR3` is one word: somebody's own label, and not CR3.
 */
const WORD = /\w{1,32}::\w{1,32}|[^\s=:,;()|*"'`<>[\]{}]+|\*+|[=:()|]/g;

/** The words of a piece of text. */
export function words(text: string): string[] {
  return text.match(WORD) ?? [];
}

export class TokenStream {
  readonly #lines: Generator<LogLine>;
  readonly #pattern = new RegExp(WORD);
  readonly #ahead: Token[] = [];
  #taken = 0;
  #line: LogLine | undefined;
  #first = true;

  constructor(text: string) {
    this.#lines = logLines(text);
  }

  /** The token `distance` ahead, or undefined beyond the end. */
  peek(distance = 0): Token | undefined {
    while (this.#ahead.length - this.#taken <= distance) {
      const token = this.#next();
      if (!token) return undefined;
      this.#ahead.push(token);
    }
    return this.#ahead[this.#taken + distance];
  }

  advance(count: number): void {
    this.#taken += count;
    if (this.#taken < 256) return;
    this.#ahead.splice(0, this.#taken);
    this.#taken = 0;
  }

  #next(): Token | undefined {
    for (;;) {
      if (!this.#line) {
        const next = this.#lines.next();
        if (next.done) return undefined;
        this.#line = next.value;
        this.#first = true;
        this.#pattern.lastIndex = 0;
      }
      const found = this.#pattern.exec(this.#line.text);
      if (found) {
        const first = this.#first;
        this.#first = false;
        return { text: found[0], line: this.#line.number, first, source: this.#line.text };
      }
      this.#line = undefined;
    }
  }
}
