/** Renders field values as Xen and HAXM print them. */
import { writeKvmDump } from '../../src/dumps/kvm-writer.ts';
import { FIELDS, type FieldName } from '../../src/vmcs/fields.ts';

type Values = ReadonlyMap<FieldName, bigint>;

const SEGMENTS = ['Cs', 'Ds', 'Ss', 'Es', 'Fs', 'Gs', 'Ldtr', 'Tr'] as const;

/** Xen prints most lines as KVM does; segments and the lines of EFER, TSC, EPT and VPID differ. */
export function writeXenDump(values: Values, error: number, qualification: number): string {
  const hex = (field: FieldName, digits: number) =>
    (values.get(field) ?? 0n).toString(16).padStart(digits, '0');
  const segments = SEGMENTS.map(
    (name) =>
      `${name.toUpperCase().padStart(4)}: ${hex(`guest${name}Selector`, 4)} ${hex(`guest${name}AccessRights`, 5)} ${hex(`guest${name}Limit`, 8)} ${hex(`guest${name}Base`, 16)}`,
  );
  const tables = (['Gdtr', 'Idtr'] as const).map(
    (name) =>
      `${name.toUpperCase()}:            ${hex(`guest${name}Limit`, 8)} ${hex(`guest${name}Base`, 16)}`,
  );
  const lines = writeKvmDump(values, { variant: 'K1' })
    .trimEnd()
    .split('\n')
    .flatMap((line) => {
      if (/^(?:GDTR|LDTR|IDTR|[DSEFG]S|TR): /.test(line)) return [];
      if (line.startsWith('CS: ')) return ['       sel  attr  limit   base', ...segments, ...tables];
      if (line.startsWith('PDPTR')) return [line.replaceAll('PDPTR', 'PDPTE')];
      if (line.startsWith('EFER =  ')) return [line.replace('EFER =    ', 'EFER(VMCS) =')];
      if (line.startsWith('EPT pointer')) return [`${line}  EPTP index = 0x${hex('eptpIndex', 4)}`];
      if (line.startsWith('Virtual proc'))
        return [`${line} VMfunc controls = ${hex('vmFunctionControls', 16)}`];
      return [line];
    });
  const header =
    error > 0xff
      ? `d1v0 vmentry failure (reason 0x${error.toString(16)}): Invalid guest state (${qualification})`
      : `d1v0 VMLAUNCH error: 0x${error.toString(16)}`;
  return [header, ...lines].map((line) => `(XEN) ${line}\n`).join('');
}

/** HAXM prints every field by its encoding. */
export function writeHaxmDump(values: Values): string {
  return FIELDS.filter(({ key }) => values.has(key))
    .map(({ key, encoding }) => {
      const value = (values.get(key) as bigint).toString(16);
      return `haxm_warning: ${encoding.toString(16).padStart(4, '0')} VMX_${key.toUpperCase()}: ${value}\n`;
    })
    .join('');
}
