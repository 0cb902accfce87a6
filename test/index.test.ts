/** The public API, imported as a program imports it: a table that breaks at load breaks here. */
import { describe, expect, it } from 'vitest';

describe('the public API', () => {
  it('loads', async () => {
    const api = await import('../src/index.ts');
    expect(new api.Machine().processors).toHaveLength(1);
    expect(api.findField('guestRip')?.encoding).toBe(0x681e);
    expect(api.FIELDS).toHaveLength(205);
  });
});
