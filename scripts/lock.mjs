/** One at a time across processes: two shells may run npm test in one checkout at once. */

import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { say, throwIfStopped } from './processes.mjs'

const staleMs = 15 * 60_000

/** Runs `work` while holding `.cache/<name>.lock`. A lock whose process is gone is taken over. */
export async function withLock(name, work) {
  mkdirSync('.cache', { recursive: true })
  const file = `.cache/${name}.lock`
  const mine = `${file}.${process.pid}`
  writeFileSync(mine, String(process.pid))
  try {
    let told = false
    while (!take(mine, file)) {
      throwIfStopped()
      if (!told) say(`waiting for another run that holds ${file} …`)
      told = true
      await new Promise(resolve => setTimeout(resolve, 200))
    }
    try {
      return await work()
    } finally {
      rmSync(file, { force: true })
    }
  } finally {
    rmSync(mine, { force: true })
  }
}

/** link() is atomic and, unlike an exclusive open, shows the file only with its content. */
function take(mine, file) {
  try {
    linkSync(mine, file)
    return true
  } catch (error) {
    if (error.code !== 'EEXIST') throw error
  }
  if (abandoned(file)) putAside(file, `${mine}.stale`)
  return false
}

/** Between looking and moving, another waiter may have taken the lock: then it is put back. */
function putAside(file, aside) {
  try {
    renameSync(file, aside)
    if (!abandoned(aside)) linkSync(aside, file)
  } catch (error) {
    if (error.code !== 'ENOENT' && error.code !== 'EEXIST') throw error
  }
  rmSync(aside, { force: true })
}

function abandoned(file) {
  try {
    return !isAlive(Number(readFileSync(file, 'utf8'))) || Date.now() - statSync(file).mtimeMs > staleMs
  } catch {
    return false // given back in this moment
  }
}

/** Whether a process with this number runs, ours or somebody else's. */
export function isAlive(pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}
