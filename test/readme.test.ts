/** The examples of the README run as they stand. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = new URL('..', import.meta.url);
const readme = readFileSync(new URL('README.md', root), 'utf8');
const examples = [...readme.matchAll(/```ts\n(.*?)```/gs)].map((m) => m[1] as string);

describe('README', () => {
  it('has examples', () => {
    expect(examples.length).toBeGreaterThan(0);
  });

  it.each(examples)('example %# runs', (code) => {
    const folder = mkdtempSync(join(tmpdir(), 'vmxon-readme-'));
    try {
      const file = join(folder, 'example.mts');
      const index = new URL('src/index.ts', root).href;
      writeFileSync(file, code.replaceAll("'vmxon'", `'${index}'`));
      const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', file], {
        cwd: fileURLToPath(root),
        encoding: 'utf8',
      });
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      expect(stdout).toContain('vmcs.active-elsewhere');
      expect(stdout).toContain('VMfailValid');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
