/**
 * What parallel requests cost each other, and what is lost: session-tx with and without its queues, koa-session with a
 * transaction by hand, with row locks, with a lock of the database for each session, and with a mutex in the process,
 * all in alternation, over HTTP on one MariaDB. The applications are in support/race-sides.ts.
 *
 * `--turns=5 --turn-ms=3000` for a longer run, `--workload=row --clients=16 --think=10` for one part, `--plots` draws
 * what was measured into docs/bench/. `--side=raceSessionTx` leaves the others out.
 */
import { parseArgs } from 'node:util'
import { Clients, type Manner } from './support/clients.js'
import { BenchDatabase } from './support/database.js'
import { writePlot } from './support/plot.js'
import type { RaceFigures } from './support/race-sides.js'
import { heading, median, percentile, print, printHeading, printTable, verdict } from './support/report.js'
import { SideProcess } from './support/side-process.js'
import type { SideName } from './support/sides.js'

const { values: options } = parseArgs({
  options: {
    turns: { type: 'string', default: '2' },
    'turn-ms': { type: 'string', default: '1200' },
    clients: { type: 'string', multiple: true, default: ['1', '4', '16', '64'] },
    think: { type: 'string', multiple: true, default: ['0'] },
    workload: { type: 'string', multiple: true, default: ['variable', 'variables', 'row', 'frame', 'alone'] },
    side: { type: 'string', multiple: true },
    plots: { type: 'boolean', default: false },
  },
})
const turns = Number(options.turns)
const turnMs = Number(options['turn-ms'])

type Sessions = 'one' | 'own' | 'frames'

interface Workload {
  readonly title: string
  /** Which route of the applications; its own name if it is none of them. */
  readonly route: string
  readonly sessions: Sessions
  readonly sides: readonly SideName[]
  /** Of requests per second, at the most clients but one. */
  readonly targets: readonly { readonly than: SideName; readonly atLeast: number }[]
}

const TITLES: Readonly<Partial<Record<SideName, string>>> = {
  raceSessionTx: 'session-tx',
  raceSessionTxForUpdate: 'session-tx, SELECT … FOR UPDATE',
  raceWithoutTickets: 'session-tx without tickets',
  raceWholeSession: 'session-tx, the session as one variable',
  raceBegin: 'koa-session, BEGIN … COMMIT',
  raceForUpdate: 'koa-session, SELECT … FOR UPDATE',
  raceGetLock: 'koa-session, GET_LOCK per session',
  raceMutex: 'koa-session, mutex per session',
}
const titleOf = (side: SideName): string => TITLES[side] ?? side

const EVERYBODY: readonly SideName[] = [
  ...([
    'raceSessionTx',
    'raceWithoutTickets',
    'raceBegin',
    'raceForUpdate',
    'raceGetLock',
    'raceMutex',
  ] as const),
]

const WORKLOADS: Readonly<Record<string, Workload>> = {
  variable: {
    title: 'one hot variable: all in one session, each with a row of its own',
    route: 'variable',
    sessions: 'one',
    sides: EVERYBODY,
    targets: [{ than: 'raceMutex', atLeast: 1.1 }],
  },
  variables: {
    title: 'different variables of one session, each with a row of its own',
    route: 'variables',
    sessions: 'one',
    sides: EVERYBODY,
    targets: [{ than: 'raceMutex', atLeast: 1.5 }],
  },
  row: {
    title: 'one hot row, read and written; each in a session of its own',
    route: 'row',
    sessions: 'own',
    sides: [...EVERYBODY, 'raceSessionTxForUpdate'],
    targets: [{ than: 'raceForUpdate', atLeast: 1 }],
  },
  frame: {
    title: 'pages of four frames in one session, one request of a hundred writes',
    route: 'frame',
    sessions: 'frames',
    sides: [...EVERYBODY, 'raceWholeSession'],
    targets: [],
  },
  alone: {
    title: 'no contention: sessions and rows of their own',
    route: 'variable',
    sessions: 'own',
    sides: EVERYBODY,
    targets: [{ than: 'raceBegin', atLeast: 1 }],
  },
}

interface Sample {
  readonly perSecond: number
  readonly latenciesMs: readonly number[]
  readonly attempts: number
  readonly committed: number
  readonly wastedMs: number
  readonly refused: number
  /** Updates of the session, and of rows, that were answered and are not there. */
  readonly lostOfSession: number
  readonly lostOfRows: number
}

const FRAMES = 4
/** What the compiler costs is over after so many requests; servers run for longer than benchmarks. */
const WARM_UP = { requests: 6_000, clients: 16, stepMs: 250, msMax: 8_000 } as const
const SETTLE_MS = 200

/** One server for all numbers of clients: it has been warmed up once. */
async function takeTurn(
  side: SideName,
  workload: Workload,
  counts: readonly number[],
  thinkMs: number,
): Promise<Sample[]> {
  const server = await SideProcess.start('server.js', [side, database.url.href])
  try {
    await withClients(server, workload, WARM_UP.clients, 0, async clients => {
      for (let ms = 0; ms < WARM_UP.msMax && clients.answered < WARM_UP.requests; ms += WARM_UP.stepMs)
        await clients.run(WARM_UP.stepMs)
    })
    const samples: Sample[] = []
    for (const count of counts)
      samples.push(await withClients(server, workload, count, thinkMs, clients => measure(clients, workload)))
    return samples
  } finally {
    await server.stop()
  }
}

async function withClients<T>(
  server: SideProcess,
  { route, sessions }: Workload,
  count: number,
  thinkMs: number,
  work: (clients: Clients) => Promise<T>,
): Promise<T> {
  await database.makeVisitors(count)
  const manner: Manner = { thinkMs, mayBeRefused: true, together: sessions === 'frames' ? FRAMES : 1 }
  const clients = await Clients.open(server.port, count, client => `/${route}/${client}`, manner)
  try {
    if (sessions === 'one') await clients.greetInOneSession()
    else await clients.greetInGroups()
    return await work(clients)
  } finally {
    clients.close()
  }
}

async function measure(clients: Clients, { sessions }: Workload): Promise<Sample> {
  await clients.run(SETTLE_MS)
  const before = await figuresOf(clients)
  const { answered, refused, seconds, latenciesMs } = await clients.run(turnMs)
  const after = await figuresOf(clients)
  const totals = sessions === 'one' ? [await clients.ask('/total')] : await clients.askEach('/total')
  const inSessions = totals.reduce((sum, total) => sum + Number(total), 0)
  const inRows = await database.visits()
  // Frames write now and then: nobody outside knows how often, but both sides must say the same.
  const written = sessions === 'frames' ? Math.max(inRows, inSessions) : clients.answered
  return {
    perSecond: answered / seconds,
    latenciesMs,
    refused,
    attempts: after.attempts - before.attempts,
    committed: after.committed - before.committed,
    wastedMs: after.wastedMs - before.wastedMs,
    lostOfSession: written - inSessions,
    lostOfRows: written - inRows,
  }
}

async function figuresOf(clients: Clients): Promise<RaceFigures> {
  return JSON.parse(await clients.ask('/figures')) as RaceFigures
}

type Measured = ReadonlyMap<number, ReadonlyMap<SideName, Sample[]>>

/** All sides in turn, forth and back. */
async function alternate(workload: Workload, counts: readonly number[], thinkMs: number): Promise<Measured> {
  const measured = new Map(counts.map(count => [count, new Map<SideName, Sample[]>()]))
  for (let turn = 0; turn < turns; turn++)
    for (const side of turn % 2 === 0 ? workload.sides : workload.sides.toReversed())
      for (const [place, sample] of (await takeTurn(side, workload, counts, thinkMs)).entries()) {
        const samples = measured.get(counts[place] ?? 0)
        samples?.set(side, [...(samples.get(side) ?? []), sample])
      }
  return measured
}

const sum = (samples: readonly Sample[], of: (sample: Sample) => number): number =>
  samples.reduce((all, sample) => all + of(sample), 0)
const perSecond = (samples: readonly Sample[] = []): number => median(samples.map(sample => sample.perSecond))

function rowOf(side: SideName, samples: readonly Sample[]): string[] {
  const at = percentile(samples.flatMap(({ latenciesMs }) => latenciesMs))
  const committed = sum(samples, sample => sample.committed)
  return [
    titleOf(side),
    perSecond(samples).toFixed(0),
    ...[0.5, 0.95, 0.99, 1].map(share => at(share).toFixed(1)),
    (sum(samples, ({ attempts }) => attempts) / committed).toFixed(3),
    (sum(samples, ({ wastedMs }) => wastedMs) / committed).toFixed(2),
    String(sum(samples, ({ lostOfSession }) => lostOfSession)),
    String(sum(samples, ({ lostOfRows }) => lostOfRows)),
    String(sum(samples, ({ refused }) => refused)),
  ]
}

const HEAD = [
  ...['', 'committed/s', 'p50 ms', 'p95', 'p99', 'max', 'attempts per commit', 'wasted ms per commit'],
  ...['lost in sessions', 'lost in rows', 'refused'],
]

/** Share of requests that were run again. */
function rerunShare(samples: readonly Sample[]): number {
  return (
    sum(samples, ({ attempts, committed }) => attempts - committed) /
    sum(samples, ({ committed }) => committed)
  )
}

async function part(name: string, workload: Workload, thinkMs: number): Promise<void> {
  const isPossible = (count: number): boolean => workload.sessions !== 'frames' || count % FRAMES === 0
  const measured = await alternate(workload, options.clients.map(Number).filter(isPossible), thinkMs)
  for (const [count, samples] of measured) {
    print()
    print(`${workload.title}; ${count} clients, ${thinkMs} ms between requests`)
    printTable([HEAD, ...workload.sides.map(side => rowOf(side, samples.get(side) ?? []))])
    for (const { than, atLeast } of workload.targets) {
      const ratio = perSecond(samples.get('raceSessionTx')) / perSecond(samples.get(than))
      print(`  session-tx to ${titleOf(than)}: ${verdict(ratio, { atLeast })}`)
    }
    if (workload.sessions === 'frames')
      for (const side of ['raceSessionTx', 'raceWholeSession'] as const)
        print(
          `  run again, ${titleOf(side)}: ${(100 * rerunShare(samples.get(side) ?? [])).toFixed(4)} % of requests`,
        )
  }
  if (options.plots && measured.size > 1) draw(name, workload, thinkMs, measured)
}

function draw(name: string, { title, sides }: Workload, thinkMs: number, measured: Measured): void {
  const file = `docs/bench/contention-${name}${thinkMs > 0 ? `-think-${thinkMs}` : ''}.svg`
  writePlot(file, {
    title: title[0]?.toUpperCase() + title.slice(1),
    subtitle: `${heading(database.server)}; ${turns} × ${turnMs} ms, ${thinkMs} ms between requests`,
    xName: 'clients',
    yName: 'committed per second',
    lines: sides.map(side => ({
      name: titleOf(side),
      points: [...measured].map(([count, samples]) => [count, perSecond(samples.get(side))] as const),
    })),
  })
  print(`  drawn: ${file}`)
}

const database = await BenchDatabase.open()
try {
  printHeading(
    `session-tx, contention: ${turns} alternations of ${turnMs} ms, 16 connections`,
    database.server,
  )
  for (const name of options.workload) {
    const known = WORKLOADS[name]
    if (known === undefined)
      throw new Error(`no workload ${name}: choose from ${Object.keys(WORKLOADS).join(', ')}`)
    const sides = known.sides.filter(side => options.side?.includes(side) ?? true)
    const workload = { ...known, sides, targets: known.targets.filter(({ than }) => sides.includes(than)) }
    for (const thinkMs of options.think) await part(name, workload, Number(thinkMs))
  }
} finally {
  await database.close()
}
