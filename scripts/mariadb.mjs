/** A private MariaDB: how it is installed into its folder, started, and greeted. Its life is private-server.mjs. */

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { greet } from './greeting.mjs'
import { startServer } from './private-server.mjs'
import { runQuietly, say } from './processes.mjs'

/** The server refuses to run as root unless told to; told --user as anybody else, it warns. */
const asRoot = process.getuid?.() === 0 ? ['--user=root'] : []

/**
 * @param installation of findMariadb or downloadMariadb
 * @param options.firstArgs arguments for the first start only
 * @returns as startServer, with its `url`
 */
export async function startMariadb(installation, { firstArgs = [] } = {}) {
  const server = await startServer({
    name: 'MariaDB',
    prefix: 'session-tx-db-',
    install: folder => install(installation, folder),
    command: (folder, port) => commandOf(installation, folder, port),
    firstArgs,
    // The port is bound before the socket file appears.
    greet: (folder, _port, withinMs) => greet({ path: join(folder, 's') }, withinMs),
  })
  say(`MariaDB ${server.greeting.replace(/-.*/, '')} on port ${server.port}`)
  return { ...server, url: `mysql://root@127.0.0.1:${server.port}/session_tx` }
}

async function install({ installDb, installArgs, env }, folder) {
  const how = [
    '--no-defaults',
    `--datadir=${join(folder, 'data')}`,
    '--auth-root-authentication-method=normal',
    '--skip-test-db',
    ...installArgs,
    ...asRoot,
  ]
  await runQuietly(installDb, how, { env, failure: 'mariadb-install-db failed' })
  writeFileSync(join(folder, 'init.sql'), 'CREATE DATABASE IF NOT EXISTS session_tx;\n')
}

function commandOf({ mariadbd, env, serverArgs }, folder, port) {
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
    ...asRoot,
  ]
  return { command: mariadbd, args, env }
}
