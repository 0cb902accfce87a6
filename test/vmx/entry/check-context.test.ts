/** What an entry check sees: fields, effective controls, and what it noted as unknown. */
import { describe, expect, it } from 'vitest';
import { FIELD_COUNT, Field, type FieldName } from '../../../src/vmcs/fields.ts';
import { fieldsOfControl, off, on } from '../../../src/vmx/entry/check.ts';
import { CheckContext, type SegmentRegister, segmentFields } from '../../../src/vmx/entry/check-context.ts';
import { contextOf, situationOf } from '../../support/evaluate.ts';
import type { Witness } from '../../support/witness.ts';

/** A context in which some fields are unknown. */
function unknowing(witness: Witness, ...unknown: FieldName[]): CheckContext {
  const known = new Uint8Array(FIELD_COUNT).fill(1);
  for (const field of unknown) known[Field[field]] = 0;
  return contextOf(situationOf(witness), known);
}

describe('a field', () => {
  const context = contextOf(situationOf({ fields: { guestRip: 0x8000_0001_4000_0002n } }));

  it('is read whole, by half and by bit', () => {
    expect(context.value('guestRip')).toBe(0x8000_0001_4000_0002n);
    expect([context.low('guestRip'), context.high('guestRip')]).toEqual([0x4000_0002, 0x8000_0001]);
    const ones = Array.from({ length: 64 }, (_, i) => i).filter((i) => context.bit('guestRip', i));
    expect(ones).toEqual([1, 30, 32, 63]);
  });

  it('is read by a range of bits', () => {
    expect(context.bits('guestRip', 31, 0)).toBe(0x4000_0002);
    expect(context.bits('guestRip', 30, 1)).toBe(0x2000_0001);
    expect(context.bits('guestRip', 1, 1)).toBe(1);
    expect(context.bits('guestRip', 29, 2)).toBe(0);
  });

  it('that is unknown is 0 or what was there, and noted until the next check begins', () => {
    for (const read of ['value', 'low', 'high'] as const) {
      const c = unknowing({}, 'guestRip');
      c[read]('guestRip');
      c[read]('guestRsp');
      expect([...c.missing], read).toEqual(['guestRip']);
      c.begin();
      expect(c.missing.size).toBe(0);
    }
  });
});

describe('a control', () => {
  it('is 0 while the control that activates its group is', () => {
    const fields = { secondaryProcessorBasedControls: 1n << 5n, vmFunctionControls: 1n };
    expect(contextOf(situationOf({ fields })).control('proc2.enableVpid')).toBe(false);
    const active = contextOf(situationOf({ controls: ['proc.activateSecondaryControls'], fields }));
    expect(active.control('proc2.enableVpid')).toBe(true);
    expect(active.control('proc2.enableEpt')).toBe(false);
    expect(active.control('vmfunc.eptpSwitching')).toBe(false);
  });

  it('is 0 where the processor has no such field, whatever stands in its slot', () => {
    const { IA32_VMX_TRUE_PROCBASED_CTLS: controls = 0n } = situationOf().capabilities.msrs;
    const context = contextOf(
      situationOf({
        msrs: { IA32_VMX_TRUE_PROCBASED_CTLS: controls & ~(1n << 49n) },
        controls: ['proc3.enableHlat'],
      }),
    );
    expect(context.control('proc.activateTertiaryControls')).toBe(true);
    expect(context.control('proc3.enableHlat')).toBe(false);
  });

  it('follows its field after a change is announced, and another VMCS at once', () => {
    const { words, ...rest } = situationOf();
    const context = contextOf({ words, ...rest });
    expect(context.control('pin.nmiExiting')).toBe(false);
    words[2 * Field.pinBasedControls] = (words[2 * Field.pinBasedControls] as number) | 8;
    context.refresh();
    expect(context.control('pin.nmiExiting')).toBe(true);
    context.examine(situationOf().words);
    expect(context.control('pin.nmiExiting')).toBe(false);
    context.examine(words);
    expect(context.control('pin.nmiExiting')).toBe(true);
  });

  it('is unknown if its field is, and each time it is read', () => {
    const context = unknowing({}, 'pinBasedControls');
    for (let i = 0; i < 2; i++) {
      context.begin();
      context.control('pin.nmiExiting');
      expect([...context.missing]).toEqual(['pinBasedControls']);
    }
    context.begin();
    context.control('proc.hltExiting');
    expect([...context.missing]).toEqual([]);
  });

  it('is unknown if the field that activates its group is', () => {
    const context = unknowing({ controls: ['proc2.enableVpid'] }, 'primaryProcessorBasedControls');
    context.control('proc2.enableEpt');
    expect([...context.missing]).toEqual(['primaryProcessorBasedControls']);
    const idle = unknowing({}, 'primaryProcessorBasedControls');
    expect(idle.control('proc2.enableEpt')).toBe(false);
    expect([...idle.missing]).toEqual(['primaryProcessorBasedControls']);
  });

  it('is known to be 0 if its group is known not to be active', () => {
    const context = unknowing({}, 'secondaryProcessorBasedControls');
    expect(context.control('proc2.enableEpt')).toBe(false);
    expect(context.missing.size).toBe(0);
  });
});

describe('the words of conditions', () => {
  it.each([
    ['proc.useIoBitmaps', '"use I/O bitmaps"'],
    ['proc.hltExiting', '"HLT exiting"'],
    ['proc2.unrestrictedGuest', '"unrestricted guest"'],
    ['proc2.eptViolationVe', '"EPT-violation #VE"'],
    ['proc2.intelPtUsesGuestPhysicalAddresses', '"Intel PT uses guest physical addresses"'],
    ['proc.activateSecondaryControls', '"activate secondary controls"'],
    ['exit.activateSecondaryControls', 'the "activate secondary controls" VM-exit control'],
    ['exit.clearUinv', 'the "clear UINV" VM-exit control'],
    ['exit2.loadFred', 'the "load FRED" VM-exit control'],
    ['entry.loadFred', 'the "load FRED" VM-entry control'],
    ['entry.ia32eModeGuest', 'the "IA-32e mode guest" VM-entry control'],
  ] as const)('%s', (id, name) => {
    expect([on(id).text, off(id).text]).toEqual([`${name} is 1`, `${name} is 0`]);
  });

  it('come with the fields that decide: that of the group and those of its activators', () => {
    expect(fieldsOfControl('pin.nmiExiting')).toEqual(['pinBasedControls']);
    expect(on('vmfunc.eptpSwitching').fields).toEqual([
      'vmFunctionControls',
      'primaryProcessorBasedControls',
      'secondaryProcessorBasedControls',
      'primaryProcessorBasedControls',
    ]);
    expect(off('exit2.loadFred').fields).toEqual(['secondaryVmExitControls', 'primaryVmExitControls']);
  });

  it('hold or not by the effective value', () => {
    const without = contextOf(situationOf());
    const having = contextOf(situationOf({ controls: ['proc2.enableVpid'] }));
    expect([on('proc2.enableVpid').test(without), off('proc2.enableVpid').test(without)]).toEqual([
      false,
      true,
    ]);
    expect([on('proc2.enableVpid').test(having), off('proc2.enableVpid').test(having)]).toEqual([
      true,
      false,
    ]);
  });
});

describe('a guest segment register', () => {
  it.each(['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'ldtr', 'tr'] as const satisfies SegmentRegister[])(
    '%s',
    (segment) => {
      const name = `guest${segment.charAt(0).toUpperCase()}${segment.slice(1)}`;
      const { selector, base, limit, accessRights } = segmentFields(segment);
      expect([selector, base, limit, accessRights]).toEqual(
        ['Selector', 'Base', 'Limit', 'AccessRights'].map((part) => `${name}${part}`),
      );
      const usable = contextOf(situationOf({ fields: { [accessRights]: 0xfffe_ff6dn } }));
      expect([usable.usable(segment), usable.segmentType(segment), usable.dpl(segment)]).toEqual([
        true,
        13,
        3,
      ]);
      const unusable = contextOf(situationOf({ fields: { [accessRights]: 0x1_0022n } }));
      expect([unusable.usable(segment), unusable.segmentType(segment), unusable.dpl(segment)]).toEqual([
        false,
        2,
        1,
      ]);
    },
  );
});

describe('addresses', () => {
  it('have the width of the processor less the bits that keys take', () => {
    const context = contextOf(situationOf({ environment: { tmeReduction: 6 } }));
    expect(context.addressWidth).toBe(46);
    expect(context.withinAddressWidth((1n << 46n) - 1n)).toBe(true);
    expect(context.withinAddressWidth(1n << 46n)).toBe(false);
  });

  it('have an unknown width if it is unknown whether keys take bits', () => {
    const { words, capabilities, environment } = situationOf();
    const context = new CheckContext(words, capabilities, { ...environment, tmeReduction: () => undefined });
    expect(context.addressWidth).toBe(52);
    expect([...context.missing]).toEqual(['IA32_TME_ACTIVATE']);
  });
});
