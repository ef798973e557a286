/**
 * What a commit costs by store and number of processes: 16 clients, each with a session and a row of its own, shared out
 * among 1, 2 and 4 processes of the same application. Processor time of all of them per commit, and requests per second.
 * The load, the servers and the processes share the machine: it says what a commit costs, and not how far it scales.
 *
 * `--turns=5 --turn-ms=2000` for a longer run, `--store=redis --processes=4 --action=write` for one part.
 */
import { performance } from 'node:perf_hooks'
import { parseArgs } from 'node:util'
import { COMMIT_TABLE_DDL } from '../lib/mysql/commit-record/commit-table.js'
import { sessionTables } from '../lib/store/mysql-tables.js'
import { Clients } from './support/clients.js'
import { BenchDatabase } from './support/database.js'
import { median, percentile, print, printHeading, printTable } from './support/report.js'
import { SideProcess } from './support/side-process.js'
import type { SideName } from './support/sides.js'

const CLIENTS = 16
const VARIABLES = 10
/** Of each process. */
const WARM_UP_REQUESTS = 10_000

const { values: options } = parseArgs({
  options: {
    turns: { type: 'string', default: '3' },
    'turn-ms': { type: 'string', default: '1500' },
    'warm-up-ms': { type: 'string', default: '12000' },
    action: { type: 'string', multiple: true, default: ['write', 'joint'] },
    store: { type: 'string', multiple: true, default: ['memory', 'mysql', 'redis'] },
    processes: { type: 'string', multiple: true, default: ['1', '2', '4'] },
  },
})
const turnMs = Number(options['turn-ms'])

const stores: Readonly<Record<string, SideName>> = {
  memory: 'storeMemory',
  mysql: 'storeMysql',
  redis: 'storeRedis',
}

interface Turn {
  readonly requestsPerSecond: number
  /** Of all processes together, per request. */
  readonly cpuMicros: number
  readonly p50Ms: number
}

const database = await BenchDatabase.open()
try {
  printHeading(
    `session-tx, processes: medians of ${options.turns} turns of ${turnMs} ms, ${CLIENTS} clients, ${VARIABLES} variables`,
    database.server,
  )
  for (const ddl of [COMMIT_TABLE_DDL, ...sessionTables('sessions').map(table => table.ddl)])
    await database.run(ddl)
  for (const action of options.action) await part(action)
} finally {
  await database.close()
}

async function part(action: string): Promise<void> {
  await database.makeVisitors(CLIENTS)
  const places = options.store.flatMap(store =>
    // Sessions in memory are one process's.
    options.processes
      .filter(count => store !== 'memory' || count === '1')
      .map(count => [store, count] as const),
  )
  const turns = new Map(places.map(place => [place, [] as Turn[]]))
  for (let round = 0; round < Number(options.turns); round++)
    for (const place of round % 2 === 0 ? places : places.toReversed()) {
      const side = stores[place[0]]
      if (side === undefined) throw new Error(`--store is one of ${Object.keys(stores).join(', ')}`)
      turns.get(place)?.push(await takeTurn(side, Number(place[1]), action))
    }
  const rows = [['store', 'processes', 'CPU per commit', 'requests/s', 'p50']]
  for (const [[store, count], taken] of turns) {
    const of = (value: (turn: Turn) => number): number => median(taken.map(value))
    rows.push([
      store,
      count,
      `${of(turn => turn.cpuMicros).toFixed(0)} µs`,
      of(turn => turn.requestsPerSecond).toFixed(0),
      `${of(turn => turn.p50Ms).toFixed(1)} ms`,
    ])
  }
  print()
  print(action === 'joint' ? 'one variable and one row changed' : 'one variable changed')
  printTable(rows)
}

async function takeTurn(side: SideName, count: number, action: string): Promise<Turn> {
  const processes: SideProcess[] = []
  const groups: Clients[] = []
  try {
    const each = CLIENTS / count
    for (let number = 0; number < count; number++) {
      const server = await SideProcess.start('server.js', [side, database.url.href])
      processes.push(server)
      const path = (client: number): string => `/${action}/${VARIABLES}/${number * each + client}`
      groups.push(await Clients.open(server.port, each, path))
    }
    await Promise.all(groups.map(clients => clients.greet()))
    const all = (ms: number) => Promise.all(groups.map(clients => clients.run(ms)))
    await Promise.all(groups.map(warmUp))
    const before = await cpuMicros(processes)
    const startMs = performance.now()
    const loads = await all(turnMs)
    const seconds = (performance.now() - startMs) / 1000
    const answered = loads.reduce((sum, load) => sum + load.answered, 0)
    return {
      requestsPerSecond: answered / seconds,
      cpuMicros: ((await cpuMicros(processes)) - before) / answered,
      p50Ms: percentile(loads.flatMap(load => [...load.latenciesMs]))(0.5),
    }
  } finally {
    for (const clients of groups) clients.close()
    for (const server of processes) await server.stop()
  }
}

/** Each process by as many requests, or the more there are, the less of each is compiled: seen to cost three times as much. */
async function warmUp(clients: Clients): Promise<void> {
  const endMs = performance.now() + Number(options['warm-up-ms'])
  while (clients.answered < WARM_UP_REQUESTS && performance.now() < endMs) await clients.run(250)
}

async function cpuMicros(processes: readonly SideProcess[]): Promise<number> {
  const each = await Promise.all(processes.map(server => server.cpuMicros()))
  return each.reduce((sum, micros) => sum + micros, 0)
}
