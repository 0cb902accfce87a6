import { describe, expect, it } from 'vitest';
import {
  CONTROL_GROUPS,
  CONTROLS,
  type ControlGroupName,
  controlOf,
  namedControls,
} from '../../src/vmcs/controls.ts';
import { fieldOf } from '../../src/vmcs/fields.ts';

const GROUPS = Object.keys(CONTROL_GROUPS) as ControlGroupName[];

describe('the control catalogue', () => {
  // Bits that SDM §27.6–§27.8 name, the default1 class of Appendix A, and how many bits have a name.
  it.each([
    ['pin', 0x0000_00e9n, 0x0000_0016n, 5],
    ['proc', 0xfbfb_9e8cn, 0x0401_e172n, 22],
    ['proc2', 0xcfff_ffffn, 0n, 30],
    ['proc3', 0x13ffn, 0n, 11],
    ['exit', 0xfffc_9204n, 0x0003_6dffn, 18],
    ['exit2', 0xfn, 0n, 4],
    ['entry', 0x03ff_ee04n, 0x0000_11ffn, 17],
    ['vmfunc', 0x1n, 0n, 1],
  ] as const)('%s', (group, named, default1, count) => {
    expect(namedControls(group)).toBe(named);
    expect(CONTROL_GROUPS[group].default1).toBe(default1);
    expect(CONTROLS.filter((c) => c.group === group)).toHaveLength(count);
  });

  it('names each bit of a group once, within the width of its field', () => {
    for (const group of GROUPS) {
      const controls = CONTROLS.filter((c) => c.group === group);
      expect(new Set(controls.map((c) => c.bit)).size).toBe(controls.length);
      for (const { bit, mask } of controls) {
        expect(bit).toBeLessThan(CONTROL_GROUPS[group].bits);
        expect(mask).toBe(2n ** BigInt(bit));
      }
    }
  });

  it('names no bit above 31, so that one 32-bit word holds every control', () => {
    expect(Math.max(...CONTROLS.map((c) => c.bit))).toBeLessThan(32);
  });

  it('has one control of an id, which begins with its group', () => {
    expect(new Set(CONTROLS.map((c) => c.id)).size).toBe(CONTROLS.length);
    for (const control of CONTROLS) {
      expect(controlOf(control.id)).toBe(control);
      expect(control.id.split('.')[0]).toBe(control.group);
    }
  });

  it('is printed in ascending bit order with a name each', () => {
    for (const group of GROUPS) {
      const controls = CONTROLS.filter((c) => c.group === group);
      expect(controls.map((c) => c.bit)).toEqual(controls.map((c) => c.bit).sort((a, b) => a - b));
      expect(new Set(controls.map((c) => c.name)).size).toBe(controls.length);
    }
  });

  it('keeps each group in a control field of the same width', () => {
    expect(new Set(GROUPS.map((g) => CONTROL_GROUPS[g].field)).size).toBe(GROUPS.length);
    for (const group of GROUPS) {
      const field = fieldOf(CONTROL_GROUPS[group].field);
      expect(field.type).toBe('control');
      expect(field.width).toBe(CONTROL_GROUPS[group].bits);
    }
  });

  it('activates a group by the controls that make its field exist', () => {
    for (const group of GROUPS) {
      const { activatedBy, field } = CONTROL_GROUPS[group];
      const last = activatedBy.at(-1);
      expect(fieldOf(field).existsIf).toEqual(last === undefined ? [] : [last]);
    }
    expect(CONTROL_GROUPS.vmfunc.activatedBy).toEqual([
      'proc.activateSecondaryControls',
      'proc2.enableVmFunctions',
    ]);
  });
});
