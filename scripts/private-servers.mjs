/**
 * Servers for a test that breaks them: `private-servers.mjs mariadb | galera | redis | redis-cluster`. Says `url …` with
 * the address of each when they are there; the lines `kill N` (as by kill -9), `end N` (as its administrator would),
 * `wipe N` (its data, while it does not run; Redis only), `lose N BYTES` (the last of its data, likewise) and `start N` on
 * its standard input, N counted from 0, are answered with `done`; it ends with its standard input.
 */

import { createInterface } from 'node:readline'
import { downloadMariadb } from './download-mariadb.mjs'
import { findMariadb } from './find-mariadb.mjs'
import { findRedis } from './find-redis.mjs'
import { startGalera } from './galera.mjs'
import { startMariadb } from './mariadb.mjs'
import { startRedis, startRedisCluster } from './redis.mjs'
import { say } from './processes.mjs'

const tell = line => process.stdout.write(`${line}\n`)
const orders = {
  kill: server => server.kill(),
  end: server => server.end(),
  wipe: server => server.wipe(),
  lose: (server, bytes) => server.lose(Number(bytes)),
  start: server => server.restart(),
}

const mariadb = async () => (await findMariadb()) ?? downloadMariadb()
const kinds = {
  mariadb: [mariadb, async found => [await startMariadb(found)]],
  galera: [mariadb, startGalera],
  // Killed, it has all that it has answered, also where the disk was busy.
  redis: [findRedis, async found => [await startRedis(found, { args: ['--appendfsync', 'always'] })]],
  'redis-cluster': [findRedis, startRedisCluster],
}

const kind = process.argv[2]
const [find, start] = kinds[kind]
const installation = await find()
if (!installation) {
  say(`no server for '${kind}' found: a test that kills a server needs one of its own, whatever is set`)
  process.exit(1)
}
const servers = await start(installation)
try {
  tell(`url ${servers.map(({ url }) => url).join(' ')}`)
  for await (const line of createInterface({ input: process.stdin })) {
    const [order, number, amount] = line.split(' ')
    await orders[order](servers[Number(number)], amount)
    tell('done')
  }
} finally {
  for (const server of servers) await server.stop()
}
