/** Everything about the sources that needs no database. Runs every step, then names the ones that failed. */

import { existsSync } from 'node:fs'
import { build } from './build.mjs'
import { checkAlerts } from './promtool.mjs'
import { Sentence, Stopped, run, say, throwIfStopped } from './processes.mjs'

const node =
  (...args) =>
  () =>
    run(process.execPath, args)
const bin = (path, ...args) => node(`node_modules/${path}`, ...args)

const sources = ['lib', 'test', 'example-app', 'bench', 'scripts']

const steps = {
  format: bin('@biomejs/biome/bin/biome', 'format', '.'),
  lint: () =>
    bin(
      'oxlint/bin/oxlint',
      '--type-aware',
      '--deny-warnings',
      ...sources.filter(folder => existsSync(folder)),
    )(),
  types: bin('typescript/bin/tsc', '-p', 'tsconfig.json'),
  build: async () => {
    await build()
    return 0
  },
  publint: bin('publint/src/cli.js', '--strict'),
  // Not node10: that resolution knows no "exports", and no Node since 12 uses it.
  attw: bin('@arethetypeswrong/cli/dist/index.js', '--pack', '.', '--profile', 'node16'),
  // After the build: it lints what the built package says of itself.
  alerts: checkAlerts,
}

export async function check() {
  const failed = []
  for (const [name, step] of Object.entries(steps)) {
    throwIfStopped()
    say(`check ${name}`)
    if ((await codeOf(step)) !== 0) failed.push(name)
  }
  say(failed.length === 0 ? 'check: all good' : `check failed: ${failed.join(', ')}`)
  return failed.length === 0 ? 0 : 1
}

async function codeOf(step) {
  try {
    return await step()
  } catch (error) {
    if (error instanceof Stopped || !(error instanceof Sentence)) throw error
    say(error.message)
    return 1
  }
}
