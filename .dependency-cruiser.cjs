// The direction of the arrows between floors (ARCHITECTURE.md). A floor never imports one above it,
// and siblings (bits | sdm, cpu | vmcs) do not see each other, save that sdm and bits are leaves.
const floors = {
  bits: 'sdm|cpu|vmcs|vmx|machine|dumps|cli',
  sdm: 'bits|cpu|vmcs|vmx|machine|dumps|cli',
  cpu: 'vmcs|vmx|machine|dumps|cli',
  vmcs: 'cpu|vmx|machine|dumps|cli',
  vmx: 'machine|dumps|cli',
  machine: 'dumps|cli',
  dumps: 'cli',
};
/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    ...Object.entries(floors).map(([floor, above]) => ({
      name: `${floor}-does-not-climb`,
      severity: 'error',
      from: { path: `^src/${floor}/` },
      to: { path: `^src/(${above})/` },
    })),
    { name: 'no-circular', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'core-runs-in-a-browser',
      comment: 'no node: modules and no packages in the core',
      severity: 'error',
      from: { path: '^src/(bits|sdm|vmcs|cpu|vmx|machine)/' },
      to: { dependencyTypes: ['core', 'npm', 'npm-dev', 'npm-no-pkg', 'npm-unknown'] },
    },
    {
      name: 'index-is-the-only-barrel',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/index\\.ts$' },
      to: { path: '^src/index\\.ts$' },
    },
    {
      name: 'vmx-one-direction-leaves',
      comment: 'capabilities and outcome know nothing of the rest of vmx',
      severity: 'error',
      from: { path: '^src/vmx/(capabilities/|outcome\\.ts)' },
      to: { path: '^src/vmx/(entry|exit|instructions|hazards|ept|apic|intercepts)/' },
    },
    {
      name: 'vmx-exit-below-entry',
      severity: 'error',
      from: { path: '^src/vmx/exit/' },
      to: { path: '^src/vmx/(entry|instructions)/|^src/vmx/vmx-unit\\.ts' },
    },
    {
      name: 'vmx-entry-below-instructions',
      severity: 'error',
      from: { path: '^src/vmx/entry/' },
      to: { path: '^src/vmx/instructions/|^src/vmx/vmx-unit\\.ts' },
    },
  ],
  options: {
    tsConfig: { fileName: 'tsconfig.json' },
    doNotFollow: { path: 'node_modules' },
    enhancedResolveOptions: { extensions: ['.ts'] },
  },
};
