/**
 * A server of the command's own: a folder under the system's temporary folder, a free port of the loopback interface,
 * and nobody's configuration. It must never outlive the command that started it. Knows nothing of what the server is.
 */

import { spawn, spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isAlive } from './lock.mjs'
import { Sentence, throwIfStopped } from './processes.mjs'

const startMsMax = 60_000
const portsMax = 5
/** Of greetings. */
const greetMsMax = 1_000
const endMsMax = 10_000

/**
 * @param what.name said when it does not start
 * @param what.prefix of the folder's name: folders of runs that were killed are found by it
 * @param what.install called with the folder before the first start
 * @param what.command called with folder and port: `{ command, args, env }`
 * @param what.firstArgs arguments for the first start only
 * @param what.greet called with folder, port and a time limit: resolves when the server answers, else rejects
 * @returns `{ folder, port, greeting, stop(), kill(), end(), restart() }`; kill() as `kill -9` does, end() as its
 * administrator would; restart() then starts it again on the same data and port
 */
export async function startServer(what) {
  removeAbandoned(what.prefix)
  const folder = mkdtempSync(join(shortTmpdir(), what.prefix))
  writeFileSync(join(folder, 'owner'), String(process.pid))
  let child
  const remove = () => {
    // No farewell: nobody will read this data again.
    if (child) killGroup(child)
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 })
  }
  process.on('exit', remove)
  await what.install?.(folder)

  for (let tries = 1; ; tries += 1) {
    const port = await freePort()
    const start = async (more = []) => {
      child = launch(what.command(folder, port), folder, more)
      return ready(child, ms => what.greet(folder, port, ms))
    }
    const greeting = await start(what.firstArgs)
    if (greeting) {
      return {
        folder,
        port,
        greeting,
        stop: () => stop(child, remove),
        kill: () => gone(child, () => killGroup(child)),
        end: () => gone(child, () => askToEnd(child)),
        async restart() {
          if (!(await start())) throw new Sentence(`${what.name} does not start again`)
        },
      }
    }
    // Between our asking for a free port and the server's taking it, somebody else may have.
    if (tries === portsMax)
      throw new Sentence(`${readFileSync(join(folder, 'log'), 'utf8')}\n${what.name} does not start`)
  }
}

function launch({ command, args, env }, folder, more) {
  // With setpriv the kernel ends the server when we die, even of kill -9; elsewhere the next run does.
  const tied = ['--pdeathsig', 'TERM']
  const [program, ...all] =
    spawnSync('setpriv', [...tied, 'true']).status === 0
      ? ['setpriv', ...tied, command, ...args, ...more]
      : [command, ...args, ...more]
  const log = openSync(join(folder, 'log'), 'w')
  // A process group of its own: Ctrl-C is meant for the command, which may need its server to finish.
  const child = spawn(program, all, {
    detached: true,
    stdio: ['ignore', log, log],
    env: { ...process.env, ...env },
  })
  closeSync(log)
  child.on('error', () => {}) // followed by no exit event, but exitCode or a silent socket tells
  writeFileSync(join(folder, 'server'), String(child.pid))
  return child
}

/** What the server greets with once it answers; undefined if it ended. */
async function ready(child, greet) {
  const deadline = Date.now() + startMsMax
  while (child.exitCode === null && child.signalCode === null && Date.now() < deadline) {
    throwIfStopped()
    const greeting = await greet(greetMsMax).catch(() => undefined)
    if (greeting) return greeting
    await sleep(50)
  }
  killGroup(child)
  return undefined
}

async function stop(child, remove) {
  await gone(child, () => killGroup(child))
  remove()
  process.off('exit', remove)
}

async function gone(child, end) {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exited = new Promise(resolve => child.once('exit', resolve))
  end()
  await exited
}

/** A Redis that was still writing its first log has been seen not to end. */
function askToEnd(child) {
  child.kill('SIGTERM')
  const patience = setTimeout(() => killGroup(child), endMsMax)
  child.once('exit', () => clearTimeout(patience))
}

/** With what it has started itself, such as the scripts that copy a Galera node. */
function killGroup(child) {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
  } catch (error) {
    if (error.code !== 'ESRCH') throw error
  }
}

/** Folders of runs that were killed, and on systems without setpriv their servers. */
function removeAbandoned(prefix) {
  for (const name of readdirSync(shortTmpdir()).filter(entry => entry.startsWith(prefix))) {
    const folder = join(shortTmpdir(), name)
    const owner = pidIn(join(folder, 'owner'))
    if (owner === undefined || isAlive(owner)) continue
    const server = pidIn(join(folder, 'server'))
    // The number may belong to another process by now: only one that names this folder is ours.
    const isOurs =
      server !== undefined && spawnSync('ps', ['-o', 'args=', '-p', String(server)]).stdout?.includes(folder)
    try {
      if (isOurs) process.kill(server, 'SIGKILL')
      rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 })
    } catch {
      // somebody else's: theirs to remove
    }
  }
}

function pidIn(file) {
  try {
    return Number(readFileSync(file, 'utf8')) || undefined
  } catch {
    return undefined
  }
}

/** The socket's path must stay under 100 characters. */
function shortTmpdir() {
  return tmpdir().length < 70 ? tmpdir() : '/tmp'
}

/** Below those that systems give to clients: a server that is killed and started again must find its port free. */
const ports = { from: 15_000, count: 15_000 }

/** A port of the loopback interface that nobody listens on. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const port = ports.from + Math.trunc(Math.random() * ports.count)
    const probe = createServer()
    probe.once('error', error => (error.code === 'EADDRINUSE' ? resolve(freePort()) : reject(error)))
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(port)))
  })
}
