import fc from 'fast-check';
import { type KvmVariant, printedFields } from '../../src/dumps/kvm-writer.ts';
import { type FieldName, fieldOf } from '../../src/vmcs/fields.ts';

export const VARIANTS = ['K0', 'K1', 'K2', 'K3'] as const satisfies readonly KvmVariant[];

const variant: fc.Arbitrary<KvmVariant> = fc.constantFrom(...VARIANTS);

export function fieldValue(name: FieldName): fc.Arbitrary<bigint> {
  const most = (1n << BigInt(fieldOf(name).bits)) - 1n;
  return fc.oneof(fc.bigInt({ min: 0n, max: most }), fc.constantFrom(0n, 1n, most));
}

/** A value for each field that the variant prints. K0 prints the PDPTEs of a guest in PAE paging only. */
function printedValues(layout: KvmVariant): fc.Arbitrary<Map<FieldName, bigint>> {
  const names = printedFields(layout).filter((name) => layout !== 'K0' || !name.startsWith('guestPdpte'));
  return fc
    .tuple(...names.map((name) => fieldValue(name)))
    .map((values) => new Map(names.map((name, i) => [name, values[i] as bigint])));
}

export const dumpValues = variant.chain((layout) =>
  printedValues(layout).map((values) => ({ layout, values })),
);

export function sorted(values: ReadonlyMap<FieldName, bigint>): [string, string][] {
  return [...values]
    .map(([name, value]): [string, string] => [name, `0x${value.toString(16)}`])
    .sort(([a], [b]) => (a < b ? -1 : 1));
}
