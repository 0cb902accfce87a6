import { defineConfig } from 'vitest/config';

// CI asks for a machine-readable report beside the one for people.
const report = process.env['VMXON_TEST_REPORT'];

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/command.ts'],
    testTimeout: 60_000,
    reporters: report ? ['default', ['json', { outputFile: report }]] : ['default'],
    coverage: {
      provider: 'v8',
      include: ['src/**/*.ts'],
      reporter: ['text-summary', 'json-summary', 'html'],
      thresholds: {
        'src/vmcs/**': { lines: 100, branches: 100 },
        'src/vmx/entry/**': { lines: 100, branches: 100 },
      },
    },
  },
});
