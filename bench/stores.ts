/**
 * Reading a session, changing one variable of one, and changing one variable and a row, with each store of session-tx and
 * with express-session: sessions in the database of the application, next to express-mysql-session, and in Redis, next to
 * connect-redis, over HTTP on the same servers. 16 clients, each with a session and a row of its own; then 8 clients in one
 * session, to count what is lost.
 *
 * `--turns=9 --turn-ms=2000` for a longer run, `--store=redis --action=write --variables=100` for one part.
 */
import { parseArgs } from 'node:util'
import { COMMIT_TABLE_DDL } from '../lib/mysql/commit-record/commit-table.js'
import { sessionTables } from '../lib/store/mysql-tables.js'
import { alternate, type Sample } from './support/alternation.js'
import { Clients } from './support/clients.js'
import { BenchDatabase } from './support/database.js'
import { BenchRedis } from './support/redis.js'
import { median, print, printHeading, printTable, ratios, type Side, verdict } from './support/report.js'
import { SideProcess } from './support/side-process.js'
import type { SideName } from './support/sides.js'

const CLIENTS = 16
const IN_ONE_SESSION = 8

const { values: options } = parseArgs({
  options: {
    turns: { type: 'string', default: '5' },
    'turn-ms': { type: 'string', default: '1500' },
    'warm-up-ms': { type: 'string', default: '4000' },
    action: { type: 'string', multiple: true, default: ['read', 'write', 'joint'] },
    variables: { type: 'string', multiple: true, default: ['1', '100', '1000'] },
    store: { type: 'string', multiple: true, default: ['mysql', 'redis'] },
  },
})
const rounds = Number(options.turns)
const turnMs = Number(options['turn-ms'])

const actions: Readonly<Record<string, string>> = {
  read: 'one variable read',
  write: 'one variable changed',
  joint: 'one variable and one row changed',
}

/** What is compared with what, in one alternation. */
interface Comparison {
  readonly title: string
  readonly ours: Side
  readonly theirs: Side
  /** Who only reads does not write the idle time there, which the others do: one more to compare reading with. */
  readonly untouched: Side
  readonly others: readonly Side[]
}

const comparisons: Readonly<Record<string, Comparison>> = {
  mysql: {
    title: 'sessions in MySQL',
    ours: { name: 'storeMysql', title: 'session-tx, mysqlStore' },
    theirs: { name: 'storeExpress', title: 'express-mysql-session' },
    untouched: { name: 'storeExpressUntouched', title: 'express-mysql-session, disableTouch' },
    others: [{ name: 'storeMemory', title: 'session-tx, memoryStore' }],
  },
  redis: {
    title: 'sessions in Redis',
    ours: { name: 'storeRedis', title: 'session-tx, redisStore' },
    theirs: { name: 'storeConnectRedis', title: 'connect-redis' },
    untouched: { name: 'storeConnectRedisUntouched', title: 'connect-redis, disableTouch' },
    others: [],
  },
}

const database = await BenchDatabase.open()
const redis = await BenchRedis.open()
try {
  const how = `${rounds} alternations of ${turnMs} ms, ${CLIENTS} clients`
  printHeading(`session-tx, stores: ${how}`, `${database.server}, ${redis.server}`)
  for (const ddl of [COMMIT_TABLE_DDL, ...sessionTables('sessions').map(table => table.ddl)])
    await database.run(ddl)
  for (const action of options.action)
    for (const variables of options.variables)
      for (const store of options.store) {
        const comparison = comparisons[store]
        if (comparison === undefined)
          throw new Error(`--store is one of ${Object.keys(comparisons).join(', ')}`)
        await part(comparison, action, Number(variables))
      }
} finally {
  redis.close()
  await database.close()
}

async function part(comparison: Comparison, action: string, variables: number): Promise<void> {
  const { title: where, ours, theirs, untouched, others } = comparison
  await database.makeVisitors(CLIENTS)
  const foreign = action === 'read' ? [theirs, untouched] : [theirs]
  const compared = [ours, ...foreign, ...others]
  const measured = await alternate({
    sides: compared.map(({ name }) => name),
    databaseUrl: database.url.href,
    clients: CLIENTS,
    path: client => `/${action}/${variables}/${client}`,
    rounds,
    turnMs,
    warmUpMs: Number(options['warm-up-ms']),
    count: bytes,
  })
  if (action === 'joint') await assertRowsAgree([...measured.answered.values()])
  const rows = [['', 'requests/s', 'p50', 'p95', 'p99', 'bytes sent', 'received', 'lost updates']]
  for (const { name, title } of compared) {
    const samples = measured.samples.get(name) ?? []
    const lost = action === 'read' ? '' : await lostUpdates(name, action, variables)
    rows.push([title, ...cellsOf(samples), lost])
  }
  print()
  print(`${actions[action]}, of ${variables}, ${where}`)
  printTable(rows)
  for (const { name, title } of foreign) {
    const { p50, throughput, cpu } = ratios(measured, ours.name, name)
    print(`  p50, ${title} to ${ours.title}: ${verdict(p50, { atLeast: 1 })}`)
    print(
      `  requests/s, ${ours.title} to ${title}: ${throughput.toFixed(2)}; CPU the other way: ${cpu.toFixed(2)}`,
    )
  }
}

/** By the applications, to and from both servers. */
async function bytes(): Promise<readonly number[]> {
  const ofRedis = await redis.bytes()
  return (await database.bytes()).map((ofDatabase, way) => ofDatabase + (ofRedis[way] ?? 0))
}

function cellsOf(samples: readonly Sample[]): string[] {
  const of = (value: (sample: Sample) => number): number => median(samples.map(value))
  const ms = (value: (sample: Sample) => number): string => `${of(value).toFixed(1)} ms`
  return [
    of(sample => sample.requestsPerSecond).toFixed(0),
    ms(sample => sample.p50Ms),
    ms(sample => sample.p95Ms),
    ms(sample => sample.p99Ms),
    of(sample => sample.counted[0] ?? 0).toFixed(0),
    of(sample => sample.counted[1] ?? 0).toFixed(0),
  ]
}

/** A benchmark of something that does not work says nothing. */
async function assertRowsAgree(answered: readonly number[]): Promise<void> {
  const requests = answered.reduce((sum, count) => sum + count, 0)
  const visits = await database.visits()
  if (visits !== requests) throw new Error(`${requests} requests were answered, but the rows say ${visits}`)
}

/** Of parallel requests that each add one to one variable of one session: those that were answered and are not there. */
async function lostUpdates(side: SideName, action: string, variables: number): Promise<string> {
  const server = await SideProcess.start('server.js', [side, database.url.href])
  try {
    const path = (client: number): string => `/${action}/${variables}/${client}`
    const clients = await Clients.open(server.port, IN_ONE_SESSION, path)
    try {
      await clients.greetInOneSession()
      await clients.run(turnMs)
      const visits = Number(await clients.ask(`/read/${variables}/1`))
      return `${clients.answered - visits} of ${clients.answered}`
    } finally {
      clients.close()
    }
  } finally {
    await server.stop()
  }
}
