/** Runs jest and prints `N passed, N failed` as the last line; the exit code is jest's. */

import { mkdtempSync, readFileSync, rmSync, watch } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { build, buildApps } from './build.mjs'
import { Sentence, run, say } from './processes.mjs'

/** How long jest may stay after its last test: whoever keeps it alive has left a handle open. */
const lingerMsMax = 15_000

/** @param browser.env for tests in a browser; @param browser.works false: there should be one, and is not */
export async function test(args, browser) {
  const built = await tryToBuild()
  const folder = mkdtempSync(join(tmpdir(), 'session-tx-test-'))
  const file = join(folder, 'count.json')
  let lingered = false
  let timer
  const watcher = watch(folder)
  try {
    const onSpawn = child =>
      watcher.once('change', () => {
        timer = setTimeout(() => {
          lingered = true
          say(
            'jest does not exit: something outside the test files holds a handle open (npm test -- --detectOpenHandles)',
          )
          child.kill('SIGKILL')
        }, lingerMsMax)
      })
    const env = { ...browser.env, COUNT_FILE: file, NODE_ENV: 'test' }
    const code = await run(process.execPath, ['node_modules/jest/bin/jest.js', ...args], { env, onSpawn })
    const { passed, failed } = read(file)
    const others = [built, !lingered, browser.works].filter(good => !good).length
    if (!built) say('something does not compile (see above): that counts as one failure')
    process.stdout.write(`${passed} passed, ${failed + others} failed\n`)
    return code === 0 && others > 0 ? 1 : code
  } finally {
    clearTimeout(timer)
    watcher.close()
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Few tests need what is compiled: a type error must not keep all others from being run. */
async function tryToBuild() {
  try {
    await build()
    await buildApps()
    return true
  } catch (error) {
    if (!(error instanceof Sentence)) throw error
    say(error.message)
    return false
  }
}

/** Jest that died before its end has failed once, whatever it would have counted. */
function read(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return { passed: 0, failed: 1 }
  }
}
