/** Jest: TypeScript to CommonJS by swc, the library's own name mapped to its sources. */

const swc = {
  jsc: { target: 'es2022', parser: { syntax: 'typescript' }, transform: { verbatimModuleSyntax: true } },
  module: { type: 'commonjs' },
}

/** @type {import('jest').Config} */
export default {
  testMatch: ['<rootDir>/test/**/*.test.ts'],
  // Each of these starts a cluster, or goes on for minutes: for `npm run test:faults` only.
  testPathIgnorePatterns: [
    '/node_modules/',
    ...(process.env.FAULTS ? [] : ['<rootDir>/test/faults/(galera|redis-cluster|soak)']),
    // Without a Chromium npm test has said so in a sentence.
    ...(process.env.CHROMIUM_PATH ? [] : ['<rootDir>/test/browser']),
  ],
  modulePathIgnorePatterns: ['<rootDir>/dist/', '<rootDir>/.cache/'],
  transform: { '\\.[cm]?[jt]s$': ['@swc/jest', swc] },
  // A dependency that exists as ES modules only must be let through here: '/node_modules/(?!(its-name)/)'.
  transformIgnorePatterns: ['/node_modules/'],
  moduleNameMapper: {
    '^session-tx$': '<rootDir>/lib/index.ts',
    '^session-tx/express$': '<rootDir>/lib/express.ts',
    '^session-tx/testing$': '<rootDir>/lib/testing/index.ts',
    '^(\\.{1,2}/.*)\\.js$': '$1',
  },
  testEnvironment: '<rootDir>/test/support/leak-environment.ts',
  globalSetup: '<rootDir>/test/support/require-database.ts',
  reporters: ['default', '<rootDir>/scripts/count-reporter.mjs'],
  // The tests wait for a database more than they compute; a second worker costs nothing on two cores.
  maxWorkers: 2,
  testTimeout: 20_000,
}
