/**
 * Whether a slow request gets through among quick ones, and what it costs them: 50 clients of one session whose requests
 * take 1 ms between reading a variable and writing it, alone and with one that takes 200 ms, sent each second. session-tx
 * with and without its queues, and a mutex per session, which is as fair as it gets in one process.
 *
 * `--turns=5 --slow=20` for a longer run.
 */
import { performance } from 'node:perf_hooks'
import { setTimeout } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { Clients, type Load } from './support/clients.js'
import { BenchDatabase } from './support/database.js'
import type { RaceFigures } from './support/race-sides.js'
import { median, percentile, print, printHeading, printTable, type Side, verdict } from './support/report.js'
import { SideProcess } from './support/side-process.js'
import type { SideName } from './support/sides.js'

const { values: options } = parseArgs({
  options: { turns: { type: 'string', default: '3' }, slow: { type: 'string', default: '6' } },
})
const turns = Number(options.turns)
const slowCount = Number(options.slow)

const WRITERS = 50
const QUICK = '/hold/1'
const SLOW = '/hold/200'
const SLOW_EVERY_MS = 1_000
const WARM_UP_MS = 1_500

const sides: readonly Side[] = [
  { name: 'raceSessionTx', title: 'session-tx' },
  { name: 'raceWithoutTickets', title: 'session-tx without tickets' },
  { name: 'raceMutex', title: 'koa-session, mutex per session' },
]

interface Turn {
  readonly alone: Load
  readonly beside: Load
  /** Of each slow request, in milliseconds; undefined: it was refused. */
  readonly slow: readonly (number | undefined)[]
  readonly byAttempts: Readonly<Record<number, number>>
}

async function takeTurn(side: SideName, databaseUrl: string): Promise<Turn> {
  const server = await SideProcess.start('server.js', [side, databaseUrl])
  try {
    const clients = await Clients.open(server.port, WRITERS, () => QUICK, { mayBeRefused: true })
    try {
      await clients.greetInOneSession()
      await clients.run(WARM_UP_MS)
      const durationMs = slowCount * SLOW_EVERY_MS
      const alone = await clients.run(durationMs)
      const before = await attemptsOf(clients)
      const [beside, slow] = await Promise.all([clients.run(durationMs), askSlowly(clients)])
      const after = await attemptsOf(clients)
      const grown = Object.entries(after).map(([count, times]) => [
        count,
        times - (before[Number(count)] ?? 0),
      ])
      return { alone, beside, slow, byAttempts: Object.fromEntries(grown) as Record<number, number> }
    } finally {
      clients.close()
    }
  } finally {
    await server.stop()
  }
}

async function attemptsOf(clients: Clients): Promise<RaceFigures['byAttempts']> {
  return (JSON.parse(await clients.ask('/figures')) as RaceFigures).byAttempts
}

function askSlowly(clients: Clients): Promise<(number | undefined)[]> {
  return Promise.all(
    Array.from({ length: slowCount }, async (_, number) => {
      await setTimeout(number * SLOW_EVERY_MS)
      const start = performance.now()
      const isAnswered = await clients.ask(SLOW).then(
        () => true,
        () => false,
      )
      return isAnswered ? performance.now() - start : undefined
    }),
  )
}

const perSecond = ({ answered, seconds }: Load): number => answered / seconds

function rowOf(title: string, all: readonly Turn[]): string[] {
  const slow = all.flatMap(turn => turn.slow)
  const answered = slow.filter(ms => ms !== undefined)
  const at = percentile(all.flatMap(({ beside }) => beside.latenciesMs))
  const byAttempts = [1, 2, 3, 4].map(count =>
    all.reduce((sum, turn) => sum + (turn.byAttempts[count] ?? 0), 0),
  )
  const requests = byAttempts.reduce((sum, count) => sum + count, 0)
  return [
    title,
    `${answered.length} of ${slow.length}`,
    answered.length === 0 ? '' : Math.max(...answered).toFixed(0),
    median(all.map(({ alone }) => perSecond(alone))).toFixed(0),
    median(all.map(({ beside }) => perSecond(beside))).toFixed(0),
    at(0.99).toFixed(0),
    at(1).toFixed(0),
    byAttempts.map(count => `${((100 * count) / requests).toFixed(1)} %`).join(' '),
    String(all.reduce((sum, { alone, beside }) => sum + alone.refused + beside.refused, 0)),
  ]
}

const database = await BenchDatabase.open()
try {
  const how = `${turns} alternations of 2 × ${slowCount} s, ${WRITERS} clients of 1 ms, one request of 200 ms each second`
  printHeading(`session-tx, fairness: ${how}`, database.server)
  const measured = new Map<SideName, Turn[]>(sides.map(({ name }) => [name, []]))
  for (let turn = 0; turn < turns; turn++)
    for (const { name } of turn % 2 === 0 ? sides : sides.toReversed())
      measured.get(name)?.push(await takeTurn(name, database.url.href))
  const head = ['', 'slow ones answered', 'longest ms', 'quick ones/s alone', 'beside', 'p99 ms', 'max']
  print()
  printTable([
    [...head, 'ended in attempt 1 2 3 4', 'refused'],
    ...sides.map(({ name, title }) => rowOf(title, measured.get(name) ?? [])),
  ])
  const kept = (measured.get('raceSessionTx') ?? []).map(
    ({ alone, beside }) => perSecond(beside) / perSecond(alone),
  )
  print(`  throughput of the quick ones beside the slow ones: ${verdict(median(kept), { atLeast: 0.5 })}`)
} finally {
  await database.close()
}
