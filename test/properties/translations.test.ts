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
    }
  | { readonly kind: 'directory'; readonly who: Who; readonly which: number }
  | {
      readonly kind: 'ept';
      readonly who: Who;
      readonly frame: number;
      readonly to: number | undefined;
      readonly rights: bigint;
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

/** Runs the steps; the invalidation numbered `leftOut` is not made. Answers what the accesses came to. */
function run(world: TranslationWorld, steps: readonly Step[], leftOut = -1): string[] {
  const seen: string[] = [];
  let number = 0;
  const owed = (invalidate: (cpu: number) => void) => {
    // Every processor may have the mapping.
    for (const { index } of world.machine.processors) if (number++ !== leftOut) invalidate(index);
  };
  for (const s of steps) {
    const { cpu, vpid, pcid, ept } = s.who;
    switch (s.kind) {
      case 'access':
        seen.push(world.access(s.who, s.page, s.writes));
        break;
      case 'page':
        world.editPage(cpu, vpid, pcid, s.page, s.frame, s.writable);
        owed((on) => world.invvpid(on, s.precise ? 0 : 1, vpid, s.page));
        break;
      case 'directory':
        world.editDirectory(cpu, vpid, pcid, s.which);
        owed((on) => world.invvpid(on, 3, vpid));
        break;
      case 'ept':
        world.editEpt(cpu, ept, s.frame, s.to, s.rights);
        owed((on) => world.invept(on, 1, ept));
        break;
      case 'needless':
        if (s.type === 4) world.invept(cpu, 2, ept);
        else world.invvpid(cpu, s.type, vpid, 0);
    }
  }
  return seen;
}

const scenarioOf = (who: fc.Arbitrary<Who>, needless: boolean) =>
  fc.record({
    steps: fc.array(
      stepBy(who).filter((s) => needless || s.kind !== 'needless'),
      { minLength: 8, maxLength: 40 },
    ),
    accessedDirty: fc.boolean(),
    seed: fc.nat(1000),
  });

const scenario = scenarioOf(anybody, true);
/** Guests that are near each other, so that what one of them leaves out matters to the other. */
const FEW: readonly Who[] = [
  { cpu: 0, vpid: 1, pcid: 0, ept: 0 },
  { cpu: 0, vpid: 1, pcid: 1, ept: 0 },
];

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
  fc.assert(
    fc.property(
      scenarioOf(fc.constantFrom(...FEW), false),
      fc.nat(9),
      ({ steps, accessedDirty }, leftOut) => {
        const right = run(
          new TranslationWorld({ translations: 'none', accessedDirty, cpus: 1 }),
          steps,
          leftOut,
        );
        const stale = run(
          new TranslationWorld({ translations: 'retain', accessedDirty, cpus: 1 }),
          steps,
          leftOut,
        );
        const world = new TranslationWorld({ translations: 'retain', accessedDirty, detects: true, cpus: 1 });
        expect(run(world, steps, leftOut)).toEqual(stale);
        if (stale.every((s, n) => s === right[n])) return;
        differences++;
        expect(world.machine.staleTranslations.length).toBeGreaterThan(0);
      },
    ),
    // Of other seeds few runs may make no difference.
    { seed: 9, ...runs(25) },
  );
  expect(differences).toBeGreaterThan(0);
});
