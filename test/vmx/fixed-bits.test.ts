/** MOV to CR0 and CR4 in VMX operation (SDM §26.8). */
import { describe, expect, it } from 'vitest';
import { Guest } from './exit/guest.ts';

const CR0 = 0x8000_0031n;
const PE = 1n;
const NE = 1n << 5n;
const PG = 1n << 31n;

describe('the bits that VMX operation fixes', () => {
  it('are fixed in root operation, whatever the VMCS says', () => {
    const { cpu } = new Guest().on('proc2.enableEpt', 'proc2.unrestrictedGuest').write();
    expect(cpu.movToControlRegister('CR0', CR0)).toBe(true);
    for (const bit of [PE, NE, PG]) expect(cpu.movToControlRegister('CR0', CR0 & ~bit)).toBe(false);
    expect(cpu.movToControlRegister('CR4', 0x20n)).toBe(false);
  });

  it('are fixed in non-root operation as well', () => {
    const { cpu } = new Guest().launch();
    for (const bit of [PE, NE, PG]) expect(cpu.movToControlRegister('CR0', CR0 & ~bit)).toBe(false);
    expect(cpu.movToControlRegister('CR4', 0x20n)).toBe(false);
    expect(cpu.movToControlRegister('CR4', 0x2020n)).toBe(true);
  });

  it('leave an unrestricted guest CR0.PE and CR0.PG, and nothing else', () => {
    const { cpu } = new Guest().on('proc2.enableEpt', 'proc2.unrestrictedGuest').launch();
    expect(cpu.movToControlRegister('CR0', CR0 & ~NE)).toBe(false);
    expect(cpu.movToControlRegister('CR4', 0x20n)).toBe(false);
    expect(cpu.movToControlRegister('CR0', CR0 & ~(PE | PG))).toBe(true);
    expect(cpu.get('CR0')).toBe(CR0 & ~(PE | PG));
  });

  it('do so only while "activate secondary controls" is 1', () => {
    const guest = new Guest().on('proc2.enableEpt', 'proc2.unrestrictedGuest');
    const { cpu } = guest.off('proc.activateSecondaryControls').launch();
    expect(cpu.movToControlRegister('CR0', CR0 & ~PG)).toBe(false);
  });
});
