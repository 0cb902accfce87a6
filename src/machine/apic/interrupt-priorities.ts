/**
 * Interrupts that a local APIC has accepted and those in service, and the priorities that decide which one
 * the processor is asked to take (SDM vol. 3A §12.6.2.4, §12.8.3, §12.8.4).
 */
import { VectorSet } from './vector-set.ts';

export interface PrioritySnapshot {
  readonly taskPriority: number;
  readonly requests: Uint32Array;
  readonly inService: Uint32Array;
  readonly levels: Uint32Array;
}

const CLASS = 0xf0;

export class InterruptPriorities {
  /** IRR. */
  readonly requests = new VectorSet();
  /** ISR. */
  readonly inService = new VectorSet();
  /** TMR: vectors that were accepted as level-triggered. */
  readonly levels = new VectorSet();
  taskPriority = 0;

  clear(): void {
    for (const set of [this.requests, this.inService, this.levels]) set.clear();
    this.taskPriority = 0;
  }

  accept(vector: number, isLevel: boolean): void {
    this.requests.add(vector);
    if (isLevel) this.levels.add(vector);
    else this.levels.delete(vector);
  }

  /** Vector to be taken next, −1 if none has a class above that of the processor priority. */
  get pending(): number {
    const { highest } = this.requests;
    return highest >= 0 && highest >>> 4 > this.processorPriority >>> 4 ? highest : -1;
  }

  /** Takes `vector` into service. */
  takeIntoService(vector: number): void {
    this.requests.delete(vector);
    this.inService.add(vector);
  }

  /** PPR. */
  get processorPriority(): number {
    const serviced = this.#serviced;
    return (this.taskPriority & CLASS) >= serviced ? this.taskPriority : serviced;
  }

  /** APR. */
  get arbitrationPriority(): number {
    const serviced = this.#serviced;
    const requested = Math.max(this.requests.highest, 0) & CLASS;
    const task = this.taskPriority & CLASS;
    return task >= requested && task > serviced ? this.taskPriority : Math.max(task, serviced, requested);
  }

  get #serviced(): number {
    return Math.max(this.inService.highest, 0) & CLASS;
  }

  snapshot(): PrioritySnapshot {
    return {
      taskPriority: this.taskPriority,
      requests: this.requests.words.slice(),
      inService: this.inService.words.slice(),
      levels: this.levels.words.slice(),
    };
  }

  restore(snapshot: PrioritySnapshot): void {
    this.taskPriority = snapshot.taskPriority;
    this.requests.words.set(snapshot.requests);
    this.inService.words.set(snapshot.inService);
    this.levels.words.set(snapshot.levels);
  }
}
