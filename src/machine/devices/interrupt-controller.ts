/**
 * One 8259A interrupt controller: requests, masks, priorities and the command words ICW1–ICW4 and
 * OCW1–OCW3. It delivers nothing until it is initialised. Which lines are level-triggered is told by
 * the edge/level register of the chipset, not by ICW1.
 */
export interface InterruptControllerState {
  /** Levels of the eight inputs. */
  lines: number;
  requests: number;
  inService: number;
  mask: number;
  levelTriggered: number;
  vectorBase: number;
  /** The input that has the lowest priority; the next one, modulo 8, has the highest. */
  lowest: number;
  autoEoi: boolean;
  rotateOnAutoEoi: boolean;
  specialFullyNested: boolean;
  specialMask: boolean;
  readInService: boolean;
  poll: boolean;
  /** The initialisation command word that comes next, 0 if none. */
  expects: 0 | 2 | 3 | 4;
  icw1: number;
  initialised: boolean;
}

export class InterruptController {
  readonly #cascadeMask: number;
  #state: InterruptControllerState = {
    lines: 0,
    requests: 0,
    inService: 0,
    mask: 0,
    levelTriggered: 0,
    vectorBase: 0,
    lowest: 7,
    autoEoi: false,
    rotateOnAutoEoi: false,
    specialFullyNested: false,
    specialMask: false,
    readInService: false,
    poll: false,
    expects: 0,
    icw1: 0,
    initialised: false,
  };

  /** `cascade`: the input to which a second controller is wired, if this is the first. */
  constructor(cascade?: number) {
    this.#cascadeMask = cascade === undefined ? 0 : 1 << cascade;
  }

  set levelTriggered(inputs: number) {
    this.#state.levelTriggered = inputs;
  }

  get levelTriggered(): number {
    return this.#state.levelTriggered;
  }

  /** Whether a request at `input` could reach the output. */
  accepts(input: number): boolean {
    return this.#state.initialised && (this.#state.mask & (1 << input)) === 0;
  }

  /** Drives input `line` (0–7). */
  drive(line: number, asserted: boolean): void {
    const s = this.#state;
    const bit = 1 << line;
    if (!asserted) {
      s.lines &= ~bit;
      // A request that goes away before it is acknowledged is none.
      s.requests &= ~bit;
    } else {
      if ((s.lines & bit) === 0 || (s.levelTriggered & bit) !== 0) s.requests |= bit;
      s.lines |= bit;
    }
  }

  /** The input to be serviced next, or undefined if the output to the processor is inactive. */
  get pending(): number | undefined {
    const s = this.#state;
    const requests = s.requests & ~s.mask;
    if (requests === 0 || !s.initialised) return undefined;
    const request = this.#highest(requests) as number;
    let blocking = s.inService;
    if (s.specialMask) blocking &= ~s.mask;
    if (s.specialFullyNested && request === this.#cascadeInput) blocking &= ~this.#cascadeMask;
    const serviced = this.#highest(blocking);
    return serviced === undefined || this.#rank(request) < this.#rank(serviced) ? request : undefined;
  }

  /** Interrupt acknowledge: takes the pending input into service and returns it; 7 if there is none (spurious). */
  acknowledge(): number {
    const s = this.#state;
    const input = this.pending;
    if (input === undefined) return 7;
    const bit = 1 << input;
    if ((s.levelTriggered & bit) === 0) s.requests &= ~bit;
    if (!s.autoEoi) s.inService |= bit;
    else if (s.rotateOnAutoEoi) s.lowest = input;
    return input;
  }

  /** Vector of `input`. */
  vector(input: number): number {
    return this.#state.vectorBase | input;
  }

  readCommand(): number {
    const s = this.#state;
    if (s.poll) return this.#polled();
    return s.readInService ? s.inService : s.requests;
  }

  readData(): number {
    return this.#state.poll ? this.#polled() : this.#state.mask;
  }

  writeCommand(value: number): void {
    if ((value & 0x10) !== 0) this.#initialise(value);
    else if ((value & 0x08) !== 0) this.#operationCommand3(value);
    else this.#operationCommand2(value);
  }

  writeData(value: number): void {
    const s = this.#state;
    switch (s.expects) {
      case 0:
        s.mask = value;
        return;
      case 2:
        s.vectorBase = value & 0xf8;
        s.expects = (s.icw1 & 2) === 0 ? 3 : this.#afterIcw3();
        break;
      case 3:
        s.expects = this.#afterIcw3();
        break;
      case 4:
        s.autoEoi = (value & 2) !== 0;
        s.specialFullyNested = (value & 0x10) !== 0;
        s.expects = 0;
    }
    s.initialised = s.expects === 0;
  }

  #afterIcw3(): 0 | 4 {
    return (this.#state.icw1 & 1) === 0 ? 0 : 4;
  }

  /** ICW1. Lines that are high must fall before they can request again. */
  #initialise(value: number): void {
    const s = this.#state;
    Object.assign(s, {
      requests: s.lines & s.levelTriggered,
      inService: 0,
      mask: 0,
      lowest: 7,
      autoEoi: false,
      rotateOnAutoEoi: false,
      specialFullyNested: false,
      specialMask: false,
      readInService: false,
      poll: false,
      expects: 2,
      icw1: value,
      initialised: false,
    } satisfies Partial<InterruptControllerState>);
  }

  /** OCW2: end of interrupt and rotation of priorities. */
  #operationCommand2(value: number): void {
    const s = this.#state;
    const level = value & 7;
    switch (value >> 5) {
      case 0:
        s.rotateOnAutoEoi = false;
        return;
      case 1:
      case 5: {
        const serviced = this.#highest(s.specialMask ? s.inService & ~s.mask : s.inService);
        if (serviced === undefined) return;
        s.inService &= ~(1 << serviced);
        if (value >> 5 === 5) s.lowest = serviced;
        return;
      }
      case 3:
        s.inService &= ~(1 << level);
        return;
      case 4:
        s.rotateOnAutoEoi = true;
        return;
      case 6:
        s.lowest = level;
        return;
      case 7:
        s.inService &= ~(1 << level);
        s.lowest = level;
        return;
      default:
      // 2 is no operation.
    }
  }

  /** OCW3: special mask mode, poll, and which register a read gives. */
  #operationCommand3(value: number): void {
    const s = this.#state;
    if ((value & 0x40) !== 0) s.specialMask = (value & 0x20) !== 0;
    s.poll = (value & 4) !== 0;
    if ((value & 2) !== 0) s.readInService = (value & 1) !== 0;
  }

  /** The read after a poll command acknowledges: bit 7 tells whether there was a request. */
  #polled(): number {
    this.#state.poll = false;
    return this.pending === undefined ? 0 : 0x80 | this.acknowledge();
  }

  get #cascadeInput(): number | undefined {
    return this.#cascadeMask === 0 ? undefined : 31 - Math.clz32(this.#cascadeMask);
  }

  /** 0 for the input of highest priority, 7 for the lowest. */
  #rank(input: number): number {
    return (input - this.#state.lowest + 7) & 7;
  }

  #highest(inputs: number): number | undefined {
    for (let rank = 0; rank < 8; rank++) {
      const input = (this.#state.lowest + 1 + rank) & 7;
      if ((inputs & (1 << input)) !== 0) return input;
    }
    return undefined;
  }

  snapshot(): InterruptControllerState {
    return { ...this.#state };
  }

  restore(state: InterruptControllerState): void {
    this.#state = { ...state };
  }
}
