/** Checks on the VM-exit control fields (SDM §29.2.1.2). */
import { checkList, checksOf, INVALID_CONTROL, on } from '../check.ts';
import { allowed0, allowed1 } from './allowed-settings.ts';
import { DOES_NOT_RETURN_FROM_SMM } from './guest-conditions.ts';
import { needs } from './requirements.ts';
import { msrArea } from './tables-in-memory.ts';

const check = checksOf('29.2.1.2', INVALID_CONTROL);

export const EXIT_CONTROLS = checkList('29.2.1.2', [
  check('ctrl.exit.allowed0', allowed0('exit')),
  check('ctrl.exit.allowed1', allowed1('exit')),
  check('ctrl.exit2.allowed1', { when: [on('exit.activateSecondaryControls')], ...allowed1('exit2') }),
  check('ctrl.exit.save-timer-needs-timer', {
    when: [DOES_NOT_RETURN_FROM_SMM, on('exit.saveVmxPreemptionTimerValue')],
    ...needs('exit.saveVmxPreemptionTimerValue', 'pin.activateVmxPreemptionTimer'),
    looksOutside: 'processor',
  }),
  ...msrArea(check, 'exit-msr-store', 'VM-exit MSR-store', 'vmExitMsrStoreAddress', 'vmExitMsrStoreCount'),
  ...msrArea(check, 'exit-msr-load', 'VM-exit MSR-load', 'vmExitMsrLoadAddress', 'vmExitMsrLoadCount'),
]);
