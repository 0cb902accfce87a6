/** Checks on host segment and descriptor-table registers (SDM §29.2.3). */
import { checkList, checksOf, INVALID_HOST_STATE, off, set } from '../check.ts';
import { canonical, INTEL_64, zero } from './requirements.ts';

const check = checksOf('29.2.3', INVALID_HOST_STATE);

const SELECTORS = [
  ['cs', 'CS', 'hostCsSelector'],
  ['ss', 'SS', 'hostSsSelector'],
  ['ds', 'DS', 'hostDsSelector'],
  ['es', 'ES', 'hostEsSelector'],
  ['fs', 'FS', 'hostFsSelector'],
  ['gs', 'GS', 'hostGsSelector'],
  ['tr', 'TR', 'hostTrSelector'],
] as const;

/** Selectors that must not be 0000H, and when. */
const NON_NULL = [
  ['cs', 'CS', 'hostCsSelector', []],
  ['tr', 'TR', 'hostTrSelector', []],
  ['ss', 'SS', 'hostSsSelector', ['exit.hostAddressSpaceSize']],
] as const;

const BASES = [
  ['fs', 'FS', 'hostFsBase'],
  ['gs', 'GS', 'hostGsBase'],
  ['gdtr', 'GDTR', 'hostGdtrBase'],
  ['idtr', 'IDTR', 'hostIdtrBase'],
  ['tr', 'TR', 'hostTrBase'],
] as const;

export const HOST_SEGMENTS = checkList('29.2.3', [
  ...SELECTORS.flatMap(([name, title, field]) => [
    check(`host.${name}.sel-rpl`, { rule: `Host ${title} selector: RPL is 0.`, ...zero(field, 3n) }),
    check(`host.${name}.sel-ti`, { rule: `Host ${title} selector: TI is 0.`, ...zero(field, 4n) }),
  ]),
  ...NON_NULL.map(([name, title, field, unless]) =>
    check(`host.${name}.sel-nonnull`, {
      rule: `Host ${title} selector is not 0000H.`,
      when: unless.map(off),
      fields: [field],
      holds: (c) => c.low(field) !== 0,
      // The first descriptor of the GDT.
      fix: () => set(field, 8n),
    }),
  ),
  ...BASES.map(([name, title, field]) =>
    check(`host.${name}.base-canonical`, {
      rule: `Host ${title} base is canonical.`,
      when: [INTEL_64],
      ...canonical(field),
    }),
  ),
]);
