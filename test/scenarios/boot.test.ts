/** Guests that boot on a machine with devices and speak through them. */
import { describe, expect, it } from 'vitest';
import { applyBootPlan, type BootPlan, isProblem } from '../../src/machine/boot/boot-plan.ts';
import type { EntryMode } from '../../src/machine/boot/entry-state.ts';
import { planFlat } from '../../src/machine/boot/flat.ts';
import { type MultibootOptions, planMultiboot } from '../../src/machine/boot/multiboot.ts';
import { Machine } from '../../src/machine/machine.ts';
import { type RunEnd, runMachine } from '../../src/machine/run-machine.ts';
import { findProfile } from '../../src/vmx/capabilities/profiles.ts';
import { assemble } from '../support/assemble.ts';
import { multibootElf } from '../support/elf-builder.ts';

const RAM = 16 * 2 ** 20;
const CODE = 0x10_000c;

interface Outcome {
  readonly end: RunEnd | undefined;
  readonly serial: string;
  readonly debug: string;
  readonly machine: Machine;
}

/** Runs a planned guest until it ends, in slices of `slice` instructions, 200,000 at most. */
function run(plan: BootPlan, slice = 200_000): Outcome {
  let [serial, debug] = ['', ''];
  const machine = new Machine({
    memory: RAM,
    devices: {
      serial: (byte) => {
        serial += String.fromCharCode(byte);
      },
      debugConsole: (byte) => {
        debug += String.fromCharCode(byte);
      },
    },
  });
  const cpu = machine.cpu(0);
  applyBootPlan(plan, machine.memory, cpu.processor);
  let end: RunEnd | undefined;
  while (end === undefined && cpu.processor.executed < 200_000) {
    end = runMachine(machine, slice);
  }
  return { end, serial, debug, machine };
}

function planned(plan: ReturnType<typeof planMultiboot>): BootPlan {
  if (isProblem(plan)) throw new Error(plan.problem);
  return plan;
}

function multiboot(code: string, options: Partial<MultibootOptions> = {}, slice?: number): Outcome {
  const image = multibootElf(assemble(code, 32, CODE));
  return run(planned(planMultiboot(image, { ramSize: RAM, ...options })), slice);
}

function flat(code: string, mode: EntryMode, address: number): Outcome {
  const { features } = findProfile('full')!;
  return run(planned(planFlat(assemble(code, mode, address), { ramSize: RAM, address, mode, features })));
}

/** Prints the string at ESI to the serial port. */
const PRINT = `
print:
  mov dx, 0x3f8
next:
  lodsb
  test al, al
  jz done
  out dx, al
  jmp next
done:
  ret
`;

describe('a Multiboot kernel', () => {
  it('finds its magic, command line and modules, prints them and exits', () => {
    const code = `
      mov esp, 0x200000
      cmp eax, 0x2badb002
      jne bad
      mov esi, [ebx + 16]
      call print
      mov ecx, [ebx + 24]
      mov esi, [ecx + 8]
      call print
      mov esi, [ecx]
      call print
      mov al, 0x21
      out 0xf4, al
    bad:
      hlt
      jmp bad
      ${PRINT}`;
    const { end, serial } = multiboot(code, {
      commandLine: 'kernel a=1 ',
      modules: [{ bytes: new TextEncoder().encode('contents\0'), text: 'module ' }],
    });
    expect(serial).toBe('kernel a=1 module contents');
    expect(end).toEqual({ kind: 'exit-port', code: 0x43 });
  });

  it('adds up its memory map', () => {
    const { end, machine } = multiboot(`
      mov esi, [ebx + 48]
      mov edi, esi
      add edi, [ebx + 44]
      xor ecx, ecx
    next:
      cmp dword ptr [esi + 20], 1
      jne skip
      add ecx, [esi + 12]
    skip:
      add esi, [esi]
      add esi, 4
      cmp esi, edi
      jb next
      mov dx, 0x8900
      lea esi, [text]
    letter:
      lodsb
      out dx, al
      jmp letter
    text: .ascii "Shutdown"`);
    expect(end).toEqual({ kind: 'shutdown' });
    expect(machine.cpu(0).get('RCX')).toBe(BigInt(RAM - 0x10_0000 + 0x9_fc00));
  });

  it('reloads its segments from the GDT it was given', () => {
    const { end } = multiboot(`
      mov esp, 0x200000
      mov ax, 0x10
      mov ds, ax
      mov ss, ax
      push 8
      lea eax, [over]
      push eax
      retf
    over:
      mov eax, 5
      out 0xf4, eax`);
    expect(end).toEqual({ kind: 'exit-port', code: 11 });
  });

  it('stops exactly at the instruction that asked for it', () => {
    const { machine, end } = multiboot('mov eax, 1; out 0xf4, al; mov eax, 2; mov eax, 3');
    expect(end).toEqual({ kind: 'exit-port', code: 3 });
    expect([machine.cpu(0).get('RAX'), machine.time]).toEqual([1n, 2]);
  });

  it('without an IDT resets at its first exception', () => {
    expect(multiboot('ud2').end).toEqual({ kind: 'reset', by: 'triple fault' });
    expect(multiboot('xor eax, eax; div eax').end).toEqual({ kind: 'reset', by: 'triple fault' });
  });

  it('resets through the keyboard controller', () => {
    expect(multiboot('mov al, 0xfe; out 0x64, al').end).toEqual({ kind: 'reset', by: 'keyboard controller' });
  });

  it('halts for good with interrupts off', () => {
    expect(multiboot('cli; hlt').end).toEqual({ kind: 'halted', state: 'HLT' });
  });

  it('prints to the debug console if that is there, and reads all ones elsewhere', () => {
    const { debug, machine } = multiboot(`
      in al, 0xe9
      out 0xe9, al
      mov dx, 0x200
      in eax, dx
      hlt`);
    expect(debug).toBe('\u00e9');
    expect(machine.cpu(0).get('RAX')).toBe(0xffff_ffffn);
    expect([...machine.platform!.bus.unclaimed]).toEqual([0x200, 0x201, 0x202, 0x203].map((p) => [p, 1]));
  });

  it('reads the size of memory from fw_cfg with string input', () => {
    const { machine } = multiboot(`
      mov dx, 0x510
      mov ax, 3
      out dx, ax
      inc dx
      mov edi, 0x300000
      mov ecx, 8
      rep insb
      hlt`);
    expect(machine.memory.read64(0x30_0000)).toBe(BigInt(RAM));
  });

  it('sees the same time however its run is cut into slices', () => {
    const code = `
      mov esp, 0x200000
      mov al, 0x34
      out 0x43, al
      xor eax, eax
      out 0x40, al
      out 0x40, al
      mov ecx, 40
    again:
      ${'nop; '.repeat(50)}
      xor al, al
      out 0x43, al
      in al, 0x40
      mov dx, 0x3f8
      out dx, al
      in al, 0x40
      out dx, al
      mov edx, 97
    delay:
      nop; nop; nop; nop; nop
      dec edx
      jnz delay
      dec ecx
      jnz again
      mov al, 0
      out 0xf4, al`;
    const whole = multiboot(code);
    expect(whole.end).toEqual({ kind: 'exit-port', code: 1 });
    expect(new Set(whole.serial).size).toBeGreaterThan(10);
    for (const slice of [1, 2, 7, 1000]) {
      const { serial, end, machine } = multiboot(code, {}, slice);
      expect([serial, end, machine.time]).toEqual([whole.serial, whole.end, whole.machine.time]);
    }
  });
});

describe('a flat binary', () => {
  it('in real mode at 7C00H', () => {
    const { serial, end } = flat(
      `push cs; pop ds
       lea si, [text]
       mov dx, 0x3f8
       mov cx, 5
       rep outsb
       mov ax, 0
       out 0xf4, ax
       text: .ascii "hello"`,
      16,
      0x7c00,
    );
    expect([serial, end]).toEqual(['hello', { kind: 'exit-port', code: 1 }]);
  });

  it('in 64-bit mode with paging', () => {
    const { end, machine } = flat(
      `call next
       next: pop rax
       lea rbx, [rip]
       mov rcx, 0xfff000
       mov [rcx], rbx
       mov rdx, [rcx]
       mov eax, 2
       out 0xf4, eax`,
      64,
      0x20_0000,
    );
    expect(end).toEqual({ kind: 'exit-port', code: 5 });
    expect(machine.cpu(0).get('RDX')).toBe(0x20_000dn);
  });
});
