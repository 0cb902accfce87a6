import { describe, expect, it } from 'vitest';
import { NO_PORTS } from '../../../src/cpu/port-space.ts';
import { PortBus } from '../../../src/machine/devices/port-bus.ts';
import { RecordingDevice } from './recording-device.ts';

function bus() {
  const byte = new RecordingDevice(
    [
      [0x60, 0x60],
      [0x64, 0x67],
    ],
    1,
  );
  const word = new RecordingDevice([[0x68, 0x6b]], 2);
  const dword = new RecordingDevice([[0xcf8, 0xcff]], 4);
  return { byte, word, dword, bus: new PortBus([byte, word, dword]) };
}

describe('an I/O address space without devices', () => {
  it('reads all ones of the size and drops writes', () => {
    NO_PORTS.write(0x60, 4, 1);
    expect([1, 2, 4].map((size) => NO_PORTS.read(0x60, size as 1 | 2 | 4))).toEqual([
      0xff, 0xffff, 0xffff_ffff,
    ]);
  });
});

describe('the port bus', () => {
  it('gives an access whole to the device that takes it', () => {
    const { bus: ports, dword, word, byte } = bus();
    expect(ports.read(0xcf8, 4)).toBe(0xfbfa_f9f8);
    expect(ports.read(0x6a, 2)).toBe(0x6b6a);
    expect(ports.read(0x60, 1)).toBe(0x60);
    ports.write(0xcfc, 4, 0xffff_fffe);
    expect(dword.accesses).toEqual(['r4 cf8', 'w4 cfc=fffffffe']);
    expect(word.accesses).toEqual(['r2 6a']);
    expect(byte.accesses).toEqual(['r1 60']);
  });

  it('splits what is too wide for a device, low half first', () => {
    const { bus: ports, byte, word } = bus();
    expect(ports.read(0x64, 4)).toBe(0x6766_6564);
    ports.write(0x64, 4, 0xddcc_bbaa);
    expect(byte.accesses).toEqual([
      ...['r1 64', 'r1 65', 'r1 66', 'r1 67'],
      ...['w1 64=aa', 'w1 65=bb', 'w1 66=cc', 'w1 67=dd'],
    ]);
    expect(ports.read(0x68, 4)).toBe(0x6b6a_6968);
    ports.write(0x68, 4, 0xffff_0000);
    expect(word.accesses).toEqual(['r2 68', 'r2 6a', 'w2 68=0', 'w2 6a=ffff']);
  });

  it('splits an access that reaches from one device into another, or into nothing', () => {
    const { bus: ports, byte, word } = bus();
    expect(ports.read(0x66, 4)).toBe(0x6968_6766);
    ports.write(0x67, 2, 0x1234);
    expect(byte.accesses).toEqual(['r1 66', 'r1 67', 'w1 67=34']);
    expect(word.accesses).toEqual(['r2 68', 'w1 68=12']);
    expect(ports.read(0x60, 2)).toBe(0xff60);
    expect(ports.read(0xcfe, 4)).toBe(0xffff_fffe);
  });

  it('reads all ones where nothing answers, also beyond the last port, and counts it', () => {
    const { bus: ports } = bus();
    expect(ports.read(0x200, 4)).toBe(0xffff_ffff);
    expect(ports.read(0xffff, 4)).toBe(0xffff_ffff);
    ports.write(0x200, 1, 1);
    ports.write(0xffff, 2, 1);
    expect(ports.unclaimed.get(0x200)).toBe(2);
    expect(ports.unclaimed.get(0x203)).toBe(1);
    expect(ports.unclaimed.get(0xffff)).toBe(2);
    expect(ports.unclaimed.has(0x60)).toBe(false);
  });

  it('refuses two devices at one port', () => {
    const device = () => new RecordingDevice([[0x80, 0x83]], 1);
    expect(() => new PortBus([device(), device()])).toThrow('two devices claim port 80H');
  });

  it('keeps and puts back the state of every device', () => {
    const { bus: ports, byte, word } = bus();
    ports.read(0x60, 1);
    const kept = ports.snapshot();
    ports.read(0x60, 1);
    ports.read(0x68, 2);
    ports.restore(kept);
    expect(byte.accesses).toEqual(['r1 60']);
    expect(word.accesses).toEqual([]);
  });
});
