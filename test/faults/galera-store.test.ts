/**
 * mysqlStore on a real Galera cluster: it keeps the contract of a session store, and what the contract says of two claims
 * holds when they are on two nodes, whose locks do not see each other.
 */
import mysql, { type Pool } from 'mysql2/promise'
import { mysqlStore } from '../../lib/index.js'
import { corePoolOf } from '../../lib/mysql/driver.js'
import { LeaseBroker } from '../../lib/mysql/lease/lease.js'
import { storeDatabase } from '../../lib/mysql/store-database.js'
import { NAMES } from '../../lib/session/store.js'
import { sessionTables } from '../../lib/store/mysql-tables.js'
import { storeContract } from '../../lib/testing/index.js'
import { type Wish, Writer } from '../../lib/testing/session-writer.js'
import { type Bench, benchOf } from '../../lib/testing/store-bench.js'
import { systemClock } from '../../lib/transaction/clock.js'
import { type Cluster, openCluster } from '../support/cluster.js'

let cluster: Cluster
const brokers: LeaseBroker[] = []
const pools: Pool[] = []

beforeAll(async () => {
  cluster = await openCluster()
  const admin = await cluster.admin(0)
  for (const { ddl } of sessionTables('sessions')) await admin.query(ddl)
  for (const { url } of cluster.nodes) {
    const pool = mysql.createPool({ uri: url, connectionLimit: 6 })
    const options = { isolation: 'snapshot', lockWaitMs: 5_000, clock: systemClock } as const
    brokers.push(new LeaseBroker(corePoolOf(pool), options))
    pools.push(pool)
  }
}, 180_000)
afterAll(async () => {
  for (const broker of brokers) await broker.close()
  for (const pool of pools) await pool.end()
  await cluster.close()
}, 30_000)

test('each server is recognised as a node of Galera', async () => {
  for (const broker of brokers) {
    const lease = await broker.acquire(5_000)
    expect(lease.server).toMatchObject({ flavour: 'galera', galera: true, snapshotIsolation: true })
    lease.release()
  }
})

describe('one session on two nodes', () => {
  /** Locks are local to a node, so both are ready to commit; what the one changes, certification tells the other. */
  async function bothCommit(
    wishes: readonly [Wish, Wish],
    inTurn: boolean,
  ): Promise<{ readonly ends: readonly string[]; readonly variables: string }> {
    const benches: Bench[] = []
    for (const node of [0, 1]) {
      const made = { store: mysqlStore(), database: storeDatabase(brokers[node]!, 5_000) }
      benches.push(await benchOf(made, {}))
    }
    const [{ key, write }] = benches as [Bench, Bench]
    try {
      await write({ set: { a: 1, b: 1 } })
      const writers = await Promise.all(benches.map(from => Writer.of(from, key)))
      for (const [place, writer] of writers.entries()) await writer.wants(wishes[place]!).claim.prepare()
      const end = async (writer: Writer): Promise<string> => {
        try {
          await writer.finish()
          return 'committed'
        } catch (error) {
          await writer.abort()
          return String((error as { errno?: number }).errno ?? error)
        }
      }
      const [one, two] = writers as [Writer, Writer]
      const ends = inTurn ? [await end(one), await end(two)] : await Promise.all([end(one), end(two)])
      await cluster.seenEverywhere()
      const rows = await cluster.query(2, `SELECT variable FROM sessions WHERE session = '${key}' ORDER BY 1`)
      return { ends, variables: rows.map(row => String(row['variable'])).join() }
    } finally {
      for (const { store } of benches) await store.close()
    }
  }
  test.each([
    ['one after the other', true],
    ['at once', false],
  ])('different variables, committed %s, are both kept', async (_, inTurn) => {
    const { ends } = await bothCommit([{ set: { a: 2 } }, { set: { b: 2 } }], inTurn)
    expect(ends).toEqual(['committed', 'committed'])
  })

  test.each<[string, readonly [Wish, Wish], string]>([
    ['one variable', [{ set: { a: 2 } }, { set: { a: 3 } }], ',a,b'],
    [
      'each reads what the other writes, and it must be current',
      [
        { set: { a: 2 }, current: ['b'] },
        { set: { b: 2 }, current: ['a'] },
      ],
      ',a,b',
    ],
    [
      'what one writes must be current for one who writes no variable',
      [{ set: { a: 2 } }, { current: ['a'] }],
      ',a,b',
    ],
    ['the other way round', [{ current: ['a'] }, { set: { a: 2 } }], ',a,b'],
    [
      'what one makes must not be there for the other',
      [{ set: { c: 1 } }, { set: { a: 2 }, current: ['c'] }],
      ',a,b,c',
    ],
    [
      'the names must be current, and one comes',
      [{ set: { c: 1 } }, { set: { a: 2 }, current: [NAMES] }],
      ',a,b,c',
    ],
    ['the names must be current, and one goes', [{ current: [NAMES] }, { set: { b: undefined } }], ',a,b'],
    ['one variable comes, the session ends', [{ destroys: true }, { set: { c: 1 } }], ''],
    ['the session ends, one variable comes', [{ set: { c: 1 } }, { destroys: true }], ',a,b,c'],
    [
      'one variable comes, the session is replaced',
      [{ set: { c: 1 } }, { set: { a: 2 }, replaces: true }],
      ',a,b,c',
    ],
    [
      'one variable is written, the session is replaced',
      [{ set: { b: 2 } }, { set: { a: 2 }, replaces: true }],
      ',a,b',
    ],
    [
      'the session is replaced, one variable is written',
      [{ set: { a: 2 }, replaces: true }, { set: { b: 2 } }],
      ',a,b',
    ],
  ])('%s: only one commits', async (_, wishes, left) => {
    expect(await bothCommit(wishes, true)).toEqual({ ends: ['committed', '1213'], variables: left })
    for (let round = 0; round < 10; round++) {
      const { ends } = await bothCommit(wishes, false)
      expect([...ends].sort()).toEqual(['1213', 'committed'])
    }
  })
})

let stores = 0
storeContract(
  'mysqlStore with a node of Galera for each store',
  () => ({
    store: mysqlStore(),
    database: storeDatabase(brokers[stores++ % brokers.length]!, 5_000),
  }),
  { local: false, injectedClock: false, countsCommits: false, parallelClaims: false, findsUsers: true },
)
