/**
 * `npm start [-- --store mysql --framework express]`: serves the shop until stopped. PORT names the port, MYSQL_URL the
 * database server, REDIS_URL the other one.
 */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { pino } from 'pino'
import { createApp } from './app.js'
import { createExpressApp } from './express-app.js'
import { logConflicts } from './log.js'
import { type StartOptions, startOptions, USAGE_EXIT_CODE, UsageError } from './options.js'
import { createDatabase, openPool } from './schema.js'
import { openStore } from './stores.js'

const { MYSQL_URL: url, PORT: port = '3000' } = process.env
if (url === undefined) throw new Error('MYSQL_URL is not set: npm start sets it')
const { store, framework } = understood(process.argv.slice(2))

const pool = openPool(await createDatabase(url, 'session_tx_shop'))
const log = pino()
const sessions = await openStore(store)
const opened = framework === 'koa' ? koa() : createExpressApp(pool, sessions.store)
const { app, tx } = opened
app.addListener('receipt', (order: number) => log.info({ order }, 'the receipt goes out'))
logConflicts(tx, log)

const server = createServer('listener' in opened ? opened.listener : opened.app)
server.listen(Number(port), () => {
  const home = `http://localhost:${(server.address() as AddressInfo).port}`
  console.log(`The shop is open, on ${framework}. Ctrl-C closes it.

  ${home}/      the shop: let two tabs race, or start a storm
  ${home}/_tx   the conflict page: what was lost, to whom, and what to do about it

  ${home}/_tx/stats.json and ${home}/_tx/metrics say the same to programs, and the shop answers them in JSON:

  curl -c jar -b jar ${home}/
  curl -c jar -b jar ${home}/cart -H 'Content-Type: application/json' -d '{"item":"tea"}'
  curl -c jar -b jar ${home}/checkout -X POST
`)
})
server.on('error', error => {
  console.error(error.message)
  process.exitCode = 1
  void close()
})

function koa() {
  const made = createApp(pool, sessions.store)
  const handle = made.app.callback()
  return { ...made, listener: (...both: Parameters<typeof handle>) => void handle(...both) }
}

/** In this order: no new requests, then those that run and their after-commit hooks, then the connections. */
async function close(): Promise<void> {
  await new Promise(resolve => server.close(resolve))
  await tx.close()
  await sessions.close()
  await pool.end()
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void close())
}

function understood(args: readonly string[]): StartOptions {
  try {
    return startOptions(args)
  } catch (error) {
    if (!(error instanceof UsageError)) throw error
    console.error(error.message)
    process.exit(USAGE_EXIT_CODE)
  }
}
