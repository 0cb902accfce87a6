import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { COMMAND } from '../support/command.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

function vmxon(words: readonly string[], input = '', variables: Record<string, string> = {}) {
  const args = [...COMMAND, ...words];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: root,
    input,
    encoding: 'utf8',
    env: { ...process.env, FORCE_COLOR: undefined, NO_COLOR: undefined, ...variables },
  });
  return { status, stdout, stderr };
}

const EXAMPLE = 'test/dumps/examples/blocking-by-sti.txt';

describe('vmxon', () => {
  it('check --json has the promised keys and exit status 1 for a failing check', () => {
    const { status, stdout, stderr } = vmxon(['check', EXAMPLE, '--json']);
    expect({ status, stderr }).toEqual({ status: 1, stderr: '' });
    const report = JSON.parse(stdout) as Record<string, unknown> & { failures: object[] };
    expect(Object.keys(report)).toEqual(
      expect.arrayContaining([
        'format',
        'verdict',
        'failures',
        'cpuDependent',
        'unknown',
        'reported',
        'notes',
      ]),
    );
    expect(Object.keys(report.failures[0] as object)).toEqual(
      expect.arrayContaining(['id', 'section', 'title', 'rule', 'fields', 'appliesBecause', 'fix']),
    );
  });

  it('tells its version, that of the package', () => {
    const { version } = JSON.parse(readFileSync(`${root}/package.json`, 'utf8')) as { version: string };
    expect(vmxon(['--version'])).toEqual({ status: 0, stdout: `${version}\n`, stderr: '' });
  });

  it('check says for people what fails', () => {
    const { status, stdout } = vmxon(['check', EXAMPLE]);
    expect(status).toBe(1);
    expect(stdout).toContain('guest.intr.sti-needs-if');
    expect(stdout).toContain('agrees with the checks');
  });

  it.each([
    [['check', 'no-such-file'], 'no-such-file: there is no such file'],
    [['check', 'src'], 'src: it is a directory'],
    [['check', '-'], 'standard input: the text is empty'],
    [['check', EXAMPLE, '--cpu', 'nonesuch'], 'no processor profile "nonesuch"'],
    [['check', ''], '"": there is no such file'],
    [['help', 'nonesuch'], "unknown command 'nonesuch'"],
    [['check', EXAMPLE, '--bad'], "unknown option '--bad'"],
    [['fields', 'GUEST_RIPP'], 'did you mean Guest RIP?'],
    [['explain', 'guest.intr.sti'], 'did you mean'],
  ])('%j: exit status 2 and one line', (words, message) => {
    const { status, stdout, stderr } = vmxon(words);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toContain(message);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });

  it.each([
    [['fields', 'guest_rip'], '0x681e'],
    [['cpu', 'skylake', '--diff', 'ice-lake'], 'IA32_VMX_BASIC'],
    [['explain', 'vmcs.not-cleared'], '§27.11.3'],
    [['check', '--help'], '--cpu'],
    [['help', 'check'], '--cpu'],
  ])('%j: exit status 0', (words, text) => {
    const { status, stdout, stderr } = vmxon(words);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toContain(text);
  });

  it.each([['fields'], ['cpu'], ['explain'], ['check', EXAMPLE]])('%s fits into 80 columns', (...words) => {
    const { stdout } = vmxon(words);
    expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(80);
  });

  it.each([
    [{}, false],
    [{ CI: 'true' }, false],
    [{ FORCE_COLOR: '1' }, true],
    [{ FORCE_COLOR: '1', NO_COLOR: '1' }, false],
  ] as const)('with %j in the environment: colours in a pipe %s', (variables, coloured) => {
    expect(vmxon(['check', EXAMPLE], '', variables).stdout.includes('\x1b[')).toBe(coloured);
  });

  it('says nothing when the reader of its output leaves early', () => {
    const script = `${JSON.stringify(process.execPath)} ${COMMAND.join(' ')} explain --json | head -n 1`;
    const { status, stdout, stderr } = spawnSync('sh', ['-c', script], { cwd: root, encoding: 'utf8' });
    expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: '[\n', stderr: '' });
  });
});
