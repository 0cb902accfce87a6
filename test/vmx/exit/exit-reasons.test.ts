import { describe, expect, it } from 'vitest';
import { SECTIONS } from '../../../src/sdm/sections.ts';
import {
  EXIT_REASONS,
  type ExitClass,
  ExitReason,
  type ExitReasonSpec,
  exitReasonSpec,
} from '../../../src/vmx/exit/exit-reasons.ts';

const REASONS = Object.values(ExitReason);
const specs = (test: (spec: ExitReasonSpec, reason: number) => boolean) =>
  REASONS.filter((reason) => test(EXIT_REASONS[reason], reason));

describe('exit reasons', () => {
  it('are the numbers of Appendix C', () => {
    const unused = [35, 38, 42, 71, 82, 83];
    const all = Array.from({ length: 86 }, (_, n) => n).filter((n) => !unused.includes(n));
    expect(REASONS).toEqual(all);
    expect(Object.keys(EXIT_REASONS).map(Number)).toEqual(all);
    for (const n of [...unused, 86, -1, 0.5]) expect(exitReasonSpec(n)).toBeUndefined();
    expect(exitReasonSpec(48)).toBe(EXIT_REASONS[48]);
  });

  it('have names of their own and cite sections that exist', () => {
    expect(new Set(REASONS.map((r) => EXIT_REASONS[r].name)).size).toBe(REASONS.length);
    for (const reason of REASONS) expect(SECTIONS).toHaveProperty([EXIT_REASONS[reason].sdm]);
  });

  const CLASSES: [ExitClass, number[]][] = [
    ['trap-like', [43, 45, 56, 74]],
    ['boundary', [1, 3, 4, 5, 6, 7, 8, 37, 52]],
    ['abort', [2, 75]],
    ['entry-failure', [33, 34, 41]],
  ];
  it.each(CLASSES)('%s', (name, numbers) => {
    expect(specs((spec) => spec.class === name)).toEqual(numbers);
  });

  it('all others are fault-like', () => {
    const others = CLASSES.flatMap(([, numbers]) => numbers);
    expect(specs((spec) => spec.class === 'fault-like')).toEqual(REASONS.filter((r) => !others.includes(r)));
  });

  // SDM §30.2.1: for every reason not listed there the exit qualification is cleared.
  it('clear the exit qualification unless it has a format', () => {
    const displacement = [19, 21, 22, 23, 25, 27, 46, 47, 50, 53, 58, 63, 64];
    expect(specs((spec) => spec.qualification === 'displacement')).toEqual(displacement);
    const defined = [
      ...[0, 4, 5, 9, 14, 28, 29, 30, 32, 33, 34, 36, 44, 45, 48, 54, 56, 62, 66],
      ...[72, 73, 75, 78, 79, 80, 81, 84, 85],
      ...displacement,
    ];
    expect(new Set(specs((spec) => spec.qualification !== 'cleared'))).toEqual(new Set(defined));
  });

  it('tell addresses', () => {
    expect(specs((spec) => spec.guestPhysicalAddress)).toEqual([48, 49, 66]);
    const rules = Object.fromEntries(
      specs((spec) => spec.guestLinearAddress !== 'never').map((r) => [
        r,
        EXIT_REASONS[r].guestLinearAddress,
      ]),
    );
    expect(rules).toEqual({
      5: 'string-io',
      28: 'lmsw-from-memory',
      30: 'string-io',
      48: 'qualification-bit-7',
      49: 'busy-shadow-stack',
      62: 'busy-shadow-stack',
      66: 'always',
      75: 'busy-shadow-stack',
    });
  });

  it('tell events', () => {
    expect(specs((spec) => spec.exitingEvent !== 'never')).toEqual([0, 1]);
    expect(specs((spec) => spec.originalEvent !== 'never')).toEqual([0, 9, 44, 48, 49, 62, 66]);
    expect(specs((spec) => spec.msrData)).toEqual([79]);
  });

  it('tell the instruction', () => {
    const byInstruction = specs((spec) => spec.instructionLength === 'instruction');
    expect(byInstruction).toEqual(
      specs((spec, r) => spec.class === 'fault-like' && ![0, 9, 44, 48, 49, 62, 66].includes(r)),
    );
    for (const r of byInstruction) expect(EXIT_REASONS[r].shortestLength).toBeGreaterThan(0);
    expect(specs((spec) => spec.instructionLength === 'software-event')).toEqual([0]);
    expect(specs((spec) => spec.instructionLength === 'access')).toEqual([44, 48, 49, 62, 66]);
    const information = Object.fromEntries(
      specs((spec) => spec.instructionInformation !== undefined).map((r) => [
        r,
        EXIT_REASONS[r].instructionInformation,
      ]),
    );
    expect(information).toEqual({
      30: 'stringIo',
      ...Object.fromEntries([50, 53, 58].map((r) => [r, 'invalidation'])),
      46: 'descriptorTable',
      47: 'systemSegment',
      ...Object.fromEntries([57, 61].map((r) => [r, 'random'])),
      ...Object.fromEntries([67, 68].map((r) => [r, 'wait'])),
      ...Object.fromEntries([19, 21, 22, 27, 63, 64].map((r) => [r, 'memoryOperand'])),
      ...Object.fromEntries([23, 25].map((r) => [r, 'vmreadVmwrite'])),
      69: 'loadiwkey',
      ...Object.fromEntries([80, 81, 84, 85].map((r) => [r, 'msrRegister'])),
    });
  });

  it('keep pending debug exceptions where the manual lists them', () => {
    expect(specs((spec) => spec.pendingDebug === 'kept')).toEqual([3, 5, 6, 37, 43, 45, 56, 74]);
    expect(specs((spec) => spec.pendingDebug === 'trace')).toEqual([44, 48, 49, 62, 66]);
    expect(specs((spec) => spec.pendingDebug === 'machine-check')).toEqual([0]);
  });

  it('save RF as 0 for instructions that exit', () => {
    expect(specs((spec) => spec.resumeFlag === 'cleared')).toEqual(
      specs((spec) => spec.instructionLength === 'instruction'),
    );
  });

  it('are causable but for failed entries and what is not here', () => {
    expect(specs((spec) => !spec.apiCausable)).toEqual([5, 6, 33, 34, 41, 70]);
  });
});
