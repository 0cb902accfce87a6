/** vmxon against results recorded on silicon (`npm run test:native -- --record`), so that no compiler is needed. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { makeCase, TEMPLATES } from './cases.ts';
import { compare } from './compare.ts';
import { createExecutor } from './executor.ts';
import { caseLine, parseLine } from './recording.ts';

function recorded(file: string): Map<string, string[]> {
  const text = readFileSync(new URL(`./fixtures/${file}`, import.meta.url), 'utf8');
  const groups = new Map<string, string[]>();
  for (const line of text.trimEnd().split('\n')) {
    const name = line.slice(0, line.indexOf(' '));
    groups.set(name, [...(groups.get(name) ?? []), line]);
  }
  return groups;
}

const RECORDED = new Map([...recorded('integer.txt'), ...recorded('float.txt')]);

describe('results recorded on silicon', () => {
  it('are of every template', () => {
    expect([...RECORDED.keys()].sort()).toEqual(TEMPLATES.map(({ name }) => name).sort());
  });

  it('are of the cases that the templates make', () => {
    for (const template of TEMPLATES) {
      for (const line of RECORDED.get(template.name)?.slice(0, 4) ?? []) {
        const { seed } = parseLine(line).case;
        expect(line.slice(0, line.indexOf(' =>'))).toBe(caseLine(makeCase(template, seed)));
      }
    }
  });

  const execute = createExecutor();

  it.each([...RECORDED])('are those of vmxon: %s', (_, lines) => {
    for (const line of lines) {
      const { case: c, result } = parseLine(line);
      expect(compare(c, result, execute(c)), line).toEqual([]);
    }
  });
});
