/** The examples of the README run as they stand. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const root = new URL('..', import.meta.url);
const readme = readFileSync(new URL('README.md', root), 'utf8');
const examples = [...readme.matchAll(/```ts\n(.*?)```/gs)].map((m) => m[1] as string);

/** What each example prints, in part. */
const EXPECTED = [['vmcs.active-elsewhere', 'VMfailValid'], ['42n 1n']];

describe('README', () => {
  it('has examples', () => {
    expect(examples).toHaveLength(EXPECTED.length);
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
      for (const text of EXPECTED[examples.indexOf(code)] ?? []) expect(stdout).toContain(text);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('links to files that are there, in the package too', () => {
    const { files } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8')) as { files: string[] };
    const links = [...readme.matchAll(/\]\(([^):]+)\)/g)].map((m) => m[1] as string);
    expect(links).toContain('docs/deviations.md');
    for (const link of links) {
      expect(existsSync(new URL(link, root)), link).toBe(true);
      expect(
        files.some((file) => link === file || link.startsWith(`${file}/`)),
        link,
      ).toBe(true);
    }
  });

  it('npm start runs to its end', () => {
    const start = fileURLToPath(new URL('examples/start.ts', root));
    const { status, stderr, stdout } = spawnSync(process.execPath, ['--import', 'tsx', start], {
      cwd: fileURLToPath(root),
      encoding: 'utf8',
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toContain('guest.intr.sti-needs-if');
    expect(stdout).toContain('and on CPU 1');
  });
});
