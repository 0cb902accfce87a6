/** Files of `vmxon run`: images read whole, and output that appears under its name only when it is complete. */
import { closeSync, fstatSync, openSync, readSync, renameSync, rmSync, statSync, writeSync } from 'node:fs';
import { Problem } from './problem.ts';

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  EISDIR: 'it is a directory',
  EACCES: 'no permission',
  ENOTDIR: 'part of its path is no directory',
  ENOSPC: 'no space is left',
  EROFS: 'the file system is read-only',
};

function fileProblem(path: string, error: unknown): Problem {
  const { code, message } = error as NodeJS.ErrnoException;
  return new Problem(`${path}: ${REASONS[code ?? ''] ?? message}`);
}

const CHUNK = 1 << 20;

/** Reads a file of at most `most` bytes. @throws Problem */
export function readBinary(path: string, most: number): Uint8Array {
  try {
    const file = openSync(path, 'r');
    try {
      const chunks: Buffer[] = [];
      let length = 0;
      for (;;) {
        const chunk = Buffer.allocUnsafe(Math.min(CHUNK, Math.max(fstatSync(file).size - length, 4096)));
        const read = readSync(file, chunk, 0, chunk.length, null);
        if (read === 0) return Buffer.concat(chunks);
        chunks.push(chunk.subarray(0, read));
        length += read;
        if (length > most) throw new Problem(`${path}: larger than the memory of the machine`);
      }
    } finally {
      closeSync(file);
    }
  } catch (error) {
    throw error instanceof Problem ? error : fileProblem(path, error);
  }
}

/**
 * A file being written. Its bytes go to a file beside it, which takes its name when it is complete and
 * vanishes if it is not. A device or pipe is written directly.
 */
export class OutputFile {
  readonly #path: string;
  /** Where the bytes go; the path itself for what is no regular file. */
  readonly #partial: string;
  readonly #file: number;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #open = true;
  readonly #abandon = () => this.discard();

  /** @throws Problem */
  constructor(path: string) {
    this.#path = path;
    const existing = statSync(path, { throwIfNoEntry: false });
    if (existing?.isDirectory()) throw new Problem(`${path}: it is a directory`);
    this.#partial = existing === undefined || existing.isFile() ? `${path}.${process.pid}.partial` : path;
    try {
      this.#file = openSync(this.#partial, 'w');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw fileProblem(path, error);
      throw new Problem(`${path}: its folder does not exist`);
    }
    process.once('exit', this.#abandon);
  }

  /** @throws Problem */
  write(bytes: Uint8Array): void {
    this.#pending.push(bytes);
    this.#pendingBytes += bytes.length;
    if (this.#pendingBytes >= CHUNK) this.flush();
  }

  /** @throws Problem */
  flush(): void {
    const bytes = Buffer.concat(this.#pending);
    this.#pending = [];
    this.#pendingBytes = 0;
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(this.#file, bytes, done);
    } catch (error) {
      this.discard();
      throw fileProblem(this.#path, error);
    }
  }

  /** Completes the file. @throws Problem */
  complete(): void {
    if (!this.#open) return;
    this.flush();
    this.#close();
    try {
      if (this.#partial !== this.#path) renameSync(this.#partial, this.#path);
    } catch (error) {
      rmSync(this.#partial, { force: true });
      throw fileProblem(this.#path, error);
    }
  }

  /** Gives the file up. */
  discard(): void {
    if (!this.#open) return;
    this.#close();
    if (this.#partial !== this.#path) rmSync(this.#partial, { force: true });
  }

  #close(): void {
    this.#open = false;
    process.removeListener('exit', this.#abandon);
    closeSync(this.#file);
  }
}
