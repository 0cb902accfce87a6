/**
 * What connects local APICs, I/O APICs and the INTR output of the 8259 pair: it finds the destinations
 * of a message (SDM vol. 3A §12.6.2) and arbitrates lowest-priority delivery.
 */
import type { ApicUnit } from './apic-unit.ts';
import { DeliveryMode, type InterruptMessage, Shorthand } from './interrupt-message.ts';

export class InterruptBus {
  /** By CPU. */
  readonly apics: ApicUnit[] = [];
  /** Acknowledges the interrupt of the external controllers; its vector. */
  acknowledgeExternal: () => number = () => 0;
  /** Tells the I/O APICs of the end of a level-triggered interrupt. */
  endOfInterrupt: (vector: number) => void = () => {};
  /** Tells the I/O APICs that a local APIC may accept what it did not before. */
  acceptanceChanged: () => void = () => {};

  /** Delivers to the destinations of `message`; whether one accepts it. */
  deliver(message: InterruptMessage): boolean {
    const targets = this.apics.filter((apic) => apic.isAddressed(message));
    return this.#deliverTo(targets, message);
  }

  /** Delivers to the APICs that a shorthand of `sender` names. */
  deliverByShorthand(shorthand: number, sender: ApicUnit, message: InterruptMessage): void {
    if (shorthand === Shorthand.Self) sender.receive(message.mode, message.vector, message.isLevel);
    else {
      const includesSelf = shorthand === Shorthand.AllIncludingSelf;
      const targets = this.apics.filter((apic) => apic.isPresent && (includesSelf || apic !== sender));
      this.#deliverTo(targets, message);
    }
  }

  #deliverTo(targets: readonly ApicUnit[], { mode, vector, isLevel }: InterruptMessage): boolean {
    if (mode !== DeliveryMode.LowestPriority) {
      let accepted = false;
      for (const apic of targets) if (apic.receive(mode, vector, isLevel)) accepted = true;
      return accepted;
    }
    let chosen: ApicUnit | undefined;
    for (const apic of targets) {
      if (!apic.isEnabled) continue;
      if (chosen === undefined || apic.arbitrationPriority < chosen.arbitrationPriority) chosen = apic;
    }
    return chosen?.receive(DeliveryMode.Fixed, vector, isLevel) ?? false;
  }

  /** INTR of the external controllers, wired to LINT0 of every local APIC. */
  driveExternal(asserted: boolean): void {
    for (const apic of this.apics) apic.driveLint(0, asserted);
  }
}
