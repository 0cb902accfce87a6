/**
 * Our own format: `{ "format": "vmxon", "fields": { "guestRip": "0xfff0" }, "reported": {} }`, or only the
 * object of fields. A field may go by any name or encoding that `findField` knows.
 */

import { findField } from '../vmcs/field-names.ts';
import type { FieldName } from '../vmcs/fields.ts';
import { reportedBy } from './reports.ts';
import { DumpError, quoted, type Reported, type VmcsImage } from './vmcs-image.ts';

type JsonObject = Record<string, unknown>;

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text.replace(/^\uFEFF/, ''));
  } catch (error) {
    throw new DumpError(`the text begins like JSON but is none: ${(error as Error).message}`);
  }
}

function numberOf(key: string, value: unknown, bits: number): bigint {
  const name = `"${quoted(key, 80)}"`;
  let result: bigint;
  if (typeof value === 'number') {
    if (!Number.isSafeInteger(value) || value < 0) {
      throw new DumpError(`${name}: ${value} is no unsigned integer; write large values as "0x…"`);
    }
    result = BigInt(value);
  } else if (typeof value === 'string') {
    if (value.length > 40 || !/^0x[0-9a-f]+$/i.test(value)) {
      throw new DumpError(`${name}: "${quoted(value, 40)}" is no hexadecimal number ("0x…")`);
    }
    result = BigInt(value);
  } else {
    throw new DumpError(`${name}: a value is a number or a string "0x…"`);
  }
  if (result >> BigInt(bits) !== 0n) {
    throw new DumpError(`${name}: 0x${result.toString(16)} is too wide for its ${bits} bits`);
  }
  return result;
}

function readFields(fields: JsonObject): Map<FieldName, bigint> {
  const values = new Map<FieldName, bigint>();
  for (const [key, value] of Object.entries(fields)) {
    const found = key.length <= 200 ? findField(key) : undefined;
    if (!found) throw new DumpError(`"${quoted(key, 80)}" is no VMCS field`);
    const { field, access } = found;
    if (access === 'high') {
      throw new DumpError(`"${quoted(key, 80)}" is half a field; give ${field.key} as a whole`);
    }
    if (values.has(field.key)) throw new DumpError(`"${quoted(key, 80)}": ${field.key} is given twice`);
    values.set(field.key, numberOf(key, value, field.bits));
  }
  return values;
}

function readReported(reported: unknown): Reported | undefined {
  if (reported === undefined) return undefined;
  if (!isObject(reported)) throw new DumpError('"reported" is no object');
  const result: Reported = {};
  for (const [key, value] of Object.entries(reported)) {
    if (key === 'exitReason') result.exitReason = Number(numberOf(key, value, 32));
    else if (key === 'exitQualification') result.exitQualification = numberOf(key, value, 64);
    else if (key === 'instructionError') result.instructionError = Number(numberOf(key, value, 32));
    else if (key === 'source' && typeof value === 'string') result.source = quoted(value, 160);
    else throw new DumpError(`"${quoted(key, 80)}" in "reported" is not known or of a wrong type`);
  }
  return result;
}

/**
 * Reads our own format.
 * @throws DumpError naming the key that is wrong
 */
export function readJson(text: string): VmcsImage {
  const root = parse(text);
  if (!isObject(root)) throw new DumpError('the JSON text is no object of VMCS fields');
  const wrapped = 'fields' in root || 'format' in root;
  if (wrapped) {
    if (root['format'] !== undefined && root['format'] !== 'vmxon') {
      throw new DumpError(`"format" is "${quoted(String(root['format']), 40)}", not "vmxon"`);
    }
    if (!isObject(root['fields'])) throw new DumpError('"fields" is no object of VMCS fields');
    const stray = Object.keys(root).find((key) => !['format', 'fields', 'reported'].includes(key));
    if (stray !== undefined) throw new DumpError(`"${quoted(stray, 80)}" is not known beside "fields"`);
  }
  const values = readFields(wrapped ? (root['fields'] as JsonObject) : root);
  const notes: string[] = [];
  const reported =
    (wrapped && readReported(root['reported'])) || reportedBy(values, undefined, undefined, notes);
  return { format: 'json', values, reported, notes };
}
