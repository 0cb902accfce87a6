/** What a run came to: the facts, as text for people and as JSON, and the exit status of the command. */
import { hex } from '../bits/u64.ts';
import { waitsForStore } from '../cpu/monitored-line.ts';
import type { LogicalProcessor } from '../machine/logical-processor.ts';
import type { Machine } from '../machine/machine.ts';
import type { RunEnd } from '../machine/run-machine.ts';
import { exitReasonSpec } from '../vmx/exit/exit-reasons.ts';
import type { StaleTranslation } from '../vmx/hazards/stale-translations.ts';
import { plural } from './output.ts';

/** Why the command ended the run. */
export type CommandEnd =
  | RunEnd
  | { readonly kind: 'instruction-limit' }
  | { readonly kind: 'timeout' }
  | { readonly kind: 'interrupted'; readonly signal: 'SIGINT' | 'SIGTERM' };

/** What is known of a run besides the state of its machine. */
export interface RunFacts {
  readonly end: CommandEnd;
  readonly image: string;
  readonly profile: string;
  readonly memory: number;
  readonly seed: number;
  readonly seconds: number;
  /** Number of VM exits by basic exit reason; entry failures are counted apart. */
  readonly exits: ReadonlyMap<number, number>;
  readonly entryFailures: ReadonlyMap<number, number>;
  readonly notes: readonly string[];
}

/** Exit status by why a run ended. The exit port gives odd numbers only. */
export const EXIT_STATUS_TEXT = [
  'Exit status: that of the exit port (value × 2 + 1, modulo 256); 0 after "Shutdown";',
  '2 unusable input; 4 reset, by a device or a triple fault; 6 nothing left to execute;',
  '124 --max-instructions or --timeout reached; 130 Ctrl-C.',
].join('\n');

export function exitStatus(end: CommandEnd): number {
  switch (end.kind) {
    case 'exit-port':
      return end.code % 256;
    case 'shutdown':
      return 0;
    case 'reset':
      return 4;
    case 'halted':
    case 'vmx-abort':
    case 'hazard':
      return 6;
    case 'instruction-limit':
    case 'timeout':
      return 124;
    case 'interrupted':
      return end.signal === 'SIGINT' ? 130 : 143;
  }
}

function endText(end: CommandEnd): string {
  switch (end.kind) {
    case 'exit-port':
      return `the exit port was written: exit status ${exitStatus(end)}`;
    case 'shutdown':
      return 'the guest shut down';
    case 'reset':
      return `reset by ${end.by}`;
    case 'halted':
      return `every processor waits (${end.state}), and no event can wake one`;
    case 'vmx-abort':
      return 'a VMX abort put the processor into shutdown';
    case 'hazard':
      return `stopped at undefined behaviour: ${end.id}`;
    case 'instruction-limit':
      return 'the limit of instructions was reached';
    case 'timeout':
      return 'the time was over';
    case 'interrupted':
      return `stopped by ${end.signal}`;
  }
}

const counted = (counts: ReadonlyMap<number, number>) => [...counts].sort(([a], [b]) => a - b);

function hazardCounts(machine: Machine): readonly (readonly [string, number])[] {
  const counts = new Map<string, number>();
  for (const { id } of machine.hazards) counts.set(id, (counts.get(id) ?? 0) + 1);
  return [...counts];
}

const ACTIVITIES = ['active', 'HLT', 'shutdown', 'wait-for-SIPI'] as const;

function processorJson(cpu: LogicalProcessor) {
  return {
    state: waitsForStore(cpu.processor) ? 'MWAIT' : ACTIVITIES[Number(cpu.get('activityState'))],
    instructions: cpu.processor.executed,
    csSelector: hex(cpu.get('CS.selector'), 4),
    rip: hex(cpu.get('RIP'), 16),
    vmxOperation: cpu.operation,
  };
}

function unmodelledCounts(machine: Machine): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const { processor } of machine.processors) {
    for (const [mnemonic, count] of processor.unmodelled) {
      counts.set(mnemonic, (counts.get(mnemonic) ?? 0) + count);
    }
  }
  return counts;
}

function staleJson({ change, ...stale }: StaleTranslation) {
  return {
    cpu: stale.cpu,
    rip: hex(stale.rip, 16),
    executed: stale.executed,
    access: stale.access,
    linear: hex(stale.linear, 16),
    cached: hex(stale.cached),
    fresh: typeof stale.fresh === 'number' ? hex(stale.fresh) : stale.fresh,
    difference: stale.difference,
    change: change && {
      structure: change.structure,
      address: hex(change.address),
      before: change.before === undefined ? null : hex(change.before, 16),
      after: hex(change.after, 16),
      by: change.by === undefined ? null : { ...change.by, rip: hex(change.by.rip, 16) },
    },
    owed: stale.owed,
    section: stale.sdm,
  };
}

const MOST_STALE = 10;

/** One line for a use of a stale translation. */
function staleText(stale: ReturnType<typeof staleJson>): string {
  const { change } = stale;
  const by = change?.by
    ? `, changed by CPU ${change.by.cpu} at ${change.by.rip} after ${change.by.executed} instructions`
    : '';
  const where = change ? ` (${change.structure} entry at ${change.address}${by})` : '';
  return `CPU ${stale.cpu} at ${stale.rip} after ${stale.executed} instructions, ${stale.access} of ${stale.linear}: ${stale.difference} is stale${where}; owed: ${stale.owed} (SDM §${stale.section})`;
}

/** The report as programs read it. */
export function reportJson(facts: RunFacts, machine: Machine) {
  const cpu = machine.cpu(0);
  const byReason = (counts: ReadonlyMap<number, number>) =>
    counted(counts).map(([reason, count]) => ({ reason, name: exitReasonSpec(reason)?.name ?? null, count }));
  return {
    end: facts.end,
    exitStatus: exitStatus(facts.end),
    image: facts.image,
    profile: facts.profile,
    memory: facts.memory,
    seed: facts.seed,
    instructions: machine.executed,
    virtualNanoseconds: machine.time,
    seconds: facts.seconds,
    cpu: {
      rip: hex(cpu.get('RIP'), 16),
      rsp: hex(cpu.get('RSP'), 16),
      csSelector: hex(cpu.get('CS.selector'), 4),
      cr0: hex(cpu.get('CR0'), 8),
      cr3: hex(cpu.get('CR3'), 16),
      cr4: hex(cpu.get('CR4'), 8),
      efer: hex(cpu.get('IA32_EFER'), 4),
      cpl: cpu.cpl,
      vmxOperation: cpu.operation,
    },
    cpus: machine.processors.map(processorJson),
    exits: byReason(facts.exits),
    entryFailures: byReason(facts.entryFailures),
    hazards: hazardCounts(machine).map(([id, count]) => ({ id, count })),
    hazardCount: machine.hazardCount,
    staleTranslations: machine.staleTranslations.map(staleJson),
    unmodelled: [...unmodelledCounts(machine)].map(([mnemonic, count]) => ({ mnemonic, count })),
    unclaimedPorts: counted(machine.platform?.bus.unclaimed ?? new Map()).map(([port, count]) => ({
      port: hex(port),
      count,
    })),
    notes: facts.notes,
  };
}

const MOST_PORTS = 12;

/** The report for people. */
export function reportText(facts: RunFacts, machine: Machine): string {
  const report = reportJson(facts, machine);
  const { cpu, instructions, seconds } = report;
  const rate = seconds > 0 ? `, ${(instructions / seconds / 1e6).toFixed(1)} million a second` : '';
  const total = (rows: readonly { readonly count: number }[]) => rows.reduce((sum, r) => sum + r.count, 0);
  const rows: [string, string][] = [
    ['end', endText(facts.end)],
    ['executed', `${instructions.toLocaleString('en')} instructions in ${seconds.toFixed(2)} s${rate}`],
    [
      'cpu',
      `${cpu.csSelector}:${cpu.rip}, CPL ${cpu.cpl}, CR0 ${cpu.cr0}, CR3 ${cpu.cr3}, CR4 ${cpu.cr4}, EFER ${cpu.efer}, RSP ${cpu.rsp}`,
    ],
    [
      'VMX',
      cpu.vmxOperation === 'outside' ? 'outside VMX operation' : `in VMX ${cpu.vmxOperation} operation`,
    ],
    ...(report.cpus.length === 1 ? [] : report.cpus).map((c, index): [string, string] => [
      `cpu${index}`,
      `${c.state}, ${c.csSelector}:${c.rip}, VMX ${c.vmxOperation}, ${c.instructions.toLocaleString('en')} instructions`,
    ]),
    ['VM exits', `${total(report.exits)}`],
    ...report.exits.map((e): [string, string] => ['', `${e.count} × ${e.reason} ${e.name ?? ''}`]),
    ...report.entryFailures.map((e): [string, string] => [
      '',
      `${e.count} × VM-entry failure ${e.reason} ${e.name ?? ''}`,
    ]),
    ['hazards', `${report.hazardCount}`],
    ...report.hazards.map((h): [string, string] => ['', `${h.count} × ${h.id}`]),
    ...report.staleTranslations
      .slice(0, MOST_STALE)
      .map((stale, n): [string, string] => [n === 0 ? 'stale' : '', staleText(stale)]),
    ['unmodelled', report.unmodelled.map((u) => `${u.count} × ${u.mnemonic}`).join(', ') || 'none'],
    ['ports', portsText(report.unclaimedPorts)],
    ...report.notes.map((note): [string, string] => ['note', note]),
  ];
  return rows.map(([label, text]) => `${label.padEnd(12)}${text}`).join('\n');
}

function portsText(ports: readonly { readonly port: string; readonly count: number }[]): string {
  if (ports.length === 0) return 'every port accessed has a device';
  const shown = ports.slice(0, MOST_PORTS).map((p) => `${p.port} (${p.count})`);
  const more = ports.length - shown.length;
  return `no device at ${shown.join(', ')}${more > 0 ? ` and ${plural(more, 'more port')}` : ''}`;
}
