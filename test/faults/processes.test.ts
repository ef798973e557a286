/**
 * Several processes, sessions in MySQL or in Redis, and a balancer that sends each request to the next of them: nothing is lost when
 * they compete, when they are replaced one by one, and when they are killed with `kill -9` between any two steps of a
 * request and its commit. (Acceptance 48 and 49; `npm run test:faults` kills more of them.)
 */
import { COMMIT_TABLE_DDL } from '../../lib/mysql/commit-record/commit-table.js'
import { sessionTables } from '../../lib/store/mysql-tables.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { Fleet } from '../support/fleet.js'
import { newPrefix, redisUrl } from '../support/redis.js'
import { Visitors } from '../support/torture.js'
import { makeTables } from '../support/torture-app.js'

const PROCESSES = 4
const KILLS = Number(process.env['FAULTS'] ?? 24)

/** What a request sends, in this order; the session is looked for before the handler runs. */
type Step = readonly [string, RegExp, 'redis'?]

const MYSQL_STEPS: readonly Step[] = [
  ['the session is looked for', /^SELECT s\.variable/],
  ['the session is held, by who lost before', /FROM `sessions` .* FOR UPDATE$/],
  ['a row is inserted', /^INSERT INTO effect/],
  ['a row is changed', /^UPDATE counter/],
  ['the session is compared and set', /UPDATE `sessions`/],
  ['both are committed', /^COMMIT$/],
]
const REDIS_STEPS: readonly Step[] = [
  ['the session is looked for', /^fetch/, 'redis'],
  ['a row is inserted', /^INSERT INTO effect/],
  ['a row is changed', /^UPDATE counter/],
  ['the session is staged', /^stage/, 'redis'],
  ['the decision is recorded', /^UPDATE sessiontx_commits SET seq/],
  ['it is committed', /^COMMIT$/],
  ['the session is published', /^publish/, 'redis'],
]

function pointsOf(steps: readonly Step[]) {
  return steps.flatMap(([name, matches, at]) =>
    (['before', 'after'] as const).map(moment => ({ name: `${moment}: ${name}`, matches, moment, at })),
  )
}

describe.each([
  ['MySQL', MYSQL_STEPS],
  ['Redis', REDIS_STEPS],
] as const)('sessions in %s', (where, steps) => {
  const points = pointsOf(steps)
  let database: TestDatabase
  let fleet: Fleet
  let closed = false
  beforeEach(async () => {
    closed = false
    database = await openDatabase()
    await makeTables(database.url, [COMMIT_TABLE_DDL, ...sessionTables('sessions').map(({ ddl }) => ddl)])
    const redis = where === 'Redis' ? { url: redisUrl(), prefix: newPrefix() } : undefined
    fleet = await Fleet.open(database.url, PROCESSES, redis)
  }, 60_000)
  afterEach(async () => {
    closed = true
    await fleet.close()
    await database.close()
  })

  function visitors(count: number): Promise<Visitors> {
    return Visitors.begin({ urls: [fleet.url], databaseUrl: database.url, count })
  }

  /** So many requests at a time, until the work is done. */
  async function underLoad(
    load: Visitors,
    count: number,
    workers: number,
    work: () => Promise<void>,
  ): Promise<void> {
    let over = false
    const worker = async (number: number): Promise<void> => {
      while (!over && !closed) await load.request(number % count)
    }
    const working = Promise.all(Array.from({ length: workers }, (_, number) => worker(number)))
    try {
      await Promise.race([work(), working.then(() => Promise.reject(new Error('the load ended too early')))])
    } finally {
      over = true
    }
    await working
  }

  test('four processes, one session: no increment is lost, nobody is refused', async () => {
    const load = await visitors(1)
    await Promise.all(Array.from({ length: 40 }, () => load.request(0)))
    expect(load.answers).toEqual({ '200 OK': 41 })
    expect(await load.verify()).toEqual({ problems: [], effects: 41 })
  })

  test('a rolling restart under load: every request is answered, none is refused, nothing is lost', async () => {
    const load = await visitors(6)
    const codes: (number | null)[] = []
    await underLoad(load, 6, 8, async () => {
      for (const member of [...fleet.members]) codes.push(await fleet.replace(member))
    })
    expect(codes).toEqual([0, 0, 0, 0])
    expect(Object.keys(load.answers)).toEqual(['200 OK'])
    expect((await load.verify()).problems).toEqual([])
  }, 60_000)

  test(
    `a process killed with kill -9, ${KILLS} times, at each step in turn: session and rows agree, nothing answered is lost`,
    async () => {
      const load = await visitors(6)
      const killed: Record<string, number> = {}
      await underLoad(load, 6, 10, async () => {
        for (let kill = 0; kill < KILLS; kill++) {
          const { name, matches, moment, at } = points[kill % points.length]!
          const [member] = fleet.members
          await fleet.killAt(member!, matches, moment, at && member!.redis)
          killed[name] = (killed[name] ?? 0) + 1
        }
      })
      const { problems, effects } = await load.verify()
      process.stdout.write(
        `${JSON.stringify({ killed, answers: load.answers, effects, problems: problems.length })}\n`,
      )
      expect(problems).toEqual([])
      expect(Object.keys(killed)).toHaveLength(Math.min(KILLS, points.length))
      expect(Object.keys(load.answers).filter(kind => !/^(?:200 OK|cut|503 .*)$/.test(kind))).toEqual([])
    },
    60_000 + KILLS * 3_000,
  )
})
