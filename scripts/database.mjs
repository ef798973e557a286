/**
 * The database of a command: the one MYSQL_URL names, else a private MariaDB, or a private Galera cluster where that is
 * asked for, that lives as long as the command.
 */

import { downloadMariadb } from './download-mariadb.mjs'
import { findMariadb } from './find-mariadb.mjs'
import { startGalera } from './galera.mjs'
import { greet } from './greeting.mjs'
import { startMariadb } from './mariadb.mjs'
import { Sentence } from './processes.mjs'

const reachMsMax = 5_000

let servers = []

/** Resolves to the URL of a server that answers. */
export async function useDatabase() {
  const url = process.env.MYSQL_URL
  if (url) {
    await reach(url)
    return url
  }
  servers = [await startMariadb(await installation())]
  return servers[0].url
}

/** Resolves to the URLs of its nodes. */
export async function useGalera() {
  servers = await startGalera(await installation())
  return servers.map(({ url }) => url)
}

export async function stopDatabase() {
  for (const server of servers) await server.stop()
}

async function installation() {
  const found = (await findMariadb()) ?? (await downloadMariadb())
  if (found) return found
  throw new Sentence(
    'no MariaDB found: install MariaDB 10.6 or newer (Debian, Ubuntu: mariadb-server; macOS: brew install mariadb) or set MYSQL_URL',
  )
}

/** @throws Sentence naming the address, never the password in the URL */
async function reach(url) {
  let address
  try {
    const { hostname, port } = new URL(url)
    address = { host: hostname.replaceAll(/^\[|\]$/g, ''), port: Number(port || 3306) }
  } catch {
    throw new Sentence('MYSQL_URL is not a URL: write mysql://user:password@host:port/database')
  }
  try {
    await greet(address, reachMsMax)
  } catch (error) {
    const reason = error.code ?? error.message
    throw new Sentence(
      `MYSQL_URL is set, but no MySQL or MariaDB answers at ${address.host}:${address.port} (${reason})`,
    )
  }
}
