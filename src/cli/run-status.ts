/** A line on a terminal that tells how far a long run is; it makes way for output. */

const FIRST_SHOWN_SECONDS = 1;
const INTERVAL_SECONDS = 0.25;
const ERASE_LINE = '\r\x1b[K';

export class StatusLine {
  readonly #stream: NodeJS.WriteStream;
  #shown = false;
  #lastSeconds = 0;
  /** The terminal shows the beginning of a line of output, which the status must not erase. */
  hidden = false;

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream;
  }

  show(instructions: number, seconds: number): void {
    if (!this.#stream.isTTY || this.hidden || seconds < FIRST_SHOWN_SECONDS) return;
    if (this.#shown && seconds - this.#lastSeconds < INTERVAL_SECONDS) return;
    this.#shown = true;
    this.#lastSeconds = seconds;
    const millions = (n: number) => (n / 1e6).toFixed(1);
    this.#stream.write(
      `${ERASE_LINE}${millions(instructions)} million instructions in ${seconds.toFixed(0)} s, ${millions(instructions / seconds)} million a second`,
    );
  }

  clear(): void {
    if (this.#shown) this.#stream.write(ERASE_LINE);
    this.#shown = false;
  }
}
