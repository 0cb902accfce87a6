#!/usr/bin/env node
/** The command `vmxon`. Exit status 2 and one line on standard error for input that cannot be used. */
import { Command, CommanderError } from 'commander';
import { addCheckCommand } from './check.ts';
import { addCpuCommand } from './cpu.ts';
import { addExplainCommand } from './explain.ts';
import { addFieldsCommand } from './fields.ts';
import { Problem } from './problem.ts';
import { addRunCommand } from './run.ts';

/** That of the package, wherever the command was compiled to. */
const VERSION = '0.1.0';

function buildProgram(): Command {
  const program = new Command('vmxon')
    .description('a software VT-x: why VM entries fail, and what VMX structures hold')
    .version(VERSION)
    .exitOverride()
    .configureOutput({ writeErr: () => {} });
  addCheckCommand(program);
  addFieldsCommand(program);
  addCpuCommand(program);
  addExplainCommand(program);
  addRunCommand(program);
  // "help NAME" of a name that is none would print everything to standard error.
  program.helpCommand(false);
  program
    .command('help')
    .description('display help for a command')
    .argument('[command]')
    .action((name?: string) => {
      const command = name === undefined ? program : program.commands.find((c) => c.name() === name);
      if (!command) throw new Problem(`unknown command '${name}'`);
      command.outputHelp();
    });
  return program;
}

function complain(message: string): void {
  const line = message
    .replace(/^error: /, '')
    .replaceAll(/\s+/g, ' ')
    .trim();
  process.stderr.write(`vmxon: ${line}\n`);
  process.exitCode = 2;
}

async function main(words: readonly string[]): Promise<void> {
  const program = buildProgram();
  try {
    if (words.length === 0) program.outputHelp();
    else await program.parseAsync(words, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode !== 0) complain(error.message);
    } else if (error instanceof Problem) {
      complain(error.message);
    } else {
      complain(`internal error, please report it: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}

// The reader of a pipe may leave early, as `head` does.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit();
});
await main(process.argv.slice(2));
