import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';
import { describe, expect, it } from 'vitest';
import { addRunCommand } from '../../src/cli/run.ts';
import { assemble } from '../support/assemble.ts';
import { COMMAND } from '../support/command.ts';
import { multibootElf, multibootHeader } from '../support/elf-builder.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'vmxon-run-'));
const MAIN = [...COMMAND, 'run'];
/** Where the code of a Multiboot image of {@link multibootElf} lies. */
const CODE = 0x10_000c;

function file(name: string, bytes: Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

function run(...words: readonly string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...MAIN, ...words], {
    cwd: root,
    encoding: 'utf8',
  });
  return { status, stdout, stderr };
}

/** What the command complains of, without a process of its own. */
async function complaint(words: readonly string[]): Promise<string> {
  const program = new Command('vmxon').exitOverride().configureOutput({ writeErr: () => {} });
  addRunCommand(program);
  try {
    await program.parseAsync(['run', ...words], { from: 'user' });
  } catch (error) {
    return (error as Error).message;
  }
  return 'nothing';
}

const LOOP = file('loop.elf', multibootElf(assemble('a: inc eax; jmp a', 32, CODE)));

describe('vmxon run', () => {
  it.each([
    ['an image that is none', ['README.md'], 'README.md: there is no Multiboot header in the first'],
    [
      'a corrupt image',
      [file('bad', multibootHeader(0, [], 7))],
      'checksum of the Multiboot header at offset 0x0',
    ],
    ['no file', ['no-such-file'], 'no-such-file: there is no such file'],
    ['a directory', ['src'], 'src: it is a directory'],
    ['a module without file', [LOOP, '--module', 'none=x'], 'none: there is no such file'],
    ['a module without name', [LOOP, '--module', '=x'], 'a file name comes first'],
    ['an image larger than memory', ['/dev/zero', '--memory', '2M'], 'larger than the memory'],
    ['memory of no size', [LOOP, '--memory', '12X'], '--memory 12X'],
    ['too little memory', [LOOP, '--memory', '1M'], 'use at least 2M'],
    ['too much memory', [LOOP, '--memory', '64G'], '--memory: RAM must be'],
    [
      'a turn of no length',
      [LOOP, '--cpus', '2', '--quantum', '0'],
      '--quantum 0: use a whole number from 1',
    ],
    ['a seed of turns that is none', [LOOP, '--interleave', 'x'], '--interleave x: use a whole number'],
    ['too many processors', [LOOP, '--cpus', '257'], '--cpus 257: use a whole number from 1 to 256'],
    ['no processor', [LOOP, '--cpus', '0'], '--cpus 0: use a whole number from 1'],
    ['an unknown profile', [LOOP, '--cpu', 'nonesuch'], 'no processor profile "nonesuch"'],
    ['no limit', [LOOP, '--max-instructions', '0'], '--max-instructions 0'],
    ['no time', [LOOP, '--timeout', '-1'], '--timeout -1'],
    ['a seed too large', [LOOP, '--seed', '4294967296'], '--seed 4294967296'],
    ['a mode without --flat', [LOOP, '--mode', '32'], '--mode is for a flat binary'],
    ['an unknown mode', [LOOP, '--flat', '0x7c00', '--mode', '8'], '--mode 8: use 16, 32 or 64'],
    [
      'modules of a flat binary',
      [LOOP, '--flat', '0x7c00', '--module', 'a'],
      '--module does not go with --flat',
    ],
    [
      '64-bit mode on a 32-bit processor',
      [LOOP, '--flat', '0x7c00', '--mode', '64', '--cpu', 'no-such'],
      'no-such',
    ],
    ['an instruction trace without file', [LOOP, '--trace-instructions'], 'needs --trace FILE'],
    [
      'a trace among the output',
      [LOOP, '--trace', 'x', '--serial', 'x'],
      'output of the guest already goes there',
    ],
    [
      'a trace into no folder',
      [LOOP, '--trace', '/none/x', '--timeout', '1'],
      '/none/x: its folder does not exist',
    ],
    ['serial output into a folder', [LOOP, '--serial', '/tmp', '--timeout', '1'], '/tmp: it is a directory'],
    ['an unknown option', [LOOP, '--bad'], "unknown option '--bad'"],
  ])('refuses %s in one line', async (_, words, message) => {
    const text = await complaint(words);
    expect(text).toContain(message);
    expect(text.trimEnd().split('\n')).toHaveLength(1);
  });

  it('ends with exit status 2 and that line for what it cannot use', () => {
    const { status, stdout, stderr } = run(LOOP, '--cpus', '0');
    expect({ status, stdout, stderr }).toEqual({
      status: 2,
      stdout: '',
      stderr: 'vmxon: --cpus 0: use a whole number from 1 to 256\n',
    });
  });

  it('stops exactly at the limit of instructions', () => {
    const { status, stdout, stderr } = run(LOOP, '--max-instructions', '123457', '--json');
    const report = JSON.parse(stderr) as Record<string, unknown>;
    expect({ status, stdout }).toEqual({ status: 124, stdout: '' });
    expect(report).toMatchObject({
      end: { kind: 'instruction-limit' },
      exitStatus: 124,
      instructions: 123_457,
      memory: 64 * 1024 * 1024,
      seed: 0,
      exits: [],
      hazards: [],
      unmodelled: [],
    });
  });

  it('reports the invalidation that a program leaves out, with --stale-translations', () => {
    const source = `mov dword ptr [0x200000], 0xe3\nmov dword ptr [0x200004], 0x4000e3\nmov dword ptr [0x200008], 0x8000e3
      mov eax, cr4\nor eax, 0x10\nmov cr4, eax\nmov eax, 0x200000\nmov cr3, eax
      mov eax, cr0\nor eax, 0x80000000\nmov cr0, eax
      mov ebx, dword ptr [0x400000]\nmov dword ptr [0x200004], 0x8000e3\nmov ebx, dword ptr [0x400000]
      a: jmp a`;
    const image = file('stale.elf', multibootElf(assemble(source, 32, CODE)));
    const { stderr } = run(image, '--max-instructions', '100', '--json', '--stale-translations');
    expect(JSON.parse(stderr).staleTranslations).toMatchObject([
      {
        access: 'load',
        cached: '0x400000',
        fresh: '0x800000',
        // Instructions that were executed before.
        executed: 13,
        change: { structure: 'paging', address: '0x200004', by: { cpu: 0, executed: 12 } },
        owed: 'INVLPG of 400000H',
      },
    ]);
    const text = run(image, '--max-instructions', '100', '--report', '--stale-translations').stderr;
    expect(text).toContain('page is stale (paging entry at 0x200004, changed by CPU 0 at 0x');
    expect(JSON.parse(run(image, '--max-instructions', '100', '--json').stderr).staleTranslations).toEqual(
      [],
    );
  });

  it('runs several processors and reports on each', () => {
    // The others execute LOCK INC DWORD [9000H], HLT at the page of their start-up IPI.
    const image = file(
      'processors.elf',
      multibootElf(
        assemble(
          `mov dword ptr [0x8000], 0x06ff66f0; mov dword ptr [0x8004], 0xebf49000; mov byte ptr [0x8008], 0xfd
           mov dword ptr [0xfee00300], 0xc4500; mov dword ptr [0xfee00300], 0xc4608
           wait: mov eax, [0x9000]; cmp eax, 2; jne wait
           mov ecx, 5000; d: loop d
           out 0xf4, eax`,
          32,
          CODE,
        ),
      ),
    );
    const reports = [
      [],
      ['--interleave', '9', '--quantum', '20'],
      ['--interleave', '9', '--quantum', '20'],
    ].map((options) => {
      const { status, stderr } = run(image, '--cpus', '3', '--json', '--timeout', '60', ...options);
      expect(status).toBe(5);
      return JSON.parse(stderr) as { cpus: { state: string; instructions: number }[]; instructions: number };
    });
    for (const { cpus, instructions } of reports) {
      expect(cpus.map((c) => c.state)).toEqual(['active', 'HLT', 'HLT']);
      expect(cpus.reduce((sum, c) => sum + c.instructions, 0)).toBe(instructions);
    }
    expect({ ...reports[2], seconds: 0 }).toEqual({ ...reports[1], seconds: 0 });
    const { stderr } = run(image, '--cpus', '3', '--report');
    expect(stderr).toMatch(/^cpu2 +HLT, 0x0800:/m);
  });

  it('passes on serial output and the exit status of the guest, and traces its VMX instructions', () => {
    const code = `
      mov rax, cr4
      or eax, 0x2000
      mov cr4, rax
      mov rax, cr0
      or eax, 0x20
      mov cr0, rax
      mov ecx, 0x480
      rdmsr
      mov edi, 0x300000
      mov [edi + 0x1000], eax
      mov [edi + 0x2000], eax
      mov dword ptr [edi], 0x301000
      mov dword ptr [edi + 8], 0x302000
      vmxon qword ptr [edi]
      vmclear qword ptr [edi + 8]
      vmptrld qword ptr [edi + 8]
      mov eax, 0x681e
      vmwrite rax, rdi
      vmread rbx, rax
      vmlaunch
      mov dx, 0x3f8
      mov al, 0x4f
      out dx, al
      mov al, 0x4b
      out dx, al
      mov al, 3
      out 0xf4, al`;
    const image = file('vmx.bin', assemble(code, 64, 0x20_0000));
    const trace = join(folder, 'vmx.trace');
    const { status, stdout, stderr } = run(
      ...[image, '--flat', '0x200000', '--mode', '64', '--json', '--trace', trace, '--timeout', '60'],
    );
    expect({ status, stdout }).toEqual({ status: 7, stdout: 'OK' });
    expect(JSON.parse(stderr)).toMatchObject({
      cpu: { vmxOperation: 'root' },
      instructions: 27,
      unmodelled: [],
    });
    const lines = readFileSync(trace, 'utf8').split('\n');
    expect(lines.map((line) => line.replace(/^ +\d+ cpu0 /, ''))).toEqual([
      'VMXON 0x301000: VMsucceed',
      'VMCLEAR 0x302000: VMsucceed',
      'VMPTRLD 0x302000: VMsucceed',
      'VMWRITE 0x681e Guest RIP: VMsucceed',
      'VMREAD 0x681e Guest RIP: VMsucceed',
      expect.stringMatching(/^VMLAUNCH: VMfailValid 7, /),
      '',
    ]);
  });

  it('writes serial output and the debug console to files', () => {
    const code = 'mov dx, 0x3f8; mov al, 0x41; out dx, al; out 0xe9, al; out dx, al; cli; hlt';
    const image = file('files.bin', assemble(code, 16, 0x7c00));
    const [serial, debug] = [join(folder, 'serial'), join(folder, 'debug')];
    const { status, stdout } = run(image, '--flat', '0x7c00', '--serial', serial, '--debug-console', debug);
    expect([status, stdout, readFileSync(serial, 'utf8'), readFileSync(debug, 'utf8')]).toEqual([
      6,
      '',
      'AA',
      'A',
    ]);
  });

  it('reports for people', () => {
    const { stderr } = run(
      LOOP,
      '--max-instructions',
      '1k',
      '--report',
      '--memory',
      '3G',
      '--cpu',
      'skylake',
    );
    expect(stderr).toMatch(/^end +the limit of instructions was reached\n/);
    expect(stderr).toMatch(/executed +1,000 instructions/);
    expect(stderr).toMatch(/VMX +outside VMX operation/);
  });

  it('notes what the image asks for and does not get', () => {
    const image = file('video.elf', multibootElf(assemble('nop', 32, CODE), 32, 7));
    const { stderr } = run(image, '--max-instructions', '1');
    expect(stderr).toBe(`vmxon: ${image}: the image asks for a video mode; there is no display\n`);
  });

  it('traces instructions', () => {
    const trace = join(folder, 'instructions.trace');
    run(LOOP, '--max-instructions', '3', '--trace', trace, '--trace-instructions');
    expect(readFileSync(trace, 'utf8').split('\n')).toEqual([
      '           0 cpu0 0x0008:0x10000c INC EAX',
      '           1 cpu0 0x0008:0x10000d JMP 10000CH',
      '           2 cpu0 0x0008:0x10000c INC EAX',
      '',
    ]);
  });

  it('stops when the time is over', () => {
    const { status, stderr } = run(LOOP, '--timeout', '0.2', '--json');
    expect(status).toBe(124);
    expect(JSON.parse(stderr)).toMatchObject({ end: { kind: 'timeout' } });
  });

  it.each([
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)('%s stops it with its report, and its files are complete', async (signal, expected) => {
    const [trace, serial] = [join(folder, `${signal}.trace`), join(folder, `${signal}.serial`)];
    const child = spawn(
      process.execPath,
      [...MAIN, LOOP, '--json', '--trace', trace, '--serial', serial, '--timeout', '60'],
      { cwd: root },
    );
    let stderr = '';
    child.stderr.on('data', (text: Buffer) => {
      stderr += text.toString();
    });
    const partial = () => readdirSync(folder).some((name) => name.startsWith(`${signal}.serial.`));
    while (!partial()) await new Promise((done) => setTimeout(done, 20));
    expect(existsSync(trace)).toBe(false);
    await new Promise((done) => setTimeout(done, 200));
    child.kill(signal);
    const status = await new Promise((done) => child.once('exit', done));
    expect(status).toBe(expected);
    expect(JSON.parse(stderr)).toMatchObject({ end: { kind: 'interrupted', signal }, exitStatus: expected });
    expect([readFileSync(trace, 'utf8'), readFileSync(serial, 'utf8')]).toEqual(['', '']);
    expect(partial()).toBe(false);
  });

  it('leaves no file behind if it cannot run', () => {
    const before = readdirSync(folder);
    const trace = join(folder, 'never');
    expect(run(LOOP, '--serial', trace, '--trace', '/none/x').status).toBe(2);
    expect(readdirSync(folder)).toEqual(before);
  });
});
