/** Finds an installed MariaDB server, also where a user's PATH does not reach. */

import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { capture } from './processes.mjs'

const elsewhere = [
  '/usr/sbin',
  '/usr/bin',
  '/usr/libexec',
  '/usr/local/sbin',
  '/usr/local/bin',
  '/usr/local/libexec',
  '/usr/local/mariadb/bin',
  '/usr/local/mariadb/scripts',
  '/usr/local/mysql/bin',
  '/usr/local/mysql/scripts',
  '/opt/homebrew/bin',
  '/opt/homebrew/opt/mariadb/bin',
  '/usr/local/opt/mariadb/bin',
  '/home/linuxbrew/.linuxbrew/bin',
]

/** @returns `{ mariadbd, installDb, env, serverArgs, installArgs }` of a server that runs, or undefined */
export async function findMariadb() {
  const mariadbd = installed('mariadbd')
  const installDb = installed('mariadb-install-db')
  if (!mariadbd || !installDb) return undefined
  const found = { mariadbd, installDb, env: {}, serverArgs: [], installArgs: [] }
  return (await runs(found)) ? found : undefined
}

/** Whether the binary is there and starts: one that lacks a library does not. */
export async function runs({ mariadbd, env }) {
  if (!isExecutable(mariadbd)) return false
  const { code } = await capture(mariadbd, ['--no-defaults', '--version'], { env })
  return code === 0
}

/** The path of a program; undefined if it is nowhere. */
export function installed(name) {
  const folders = [...(process.env.PATH ?? '').split(delimiter).filter(Boolean), ...elsewhere]
  return folders.map(folder => join(folder, name)).find(isExecutable)
}

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}
