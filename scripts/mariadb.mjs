/**
 * A private MariaDB: an own data folder under the system's temporary folder, a free port of the loopback interface,
 * and nobody's configuration. It must never outlive the command that started it.
 */

import { spawn, spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { greet } from './greeting.mjs'
import { isAlive } from './lock.mjs'
import { Sentence, runQuietly, say, throwIfStopped } from './processes.mjs'

const prefix = 'session-tx-db-'
const startMsMax = 60_000
const portsMax = 5

/** The server refuses to run as root unless told to; told --user as anybody else, it warns. */
const asRoot = process.getuid?.() === 0 ? ['--user=root'] : []

/**
 * @param installation of findMariadb or downloadMariadb
 * @param options.firstArgs arguments for the first start only
 * @returns `{ url, stop(), kill(), end(), restart() }`; kill() as `kill -9` does, end() as its administrator would; restart()
 * then starts it again on the same data and port
 */
export async function startMariadb(installation, { firstArgs = [] } = {}) {
  removeAbandoned()
  const folder = mkdtempSync(join(shortTmpdir(), prefix))
  writeFileSync(join(folder, 'owner'), String(process.pid))
  let child
  const remove = () => {
    // No farewell: nobody will read this data again.
    if (child) killGroup(child)
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 })
  }
  process.on('exit', remove)

  const { installDb, installArgs, env } = installation
  const datadir = join(folder, 'data')
  const how = [
    '--no-defaults',
    `--datadir=${datadir}`,
    '--auth-root-authentication-method=normal',
    '--skip-test-db',
    ...installArgs,
    ...asRoot,
  ]
  await runQuietly(installDb, how, { env, failure: 'mariadb-install-db failed' })
  writeFileSync(join(folder, 'init.sql'), 'CREATE DATABASE IF NOT EXISTS session_tx;\n')

  for (let tries = 1; ; tries += 1) {
    const port = await freePort()
    child = launch(installation, folder, port, firstArgs)
    const version = await ready(child, join(folder, 's'))
    if (version) {
      say(`MariaDB ${version.replace(/-.*/, '')} on port ${port}`)
      return {
        url: `mysql://root@127.0.0.1:${port}/session_tx`,
        stop: () => stop(child, remove),
        kill: () => gone(child, () => killGroup(child)),
        end: () => gone(child, () => child.kill('SIGTERM')),
        async restart() {
          child = launch(installation, folder, port)
          if (!(await ready(child, join(folder, 's')))) throw new Sentence('MariaDB does not start again')
        },
      }
    }
    // Between our asking for a free port and the server's taking it, somebody else may have.
    if (tries === portsMax)
      throw new Sentence(`${readFileSync(join(folder, 'log'), 'utf8')}\nMariaDB does not start`)
  }
}

function launch({ mariadbd, env, serverArgs }, folder, port, more = []) {
  const args = [
    '--no-defaults',
    `--datadir=${folder}/data`,
    `--port=${port}`,
    `--socket=${folder}/s`,
    `--tmpdir=${folder}`,
    `--init-file=${folder}/init.sql`,
    '--bind-address=127.0.0.1',
    '--innodb-buffer-pool-size=256M',
    '--max-connections=500',
    '--character-set-server=utf8mb4',
    ...serverArgs,
    ...more,
    ...asRoot,
  ]
  // With setpriv the kernel ends the server when we die, even of kill -9; elsewhere the next run does.
  const tied = ['--pdeathsig', 'TERM']
  const [command, ...all] =
    spawnSync('setpriv', [...tied, 'true']).status === 0
      ? ['setpriv', ...tied, mariadbd, ...args]
      : [mariadbd, ...args]
  const log = openSync(join(folder, 'log'), 'w')
  // A process group of its own: Ctrl-C is meant for the command, which may need its database to finish.
  const child = spawn(command, all, {
    detached: true,
    stdio: ['ignore', log, log],
    env: { ...process.env, ...env },
  })
  closeSync(log)
  child.on('error', () => {}) // followed by no exit event, but exitCode or a silent socket tells
  writeFileSync(join(folder, 'server'), String(child.pid))
  return child
}

/** The server's version once it answers; undefined if it ended. The port is bound before the socket file appears. */
async function ready(child, path) {
  const deadline = Date.now() + startMsMax
  while (child.exitCode === null && child.signalCode === null && Date.now() < deadline) {
    throwIfStopped()
    const version = await greet({ path }, 1_000).catch(() => undefined)
    if (version) return version
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

/** With what it has started itself, such as the scripts that copy a Galera node. */
function killGroup(child) {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
  } catch (error) {
    if (error.code !== 'ESRCH') throw error
  }
}

/** Folders of runs that were killed, and on systems without setpriv their servers. */
function removeAbandoned() {
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
