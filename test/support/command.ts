/** The command as tests start it: compiled once a run, because a process that compiles takes four times as long. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const COMPILER = fileURLToPath(new URL('../../node_modules/typescript/bin/tsc', import.meta.url));
const FOLDER = 'build/command';

/** Arguments for Node that start the command, from the root of the project. */
export const COMMAND: readonly string[] = [`${FOLDER}/cli/main.js`];

/** Compiles the command without checking types, which `npm run types` does. */
export default function setup(): void {
  const args = [
    COMPILER,
    '-p',
    'tsconfig.build.json',
    '--noCheck',
    '--declaration',
    'false',
    '--outDir',
    FOLDER,
  ];
  const { status, stdout } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' });
  if (status !== 0) throw new Error(`the command cannot be compiled: ${stdout}`);
}
