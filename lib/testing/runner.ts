/**
 * The test runner that a contract suite registers its sentences with: whichever put `describe` and `it` on globalThis
 * (Jest, Mocha, Vitest with `globals`). Imports none of them, and knows nothing of what is tested.
 */

interface Runner {
  readonly describe: (sentence: string, body: () => void) => unknown
  readonly it: (sentence: string, body: () => Promise<void> | void) => unknown
}

/** @throws TypeError where nothing like a test runner is running, with the remedy */
export function runner(suite: string): Runner {
  const { describe, it } = globalThis as unknown as Partial<Runner>
  if (typeof describe === 'function' && typeof it === 'function') return { describe, it }
  throw new TypeError(
    `${suite}() needs a test runner that puts \`describe\` and \`it\` on globalThis: call it from a test file of Jest, ` +
      "Mocha or Vitest (with `globals: true`); for node:test write `Object.assign(globalThis, require('node:test'))` first",
  )
}
