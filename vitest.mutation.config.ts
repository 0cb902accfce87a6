import { defineConfig } from 'vitest/config';

// The tests that mutants run against: unit tests and witnesses; no commands, no campaigns.
export default defineConfig({
  test: {
    testTimeout: 60_000,
    include: [
      'test/index.test.ts',
      'test/vmcs/**/*.test.ts',
      'test/vmx/entry/**/*.test.ts',
      'test/vmx/instructions/outcomes.test.ts',
      'test/vmx/hazards/hazards.test.ts',
    ],
  },
});
