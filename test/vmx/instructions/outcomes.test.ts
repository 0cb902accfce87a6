/** Every VMX instruction in every mode, privilege level and kind of VMX operation, and its failures (SDM chapter 33). */
import { describe, expect, it } from 'vitest';
import { LAUNCHED, launch, vmcsAddress } from '../../../bench/guest.ts';
import {
  FIELDS,
  faultingOperand,
  type LogicalProcessor,
  Machine,
  type Outcome,
  REGISTER_FORM,
} from '../../../src/index.ts';

const VMCS = BigInt(vmcsAddress(0));
const UD = { kind: 'fault', vector: 6, errorCode: undefined };
const GP = { kind: 'fault', vector: 13, errorCode: 0 };

/** A processor in VMX root operation with a current, clear VMCS. */
function root(profile = 'full'): { machine: Machine; cpu: LogicalProcessor } {
  const machine = new Machine({ cpus: 2, profile });
  LAUNCHED.prepareRoot(machine, 0);
  const cpu = machine.cpu(0);
  machine.memory.write32(Number(VMCS), cpu.capabilities.revision);
  cpu.vmclear(VMCS);
  cpu.vmptrld(VMCS);
  return { machine, cpu };
}

const INSTRUCTIONS: readonly [
  name: string,
  exitReason: number,
  execute: (cpu: LogicalProcessor) => Outcome,
][] = [
  ['INVEPT', 50, (cpu) => cpu.invept(2, 0n)],
  ['INVVPID', 53, (cpu) => cpu.invvpid(2, 0n)],
  ['VMCLEAR', 19, (cpu) => cpu.vmclear(VMCS)],
  ['VMLAUNCH', 20, (cpu) => cpu.vmlaunch()],
  ['VMPTRLD', 21, (cpu) => cpu.vmptrld(VMCS)],
  ['VMPTRST', 22, (cpu) => cpu.vmptrst().outcome],
  ['VMREAD', 23, (cpu) => cpu.vmread('guestRip').outcome],
  ['VMRESUME', 24, (cpu) => cpu.vmresume()],
  ['VMWRITE', 25, (cpu) => cpu.vmwrite('guestRip', 0)],
  ['VMXOFF', 26, (cpu) => cpu.vmxoff()],
  ['VMXON', 27, (cpu) => cpu.vmxon(0x10_0000n)],
];

const MODES: readonly [name: string, enter: (cpu: LogicalProcessor) => void][] = [
  ['real-address mode', (cpu) => cpu.set('CR0', cpu.get('CR0') & ~1n)],
  [
    'virtual-8086 mode',
    (cpu) => {
      cpu.set('IA32_EFER', 0n);
      cpu.set('RFLAGS', 0x2_0002n);
    },
  ],
  ['compatibility mode', (cpu) => cpu.set('CS.accessRights', 0xc09bn)],
];

describe.each(INSTRUCTIONS)('%s', (name, exitReason, execute) => {
  it.each(MODES)('is undefined in %s', (_, enter) => {
    const { cpu } = root();
    enter(cpu);
    expect(execute(cpu)).toEqual(UD);
  });

  it('is undefined outside VMX operation, save VMXON', () => {
    const cpu = new Machine().cpu(0).enterLongMode();
    expect(execute(cpu)).toEqual(name === 'VMXON' ? { kind: 'VMfailInvalid' } : UD);
  });

  it('needs CPL 0 in root operation', () => {
    const { cpu } = root();
    cpu.set('SS.accessRights', 0xc0f3n);
    expect(execute(cpu)).toEqual(GP);
  });

  it('exits from non-root operation at every CPL', () => {
    for (const rights of [0xc093n, 0xc0f3n]) {
      const machine = new Machine();
      launch(machine, 0);
      const cpu = machine.cpu(0);
      cpu.set('SS.accessRights', rights);
      expect(execute(cpu)).toEqual({ kind: 'VMexit', reason: exitReason });
      expect(cpu.vmread('exitReason').value).toBe(BigInt(exitReason));
    }
  });
});

describe('VMCALL', () => {
  it('exits from non-root operation in every mode', () => {
    for (const [, enter] of MODES) {
      const machine = new Machine();
      launch(machine, 0);
      enter(machine.cpu(0));
      const outcome = machine.cpu(0).vmcall();
      expect(outcome.kind === 'VMexit' || outcome.kind === 'VMXabort').toBe(true);
    }
  });

  it('fails in root operation: error 1, or VMfailInvalid without a current VMCS', () => {
    const { cpu } = root();
    expect(cpu.vmcall()).toEqual({ kind: 'VMfailValid', error: 1 });
    cpu.vmclear(VMCS);
    expect(cpu.vmcall()).toEqual({ kind: 'VMfailInvalid' });
  });
});

describe('pointers', () => {
  const bad = [0x1001n, 1n << 60n, 0xfffn];

  it('that are misaligned or too wide are refused', () => {
    const { cpu } = root();
    for (const pointer of bad) {
      expect(cpu.vmclear(pointer)).toEqual({ kind: 'VMfailValid', error: 2 });
      expect(cpu.vmptrld(pointer)).toEqual({ kind: 'VMfailValid', error: 9 });
    }
  });

  it('to the VMXON region are refused', () => {
    const { cpu } = root();
    expect(cpu.vmclear(0x10_0000n)).toEqual({ kind: 'VMfailValid', error: 3 });
    expect(cpu.vmptrld(0x10_0000n)).toEqual({ kind: 'VMfailValid', error: 10 });
  });

  it('to another revision are refused, and the old VMCS stays current', () => {
    const { machine, cpu } = root();
    machine.memory.write32(0x20_0000, 1);
    expect(cpu.vmptrld(0x20_0000n)).toEqual({ kind: 'VMfailValid', error: 11 });
    expect(cpu.vmptrst()).toEqual({ outcome: { kind: 'VMsucceed' }, pointer: VMCS });
  });

  it('to a shadow VMCS are accepted where VMCS shadowing is supported', () => {
    for (const [profile, expected] of [
      ['full', { kind: 'VMsucceed' }],
      ['sandy-bridge', { kind: 'VMfailValid', error: 11 }],
    ] as const) {
      const { machine, cpu } = root(profile);
      machine.memory.write32(0x20_0000, cpu.capabilities.revision + 0x8000_0000);
      expect(cpu.vmptrld(0x20_0000n)).toEqual(expected);
      if (profile === 'full') expect(cpu.vmlaunch()).toEqual({ kind: 'VMfailInvalid' });
    }
  });

  it('in a register or in memory that faults', () => {
    const { cpu } = root();
    expect(cpu.vmclear(REGISTER_FORM)).toEqual(UD);
    expect(cpu.vmptrld(REGISTER_FORM)).toEqual(UD);
    const fault = faultingOperand(14, 2);
    for (const outcome of [cpu.vmclear(fault), cpu.vmptrld(fault), cpu.invept(2, fault)]) {
      expect(outcome).toEqual({ kind: 'fault', vector: 14, errorCode: 2 });
    }
  });
});

describe('VMXON', () => {
  it('needs firmware, CR4.VMXE, fixed bits and no A20M mode', () => {
    const cases: [(cpu: LogicalProcessor) => void, object][] = [
      [(cpu) => cpu.set('CR4', 0x20n), UD],
      [(cpu) => cpu.set('IA32_FEATURE_CONTROL', 0n), GP],
      [(cpu) => cpu.set('IA32_FEATURE_CONTROL', 1n), GP],
      [(cpu) => cpu.set('IA32_FEATURE_CONTROL', 3n), GP],
      [(cpu) => cpu.set('inSmx', 1n), GP],
      [(cpu) => cpu.set('CR0', 0x8000_0001n), GP],
      [(cpu) => cpu.set('a20mMode', 1n), GP],
      [() => undefined, { kind: 'VMsucceed' }],
    ];
    for (const [prepare, expected] of cases) {
      const machine = new Machine();
      const cpu = machine.cpu(0).enterLongMode();
      machine.memory.write32(0x10_0000, cpu.capabilities.revision);
      prepare(cpu);
      expect(cpu.vmxon(0x10_0000n)).toEqual(expected);
    }
  });

  it('in root operation fails with error 15', () => {
    const { cpu } = root();
    expect(cpu.vmxon(0x30_0000n)).toEqual({ kind: 'VMfailValid', error: 15 });
  });

  it('does not accept the shadow indicator', () => {
    const machine = new Machine();
    const cpu = machine.cpu(0).enterLongMode();
    machine.memory.write32(0x10_0000, cpu.capabilities.revision + 0x8000_0000);
    expect(cpu.vmxon(0x10_0000n)).toEqual({ kind: 'VMfailInvalid' });
  });
});

describe('VMREAD and VMWRITE', () => {
  it('store and return each field, cut to its width, by full and by high access', () => {
    const { cpu } = root();
    const value = 0xfedc_ba98_7654_3210n;
    for (const field of FIELDS) {
      if (cpu.capabilities.fieldExists[field.slot] === 0) {
        expect(cpu.vmread(field.encoding).outcome).toEqual({ kind: 'VMfailValid', error: 12 });
        continue;
      }
      expect(cpu.vmwrite(field.encoding, value)).toEqual({ kind: 'VMsucceed' });
      expect(cpu.vmread(field.encoding).value).toBe(BigInt.asUintN(field.bits, value));
      if (field.highEncoding === undefined) continue;
      expect(cpu.vmread(field.highEncoding).value).toBe(value >> 32n);
      cpu.vmwrite(field.highEncoding, 0x1_2345_6789n);
      expect(cpu.vmread(field.encoding).value).toBe(0x2345_6789_7654_3210n);
    }
  });

  it('outside IA-32e mode use 32 bits, and a full write clears the high half', () => {
    const { cpu } = root();
    cpu.vmwrite('tscOffset', 0x1111_2222_3333_4444n);
    cpu.set('IA32_EFER', 0n);
    cpu.set('CS.accessRights', 0xc09bn);
    expect(cpu.vmread('tscOffset').value).toBe(0x3333_4444n);
    cpu.vmwrite('tscOffset', 0xffff_ffff_5555_6666n);
    expect(cpu.vmread(0x2011).value).toBe(0n);
    expect(cpu.vmread('tscOffset').value).toBe(0x5555_6666n);
  });

  it('refuse reserved encodings, high bits, and high access to other widths', () => {
    const { cpu } = root();
    for (const encoding of [0x681fn, 0x7fffn, 0x1_0000_681en, 0x8000n, 0x1000n, 0x2036n]) {
      expect(cpu.vmread(encoding).outcome).toEqual({ kind: 'VMfailValid', error: 12 });
      expect(cpu.vmwrite(encoding, 0)).toEqual({ kind: 'VMfailValid', error: 12 });
    }
  });

  it('refuse to write exit information where IA32_VMX_MISC[29] is 0', () => {
    const { cpu } = root('penryn');
    expect(cpu.vmwrite('exitReason', 1)).toEqual({ kind: 'VMfailValid', error: 13 });
  });

  it('reach the memory operand in their own order', () => {
    const { cpu } = root();
    const fault = faultingOperand(14, 0);
    expect(cpu.unit.vmwrite(0x7fffn, fault)).toEqual({ kind: 'fault', vector: 14, errorCode: 0 });
    const destination = () => ({ kind: 'fault', vector: 14, errorCode: 2 }) as const;
    expect(cpu.unit.vmread(0x7fffn, destination)).toEqual({ kind: 'VMfailValid', error: 12 });
    expect(cpu.unit.vmread(0x681en, destination)).toEqual({ kind: 'fault', vector: 14, errorCode: 2 });
  });

  it('between registers do what the checked path does', () => {
    const { cpu } = root();
    cpu.set('RCX', 0x681en);
    cpu.set('RAX', 0x1234_5678_9abcn);
    for (let i = 0; i < 3; i++) {
      expect(cpu.vmwriteRegister(1, 0)).toEqual({ kind: 'VMsucceed' });
      expect(cpu.vmreadRegister(1, 2)).toEqual({ kind: 'VMsucceed' });
      expect(cpu.get('RDX')).toBe(0x1234_5678_9abcn);
    }
    cpu.set('SS.accessRights', 0xc0f3n);
    expect(cpu.vmreadRegister(1, 2)).toEqual(GP);
    cpu.set('SS.accessRights', 0xc093n);
    cpu.vmreadRegister(1, 2);
    cpu.vmclear(VMCS);
    expect(cpu.vmreadRegister(1, 2)).toEqual({ kind: 'VMfailInvalid' });
  });
});

describe('flags', () => {
  const ARITHMETIC = 0x8d5n;

  it('are cleared on success, CF or ZF on failure, untouched by faults', () => {
    const { cpu } = root();
    cpu.set('RFLAGS', 0x8d7n);
    cpu.vmread('guestRip');
    expect(cpu.get('RFLAGS') & ARITHMETIC).toBe(0n);
    cpu.set('RFLAGS', 0x8d7n);
    cpu.vmcall();
    expect(cpu.get('RFLAGS') & ARITHMETIC).toBe(0x40n);
    cpu.vmclear(VMCS);
    cpu.vmlaunch();
    expect(cpu.get('RFLAGS') & ARITHMETIC).toBe(1n);
    cpu.set('RFLAGS', 0x8d7n);
    cpu.set('SS.accessRights', 0xc0f3n);
    cpu.vmlaunch();
    expect(cpu.get('RFLAGS')).toBe(0x8d7n);
  });
});

describe('VMLAUNCH and VMRESUME', () => {
  it('fail under blocking by MOV SS before the launch state is looked at, and the blocking ends', () => {
    const { cpu } = root();
    cpu.set('blockingByMovSs', 1n);
    expect(cpu.vmresume()).toEqual({ kind: 'VMfailValid', error: 26 });
    expect(cpu.get('blockingByMovSs')).toBe(0n);
    expect(cpu.vmresume()).toEqual({ kind: 'VMfailValid', error: 5 });
  });

  it('strike a machine check: exit reason 41', () => {
    const machine = new Machine();
    launch(machine, 0);
    const cpu = machine.cpu(0);
    cpu.vmexit({ reason: 10, instructionLength: 2 });
    cpu.raiseMachineCheckAtEntry();
    expect(cpu.vmresume()).toEqual({ kind: 'VMentryFailure', reason: 41 });
    expect(cpu.vmread('exitReason').value).toBe(0x8000_0029n);
  });
});

describe('INVEPT and INVVPID', () => {
  it('check type and descriptor', () => {
    const { cpu } = root();
    const fails = { kind: 'VMfailValid', error: 28 };
    expect(cpu.invept(0, 0n)).toEqual(fails);
    expect(cpu.invept(1, 0x1dn)).toEqual(fails);
    expect(cpu.invept(1, 0x1en)).toEqual({ kind: 'VMsucceed' });
    expect(cpu.invvpid(4, 1n)).toEqual(fails);
    expect(cpu.invvpid(1, 0n)).toEqual(fails);
    expect(cpu.invvpid(2, 0x1_0000n)).toEqual(fails);
    expect(cpu.invvpid(2, 0n)).toEqual({ kind: 'VMsucceed' });
    expect(cpu.invvpid(0, 1n | ((1n << 63n) << 64n))).toEqual(fails);
    expect(cpu.invvpid(3, 1n | ((1n << 63n) << 64n))).toEqual({ kind: 'VMsucceed' });
  });

  it('are undefined without EPT or VPID', () => {
    const { cpu } = root('penryn');
    expect(cpu.invept(2, 0n)).toEqual(UD);
    expect(cpu.invvpid(2, 0n)).toEqual(UD);
  });
});

describe('VMXOFF', () => {
  it('leaves VMX operation; VMCSs left active are reported and their later use too', () => {
    const { machine, cpu } = root();
    expect(cpu.vmxoff()).toEqual({ kind: 'VMsucceed' });
    expect(cpu.operation).toBe('outside');
    cpu.vmxon(0x10_0000n);
    cpu.vmptrld(VMCS);
    expect(machine.hazards.map((h) => h.id)).toEqual(['vmcs.left-active', 'vmcs.corrupted-use']);
  });
});
