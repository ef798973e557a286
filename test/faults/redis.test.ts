/**
 * Random faults on sessions in Redis, under load of four processes over HTTP: a process killed with `kill -9` between any
 * two steps of a request and its commit; what is sent to Redis or MariaDB, or its answer, lost; Redis killed and started
 * again, cut off, emptied; MariaDB killed and started again. Afterwards each effect is there once or not at all, every
 * session agrees with the rows, and nothing stays in doubt longer than the grace. `npm run test:faults` has more of them.
 */
import { COMMIT_TABLE_DDL } from '../../lib/mysql/commit-record/commit-table.js'
import { Fleet, type Member } from '../support/fleet.js'
import { ownServer, type OwnServer } from '../support/own-server.js'
import type { Accident } from '../support/proxy.js'
import { randomOf, sleep } from '../support/random.js'
import { newPrefix, openIoredis } from '../support/redis.js'
import { Visitors } from '../support/torture.js'
import { emptyTables, makeTables } from '../support/torture-app.js'

const FAULTS = Number(process.env['FAULTS'] ?? 40)
const SEED = Number(process.env['FAULT_SEED'] ?? Math.trunc(Math.random() * 2 ** 32))
const PROCESSES = 4
const VISITORS = 8
const WORKERS = 12
/** As test/processes/tortured.ts has it. */
const GRACE_MS = 2_000
/** A fault that nothing ran into is counted as none. */
const HAPPENS_MS_MAX = 3_000
const SERVERS_KILLED_EVERY = 20

let database: OwnServer
let redis: OwnServer
let fleet: Fleet
const prefix = newPrefix()

beforeAll(async () => {
  database = await ownServer()
  redis = await ownServer('redis')
  await makeTables(database.url, [COMMIT_TABLE_DDL])
  fleet = await Fleet.open(database.url, PROCESSES, { url: redis.url, prefix })
}, 120_000)
afterAll(async () => {
  await fleet.close()
  await redis.close()
  await database.close()
}, 30_000)

const random = randomOf(SEED)
const pick = <T>(from: readonly T[]): T => from[Math.trunc(random() * from.length)]!

type Step = readonly [matches: RegExp, at?: 'redis']
const STEPS: readonly Step[] = [
  [/^fetch/, 'redis'],
  [/^INSERT INTO effect/],
  [/^UPDATE counter/],
  [/^stage/, 'redis'],
  [/^UPDATE sessiontx_commits SET seq/],
  [/^COMMIT$/],
  [/^publish/, 'redis'],
]

/** Each injects one fault and resolves when it has happened; false if nothing ran into it in time. */
const KINDS: Readonly<Record<string, { readonly weight: number; inject(): Promise<boolean> }>> = {
  'process killed': { weight: 10, inject: kill },
  'stage lost': { weight: 3, inject: () => accident([/^stage/, 'redis']) },
  'publish lost': { weight: 4, inject: () => accident([/^publish/, 'redis']) },
  'rollback lost': { weight: 1, inject: () => accident([/^rollback/, 'redis']) },
  'fetch lost': { weight: 1, inject: () => accident([/^fetch/, 'redis']) },
  'COMMIT lost': { weight: 4, inject: () => accident([/^COMMIT$/]) },
  'record lost': { weight: 2, inject: () => accident([/^UPDATE sessiontx_commits SET seq/]) },
  'look-up lost': { weight: 1, inject: () => accident([/^SELECT slot, seq/]) },
  'Redis cut off from a process': { weight: 3, inject: () => cut('redis') },
  'MariaDB cut off from a process': { weight: 2, inject: () => cut('proxy') },
  'Redis killed': { weight: 3, inject: () => restart(redis) },
}

const member = (): Member => pick(fleet.members)

async function kill(): Promise<boolean> {
  const victim = member()
  const [matches, at] = pick(STEPS)
  const killing = fleet.killAt(victim, matches, pick(['before', 'after']), at && victim.redis)
  return Promise.race([killing.then(() => true), sleep(4 * HAPPENS_MS_MAX).then(() => false)])
}

async function accident([matches, at]: Step): Promise<boolean> {
  const { redis: toRedis, proxy } = member()
  const on = at === 'redis' ? toRedis : proxy
  const kind: Accident = pick(['answer lost', 'command lost'])
  const happened = await Promise.race([
    on!.accident(matches, kind).then(() => true),
    sleep(HAPPENS_MS_MAX).then(() => false),
  ])
  on!.forget()
  return happened
}

async function cut(what: 'redis' | 'proxy'): Promise<boolean> {
  const line = member()[what]
  line?.cut(true)
  await sleep(20 + random() * 600)
  line?.cut(false)
  return true
}

async function restart(server: OwnServer): Promise<boolean> {
  await server.kill()
  await sleep(random() * 300)
  await server.start()
  return true
}

/** Shards with intents that nobody has finished. */
async function inDoubt(): Promise<number> {
  const client = openIoredis(redis.url)
  try {
    return (await client.keys(`${prefix}*intents`)).length
  } finally {
    client.disconnect()
  }
}

async function underFaults(load: Visitors, work: () => Promise<void>): Promise<number> {
  let over = false
  let longestMs = 0
  const worker = async (number: number): Promise<void> => {
    while (!over) {
      const started = Date.now()
      await load.request((number + Math.trunc(Math.random() * VISITORS)) % VISITORS)
      longestMs = Math.max(longestMs, Date.now() - started)
    }
  }
  // A request that ends in anything but 200, 503 or a cut ends the test.
  const working = Promise.all(Array.from({ length: WORKERS }, (_, number) => worker(number)))
  try {
    await Promise.race([work(), working])
  } finally {
    over = true
  }
  await working
  return longestMs
}

async function inject(count: number, happened: Record<string, number>): Promise<void> {
  const deck = Object.keys(KINDS).flatMap(name => Array<string>(KINDS[name]?.weight ?? 0).fill(name))
  for (let done = 0; done < count; ) {
    const name = pick(deck)
    if (await KINDS[name]?.inject()) {
      happened[name] = (happened[name] ?? 0) + 1
      done += 1
      if (done % SERVERS_KILLED_EVERY === SERVERS_KILLED_EVERY / 2) {
        await restart(database)
        happened['MariaDB killed'] = (happened['MariaDB killed'] ?? 0) + 1
      }
    }
    await sleep(random() * 60)
  }
}

test(
  `${FAULTS} faults: each effect once or not at all, every session agrees, nothing stays in doubt`,
  async () => {
    process.stdout.write(
      `\nseed ${SEED}: repeat it by npm run test:faults -- --seed ${SEED} --faults ${FAULTS}\n`,
    )
    const load = await Visitors.begin({
      urls: [fleet.url],
      databaseUrl: database.url,
      count: VISITORS,
    })
    const happened: Record<string, number> = {}
    const started = Date.now()
    const longestMs = await underFaults(load, () => inject(FAULTS, happened))
    const seconds = ((Date.now() - started) / 1000).toFixed(1)
    await sleep(GRACE_MS)
    const left = await inDoubt()
    const { problems, effects } = await load.verify()
    const figures = {
      seconds,
      happened,
      answers: load.answers,
      effects,
      longestMs,
      left,
      problems: problems.length,
    }
    process.stdout.write(`${JSON.stringify(figures, null, 2)}\n`)
    expect(problems).toEqual([])
    expect(left).toBe(0)
    expect(Object.keys(load.answers).filter(kind => !/^(200 OK|503 .*|cut)$/.test(kind))).toEqual([])
  },
  60_000 + FAULTS * 6_000,
)

test('Redis emptied under load: sessions begin anew, each agrees with its rows, and all recovers alone', async () => {
  await emptyTables(database.url)
  const load = await Visitors.begin({
    urls: [fleet.url],
    databaseUrl: database.url,
    count: VISITORS,
    sessionsEnd: true,
  })
  await underFaults(load, async () => {
    for (let times = 0; times < 3; times += 1) {
      await sleep(500)
      await redis.kill()
      await redis.wipe()
      await redis.start()
      await sleep(1_500)
    }
  })
  await sleep(GRACE_MS)
  const left = await inDoubt()
  const { problems, effects } = await load.verify()
  process.stdout.write(`${JSON.stringify({ answers: load.answers, effects, left, problems })}\n`)
  expect(problems).toEqual([])
  expect(left).toBe(0)
  expect(load.answers['200 OK']).toBeGreaterThan(VISITORS)
}, 120_000)

test('Redis loses the last of what it had answered, under load: that is told, and what it concerns begins anew', async () => {
  await emptyTables(database.url)
  const load = await Visitors.begin({
    urls: [fleet.url],
    databaseUrl: database.url,
    count: VISITORS,
    sessionsEnd: true,
  })
  const lost = async (): Promise<number> => {
    const figures = await Promise.all(fleet.members.map(({ process: one }) => one.figures()))
    return figures.reduce((sum, { commitsLost }) => sum + commitsLost, 0)
  }
  const before = await lost()
  await underFaults(load, async () => {
    for (let times = 0; times < 6; times += 1) {
      await sleep(500)
      await redis.kill()
      await redis.lose(Math.trunc(500 + random() * 5_000))
      await redis.start()
      await sleep(700)
    }
  })
  await sleep(GRACE_MS)
  const left = await inDoubt()
  const { problems, effects } = await load.verify()
  const told = (await lost()) - before
  process.stdout.write(`${JSON.stringify({ answers: load.answers, effects, told, left, problems })}\n`)
  expect(problems).toEqual([])
  expect(left).toBe(0)
  expect(told).toBeGreaterThan(0)
}, 120_000)
