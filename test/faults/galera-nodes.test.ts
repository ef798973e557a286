/**
 * A node of a Galera cluster is stopped, killed or cut off from the others under load, and joins again: the applications on
 * the other nodes go on, its own answers 503 and recovers alone, and nothing that was answered 200 is lost. With a memory of its own for each
 * application, and with sessions that all of them share in MySQL.
 */
import mysql from 'mysql2/promise'
import { mysqlStore, type SessionTxOptions } from '../../lib/index.js'
import type { KoaContext } from '../../lib/http/koa-context.js'
import { type Cluster, openCluster } from '../support/cluster.js'
import { openTorture, type Torture } from '../support/torture.js'

const VISITORS = 9
/** Visitors share the rows that count, over all nodes: not a multiple of how many there are. */
const COUNTERS = 2
const LOST = 2

let cluster: Cluster
beforeAll(async () => {
  cluster = await openCluster()
}, 180_000)
afterAll(() => cluster.close(), 30_000)

const options = { retry: { deadlineMs: 4_000 }, acquireMs: 1_500 }

const STORES: readonly (readonly [string, boolean, () => SessionTxOptions<KoaContext>])[] = [
  ['sessions in memory', false, () => options],
  ['sessions in MySQL, each request to any node', true, () => ({ ...options, store: mysqlStore() })],
]
const startAgain = (): Promise<void> => cluster.nodes[LOST]!.start()
const ENDS = [
  ['stopped', () => cluster.nodes[LOST]!.end(), startAgain],
  ['killed with kill -9', () => cluster.nodes[LOST]!.kill(), startAgain],
  ['cut off from the others', () => cluster.cutOff(LOST), () => cluster.reconnect(LOST)],
] as const
const CASES = STORES.flatMap(([name, shared, make]) =>
  ENDS.map(([how, leave, come]) => [name, how, { shared, make, leave, come }] as const),
)

describe('a node that is cut off from the others', () => {
  afterEach(async () => {
    await cluster.reconnect(LOST)
    await cluster.joined(LOST)
  }, 60_000)

  test.each([
    ['a statement', 'SELECT * FROM sessions'],
    ['COMMIT', 'COMMIT'],
  ])(
    'answers %s with 1047',
    async (_, sql) => {
      const admin = await cluster.admin(0)
      await admin.query(
        'CREATE TABLE IF NOT EXISTS item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE = InnoDB',
      )
      const client = await mysql.createConnection(cluster.nodes[LOST]!.url)
      try {
        await client.query('SET SESSION wsrep_sync_wait = 7')
        await client.query('BEGIN')
        await client.query('INSERT INTO item VALUES (1, 1)')
        await cluster.cutOff(LOST)
        await expect(client.query(sql)).rejects.toMatchObject({ errno: 1047 })
      } finally {
        client.destroy()
      }
    },
    60_000,
  )
})

describe.each(CASES)('%s, a node is %s and joins again', (name, how, { shared, make, leave, come }) => {
  let torture: Torture
  beforeEach(async () => {
    const urls = cluster.nodes.map(({ url }) => url)
    torture = await openTorture(urls, urls[0]!, VISITORS, make, COUNTERS)
  }, 60_000)
  afterEach(() => torture.close(), 30_000)

  test('the others go on, its own fails cleanly and recovers alone, nothing is lost', async () => {
    const { apps, request, answers } = torture
    let phase: 'before' | 'away' | 'back' = 'before'
    const stored = { before: [0, 0, 0], away: [0, 0, 0], back: [0, 0, 0] }
    const refused = { before: [0, 0, 0], away: [0, 0, 0], back: [0, 0, 0] }
    const longestMs = { before: 0, away: 0, back: 0 }
    let over = false
    const worker = async (visitor: number): Promise<void> => {
      for (let turn = visitor; !over; turn += 1) {
        const app = (shared ? turn : visitor) % apps.length
        const [during, started] = [phase, Date.now()]
        const told = await request(visitor, app)
        const into = told === 'stored' ? stored : refused
        into[during][app]! += 1
        if (app !== LOST) longestMs[during] = Math.max(longestMs[during], Date.now() - started)
      }
    }
    const working = Array.from({ length: VISITORS }, (_, visitor) => worker(visitor))
    const failed = Promise.all(working)
    const reached = async (what: () => boolean): Promise<void> => {
      while (!what()) await Promise.race([failed, new Promise(resolve => setTimeout(resolve, 10))])
    }
    const took = { end: 0, join: 0 }
    try {
      await reached(() => stored.before.every(n => n > 20))
      phase = 'away'
      let started = Date.now()
      await leave()
      took.end = Date.now() - started
      // Its own has been refused, and the others have worked since.
      await reached(() => stored.away[0]! > 20 && stored.away[1]! > 20 && refused.away[LOST]! > 5)
      started = Date.now()
      await come()
      await cluster.joined(LOST)
      took.join = Date.now() - started
      phase = 'back'
      await reached(() => stored.back.every(n => n > 20))
    } finally {
      over = true
    }
    await failed
    await torture.calm()

    const { problems, effects } = await torture.verify()
    const sum = (what: (app: (typeof apps)[number]) => number | undefined): number =>
      apps.reduce((total, app) => total + (what(app) ?? 0), 0)
    const kinds = [...new Set(apps.flatMap(({ tx }) => Object.keys(tx.stats().conflicts.byKind)))]
    const byKind = Object.fromEntries(
      kinds.map(kind => [
        kind,
        sum(({ tx }) => (tx.stats().conflicts.byKind as Record<string, number>)[kind]),
      ]),
    )
    const settled = torture.settled.map(({ outcome }) => outcome)
    const unsettled = settled.filter(outcome => outcome === 'unknown').length
    const figures = { took, answers, stored, refused, longestMs, byKind, settled: settled.length, effects }
    process.stdout.write(`${name}, ${how}: ${JSON.stringify(figures)}\n`)

    expect(Object.keys(answers).filter(kind => !/^(200|503) /.test(kind))).toEqual([])
    expect(problems).toEqual([])
    expect(unsettled).toBe(0)
    expect(byKind['certification']).toBeGreaterThan(0)
    expect(sum(({ tx }) => tx.stats().commitsLost)).toBe(0)
    expect(apps.flatMap(({ errors }) => errors)).toEqual([])
  }, 180_000)
})
