/**
 * The servers of a command: the ones MYSQL_URL and REDIS_URL name, else a private MariaDB and a private Redis, or
 * clusters of them where that is asked for, that live as long as the command.
 */

import { connect } from 'node:net'

import { downloadMariadb } from './download-mariadb.mjs'
import { findMariadb } from './find-mariadb.mjs'
import { findRedis } from './find-redis.mjs'
import { startGalera } from './galera.mjs'
import { greet } from './greeting.mjs'
import { startMariadb } from './mariadb.mjs'
import { Sentence } from './processes.mjs'
import { startRedis, startRedisCluster } from './redis.mjs'

const reachMsMax = 5_000

const servers = []

/** Resolves to the URL of a server that answers. */
export async function useDatabase() {
  const url = process.env.MYSQL_URL
  if (url) {
    await reach('MYSQL_URL', url, 3306, 'MySQL or MariaDB', greet)
    return url
  }
  const server = await startMariadb(await installation())
  servers.push(server)
  return server.url
}

/** Likewise. */
export async function useRedis() {
  const url = process.env.REDIS_URL
  if (url) {
    // It may want a password, so nothing is said to it.
    await reach('REDIS_URL', url, 6379, 'Redis', opens)
    return url
  }
  const server = await startRedis(await redisInstallation())
  servers.push(server)
  return server.url
}

/** Resolves to the URLs of its nodes, masters first. */
export async function useRedisCluster() {
  const nodes = await startRedisCluster(await redisInstallation())
  servers.push(...nodes)
  return nodes.map(({ url }) => url)
}

/** Resolves to the URLs of its nodes. */
export async function useGalera() {
  const nodes = await startGalera(await installation())
  servers.push(...nodes)
  return nodes.map(({ url }) => url)
}

export async function stopServers() {
  for (const server of servers) await server.stop()
}

async function installation() {
  const found = (await findMariadb()) ?? (await downloadMariadb())
  if (found) return found
  throw new Sentence(
    'no MariaDB found: install MariaDB 10.6 or newer (Debian, Ubuntu: mariadb-server; macOS: brew install mariadb) or set MYSQL_URL',
  )
}

async function redisInstallation() {
  const found = await findRedis()
  if (found) return found
  throw new Sentence(
    'no Redis found: install Redis 6 or newer (Debian, Ubuntu: redis-server; macOS: brew install redis) or set REDIS_URL',
  )
}

/** @throws Sentence naming the address, never the password in the URL */
async function reach(variable, url, defaultPort, server, answers) {
  let address
  const scheme = variable === 'MYSQL_URL' ? 'mysql://user:password@host:port/database' : 'redis://host:port'
  try {
    const { hostname, port } = new URL(url)
    address = { host: hostname.replaceAll(/^\[|\]$/g, ''), port: Number(port || defaultPort) }
  } catch {
    throw new Sentence(`${variable} is not a URL: write ${scheme}`)
  }
  try {
    await answers(address, reachMsMax)
  } catch (error) {
    const reason = error.code ?? error.message
    throw new Sentence(
      `${variable} is set, but no ${server} answers at ${address.host}:${address.port} (${reason})`,
    )
  }
}

function opens(address, withinMs) {
  return new Promise((resolve, reject) => {
    const socket = connect(address)
    const finish = (settle, value) => {
      socket.destroy()
      settle(value)
    }
    socket.setTimeout(withinMs, () => finish(reject, new Error(`silent for ${withinMs} ms`)))
    socket.once('error', error => finish(reject, error))
    socket.once('connect', () => finish(resolve))
  })
}
