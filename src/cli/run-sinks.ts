/** Where the guest's output goes: bytes gather during a slice and are passed on after it. */
import { OutputFile } from './run-files.ts';
import type { StatusLine } from './run-status.ts';

const NEWLINE = 0x0a;

export interface Sink {
  readonly put: (byte: number) => void;
  /** Passes on what has gathered. */
  readonly flush: () => void;
  /** Nothing more will come. */
  readonly complete: () => void;
}

function gathering(pass: (bytes: Uint8Array) => void, complete: () => void): Sink {
  let gathered: number[] = [];
  const flush = () => {
    if (gathered.length > 0) pass(Uint8Array.from(gathered));
    gathered = [];
  };
  return {
    put: (byte) => gathered.push(byte),
    flush,
    complete: () => {
      flush();
      complete();
    },
  };
}

/** Standard output; the status line makes way, also while the last line there is unfinished. */
export function standardOutput(status: StatusLine): Sink {
  return gathering(
    (bytes) => {
      status.clear();
      status.hidden = process.stdout.isTTY && bytes.at(-1) !== NEWLINE;
      process.stdout.write(bytes);
    },
    () => {},
  );
}

/** A file that takes its name when it is complete. */
export function fileSink(path: string): Sink {
  const file = new OutputFile(path);
  return gathering(
    (bytes) => file.write(bytes),
    () => file.complete(),
  );
}
