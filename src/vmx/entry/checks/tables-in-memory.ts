/** Rows on the extent of tables in memory: MSR areas and the PID-pointer table. */
import { mask } from '../../../bits/u64.ts';
import type { FieldName } from '../../../vmcs/fields.ts';
import { MSR_AREA_ENTRY_SIZE } from '../../../vmcs/formats.ts';
import {
  type CheckOptions,
  type Condition,
  condition,
  type EntryCheck,
  type FieldChange,
  set,
} from '../check.ts';
import type { CheckContext } from '../check-context.ts';
import { withinAddressWidth, zero } from './requirements.ts';

type Extent = Pick<CheckOptions, 'fields' | 'holds' | 'fix' | 'looksOutside'>;

/**
 * The last byte of the table that begins at `address` is within the address width, without
 * wrap-around: `address + size × number − (1 if the last byte is meant)`.
 */
export function endsWithinAddressWidth(
  address: FieldName,
  number: FieldName,
  size: number,
  last: 'last-byte' | 'last-entry',
): Extent {
  const size64 = BigInt(size);
  const less = last === 'last-byte' ? 1n : 0n;
  const fix = (c: CheckContext): FieldChange[] => {
    const begin = c.value(address) & mask(c.addressWidth - 1, 0);
    const most = ((1n << BigInt(c.addressWidth)) - 1n + less - begin) / size64;
    return [
      ...(begin === c.value(address) ? [] : set(address, begin)),
      ...(c.value(number) > most ? set(number, most) : []),
    ];
  };
  return {
    fields: [address, number],
    holds: (c) => c.withinAddressWidth(c.value(address) + size64 * c.value(number) - less),
    fix,
  };
}

type RowMaker = <const Id extends string>(id: Id, options: CheckOptions) => EntryCheck<Id>;

/** The three rows of an MSR area: alignment, begin and end. */
export function msrArea<const Name extends string>(
  check: RowMaker,
  name: Name,
  title: string,
  address: FieldName,
  count: FieldName,
) {
  const when: Condition[] = [condition(`${title} count is not 0`, [count], (c) => c.low(count) !== 0)];
  return [
    check(`ctrl.${name}.align`, {
      rule: `${title} address: bits 3:0 are 0.`,
      when,
      ...zero(address, 0xfn),
    }),
    check(`ctrl.${name}.width`, {
      rule: `${title} address: no bit beyond the physical-address width is 1.`,
      when,
      ...withinAddressWidth(address),
    }),
    check(`ctrl.${name}.last-byte-width`, {
      rule: `${title} area: the address of its last byte has no bit beyond the physical-address width.`,
      when,
      ...endsWithinAddressWidth(address, count, MSR_AREA_ENTRY_SIZE, 'last-byte'),
    }),
  ] as const;
}
