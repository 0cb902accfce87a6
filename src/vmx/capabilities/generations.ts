/** Instruction sets that each generation of processors added, as far as this processor knows them. */
import {
  INSTRUCTION_SET_NAMES,
  type InstructionSet,
  type InstructionSets,
} from '../../cpu/instruction-sets.ts';

function all(value: boolean): InstructionSets {
  return Object.fromEntries(INSTRUCTION_SET_NAMES.map((name) => [name, value])) as InstructionSets;
}

function adding(to: InstructionSets, ...names: readonly InstructionSet[]): InstructionSets {
  return { ...to, ...Object.fromEntries(names.map((name) => [name, true])) };
}

const core = adding(all(false), 'x87', 'mmx', 'fxsr', 'sse', 'sse2', 'clflush', 'sysenter', 'syscall');
const penryn = adding(core, 'monitor', 'cmpxchg16b');
const sandyBridge = adding(penryn, 'popcnt', 'xsave', 'xsaveopt');
const haswell = adding(
  sandyBridge,
  'rdrand',
  'movbe',
  'bmi1',
  'bmi2',
  'lzcnt',
  'enhancedRepMovsb',
  'invpcid',
);
const broadwell = adding(haswell, 'rdseed', 'adx', 'prefetchw');
const skylake = adding(broadwell, 'clflushopt', 'xsavec', 'xsaves');
const skylakeX = adding(skylake, 'clwb');
const iceLake = adding(skylake, 'rdpid', 'fastShortRepMovsb');
const tigerLake = adding(iceLake, 'clwb', 'movdiri', 'movdir64b');
const arrowLake = adding(tigerLake, 'userWaitAndPause', 'serialize', 'historyReset', 'wbnoinvd');
const wildcatLake = adding(arrowLake, 'lkgs', 'wrmsrns', 'msrList');

/** What the processors of a generation have. */
export const GENERATIONS = {
  penryn,
  sandyBridge,
  broadwell,
  skylake,
  skylakeX,
  iceLake,
  tigerLake,
  arrowLake,
  wildcatLake,
} as const;

/** What the profile `full` has. */
export const EVERY_INSTRUCTION_SET: InstructionSets = all(true);
