import { defineConfig } from 'vitest/config';

// The tests that mutants run against: unit tests and witnesses, no commands, no campaigns.
export default defineConfig({
  test: {
    include: ['test/vmcs/**/*.test.ts', 'test/vmx/entry/**/*.test.ts'],
  },
});
