/**
 * A MariaDB for a test that breaks it, or with the argument `galera` three that are a cluster. Says `url …` with the address
 * of each when they are there; the lines `kill N` (as by kill -9), `end N` (as its administrator would) and `start N` on its
 * standard input, N counted from 0, are answered with `done`; it ends with its standard input.
 */

import { createInterface } from 'node:readline'
import { downloadMariadb } from './download-mariadb.mjs'
import { findMariadb } from './find-mariadb.mjs'
import { startGalera } from './galera.mjs'
import { startMariadb } from './mariadb.mjs'
import { say } from './processes.mjs'

const tell = line => process.stdout.write(`${line}\n`)
const orders = {
  kill: server => server.kill(),
  end: server => server.end(),
  start: server => server.restart(),
}

const installation = (await findMariadb()) ?? (await downloadMariadb())
if (!installation) {
  say('no MariaDB found: a test that kills a server needs one of its own, whatever MYSQL_URL says')
  process.exit(1)
}
const isGalera = process.argv[2] === 'galera'
const servers = isGalera ? await startGalera(installation) : [await startMariadb(installation)]
try {
  tell(`url ${servers.map(({ url }) => url).join(' ')}`)
  for await (const line of createInterface({ input: process.stdin })) {
    const [order, number] = line.split(' ')
    await orders[order](servers[Number(number)])
    tell('done')
  }
} finally {
  for (const server of servers) await server.stop()
}
