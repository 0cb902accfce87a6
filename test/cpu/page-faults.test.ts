import { describe, expect, it } from 'vitest';
import { CODE, STACK_TOP } from '../support/code.ts';
import {
  delivered,
  enterRing,
  GDT,
  gate,
  handler,
  Selector,
  STACK0,
  segment,
  setDescriptor,
  setGate,
  stackItems,
  TSS,
  type World,
  world,
} from '../support/tables.ts';

const PAGE_DIRECTORY = 0xa000;
const PAGE_TABLE = 0xb000;
const P = 1;
const W = 2;
const U = 4;

/** 32-bit paging that maps the first MByte to itself, but for `pages` and their flags. */
function paged(code: string, pages: Record<number, number>): World {
  const w = world(code, { bits: 32 });
  const { memory } = w.machine;
  memory.write32(PAGE_DIRECTORY, PAGE_TABLE | P | W | U);
  for (let page = 0; page < 256; page++) {
    memory.write32(PAGE_TABLE + 4 * page, (page << 12) | (pages[page << 12] ?? P | W | U));
  }
  w.cpu.set('CR3', BigInt(PAGE_DIRECTORY));
  w.cpu.set('CR0', 0x8001_0011n);
  return w;
}

const STACK_PAGE = STACK0 - 0x1000;
const conforming = (w: World, vector: number) =>
  setGate(w, vector, gate(Selector.Conforming, handler(vector), 0x8e));

describe('page faults', () => {
  it('push their error code and load CR2', () => {
    const w = paged('mov [0x5008], eax', { 20480: P | U });
    enterRing(w, 3);
    w.cpu.run(1);
    expect(delivered(w)).toEqual({ vector: 14, errorCode: 7, rip: CODE });
    expect(w.cpu.get('CR2')).toBe(0x5008n);
  });

  it('on the stack of a handler: the fault is delivered instead of a benign exception, registers as before', () => {
    const w = paged('ud2', { [STACK_PAGE]: 0 });
    enterRing(w, 3);
    conforming(w, 14);
    w.cpu.run(1);
    expect(delivered(w)).toEqual({ vector: 14, errorCode: 2, rip: CODE });
    expect(w.cpu.get('CR2')).toBe(BigInt(STACK0 - 4));
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK_TOP - 16));
    expect(w.cpu.cpl).toBe(3);
  });

  it('while a page fault is delivered: #DF', () => {
    const w = paged('mov eax, [0x5000]', { [STACK_PAGE]: 0, 20480: 0 });
    enterRing(w, 3);
    conforming(w, 8);
    w.cpu.run(1);
    expect(delivered(w)).toEqual({ vector: 8, errorCode: 0, rip: CODE });
    expect(w.cpu.get('CR2')).toBe(BigInt(STACK0 - 4));
  });

  it('while a contributory exception is delivered: one after the other', () => {
    const w = paged('mov ds, ax', { [STACK_PAGE]: 0 });
    enterRing(w, 3);
    w.cpu.set('RAX', 0x1000n);
    conforming(w, 14);
    w.cpu.run(1);
    expect(delivered(w)).toEqual({ vector: 14, errorCode: 2, rip: CODE });
  });

  it('contributory while a page fault is delivered: #DF', () => {
    const w = paged('mov eax, [0x5000]', { 20480: 0 });
    setGate(w, 14, gate(Selector.Code0, 0, 0x0e));
    w.cpu.run(1);
    expect(delivered(w)).toEqual({ vector: 8, errorCode: 0, rip: CODE });
  });

  it('tables are read and written as supervisor whatever the CPL', () => {
    const w = paged('mov ds, ax', { [GDT & ~0xfff]: P | W, [TSS]: P });
    enterRing(w, 3);
    setDescriptor(w, Selector.Data3, segment(0, 0xf_ffff, 0xc0f2));
    w.cpu.set('RAX', BigInt(Selector.Data3));
    w.cpu.run(1);
    expect(w.cpu.get('DS.selector')).toBe(BigInt(Selector.Data3));
    expect(w.machine.memory.read8(GDT + 0x2d)).toBe(0xf3);
  });

  it('the accessed bit in a page that cannot be written: #PF, nothing loaded', () => {
    const w = paged('mov ds, ax', { [GDT & ~0xfff]: P });
    setDescriptor(w, Selector.Free, segment(0, 0xf_ffff, 0xc092));
    w.cpu.set('RAX', BigInt(Selector.Free));
    w.cpu.run(1);
    expect(delivered(w)).toMatchObject({ vector: 14, errorCode: 3 });
    expect(w.cpu.get('CR2')).toBe(BigInt(GDT + Selector.Free + 5));
    expect(w.cpu.get('DS.selector')).toBe(BigInt(Selector.Data0));
  });

  it('IRET over a page that is missing leaves RSP', () => {
    const w = paged('.byte 0xcf', { [STACK_TOP]: 0 });
    conforming(w, 14);
    w.cpu.set('RSP', BigInt(STACK_TOP - 8));
    w.machine.memory.write32(STACK_TOP - 8, 0x1234);
    w.machine.memory.write32(STACK_TOP - 4, Selector.Code0);
    w.cpu.run(1);
    expect(stackItems(w, 2, 4)).toEqual([0, CODE]);
    expect(w.cpu.get('RSP')).toBe(BigInt(STACK_TOP - 8 - 16));
  });

  it('a task switch loads CR3', () => {
    const w = paged('.byte 0xea,0,0,0,0,0x80,0', {});
    const { memory } = w.machine;
    memory.writeBytes(0xc000, memory.readBytes(PAGE_DIRECTORY, 0x1000));
    setDescriptor(w, Selector.Free, segment(0x7000, 0x67, 0x89));
    memory.write32(0x701c, 0xc000);
    memory.write32(0x7020, 0x1234);
    [Selector.Data0, Selector.Code0, Selector.Data0].forEach((selector, n) => {
      memory.write32(0x7048 + 4 * n, selector);
    });
    w.cpu.run(1);
    expect([w.cpu.get('CR3'), w.cpu.get('RIP')]).toEqual([0xc000n, 0x1234n]);
  });
});
