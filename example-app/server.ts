/** `npm start [-- --store mysql]`: serves the shop until stopped. PORT names the port, MYSQL_URL the database server. */
import type { AddressInfo } from 'node:net'
import { createApp } from './app.js'
import { type StartOptions, startOptions, USAGE_EXIT_CODE, UsageError } from './options.js'
import { createDatabase, openPool } from './schema.js'
import { createStore } from './stores.js'

const { MYSQL_URL: url, PORT: port = '3000' } = process.env
if (url === undefined) throw new Error('MYSQL_URL is not set: npm start sets it')
const { store } = understood(process.argv.slice(2))

const pool = openPool(await createDatabase(url, 'session_tx_shop'))
const { app, tx } = createApp(pool, createStore(store))
app.on('receipt', (order: number) => console.log(`order ${order}: the receipt goes out`))

const server = app.listen(Number(port), () => {
  const home = `http://localhost:${(server.address() as AddressInfo).port}`
  console.log(`The shop is open. Ctrl-C closes it.

  curl -c jar -b jar ${home}/
  curl -c jar -b jar ${home}/cart -H 'Content-Type: application/json' -d '{"item":"tea"}'
  curl -c jar -b jar ${home}/checkout -X POST

  ${home}/_tx/stats.json   what conflicted
  ${home}/_tx/metrics      the same for Prometheus
`)
})
server.on('error', error => {
  console.error(error.message)
  process.exitCode = 1
  void close()
})

/** In this order: no new requests, then those that run and their after-commit hooks, then the connections. */
async function close(): Promise<void> {
  await new Promise(resolve => server.close(resolve))
  await tx.close()
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
