/**
 * Software that invalidates what the manual says cannot tell caching policies apart, and the detector of
 * stale translations has nothing to say of it; if it leaves out an invalidation and that makes a
 * difference, the detector says so (SDM §31.4).
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { CACHING_POLICIES, type CachingPolicy } from '../../src/cpu/caching-policy.ts';
import { Ept } from '../support/ept.ts';
import { FRAME_COUNT, PAGES, TranslationWorld, type Who } from '../support/translation-world.ts';
import { runs } from './settings.ts';

type Step =
  | { readonly kind: 'access'; readonly who: Who; readonly page: number; readonly writes: boolean }
  | {
      readonly kind: 'page';
      readonly who: Who;
      readonly page: number;
      readonly frame: number | undefined;
      readonly writable: boolean;
      readonly precise: boolean;
      /** One of the page tables alone. */
      readonly table?: number;
      readonly leavesOut?: boolean;
    }
  | { readonly kind: 'directory'; readonly who: Who; readonly which: number; readonly leavesOut?: boolean }
  | {
      readonly kind: 'ept';
      readonly who: Who;
      readonly frame: number;
      readonly to: number | undefined;
      readonly rights: bigint;
      readonly leavesOut?: boolean;
    }
  | { readonly kind: 'needless'; readonly who: Who; readonly type: number };

const anybody: fc.Arbitrary<Who> = fc.record({
  cpu: fc.nat(1),
  vpid: fc.constantFrom(1, 2),
  pcid: fc.nat(1),
  ept: fc.nat(1),
});
const page = fc.nat(PAGES - 1);
const frame = fc.nat(FRAME_COUNT - 1);
const maybeFrame = fc.oneof(
  { weight: 4, arbitrary: frame },
  { weight: 1, arbitrary: fc.constant(undefined) },
);
const rights = fc.constantFrom(Ept.RWX, Ept.R, Ept.R | Ept.W, Ept.X);
const stepBy = (who: fc.Arbitrary<Who>): fc.Arbitrary<Step> =>
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ kind: fc.constant('access' as const), who, page, writes: fc.boolean() }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant('page' as const),
        who,
        page,
        frame: maybeFrame,
        writable: fc.boolean(),
        precise: fc.boolean(),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('directory' as const), who, which: fc.nat(1) }) },
    {
      weight: 2,
      arbitrary: fc.record({ kind: fc.constant('ept' as const), who, frame, to: maybeFrame, rights }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('needless' as const), who, type: fc.nat(4) }) },
  );

/** Runs the steps; one that leaves out the invalidation leaves it out on its processor. Answers what the accesses came to. */
function run(world: TranslationWorld, steps: readonly Step[]): string[] {
  const seen: string[] = [];
  const owed = (s: { who: Who; leavesOut?: boolean }, invalidate: (cpu: number) => void) => {
    // Every processor may have the mapping.
    for (const { index } of world.machine.processors) {
      if (s.leavesOut !== true || index !== s.who.cpu) invalidate(index);
    }
  };
  for (const s of steps) {
    const { cpu, vpid, pcid, ept } = s.who;
    switch (s.kind) {
      case 'access':
        seen.push(world.access(s.who, s.page, s.writes));
        break;
      case 'page':
        world.editPage(
          cpu,
          vpid,
          pcid,
          s.page,
          s.frame,
          s.writable,
          s.table === undefined ? [0, 1] : [s.table],
        );
        owed(s, (on) => world.invvpid(on, s.precise ? 0 : 1, vpid, s.page));
        break;
      case 'directory':
        world.editDirectory(cpu, vpid, pcid, s.which);
        owed(s, (on) => world.invvpid(on, 3, vpid));
        break;
      case 'ept':
        world.editEpt(cpu, ept, s.frame, s.to, s.rights);
        owed(s, (on) => world.invept(on, 1, ept));
        break;
      case 'needless':
        if (s.type === 4) world.invept(cpu, 2, ept);
        else world.invvpid(cpu, s.type, vpid, 0);
    }
  }
  return seen;
}

const steps = (maxLength: number, minLength = 0) => fc.array(stepBy(anybody), { minLength, maxLength });
const scenario = fc.record({ steps: steps(40, 8), accessedDirty: fc.boolean(), seed: fc.nat(1000) });

/** What can be changed so that an access comes to something else. */
type Change = 'page' | 'page gone' | 'page read-only' | 'directory' | 'EPT' | 'EPT gone' | 'EPT read-only';
const CHANGES: readonly Change[] = [
  'page',
  'page gone',
  'page read-only',
  'directory',
  'EPT',
  'EPT gone',
  'EPT read-only',
];

/** Between other steps: an access, a change whose invalidation is left out, and the access again. */
const disobedient = fc
  .record({
    before: steps(6),
    after: steps(6),
    who: anybody,
    page: fc.nat(PAGES - 1),
    frame,
    distance: fc.integer({ min: 1, max: FRAME_COUNT - 1 }),
    change: fc.constantFrom(...CHANGES),
    accessedDirty: fc.boolean(),
  })
  .map(({ before, after, who, page, frame, distance, change, accessedDirty }) => {
    const other = (frame + distance) % FRAME_COUNT;
    const writes = change.endsWith('read-only');
    const access: Step = { kind: 'access', who, page, writes };
    const toPage = (frame: number | undefined, writable = true): Step => ({
      ...{ kind: 'page', who, page, frame, writable, precise: false },
      leavesOut: true,
    });
    const toEpt = (to: number | undefined, rights: bigint = Ept.RWX): Step => ({
      ...{ kind: 'ept', who, frame, to, rights },
      leavesOut: true,
    });
    const changes: Record<Change, Step> = {
      page: toPage(other),
      'page gone': toPage(undefined),
      'page read-only': toPage(frame, false),
      directory: { kind: 'directory', who, which: 1, leavesOut: true },
      EPT: toEpt(other),
      'EPT gone': toEpt(undefined),
      'EPT read-only': toEpt(frame, Ept.R | Ept.X),
    };
    const obeyed: Step[] = [
      { kind: 'directory', who, which: 0 },
      { kind: 'page', who, page, frame, writable: true, precise: false, table: 0 },
      { kind: 'page', who, page, frame: other, writable: true, precise: false, table: 1 },
      { kind: 'ept', who, frame, to: frame, rights: Ept.RWX },
      { kind: 'ept', who, frame: other, to: other, rights: Ept.RWX },
    ];
    return {
      steps: [...before, ...obeyed, access, changes[change], access, ...after],
      accessedDirty,
      change,
    };
  });

it('obedient software cannot tell caching policies apart', () => {
  fc.assert(
    fc.property(scenario, ({ steps, accessedDirty, seed }) => {
      const results = CACHING_POLICIES.map((translations: CachingPolicy) => {
        const world = new TranslationWorld({ translations, accessedDirty, seed });
        return [...run(world, steps), world.structures()];
      });
      for (const result of results) expect(result).toEqual(results[0]);
    }),
    runs(15),
  );
});

it('the detector reports nothing of obedient software', () => {
  fc.assert(
    fc.property(scenario, ({ steps, accessedDirty }) => {
      const world = new TranslationWorld({ translations: 'retain', accessedDirty, detects: true });
      const seen = run(world, steps);
      expect(world.machine.staleTranslations).toEqual([]);
      expect(seen).toEqual(run(new TranslationWorld({ translations: 'retain', accessedDirty }), steps));
    }),
    runs(15),
  );
});

it('the detector reports an invalidation left out whenever that makes a difference', () => {
  let differences = 0;
  let tried = 0;
  fc.assert(
    fc.property(disobedient, ({ steps, accessedDirty }) => {
      tried++;
      const right = run(new TranslationWorld({ translations: 'none', accessedDirty }), steps);
      const stale = run(new TranslationWorld({ translations: 'retain', accessedDirty }), steps);
      const world = new TranslationWorld({ translations: 'retain', accessedDirty, detects: true });
      expect(run(world, steps)).toEqual(stale);
      if (stale.every((s, n) => s === right[n])) return;
      differences++;
      expect(world.machine.staleTranslations.length).toBeGreaterThan(0);
    }),
    runs(25),
  );
  // The second of the two accesses sees the change, or does not.
  expect(differences).toBe(tried);
});
