/**
 * One session update plus one row update per request: session-tx against koa-session and a transaction by hand, on
 * loopback and with a longer network to the database; then the session alone, against koa-session and against Koa
 * without any. 16 clients, each with a session and a row of its own, so nobody ever waits for another.
 *
 * Each server is a process of its own, measured in turn; this process is the load. `--turns=9 --turn-ms=2000` for a
 * longer run.
 */
import { parseArgs } from 'node:util'
import { alternate, type Measured, type Plan } from './support/alternation.js'
import { BenchDatabase, roundTripMs } from './support/database.js'
import { print, printHeading, printMedians, ratios, type Side, verdict } from './support/report.js'
import { SideProcess } from './support/side-process.js'

const CLIENTS = 16
const DELAY_MS = 0.5

const { values: options } = parseArgs({
  options: {
    turns: { type: 'string', default: '7' },
    'turn-ms': { type: 'string', default: '1500' },
    part: { type: 'string', multiple: true, default: ['loopback', 'latency', 'session'] },
  },
})

const common = {
  clients: CLIENTS,
  path: (client: number) => `/${client}`,
  rounds: Number(options.turns),
  turnMs: Number(options['turn-ms']),
} satisfies Partial<Plan>

const joint: readonly Side[] = [
  { name: 'jointSessionTx', title: 'session-tx' },
  { name: 'jointByHand', title: 'koa-session + BEGIN … COMMIT by hand' },
]
const sessionOnly: readonly Side[] = [
  { name: 'sessionOnlySessionTx', title: 'session-tx' },
  { name: 'sessionOnlyKoaSession', title: 'koa-session' },
  { name: 'sessionOnlyUnsigned', title: 'session-tx without keys' },
  { name: 'plainKoa', title: 'plain Koa' },
]

const names = (sides: readonly Side[]): Plan['sides'] => sides.map(({ name }) => name)

const database = await BenchDatabase.open()
try {
  const rounds = `${common.rounds} alternations of ${common.turnMs} ms, ${CLIENTS} clients`
  printHeading(`session-tx, joint transactions: ${rounds}`, database.server)
  if (options.part.includes('loopback')) await jointPart('on loopback', database.url, 1)
  if (options.part.includes('latency')) await latencyPart()
  if (options.part.includes('session')) await sessionPart()
} finally {
  await database.close()
}

async function jointPart(where: string, url: URL, target: number): Promise<void> {
  await database.makeVisitors(CLIENTS)
  const measured = await alternate({ ...common, sides: names(joint), databaseUrl: url.href })
  await assertNothingLost(measured)
  print()
  print(`one session variable and one row per request, ${where}`)
  printMedians(measured, joint)
  const { throughput, cpu } = ratios(measured, 'jointSessionTx', 'jointByHand')
  print(`  requests/s, session-tx to by hand: ${verdict(throughput, { atLeast: target })}`)
  print(`  CPU per request, by hand to session-tx: ${cpu.toFixed(2)}`)
}

/** A benchmark of something that does not work says nothing. */
async function assertNothingLost({ answered }: Measured): Promise<void> {
  const requests = [...answered.values()].reduce((sum, count) => sum + count, 0)
  const visits = await database.visits()
  if (visits !== requests) throw new Error(`${requests} requests were answered, but the rows say ${visits}`)
}

async function latencyPart(): Promise<void> {
  const { hostname, port } = database.url
  const proxy = await SideProcess.start('delaying-proxy.js', [hostname, port, String(DELAY_MS)])
  try {
    const url = database.through(proxy.port)
    const addedMs = (await roundTripMs(url)) - (await roundTripMs(database.url))
    await jointPart(`a round trip to the database ${addedMs.toFixed(2)} ms longer`, url, 1.15)
  } finally {
    await proxy.stop()
  }
}

async function sessionPart(): Promise<void> {
  const measured = await alternate({ ...common, sides: names(sessionOnly) })
  print()
  print('one session variable per request, no SQL')
  printMedians(measured, sessionOnly)
  const { throughput, cpu } = ratios(measured, 'sessionOnlySessionTx', 'sessionOnlyKoaSession')
  print(`  requests/s, session-tx to koa-session: ${verdict(throughput, { atLeast: 1.3 })}`)
  print(`  CPU per request, koa-session to session-tx: ${cpu.toFixed(2)}`)
  const unsigned = ratios(measured, 'sessionOnlyUnsigned', 'sessionOnlyKoaSession')
  print(
    `  the same without keys (the default of session-tx): ${unsigned.throughput.toFixed(2)}, CPU ${unsigned.cpu.toFixed(2)}`,
  )
  for (const { name, title } of sessionOnly.filter(side => side.name !== 'plainKoa')) {
    const toPlain = ratios(measured, name, 'plainKoa')
    const shares = `${toPlain.throughput.toFixed(2)} of its requests/s, ${(1 / toPlain.cpu).toFixed(2)} times its CPU`
    print(`  ${title} to plain Koa: ${shares}`)
  }
}
