/**
 * The Redis store on a real Redis Cluster of three masters, with the clusters of both clients: it keeps the published
 * contract of a session store, and over HTTP two applications lose nothing, whichever node a session is on.
 */
import type { Cluster } from 'ioredis'
import { type RedisClient, redisStore } from '../../lib/index.js'
import { COMMIT_TABLE_DDL } from '../../lib/mysql/commit-record/commit-table.js'
import { systemEnvironment } from '../../lib/transaction/clock.js'
import { storeContract } from '../../lib/testing/index.js'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import type { Client } from '../support/client.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { valueOf } from '../support/observing.js'
import { ownCluster, type OwnServer } from '../support/own-server.js'
import {
  newPrefix,
  type NodeRedisCluster,
  openIoredis,
  openIoredisCluster,
  openNodeRedisCluster,
} from '../support/redis.js'

const MASTERS = 3

let nodes: readonly OwnServer[]
let nodeRedis: NodeRedisCluster
let ioredis: Cluster
const prefix = newPrefix()

beforeAll(async () => {
  nodes = await ownCluster('redis-cluster')
  const urls = nodes.map(({ url }) => url)
  nodeRedis = await openNodeRedisCluster(urls)
  ioredis = openIoredisCluster(urls)
}, 60_000)
afterAll(async () => {
  await nodeRedis.close()
  await ioredis.quit()
  await nodes[0]?.close()
}, 30_000)

const capabilities = {
  local: false,
  injectedClock: false,
  countsCommits: true,
  parallelClaims: true,
  findsUsers: true,
}
const clients: readonly (readonly [name: string, client: () => RedisClient])[] = [
  ['the cluster of node-redis', () => nodeRedis],
  ['the Cluster of ioredis', () => ioredis],
]

for (const [name, client] of clients)
  storeContract(`redisStore with ${name}`, () => redisStore(client(), { prefix }), capabilities)

describe.each(clients)('over HTTP, with %s', (_, client) => {
  const SESSIONS = 6
  const EACH = 6
  let db: TestDatabase
  const served: TxServed[] = []

  beforeAll(async () => {
    db = await openDatabase()
    await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
    await db.pool.query(COMMIT_TABLE_DDL)
    for (let application = 0; application < 2; application += 1)
      served.push(
        await serveTx({
          environment: systemEnvironment,
          options: { pool: db.pool, store: redisStore(client(), { prefix }), retry: { retries: 20 } },
          below,
        }),
      )
  })
  afterAll(async () => {
    for (const one of served.splice(0)) await one.close()
    await db.close()
  })

  async function below(ctx: TxContext): Promise<void> {
    const [, action, row] = ctx.path.split('/')
    if (action === 'joint') await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = ?', [row])
    if (action !== 'read') ctx.session['n'] = Number(ctx.session['n'] ?? 0) + 1
    ctx.body = Number(ctx.session['n'])
  }
  /** As the same visitor, at that application. */
  function at(application: number, visitor: Client): Client {
    const other = served[application]!.client()
    for (const [name, value] of visitor.cookies) other.cookies.set(name, value)
    return other
  }

  test('a variable and a row are written together, and parallel increments of two applications lose neither', async () => {
    const visitors = await Promise.all(
      Array.from({ length: SESSIONS }, async (_unused, row) => {
        await db.pool.query('REPLACE INTO item VALUES (?, 0)', [row])
        const visitor = served[row % 2]!.client()
        expect((await visitor.get(`/joint/${row}`)).text).toBe('1')
        return visitor
      }),
    )
    const answers = visitors.flatMap((visitor, row) =>
      Array.from({ length: EACH }, (_unused, number) => {
        const action = number < EACH / 2 ? 'joint' : 'alone'
        return at(number % 2, visitor).get(`/${action}/${row}`)
      }),
    )
    expect(new Set((await Promise.all(answers)).map(({ status }) => status))).toEqual(new Set([200]))
    for (const [row, visitor] of visitors.entries()) {
      expect((await at(1, visitor).get(`/read/${row}`)).text).toBe(String(1 + EACH))
      expect(await valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = ${row}`)).toBe(1 + EACH / 2)
    }
  })
})

test('its sessions are on every master', async () => {
  for (const { url } of nodes.slice(0, MASTERS)) {
    const client = openIoredis(url)
    expect((await client.keys(`${prefix}*}:s:*`)).length).toBeGreaterThan(0)
    client.disconnect()
  }
})
