import { defineConfig } from 'vitest/config';
import whole from './vitest.config.ts';

// The tests that mutants run against, and that have to reach the coverage floor by themselves: unit
// tests and witnesses; no commands, no campaigns, so that no lucky seed fills a gap.
export default defineConfig({
  test: {
    ...whole.test,
    // No test of these starts the command.
    globalSetup: [],
    include: [
      'test/index.test.ts',
      'test/vmcs/**/*.test.ts',
      'test/vmx/entry/**/*.test.ts',
      'test/vmx/instructions/outcomes.test.ts',
      'test/vmx/hazards/hazards.test.ts',
    ],
    coverage: {
      ...whole.test?.coverage,
      include: ['src/vmcs/**/*.ts', 'src/vmx/entry/**/*.ts'],
      reporter: ['text'],
    },
  },
});
