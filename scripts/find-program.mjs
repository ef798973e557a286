/** Finds installed programs, also where a user's PATH does not reach. Knows nothing of what they do. */

import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

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

/** The path of a program; undefined if it is nowhere. */
export function installed(name) {
  const folders = [...(process.env.PATH ?? '').split(delimiter).filter(Boolean), ...elsewhere]
  return folders.map(folder => join(folder, name)).find(isExecutable)
}

export function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}
