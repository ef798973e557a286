/**
 * Starts child processes in the foreground and passes signals on to them. The first SIGINT, SIGTERM or SIGHUP is
 * the child's to answer; a second one, or ten seconds, ends it. Knows nothing of what is run.
 */

import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The checkout; all commands run in it, wherever the caller stands. */
export const root = dirname(dirname(fileURLToPath(import.meta.url)))
process.chdir(root)

/** An error whose message says all there is to say: it is printed without a stack. */
export class Sentence extends Error {}

/** A signal arrived while nothing, or a step of the set-up, was running. */
export class Stopped extends Error {
  constructor(signal) {
    super(`stopped by ${signal}`)
    this.exitCode = 128 + constants.signals[signal]
  }
}

/** Progress goes to stderr, so that the output of a command can be piped. */
export const say = line => process.stderr.write(`${line}\n`)

const patienceMs = 10_000
const echoMsMax = 1_000
const children = new Set()
let stoppedBy
let stoppedAtMs = 0

/** Throws if a signal has arrived; loops that wait without a child call it. */
export function throwIfStopped() {
  if (stoppedBy) throw new Stopped(stoppedBy)
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    // npm repeats to us what the terminal has sent to both of us: that is one signal, not two.
    const again = stoppedBy !== undefined
    if (again && Date.now() - stoppedAtMs < echoMsMax) return
    stoppedBy = signal
    stoppedAtMs = Date.now()
    for (const child of children) {
      if (again) child.kill('SIGKILL')
      else {
        // A terminal sends Ctrl-C to the whole group, so the child has it already; twice would mean "force".
        if (!(signal === 'SIGINT' && process.stdin.isTTY)) child.kill(signal)
        setTimeout(() => child.kill('SIGKILL'), patienceMs).unref()
      }
    }
  })
}

/**
 * Runs a command in the foreground and resolves to its exit code (128 + n when signal n ended it).
 *
 * @param options.env added to our own environment; undefined removes a variable
 * @param options.timeoutMs after which it is killed
 * @param options.onSpawn gets the child, for a caller that watches it
 */
export function run(command, args, { env = {}, stdio = 'inherit', timeoutMs, onSpawn } = {}) {
  throwIfStopped()
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio,
      env: mergedEnv(env),
      timeout: timeoutMs,
      killSignal: 'SIGKILL',
    })
    children.add(child)
    onSpawn?.(child)
    child.once('error', error => {
      children.delete(child)
      reject(error.code === 'ENOENT' ? new Sentence(`${command} is not installed or not on PATH`) : error)
    })
    child.once('close', (code, signal) => {
      children.delete(child)
      resolve(code ?? 128 + constants.signals[signal])
    })
  })
}

/** Runs a step of the set-up quietly. Its output is shown only when it fails. */
export async function runQuietly(command, args, { failure, ...options } = {}) {
  const { code, output } = await capture(command, args, options)
  if (code !== 0) throw new Sentence(`${output.trim()}\n${failure ?? `${command} ${args.join(' ')} failed`}`)
  return output
}

/** Runs a step of the set-up and resolves to its exit code and everything it wrote. */
export async function capture(command, args, options = {}) {
  const chunks = []
  const onSpawn = child => {
    child.stdout.on('data', chunk => chunks.push(chunk))
    child.stderr.on('data', chunk => chunks.push(chunk))
  }
  const code = await run(command, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'], onSpawn })
  throwIfStopped()
  return { code, output: Buffer.concat(chunks).toString() }
}

function mergedEnv(env) {
  const merged = { ...process.env, ...env }
  for (const [name, value] of Object.entries(merged)) if (value === undefined) delete merged[name]
  return merged
}
