/**
 * Why the VM entry of a dump fails: every entry check on the dump's fields, under one processor
 * profile or under every silicon profile, and whether what the machine reported agrees.
 */
import { hex } from '../bits/u64.ts';
import { FIELD_COUNT, FIELDS, Field, type FieldName } from '../vmcs/fields.ts';
import { type CpuProfile, capabilitiesOf, SILICON_PROFILES } from '../vmx/capabilities/profiles.ts';
import type { EntryCheck } from '../vmx/entry/check.ts';
import { CheckContext, type EntryEnvironment } from '../vmx/entry/check-context.ts';
import { explainFailure, type Failure, type UnknownCheck } from '../vmx/entry/explain.ts';
import { allChecks, evaluate, type Verdict } from '../vmx/entry/verify.ts';
import { ExitReason } from '../vmx/exit/exit-reasons.ts';
import { instructionErrorMeaning } from '../vmx/instruction-errors.ts';
import type { Reported, VmcsImage } from './vmcs-image.ts';

type EntryVerdict = 'no-failing-check' | 'vmfail' | 'entry-failure';

/** A check that fails on some processors only. */
export interface CpuDependentFailure extends Failure {
  /** Names of silicon profiles. */
  readonly failsOn: readonly string[];
  readonly holdsOn: readonly string[];
}

export interface CheckReport {
  readonly format: VmcsImage['format'];
  readonly variant: string | undefined;
  /** Number of fields the dump prints. */
  readonly fieldCount: number;
  /** The profile checked with; undefined means every silicon profile. */
  readonly cpu: string | undefined;
  readonly verdict: EntryVerdict;
  /** In the order VM entry checks them; the first decides the verdict. */
  readonly failures: readonly Failure[];
  readonly cpuDependent: readonly CpuDependentFailure[];
  /** Ids of the CPU-dependent checks that explain a reported failure that nothing else explains. */
  readonly cause: readonly string[];
  readonly unknown: readonly UnknownCheck[];
  readonly reported: Reported;
  /** What the machine reported is what the checks say; undefined if the two cannot be compared. */
  readonly agrees: boolean | undefined;
  /** Silicon profiles on which the dump violates no capability. */
  readonly consistentWith: readonly string[];
  readonly notes: readonly string[];
}

/** What a dump tells of the processor's state outside the VMCS: nothing, save that it was not in SMM. */
const DUMP_ENVIRONMENT: EntryEnvironment = {
  ia32eMode: () => undefined,
  inSmm: () => false,
  traceEnabled: () => undefined,
  paePaging: () => undefined,
  cr3: () => undefined,
  tmeReduction: () => 0,
  currentVmcs: () => undefined,
  vmxonPointer: () => undefined,
  vmcsAt: () => undefined,
  read32: () => undefined,
  read64: () => undefined,
};

/** Rows that say what a processor is able to do, not what the fields mean together. */
const CAPABILITY_ROW = /\.(?:allowed[01]|(?:[\w-]+-)?width)$|\.cr[04]\.fixed$|-unsupported$/;

/** Rows on values that the processor of the dump holds itself. */
const HOST_ROW = /^host\.cr[04]\.fixed$/;

const ENTRY_FAILURE = 0x8000_0000;
const NMI_QUALIFICATION = 3;
/** What an exit qualification other than 0 blames (SDM §29.8). */
const BLAMED: Readonly<Record<number, string>> = {
  2: 'the PDPTEs',
  3: 'injection of an NMI while blocking by STI is 1',
  4: 'the VMCS link pointer',
};

/** How VM entry ended according to the machine, as far as entry checks can explain it. */
type ReportedFailure = 7 | 8 | 'entry-failure';

function reportedFailure({ instructionError, exitReason }: Reported): ReportedFailure | undefined {
  if (instructionError === 7 || instructionError === 8) return instructionError;
  if (instructionError !== undefined || exitReason === undefined) return undefined;
  const reason = exitReason >>> 0;
  const failed = reason >= ENTRY_FAILURE && (reason & 0xffff) === ExitReason.EntryFailureGuestState;
  return failed ? 'entry-failure' : undefined;
}

function outcomeOf(row: EntryCheck): ReportedFailure {
  if (row.consequence.kind !== 'VMfailValid') return 'entry-failure';
  // The other errors are those of VM entries that return from SMM, of which there are no dumps.
  return row.consequence.error === 8 ? 8 : 7;
}

/**
 * Does a row that fails end VM entry the way the machine reported? Of an NMI injected while blocking by
 * STI the manual lets a processor report qualification 0 too.
 */
function explains(row: EntryCheck, wanted: ReportedFailure, { exitQualification }: Reported): boolean {
  if (outcomeOf(row) !== wanted) return false;
  if (row.consequence.kind === 'VMfailValid' || exitQualification === undefined) return true;
  const { qualification } = row.consequence;
  const reported = Number(exitQualification);
  return qualification === reported || (qualification === NMI_QUALIFICATION && reported === 0);
}

function verdictOf(outcome: ReportedFailure | undefined): EntryVerdict {
  if (outcome === undefined) return 'no-failing-check';
  return outcome === 'entry-failure' ? 'entry-failure' : 'vmfail';
}

/** VM entry checks controls, then host state, then guest state. */
function precedes(a: ReportedFailure | undefined, b: ReportedFailure | undefined): boolean {
  const order: readonly (ReportedFailure | undefined)[] = [7, 8, 'entry-failure', undefined];
  return order.indexOf(a) < order.indexOf(b);
}

interface Evaluation {
  readonly profile: CpuProfile;
  readonly context: CheckContext;
  readonly verdicts: readonly Verdict[];
  /** Number of capability rows that fail. */
  readonly inconsistencies: number;
}

function evaluateOn(
  profile: CpuProfile,
  words: Uint32Array,
  known: Uint8Array,
  rows: readonly EntryCheck[],
): Evaluation {
  const context = new CheckContext(words, capabilitiesOf(profile, 'silicon'), DUMP_ENVIRONMENT, known);
  const verdicts = rows.map((row) => evaluate(row, context));
  const inconsistencies = rows.filter(
    (row, i) => CAPABILITY_ROW.test(row.id) && verdicts[i]?.kind === 'fails',
  ).length;
  return { profile, context, verdicts, inconsistencies };
}

const nameOf = new Map<string, string>(FIELDS.map((f) => [f.key, f.name]));

/** What did the machine do that our rows should say too? */
function agreement(
  reported: Reported,
  first: ReportedFailure | undefined,
  failing: readonly EntryCheck[],
  notMade: readonly EntryCheck[],
): boolean | undefined {
  const failure = reportedFailure(reported);
  if (failure !== undefined) {
    // A check that could not be made may be the one.
    if (failing.length === 0 && notMade.some((row) => explains(row, failure, reported))) return undefined;
    return failure === first && failing.some((row) => explains(row, failure, reported));
  }
  const { instructionError, exitReason } = reported;
  if (instructionError !== undefined || exitReason === undefined) return undefined;
  if (exitReason >>> 0 >= ENTRY_FAILURE) return first === undefined ? undefined : false;
  // VMfail leaves the exit reason as it was, so that an ordinary one does not contradict it.
  return first === undefined ? true : first === 'entry-failure' ? false : undefined;
}

/** What the report says beyond which rows fail. */
function phaseNotes(reported: Reported, failing: readonly EntryCheck[]): string[] {
  const notes: string[] = [];
  const wanted = reportedFailure(reported);
  if (wanted === undefined) return notes;
  if (failing.length > 0 && failing.every((row) => precedes(wanted, outcomeOf(row)))) {
    const checked = wanted === 7 ? 'the checks on controls' : 'the checks on controls and host state';
    notes.push(
      `VM-instruction error ${wanted} ends VM entry with ${checked}: what fails here would have failed later and does not explain it`,
    );
  }
  const qualification = Number(reported.exitQualification ?? 0n);
  const blamed = wanted === 'entry-failure' ? BLAMED[qualification] : undefined;
  if (blamed !== undefined && !failing.some((row) => explains(row, wanted, reported))) {
    notes.push(`exit qualification ${qualification} blames ${blamed}; no check that could be made finds it`);
  }
  return notes;
}

function reportNotes({ values, reported, msrLists }: VmcsImage): string[] {
  const notes: string[] = [];
  const { instructionError, exitReason, exitQualification, source } = reported;
  if (instructionError !== undefined && instructionError !== 7 && instructionError !== 8) {
    const meaning = instructionErrorMeaning(instructionError) ?? 'undefined by the manual';
    notes.push(
      `VM-instruction error ${instructionError} (${meaning}) does not come from the fields of the VMCS`,
    );
  }
  if (exitReason !== undefined && exitReason >>> 0 >= ENTRY_FAILURE && instructionError === undefined) {
    const basic = exitReason & 0xffff;
    if (basic === ExitReason.EntryFailureMsrLoading) {
      const number = Number(exitQualification ?? 0n);
      const entry = msrLists?.vmEntryLoad?.[number - 1];
      const which = entry
        ? `: MSR ${hex(entry.index >>> 0)} with value ${hex(entry.data, 16)}`
        : number > 0 && source?.includes('MSR loading') !== true
          ? ', which the dump does not print'
          : '';
      notes.push(
        `VM entry failed loading entry ${number || 'unknown'} of the VM-entry MSR-load area${which}; the checks on fields had held`,
      );
    } else if (basic === ExitReason.EntryFailureMachineCheck) {
      notes.push('VM entry failed because of a machine check; no field of the VMCS explains that');
    }
  }
  if (values.size < FIELD_COUNT / 4) {
    notes.push(`the dump prints ${values.size} of ${FIELD_COUNT} fields: many checks cannot be made`);
  }
  return notes;
}

/**
 * Makes every entry check on the fields of `image`. A field that the dump does not print is unknown.
 * @param profile whose capability MSRs count; without one, only what fails on every silicon profile
 * is a failure
 */
export function checkImage(image: VmcsImage, profile?: CpuProfile): CheckReport {
  const words = new Uint32Array(2 * FIELD_COUNT);
  const known = new Uint8Array(FIELD_COUNT);
  for (const [field, value] of image.values) {
    const slot = Field[field];
    words[2 * slot] = Number(value & 0xffff_ffffn);
    words[2 * slot + 1] = Number((value >> 32n) & 0xffff_ffffn);
    known[slot] = image.doubtful?.has(field) ? 0 : 1;
  }
  const rows = allChecks();
  const profiles = profile === undefined ? SILICON_PROFILES : [profile];
  const evaluations = profiles.map((p) => evaluateOn(p, words, known, rows));
  const fewest = Math.min(...evaluations.map((e) => e.inconsistencies));

  const failures: Failure[] = [];
  const cpuDependent: CpuDependentFailure[] = [];
  const dependentRows = new Map<string, EntryCheck>();
  const unknown: UnknownCheck[] = [];
  let first: ReportedFailure | undefined;
  const failing: EntryCheck[] = [];
  const notMade: EntryCheck[] = [];
  rows.forEach((row, i) => {
    const failsOn = evaluations.filter((e) => e.verdicts[i]?.kind === 'fails');
    if (failsOn.length === 0) {
      const missing = new Set<string>();
      for (const { verdicts } of evaluations) {
        const verdict = verdicts[i] as Verdict;
        if (verdict.kind === 'unknown') for (const m of verdict.missing) missing.add(nameOf.get(m) ?? m);
      }
      if (missing.size > 0) {
        unknown.push({ id: row.id, missing: [...missing] });
        notMade.push(row);
      }
      return;
    }
    const example = failsOn.find((e) => e.inconsistencies === fewest) ?? (failsOn[0] as Evaluation);
    example.context.begin();
    const failure = explainFailure(row, example.context);
    if (failsOn.length === evaluations.length) {
      first ??= outcomeOf(row);
      failing.push(row);
      failures.push(failure);
      return;
    }
    dependentRows.set(row.id, row);
    cpuDependent.push({
      ...failure,
      failsOn: failsOn.map((e) => e.profile.name),
      holdsOn: evaluations
        .filter((e) => ['holds', 'does-not-apply'].includes((e.verdicts[i] as Verdict).kind))
        .map((e) => e.profile.name),
    });
  });

  const wanted = reportedFailure(image.reported);
  const causes =
    wanted === undefined || failing.some((row) => explains(row, wanted, image.reported))
      ? []
      : likelyCauses(
          [...dependentRows.values()].filter((row) => explains(row, wanted, image.reported)),
          rows,
          evaluations,
          image.values.has('vmEntryControls'),
        );
  const cause = causes.map((row) => row.id);
  const outcome = cause.length > 0 && precedes(wanted, first) ? wanted : first;
  const notes = [
    ...image.notes,
    ...reportNotes(image),
    ...phaseNotes(image.reported, [...failing, ...causes]),
  ];
  if (profile !== undefined) {
    notes.push(...absentFields(image, profile));
    if (wanted !== 8 && failing.some((row) => HOST_ROW.test(row.id))) {
      notes.push(
        `${profile.name} cannot hold the host's CR0 or CR4: the dump seems to be of another processor`,
      );
    }
  }
  return {
    format: image.format,
    variant: image.variant,
    fieldCount: image.values.size,
    cpu: profile?.name,
    verdict: verdictOf(outcome),
    failures,
    cpuDependent,
    cause,
    unknown,
    reported: image.reported,
    agrees: agreement(image.reported, outcome, [...failing, ...causes], notMade),
    consistentWith: evaluations.filter((e) => e.inconsistencies === 0).map((e) => e.profile.name),
    notes,
  };
}

/**
 * Rows about the fields' meaning, on the likeliest processors or else on any. Failing those, what the
 * processor that violates fewest capabilities is not able to do, unless so little is known that
 * anything else may be the cause.
 */
function likelyCauses(
  candidates: readonly EntryCheck[],
  rows: readonly EntryCheck[],
  evaluations: readonly Evaluation[],
  controlsKnown: boolean,
): readonly EntryCheck[] {
  const failsOn = (row: EntryCheck, e: Evaluation) => e.verdicts[rows.indexOf(row)]?.kind === 'fails';
  const hasFields = (row: EntryCheck, { profile }: Evaluation) =>
    row.fields.every((field) => capabilitiesOf(profile, 'silicon').fieldExists[Field[field]] === 1);
  const fewest = Math.min(...evaluations.map((e) => e.inconsistencies));
  // What a field means decides nothing on a processor that does not have it.
  const meaning = candidates.filter(
    (row) => !CAPABILITY_ROW.test(row.id) && evaluations.some((e) => failsOn(row, e) && hasFields(row, e)),
  );
  const likely = evaluations.filter((e) => e.inconsistencies === fewest);
  const onLikely = meaning.filter((row) => likely.some((e) => failsOn(row, e)));
  if (meaning.length > 0) return onLikely.length > 0 ? onLikely : meaning;
  if (!controlsKnown) return [];
  // The host's CR0 and CR4 are those of the processor itself: what it cannot hold, it is not.
  const hostRows = rows.filter((row) => HOST_ROW.test(row.id) && !candidates.includes(row));
  const possible = evaluations.filter((e) => !hostRows.some((row) => failsOn(row, e)));
  for (const list of [possible, evaluations]) {
    const able = list.filter((e) => candidates.some((row) => failsOn(row, e)));
    const least = Math.min(...able.map((e) => e.inconsistencies));
    const best = able.filter((e) => e.inconsistencies === least);
    if (best.length > 0) return candidates.filter((row) => best.some((e) => failsOn(row, e)));
  }
  return [];
}

function absentFields(image: VmcsImage, profile: CpuProfile): string[] {
  const { fieldExists } = capabilitiesOf(profile, 'silicon');
  const absent = [...image.values].filter(
    ([field, value]: [FieldName, bigint]) => value !== 0n && fieldExists[Field[field]] === 0,
  );
  if (absent.length === 0) return [];
  return [
    `not on ${profile.name}, but printed and not 0: ${absent.map(([field]) => nameOf.get(field)).join(', ')}`,
  ];
}
