/**
 * `npm run demo [-- --seconds 15 --processes 4 --store mysql]`: 16 shoppers with several tabs each, the same load on
 * three applications, and what became of their carts, orders and money. The exit status is 1 if session-tx broke a
 * single promise. MYSQL_NODES may name several nodes of one cluster: the processes take turns.
 */
import { availableParallelism } from 'node:os'
import mysql, { type RowDataPacket } from 'mysql2/promise'
import { brokenInvariants } from './invariants.js'
import { Progress } from './load/progress.js'
import { type LoadResult, type Nodes, underLoad } from './load/run.js'
import { tableOf } from './load/table.js'
import { type DemoOptions, demoOptions, USAGE_EXIT_CODE, UsageError } from './options.js'

const APPLICATIONS = [
  { application: 'session-tx', label: 'session-tx' },
  { application: 'by-hand', label: 'koa-session,\nBEGIN … COMMIT' },
  { application: 'for-update', label: 'koa-session,\nSELECT … FOR UPDATE' },
] as const

/** A promise that breaks usually breaks for all shoppers alike. */
const SENTENCES_MAX = 20

async function demo(nodes: Nodes, options: DemoOptions, signal: AbortSignal): Promise<number> {
  const server = await versionOf(nodes[0])
  const results: { readonly label: string; readonly result: LoadResult }[] = []
  for (const { application, label } of APPLICATIONS) {
    const progress = new Progress(label.replaceAll('\n', ' '))
    const onProgress = progress.update.bind(progress)
    const seconds = options.seconds / APPLICATIONS.length
    const load = { ...options, application, seconds, nodes, signal, onProgress }
    const result = await underLoad(load).finally(() => progress.end())
    results.push({ label, result })
  }
  console.log(tableOf(results))

  const [own] = results
  const broken = own === undefined ? [] : brokenInvariants(own.result.state)
  const { processes, store } = options
  const on = nodes.length === 1 ? '' : ` on ${nodes.length} nodes`
  const served = `${processes} ${processes === 1 ? 'process' : 'processes'}${on}, --store ${store}`
  const where = `${server}, Node ${process.versions.node}, ${availableParallelism()} cores, ${served}`
  if (broken.length === 0) {
    console.log(`session-tx lost nothing: stock, orders, money, carts and sessions agree (${where}).`)
    return 0
  }
  const shown = broken.slice(0, SENTENCES_MAX).map(sentence => `\n- ${sentence}`)
  console.log(`session-tx BROKE ITS PROMISE ${broken.length} times (${where}):${shown.join('')}`)
  return 1
}

async function versionOf(url: string): Promise<string> {
  const connection = await mysql.createConnection(url)
  const [[row]] = await connection.query<RowDataPacket[]>('SELECT VERSION() AS version')
  await connection.end()
  const version = String(row?.['version'])
  return `${version.includes('MariaDB') ? 'MariaDB' : 'MySQL'} ${version.replace(/-.*/, '')}`
}

const stop = new AbortController()
for (const [signal, number] of [
  ['SIGINT', 2],
  ['SIGTERM', 15],
] as const) {
  process.once(signal, () => {
    process.exitCode = 128 + number
    stop.abort()
  })
}

try {
  const { MYSQL_URL: url, MYSQL_NODES: nodes = url } = process.env
  const [first, ...others] = nodes?.split(' ') ?? []
  if (first === undefined) throw new TypeError('MYSQL_URL is not set: npm run demo sets it')
  process.exitCode = await demo([first, ...others], demoOptions(process.argv.slice(2)), stop.signal)
} catch (error) {
  if (!stop.signal.aborted) {
    process.exitCode = error instanceof UsageError ? USAGE_EXIT_CODE : 1
    console.error(error instanceof Error ? error.message : error)
  }
}
