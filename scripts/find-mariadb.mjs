/** Finds an installed MariaDB server that runs. */

import { installed, isExecutable } from './find-program.mjs'
import { capture } from './processes.mjs'

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
