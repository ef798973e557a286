/**
 * A MariaDB for a test that breaks it. Says `url …` when it is there; the lines `kill` (as by kill -9) and `start` on its
 * standard input are answered with `killed` and `started`; it ends with its standard input.
 */

import { createInterface } from 'node:readline'
import { downloadMariadb } from './download-mariadb.mjs'
import { findMariadb } from './find-mariadb.mjs'
import { startMariadb } from './mariadb.mjs'
import { say } from './processes.mjs'

const tell = line => process.stdout.write(`${line}\n`)

const installation = (await findMariadb()) ?? (await downloadMariadb())
if (!installation) {
  say('no MariaDB found: a test that kills a server needs one of its own, whatever MYSQL_URL says')
  process.exit(1)
}
const server = await startMariadb(installation)
try {
  tell(`url ${server.url}`)
  for await (const line of createInterface({ input: process.stdin })) {
    if (line === 'kill') {
      await server.kill()
      tell('killed')
    } else if (line === 'start') {
      await server.restart()
      tell('started')
    }
  }
} finally {
  await server.stop()
}
