/**
 * Sessions in the database of the application: reading one, changing one variable of one, and changing one variable and
 * a row, with each store of session-tx and with express-session and express-mysql-session, over HTTP on the same server.
 * 16 clients, each with a session and a row of its own; then 8 clients in one session, to count what is lost.
 *
 * `--turns=9 --turn-ms=2000` for a longer run, `--action=write --variables=100` for one part.
 */
import { parseArgs } from 'node:util'
import { sessionTables } from '../lib/store/mysql-tables.js'
import { alternate, type Sample } from './support/alternation.js'
import { Clients } from './support/clients.js'
import { BenchDatabase } from './support/database.js'
import { median, print, printHeading, printTable, ratios, type Side, verdict } from './support/report.js'
import { SideProcess } from './support/side-process.js'
import type { SideName } from './support/sides.js'

const CLIENTS = 16
const IN_ONE_SESSION = 8
const WARM_UP_MS = 4_000

const { values: options } = parseArgs({
  options: {
    turns: { type: 'string', default: '5' },
    'turn-ms': { type: 'string', default: '1500' },
    action: { type: 'string', multiple: true, default: ['read', 'write', 'joint'] },
    variables: { type: 'string', multiple: true, default: ['1', '100', '1000'] },
  },
})
const rounds = Number(options.turns)
const turnMs = Number(options['turn-ms'])

const actions: Readonly<Record<string, string>> = {
  read: 'one variable read',
  write: 'one variable changed',
  joint: 'one variable and one row changed',
}

const sides: readonly Side[] = [
  { name: 'storeMysql', title: 'session-tx, mysqlStore' },
  { name: 'storeExpress', title: 'express-mysql-session' },
  { name: 'storeMemory', title: 'session-tx, memoryStore' },
]
const untouched: Side = { name: 'storeExpressUntouched', title: 'express-mysql-session, disableTouch' }

const database = await BenchDatabase.open()
try {
  const how = `${rounds} alternations of ${turnMs} ms, ${CLIENTS} clients`
  printHeading(`session-tx, stores: ${how}`, database.server)
  for (const { ddl } of sessionTables('sessions')) await database.run(ddl)
  for (const action of options.action)
    for (const variables of options.variables) await part(action, Number(variables))
} finally {
  await database.close()
}

async function part(action: string, variables: number): Promise<void> {
  await database.makeVisitors(CLIENTS)
  // Who only reads does not write the idle time there, which the others do: one more to compare with.
  const compared = action === 'read' ? [...sides, untouched] : sides
  const measured = await alternate({
    sides: compared.map(({ name }) => name),
    databaseUrl: database.url.href,
    clients: CLIENTS,
    path: client => `/${action}/${variables}/${client}`,
    rounds,
    turnMs,
    warmUpMs: WARM_UP_MS,
    count: () => database.bytesReceived(),
  })
  if (action === 'joint') await assertRowsAgree([...measured.answered.values()])
  const rows = [['', 'requests/s', 'p50', 'p95', 'p99', 'bytes to the database', 'lost updates']]
  for (const { name, title } of compared) {
    const samples = measured.samples.get(name) ?? []
    const lost = action === 'read' ? '' : await lostUpdates(name, action, variables)
    rows.push([title, ...cellsOf(samples), lost])
  }
  print()
  print(`${actions[action]}, of ${variables}`)
  printTable(rows)
  for (const { name, title } of compared.filter(side => side.title.startsWith('express'))) {
    const { p50, throughput, cpu } = ratios(measured, 'storeMysql', name)
    print(`  p50, ${title} to mysqlStore: ${verdict(p50, { atLeast: 1 })}`)
    print(
      `  requests/s, mysqlStore to ${title}: ${throughput.toFixed(2)}; CPU the other way: ${cpu.toFixed(2)}`,
    )
  }
}

function cellsOf(samples: readonly Sample[]): string[] {
  const of = (value: (sample: Sample) => number): number => median(samples.map(value))
  const ms = (value: (sample: Sample) => number): string => `${of(value).toFixed(1)} ms`
  return [
    of(sample => sample.requestsPerSecond).toFixed(0),
    ms(sample => sample.p50Ms),
    ms(sample => sample.p95Ms),
    ms(sample => sample.p99Ms),
    of(sample => sample.counted).toFixed(0),
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
