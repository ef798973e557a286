/** Installs the packages of package-lock.json when node_modules is missing or older. */

import { createHash } from 'node:crypto'
import { accessSync, constants, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { withLock } from './lock.mjs'
import { runQuietly, say } from './processes.mjs'

const stamp = 'node_modules/.installed-from'

export async function install() {
  // A service user often has no home that can be written to; npm would stop there, here and in the package test.
  // npm run hands its own folder down in this variable, whether or not it can be written to.
  if (!canWrite(process.env.npm_config_cache ?? join(homedir(), '.npm'))) {
    process.env.npm_config_cache = resolve('.cache/npm')
  }
  if (isInstalled()) return
  await withLock('install', async () => {
    if (isInstalled()) return
    say('installing packages …')
    // --include=dev: NODE_ENV=production or an inherited omit setting would leave out the compiler and jest.
    const args = ['ci', '--include=dev', '--no-audit', '--no-fund', '--ignore-scripts']
    const env = { npm_config_omit: undefined, NPM_CONFIG_OMIT: undefined, npm_config_dry_run: undefined }
    const [command, ...before] = npm()
    await runQuietly(command, [...before, ...args], { env, failure: 'npm ci failed' })
    writeFileSync(stamp, lockHash())
  })
}

/** The npm that started us, else the one on PATH. */
export function npm() {
  const path = process.env.npm_execpath
  return path?.endsWith('npm-cli.js') && existsSync(path) ? [process.execPath, path] : ['npm']
}

function isInstalled() {
  if (!existsSync('node_modules/typescript/package.json')) return false
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === lockHash()) return true
  // Somebody ran npm install by hand: npm's own copy of the lockfile is then the younger one.
  const own = 'node_modules/.package-lock.json'
  return existsSync(own) && statSync(own).mtimeMs >= statSync('package-lock.json').mtimeMs
}

const lockHash = () => createHash('sha256').update(readFileSync('package-lock.json')).digest('hex')

/** Also of a folder that is yet to be made: then its nearest parent decides. */
function canWrite(folder) {
  if (!existsSync(folder)) return canWrite(dirname(folder))
  try {
    accessSync(folder, constants.W_OK)
    return true
  } catch {
    return false
  }
}
