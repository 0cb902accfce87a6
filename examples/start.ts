/**
 * `npm start`: real VMCS contents on a two-CPU machine. It builds the VMCSs of three dumps from the
 * field in memory, launches what can be launched, migrates it, makes the classic mistakes, and says
 * why the bad ones are refused. Then a hypervisor in machine code runs a guest on both CPUs.
 */
import { readFileSync } from 'node:fs';
import Table from 'cli-table3';
import { colours, tableStyle } from '../src/cli/colours.ts';
import { readDump } from '../src/dumps/read-dump.ts';
import {
  ExitReason,
  type Failure,
  FIELDS,
  instructionErrorMeaning,
  type LogicalProcessor,
  Machine,
  type Outcome,
} from '../src/index.ts';
import { runHypervisor } from './hypervisor.ts';

const DUMPS = [
  { file: 'ept-violation-exit.txt', address: 0x10_0000, title: 'a guest that left with an EPT violation' },
  { file: 'blocking-by-sti.txt', address: 0x10_1000, title: 'a guest refused with 0x80000021' },
  { file: 'gp-without-error-code.txt', address: 0x10_2000, title: 'a guest refused with VMLAUNCH error 7' },
] as const;

/** The interrupt that the exit acknowledges, as that VMCS asks: vector 32. */
const INTERRUPT_32 = 0x8000_0020;

const machine = new Machine({ cpus: 2, profile: ['full', 'full'], hazards: 'report' });
const timeline = new Table({
  style: tableStyle,
  head: ['CPU', 'instruction', 'outcome', 'what it means'],
  wordWrap: true,
  colWidths: [5, 34, 22, 62],
});
let hazardsSeen = 0;

function describe(outcome: Outcome, cpu: LogicalProcessor): [string, string] {
  switch (outcome.kind) {
    case 'VMsucceed':
      return [colours.green('VMsucceed'), ''];
    case 'VMfailInvalid':
      return [colours.red('VMfailInvalid'), 'no current VMCS to hold an error number'];
    case 'VMfailValid':
      return [colours.red(`VMfailValid ${outcome.error}`), instructionErrorMeaning(outcome.error) ?? ''];
    case 'VMentry':
      return [colours.green('VM entry'), `the guest runs at RIP ${cpu.get('RIP').toString(16)}H`];
    case 'VMexit':
      return [
        colours.yellow(`VM exit ${outcome.reason}`),
        `the host continues at RIP ${cpu.get('RIP').toString(16)}H`,
      ];
    case 'VMentryFailure': {
      const qualification = cpu.vmread('exitQualification').value;
      return [
        colours.red(`entry failure ${outcome.reason}`),
        `exit reason ${(0x8000_0000 + outcome.reason).toString(16)}H, qualification ${qualification}`,
      ];
    }
    case 'fault':
      return [colours.red(`#${outcome.vector}`), 'the instruction faults'];
    case 'VMXabort':
      return [colours.red(`VMX abort ${outcome.indicator}`), 'the processor is in shutdown until RESET'];
    case 'notExecuted':
      return [colours.red('not executed'), outcome.because];
  }
}

/** Executes one instruction and adds it, and any hazard it caused, to the timeline. */
function step(cpu: LogicalProcessor, text: string, execute: () => Outcome, remark = ''): Outcome {
  const outcome = execute();
  const [what, meaning] = describe(outcome, cpu);
  timeline.push([
    cpu.index,
    text,
    what,
    remark === '' ? meaning : `${meaning}${meaning === '' ? '' : '; '}${remark}`,
  ]);
  for (const hazard of machine.hazards.slice(hazardsSeen)) {
    timeline.push([cpu.index, '', colours.magenta('hazard'), `${hazard.id}: ${hazard.detail}`]);
  }
  hazardsSeen = machine.hazards.length;
  return outcome;
}

function enterVmx(cpu: LogicalProcessor): void {
  cpu.enterLongMode();
  const region = 0x8_0000 + 0x1000 * cpu.index;
  cpu.store32(region, cpu.capabilities.revision);
  step(cpu, `VMXON ${region.toString(16)}H`, () => cpu.vmxon(BigInt(region)));
}

/** Builds the VMCS of a dump on `cpu`; what the dump does not print is 0, the VMCS link pointer all ones. */
function build(cpu: LogicalProcessor, dump: (typeof DUMPS)[number]): void {
  const image = readDump(
    readFileSync(new URL(`../test/dumps/examples/${dump.file}`, import.meta.url), 'utf8'),
  );
  cpu.store32(dump.address, cpu.capabilities.revision);
  const pointer = BigInt(dump.address);
  const name = `${dump.address.toString(16)}H`;
  step(cpu, `VMCLEAR ${name}`, () => cpu.vmclear(pointer), dump.title);
  step(cpu, `VMPTRLD ${name}`, () => cpu.vmptrld(pointer));
  let written = 0;
  for (const field of FIELDS) {
    if (cpu.capabilities.fieldExists[field.slot] === 0) continue;
    const value = image.values.get(field.key) ?? (field.key === 'vmcsLinkPointer' ? 2n ** 64n - 1n : 0n);
    if (cpu.vmwrite(field.encoding, value).kind === 'VMsucceed') written++;
  }
  timeline.push([
    cpu.index,
    `VMWRITE × ${written}`,
    colours.green('VMsucceed'),
    `${image.values.size} fields from the dump (${image.format})`,
  ]);
}

function explain(failures: readonly Failure[]): void {
  for (const failure of failures) {
    console.log(`${colours.red('✗')} ${colours.bold(failure.id)}  §${failure.section} ${failure.title}`);
    console.log(`    rule   ${failure.rule}`);
    for (const [field, value] of Object.entries(failure.fields))
      console.log(`    field  ${field} = ${value}`);
    console.log(`    why    applies because ${failure.appliesBecause}`);
    console.log(`    fix    ${failure.fix}`);
  }
}

const [cpu0, cpu1] = [machine.cpu(0), machine.cpu(1)];
const [good, sti, gp] = DUMPS;

enterVmx(cpu0);
enterVmx(cpu1);
build(cpu0, good);
step(cpu0, 'VMLAUNCH', () => cpu0.vmlaunch());
step(cpu0, '(guest) EPT violation', () =>
  cpu0.vmexit({
    reason: ExitReason.EptViolation,
    qualification: 0x181n,
    guestPhysicalAddress: 0xfee0_0000n,
    guestLinearAddress: 0xffff_8000_0000_0000n,
  }),
);
step(cpu0, 'VMRESUME', () => cpu0.vmresume());
step(cpu0, '(guest) CPUID', () => cpu0.vmexit({ reason: ExitReason.Cpuid, instructionLength: 2 }));

step(
  cpu0,
  `VMCLEAR ${good.address.toString(16)}H`,
  () => cpu0.vmclear(BigInt(good.address)),
  'migration: write the data back here …',
);
step(
  cpu1,
  `VMPTRLD ${good.address.toString(16)}H`,
  () => cpu1.vmptrld(BigInt(good.address)),
  '… and load them there',
);
step(cpu1, 'VMRESUME', () => cpu1.vmresume(), 'mistake: after VMCLEAR the launch state is clear');
step(cpu1, 'VMLAUNCH', () => cpu1.vmlaunch(), 'the same guest, on the other CPU');
step(cpu1, '(guest) HLT', () => cpu1.vmexit({ reason: ExitReason.Hlt, instructionLength: 1 }));
step(cpu1, 'VMRESUME', () => cpu1.vmresume(), 'resumed there');
step(cpu1, '(guest) external interrupt', () =>
  cpu1.vmexit({ reason: ExitReason.ExternalInterrupt, event: INTERRUPT_32 }),
);

step(
  cpu0,
  `VMPTRLD ${good.address.toString(16)}H`,
  () => cpu0.vmptrld(BigInt(good.address)),
  'mistake: no VMCLEAR on CPU 1',
);
const foreign = 0x11_0000;
cpu0.store32(foreign, 0x12);
step(
  cpu0,
  `VMPTRLD ${foreign.toString(16)}H`,
  () => cpu0.vmptrld(BigInt(foreign)),
  'mistake: the revision of another processor',
);
const raw = 0x11_1000;
cpu0.store32(raw, cpu0.capabilities.revision);
step(cpu0, `VMPTRLD ${raw.toString(16)}H`, () => cpu0.vmptrld(BigInt(raw)), 'mistake: never VMCLEARed');
step(cpu0, 'VMLAUNCH', () => cpu0.vmlaunch());

const refused: { title: string; failures: readonly Failure[] }[] = [];
// The third dump is refused only where IA32_VMX_BASIC[56] is 0, as on the processor it comes from.
const skylake = new Machine({ cpus: 1, profile: 'skylake' }).cpu(0);
timeline.push(['', colours.dim('a machine with a Skylake:'), '', '']);
enterVmx(skylake);
for (const [cpu, dump] of [
  [cpu0, sti],
  [skylake, gp],
] as const) {
  build(cpu, dump);
  refused.push({ title: dump.title, failures: cpu.explain().failures });
  step(cpu, 'VMLAUNCH', () => cpu.vmlaunch());
}

console.log(colours.bold('vmxon: three real VMCSs on a machine with two CPUs'));
console.log(timeline.toString());
for (const { title, failures } of refused) {
  console.log(`\n${colours.bold(`Why ${title}:`)}`);
  explain(failures);
}
console.log(
  `\n${machine.hazardCount} hazards reported, ${colours.dim('each with its CPU, address and section: vmxon explain ID')}`,
);

const run = await runHypervisor();
console.log(
  `\n${colours.bold('A hypervisor in machine code (examples/hypervisor.asm), its guest migrated in the middle')}`,
);
const exits = (cpu: number) => run.events.filter((e) => e === `CPU ${cpu}: VM exit`).length;
const ofEach = new Table({
  style: tableStyle,
  head: ['CPU', 'instructions', 'VM exits', 'VMX instructions in order (repeated ones once)'],
  wordWrap: true,
  colWidths: [5, 14, 10, 62],
});
for (const [cpu, instructions] of run.instructions.entries()) {
  const own = run.events.filter((e) => e.startsWith(`CPU ${cpu}: VM`) && !e.endsWith('VM exit'));
  const names = own.map((e) => /: (\w+)/.exec(e)?.[1] ?? '').filter((name, n, all) => name !== all[n - 1]);
  ofEach.push([cpu, instructions, exits(cpu), names.join(' → ')]);
}
console.log(ofEach.toString());
console.log(
  `The guest printed, each byte an I/O exit:\n${colours.green(run.output.trimEnd().replace(/^/gm, '  '))}`,
);
console.log(`Then: ${run.stop}. Hazards: ${run.hazards}.`);
