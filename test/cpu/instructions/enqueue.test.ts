import { describe, expect, it } from 'vitest';
import { SingleInstruction, type State } from '../../support/single-instruction.ts';

/** ENQCMD RAX, [RBX] and ENQCMDS RAX, [RBX]. */
const ENQCMD = Uint8Array.of(0xf2, 0x0f, 0x38, 0xf8, 0x03);
const ENQCMDS = Uint8Array.of(0xf3, 0x0f, 0x38, 0xf8, 0x03);
const STATE: State = { RAX: 0x4000n, RBX: 0x5008n, IA32_PASID: 0x8000_1234n, RFLAGS: 0x897n };
const GP0 = { vector: 13, errorCode: 0 };

function run(code: Uint8Array, state: State = {}) {
  const one = new SingleInstruction({ level: 'complete' });
  one.machine.memory.writeBytes(0x5000, new Uint8Array(256).fill(0x55));
  return { one, result: one.run(code, { ...STATE, ...state }) };
}

describe.each([
  ['ENQCMD', ENQCMD],
  ['ENQCMDS', ENQCMDS],
])('%s', (_, code) => {
  it('is accepted by nothing: ZF is 1, the other flags 0, and memory is not written', () => {
    const { one, result } = run(code);
    expect(result.vector).toBeUndefined();
    expect(one.flags()).toBe(0x42);
    expect(one.bytes(0x4000, 64)).toEqual(new Array(64).fill(0));
  });

  it('takes the destination in the address size', () => {
    const prefixed = Uint8Array.of(0x67, ...code);
    expect(run(prefixed, { RAX: 0x1_0000_0000_4000n }).result.vector).toBeUndefined();
    expect(run(code, { RAX: 1n << 60n }).result).toMatchObject(GP0);
  });

  it('faults at a destination that is not aligned, and at a source that is not canonical', () => {
    expect(run(code, { RAX: 0x4020n }).result).toMatchObject(GP0);
    expect(run(code, { RBX: 0x7fff_ffff_ffe0n, CR4: 0x20n }).result).toMatchObject(GP0);
  });

  it('needs the feature, and has no register form', () => {
    const old = new SingleInstruction({ profile: 'arrow-lake' });
    expect(old.run(code, { RAX: 0x4000n }).vector).toBe(6);
    expect(run(Uint8Array.of(...code.subarray(0, 4), 0xc3)).result.vector).toBe(6);
  });
});

describe('privilege', () => {
  it('ENQCMD needs a valid PASID, ENQCMDS CPL 0', () => {
    expect(run(ENQCMD, { IA32_PASID: 0x1234n }).result).toMatchObject(GP0);
    expect(run(ENQCMDS, { IA32_PASID: 0n }).result.vector).toBeUndefined();
    expect(run(ENQCMDS, { 'SS.accessRights': 0xc0f3n }).result).toMatchObject(GP0);
    expect(run(ENQCMD, { 'SS.accessRights': 0xc0f3n }).result.vector).toBeUndefined();
  });
});
