import { describe, expect, it } from 'vitest';
import { SerialPort } from '../../../src/machine/devices/serial-port.ts';

function serial() {
  const sent: number[] = [];
  const edges: boolean[] = [];
  let level = false;
  const port = new SerialPort(
    (byte) => sent.push(byte),
    (asserted) => {
      if (asserted !== level) edges.push(asserted);
      level = asserted;
    },
  );
  return {
    port,
    sent,
    edges,
    interrupt: () => level,
    r: (register: number) => port.read(0x3f8 + register),
    w: (register: number, value: number) => port.write(0x3f8 + register, 1, value),
  };
}

describe('a 16550A', () => {
  it('has the register values of reset', () => {
    const { r, interrupt } = serial();
    expect([0, 1, 2, 3, 4, 5, 6, 7].map(r)).toEqual([0, 0, 0x01, 0, 0, 0x60, 0xb0, 0]);
    expect(interrupt()).toBe(false);
  });

  it('transmits at once and is always ready for more', () => {
    const { r, w, sent } = serial();
    for (const byte of [0x48, 0x69, 0xff]) {
      w(0, byte);
      expect(r(5) & 0x60).toBe(0x60);
    }
    expect(sent).toEqual([0x48, 0x69, 0xff]);
  });

  it('shows the divisor instead of data and interrupt enable while DLAB is 1', () => {
    const { r, w, sent } = serial();
    w(1, 0x05);
    w(3, 0x83);
    w(0, 0x34);
    w(1, 0x12);
    expect([r(0), r(1), r(3)]).toEqual([0x34, 0x12, 0x83]);
    w(3, 0x03);
    expect(r(1)).toBe(0x05);
    expect(sent).toEqual([]);
    w(3, 0x83);
    expect([r(0), r(1)]).toEqual([0x34, 0x12]);
  });

  it('keeps scratch, line control and five bits of modem control, four of interrupt enable', () => {
    const { r, w } = serial();
    w(7, 0xa5);
    w(3, 0x5b);
    w(4, 0xff);
    w(1, 0xff);
    expect([r(7), r(3), r(4), r(1)]).toEqual([0xa5, 0x5b, 0x1f, 0x0f]);
  });

  it('ignores writes to line status and modem status', () => {
    const { r, w } = serial();
    w(5, 0xff);
    w(6, 0xff);
    expect([r(5), r(6)]).toEqual([0x60, 0xb0]);
  });

  it('tells in IIR whether FIFOs are enabled', () => {
    const { r, w } = serial();
    w(2, 0x01);
    expect(r(2)).toBe(0xc1);
    w(2, 0xc6);
    expect(r(2)).toBe(0x01);
  });

  it('gives input in order, one character at a time without FIFOs, and loses none', () => {
    const { port, r } = serial();
    const input = Array.from({ length: 40 }, (_, i) => i + 1);
    port.receive(input);
    const read: number[] = [];
    while ((r(5) & 1) !== 0) read.push(r(0));
    expect(read).toEqual(input);
    expect(r(5)).toBe(0x60);
    expect(r(0)).toBe(0);
  });

  it('clears the receive FIFO when told to, and what the sender still holds follows', () => {
    const { port, r, w } = serial();
    w(2, 0x01);
    port.receive(Array.from({ length: 20 }, (_, i) => i));
    w(2, 0x03);
    expect(r(0)).toBe(16);
    w(2, 0x00);
    expect(r(5) & 1).toBe(0);
  });

  describe('in loopback', () => {
    it('receives what it sends and sends nothing', () => {
      const { r, w, sent, port } = serial();
      w(4, 0x10);
      port.receive([0x77]);
      expect(r(5) & 1).toBe(0);
      w(0, 0xae);
      expect([r(5) & 1, r(0), sent.length]).toEqual([1, 0xae, 0]);
      w(4, 0);
      expect(r(0)).toBe(0x77);
    });

    it('reports an overrun: the last character without FIFOs, the first sixteen with them', () => {
      const { r, w } = serial();
      w(4, 0x10);
      w(0, 1);
      w(0, 2);
      expect([r(5), r(5), r(0)]).toEqual([0x63, 0x61, 2]);
      w(2, 1);
      for (let i = 0; i < 17; i++) w(0, i);
      expect(r(5) & 2).toBe(2);
      expect(Array.from({ length: 17 }, () => r(0))).toEqual([...Array(16).keys(), 0]);
    });

    it.each([
      [0x01, 0x20],
      [0x02, 0x10],
      [0x04, 0x40],
      [0x08, 0x80],
    ])('modem control %i appears as modem status %i', (control, status) => {
      const { r, w } = serial();
      w(4, 0x10 | control);
      expect(r(6) & 0xf0).toBe(status);
    });

    it('keeps changes of the modem lines until they are read; RI only when it goes off', () => {
      const { r, w } = serial();
      w(4, 0x10);
      expect(r(6)).toBe(0x0b);
      expect(r(6)).toBe(0x00);
      w(4, 0x14);
      expect(r(6)).toBe(0x40);
      w(4, 0x10);
      expect(r(6)).toBe(0x04);
      w(4, 0x1b);
      expect(r(6)).toBe(0xbb);
    });
  });

  describe('interrupts', () => {
    it('are identified in their priority, and end when their cause is served', () => {
      const { r, w, port } = serial();
      w(4, 0x10);
      w(1, 0x0f);
      w(0, 1);
      w(0, 2);
      expect(r(2)).toBe(6);
      r(5);
      expect(r(2)).toBe(4);
      r(0);
      expect(r(2)).toBe(2);
      expect(r(2)).toBe(0);
      r(6);
      expect(r(2)).toBe(1);
      expect(port.snapshot().received).toEqual([]);
    });

    it('of the transmitter comes with its enabling and after each character, until IIR is read', () => {
      const { r, w, interrupt, edges } = serial();
      w(4, 0x08);
      expect(interrupt()).toBe(false);
      w(1, 0x02);
      expect(interrupt()).toBe(true);
      expect(r(2)).toBe(2);
      expect(interrupt()).toBe(false);
      expect(r(2)).toBe(1);
      w(0, 0x41);
      expect(interrupt()).toBe(true);
      w(0, 0x42);
      expect(edges).toEqual([true, false, true, false, true]);
      w(1, 0);
      expect(interrupt()).toBe(false);
    });

    it.each([
      [0x01, 1],
      [0x41, 4],
      [0x81, 8],
      [0xc1, 14],
    ])('FIFO control %i: data available from %i characters, the time-out below', (control, level) => {
      const { port, r, w } = serial();
      w(2, control);
      w(1, 1);
      port.receive(new Array(level - 1).fill(0x20));
      expect(r(2)).toBe(level === 1 ? 0xc1 : 0xcc);
      port.receive([0x20]);
      expect(r(2)).toBe(0xc4);
    });

    it('reach the line only with OUT2 and not in loopback', () => {
      const { port, r, w, interrupt } = serial();
      w(1, 1);
      port.receive([1]);
      expect([r(2), interrupt()]).toEqual([4, false]);
      w(4, 0x08);
      expect(interrupt()).toBe(true);
      w(4, 0x18);
      expect(interrupt()).toBe(false);
      w(4, 0x08);
      r(0);
      expect(interrupt()).toBe(false);
    });
  });

  it('continues from a snapshot, which later accesses do not change', () => {
    const { port, r, w } = serial();
    w(2, 1);
    port.receive(Array.from({ length: 18 }, (_, i) => i));
    const kept = port.snapshot();
    const rest = Array.from({ length: 18 }, () => r(0));
    w(7, 9);
    port.restore(kept);
    expect(r(7)).toBe(0);
    expect(Array.from({ length: 18 }, () => r(0))).toEqual(rest);
    expect(kept.received).toHaveLength(16);
  });
});
