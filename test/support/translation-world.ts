/**
 * Guests of several VPIDs, PCIDs, EPTPs and processors that read and write a few pages, while a hypervisor
 * edits the structures and invalidates: what the tests of cached translations run.
 */
import type { CachingPolicy } from '../../src/cpu/caching-policy.ts';
import type { LogicalProcessor } from '../../src/machine/logical-processor.ts';
import { Machine } from '../../src/machine/machine.ts';
import { assemble } from './assemble.ts';
import { Ept, EptTables } from './ept.ts';
import { GUEST, HOST, mapIdentity, runToExit } from './guest.ts';
import { enterRoot, launchable, vmcsRegion } from './machine.ts';

const PML4 = 0x30_0000;
const RAM = 0x60_0000;
/** Where the pages are that guests access: in 2 MBytes of their own. */
const LINEAR = 0x40_0000;
const SPACES = 0x31_0000;
const EPTS = [0x40_0000, 0x48_0000] as const;
const FRAMES = 0x28_0000;
export const PAGES = 3;
export const FRAME_COUNT = 4;
const PRESENT = 7n;

/** VPID 1 or 2, PCID 0 or 1, one of two EPTPs: who makes an access. */
export interface Who {
  readonly cpu: number;
  readonly vpid: number;
  readonly pcid: number;
  readonly ept: number;
}

export interface WorldOptions {
  readonly translations: CachingPolicy;
  readonly seed?: number;
  readonly detects?: boolean;
  /** EPTP bit 6. */
  readonly accessedDirty?: boolean;
  readonly cpus?: number;
}

export class TranslationWorld {
  readonly machine: Machine;
  readonly epts: readonly EptTables[];
  private readonly options: WorldOptions;
  private readonly launchedOn = new Set<number>();

  constructor(options: WorldOptions) {
    this.options = options;
    const { translations, seed = 1, detects = false, cpus = 2 } = options;
    this.machine = new Machine({
      memory: RAM,
      cpus,
      translations,
      seed,
      detectStaleTranslations: detects,
      hazards: 'ignore',
    });
    const { memory } = this.machine;
    mapIdentity(this.machine);
    memory.writeBytes(GUEST, assemble('mov rax, [rsi]\nvmcall', 64, GUEST));
    memory.writeBytes(GUEST + 0x100, assemble('mov [rsi], rbx\nvmcall', 64, GUEST));
    memory.writeBytes(HOST, assemble('here: jmp here', 64, HOST));
    this.epts = EPTS.map((at) => {
      const tables = new EptTables(memory, at);
      tables.identity(0, RAM >> 12);
      return tables;
    });
    for (const vpid of [1, 2]) for (const pcid of [0, 1]) this.buildSpace(vpid, pcid);
    for (let n = 0; n < FRAME_COUNT; n++) memory.write64(FRAMES + 0x1000 * n, BigInt(n + 1));
    for (const cpu of this.machine.processors) {
      enterRoot(cpu);
      cpu.set('CR3', BigInt(PML4));
      launchable(
        cpu,
        vmcsRegion(cpu.index),
        {
          guestRip: BigInt(GUEST),
          guestCr0: 0x8001_0021n,
          guestCr4: 0x2_2020n,
          hostRip: BigInt(HOST),
          hostCr3: BigInt(PML4),
          exceptionBitmap: 1n << 14n,
          vpid: 1n,
          eptPointer: this.eptp(0),
        },
        ['proc.activateSecondaryControls', 'proc2.enableEpt', 'proc2.enableVpid'],
      );
    }
  }

  private static space(vpid: number, pcid: number): number {
    return SPACES + 0x1_0000 * (2 * (vpid - 1) + pcid);
  }

  /** Root, PDPT, directory, and two page tables for the same 2 MBytes. */
  private buildSpace(vpid: number, pcid: number): void {
    const { memory } = this.machine;
    const at = TranslationWorld.space(vpid, pcid);
    memory.write64(at, BigInt(at + 0x1000) | PRESENT);
    memory.write64(at + 0x1000, BigInt(at + 0x2000) | PRESENT);
    memory.write64(at + 0x2000, 0x87n);
    memory.write64(at + 0x2008, 0x20_0087n);
    memory.write64(at + 0x2010, BigInt(at + 0x3000) | PRESENT);
    for (let n = 0; n < PAGES; n++) {
      memory.write64(at + 0x3000 + 8 * n, BigInt(FRAMES + 0x1000 * n) | PRESENT);
      memory.write64(at + 0x4000 + 8 * n, BigInt(FRAMES + 0x1000 * (n + 1)) | PRESENT);
    }
  }

  eptp(ept: number): bigint {
    return (this.epts[ept] as EptTables).eptp(this.options.accessedDirty ? 0x40n : 0n);
  }

  /** An access of a guest: the value it read, or what happened instead. */
  access(who: Who, page: number, writes: boolean): string {
    const cpu = this.machine.cpu(who.cpu);
    cpu.vmwrite('vpid', BigInt(who.vpid));
    cpu.vmwrite('eptPointer', this.eptp(who.ept));
    cpu.vmwrite('guestCr3', BigInt(TranslationWorld.space(who.vpid, who.pcid) + who.pcid));
    cpu.vmwrite('guestRip', BigInt(writes ? GUEST + 0x100 : GUEST));
    cpu.set('RSI', BigInt(LINEAR + 0x1000 * page + (writes ? 8 : 0)));
    cpu.set('RAX', 0n);
    const entered = this.launchedOn.has(who.cpu) ? cpu.vmresume() : cpu.vmlaunch();
    this.launchedOn.add(who.cpu);
    if (entered.kind !== 'VMentry')
      throw new Error(`no VM entry: ${JSON.stringify(cpu.explain().failures[0])}`);
    runToExit(cpu, 10);
    return `${read(cpu, 'exitReason')} ${read(cpu, 'exitQualification').toString(16)} ${cpu.get('RAX')}`;
  }

  /** Hypervisor's store: seen by the detector as one of `cpu`. */
  private store(cpu: number, address: number, value: bigint): void {
    this.machine.cpu(cpu).store64(address, value);
  }

  /** Changes the entry of a page in both page tables or one: frame (undefined: not present) and whether it may be written. */
  editPage(
    cpu: number,
    vpid: number,
    pcid: number,
    page: number,
    frame: number | undefined,
    writable: boolean,
    tables: readonly number[] = [0, 1],
  ): void {
    const entry = frame === undefined ? 0n : BigInt(FRAMES + 0x1000 * frame) | (writable ? 7n : 5n);
    for (const table of tables) {
      this.store(cpu, TranslationWorld.space(vpid, pcid) + 0x3000 + 0x1000 * table + 8 * page, entry);
    }
  }

  /** Lets the directory name the other page table. */
  editDirectory(cpu: number, vpid: number, pcid: number, which: number): void {
    const at = TranslationWorld.space(vpid, pcid);
    this.store(cpu, at + 0x2010, BigInt(at + 0x3000 + 0x1000 * which) | PRESENT);
  }

  /** Changes the EPT entry of a frame: which one it becomes (undefined: not present) and rights. */
  editEpt(cpu: number, ept: number, frame: number, to: number | undefined, rights: bigint): void {
    const tables = this.epts[ept] as EptTables;
    const entry = to === undefined ? 0n : BigInt(FRAMES + 0x1000 * to) | rights | Ept.WB;
    this.store(cpu, tables.entry(BigInt(FRAMES + 0x1000 * frame), 1), entry);
  }

  invvpid(cpu: number, type: number, vpid: number, page = 0): void {
    this.machine
      .cpu(cpu)
      .invvpid(type, (BigInt(LINEAR + 0x1000 * page) << 64n) | BigInt(type === 2 ? 0 : vpid));
  }

  invept(cpu: number, type: number, ept: number): void {
    this.machine.cpu(cpu).invept(type, this.eptp(ept));
  }

  /** All structures and frames as they are now. */
  structures(): string {
    const parts = [
      this.machine.memory.readBytes(SPACES, 0x5_0000),
      this.machine.memory.readBytes(FRAMES, 0x1000 * FRAME_COUNT),
      ...EPTS.map((at) => this.machine.memory.readBytes(at, 0x8000)),
    ];
    let hash = 0;
    for (const bytes of parts) for (const byte of bytes) hash = (Math.imul(hash, 31) + byte) | 0;
    return hash.toString(16);
  }
}

function read(cpu: LogicalProcessor, field: 'exitReason' | 'exitQualification'): bigint {
  return cpu.vmread(field).value;
}
