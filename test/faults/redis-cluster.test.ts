/**
 * A Redis Cluster whose masters are stopped under load: their replicas take over, and what had not reached them is lost.
 * Afterwards every session agrees with the rows that were made in it, every effect that was answered is there, and no
 * session has ended without its being told.
 */
import { once } from 'node:events'
import mysql, { type Pool, type RowDataPacket } from 'mysql2/promise'
import { type RedisClient, redisStore } from '../../lib/index.js'
import { COMMIT_TABLE_DDL } from '../../lib/mysql/commit-record/commit-table.js'
import { systemEnvironment } from '../../lib/transaction/clock.js'
import { serveTx, type TxServed } from '../support/app.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { ownCluster, type OwnServer } from '../support/own-server.js'
import { sleep } from '../support/random.js'
import { newPrefix, openIoredis, openIoredisCluster, openNodeRedisCluster } from '../support/redis.js'
import { Visitors } from '../support/torture.js'
import { addEffect, makeTables, tellCode } from '../support/torture-app.js'

const MASTERS = 3
const APPLICATIONS = 2
const VISITORS = 12
const WORKERS = 8
const GRACE_MS = 2_000
const LOOK_AGAIN_MS = 50

interface ClusterClient {
  readonly client: RedisClient
  readonly close: () => unknown
}

async function withIoredis(): Promise<ClusterClient> {
  const client = openIoredisCluster(urls())
  await once(client, 'ready')
  return { client, close: () => client.disconnect() }
}

async function withNodeRedis(): Promise<ClusterClient> {
  const client = await openNodeRedisCluster(urls())
  return { client, close: () => client.destroy() }
}

/** node-redis 5 learns of a new master from a node that answers; the one that is gone does not, until it is back. */
const clients = [
  { name: 'the Cluster of ioredis', open: withIoredis, findsReplica: true, from: 0, to: MASTERS },
  { name: 'the cluster of node-redis', open: withNodeRedis, findsReplica: false, from: MASTERS, to: 0 },
]

let nodes: readonly OwnServer[]
let database: TestDatabase
const urls = (): string[] => nodes.map(({ url }) => url)

beforeAll(async () => {
  nodes = await ownCluster('redis-cluster')
  database = await openDatabase()
}, 60_000)
afterAll(async () => {
  await database.close()
  await nodes[0]?.close()
}, 30_000)

/** Resolves when that node says so of itself; it may be away, or not be asked yet. */
async function says(node: OwnServer, what: RegExp): Promise<void> {
  for (;;) {
    const client = openIoredis(node.url)
    try {
      if (what.test(await client.info('replication'))) return
    } finally {
      client.disconnect()
    }
    await sleep(LOOK_AGAIN_MS)
  }
}
const IS_MASTER = /role:master/
const FOLLOWS = /role:slave[^]*master_link_status:up/

describe.each(clients)('with $name', ({ open, findsReplica, from, to }) => {
  const served: TxServed[] = []
  const undo: (() => unknown)[] = []
  let pool: Pool
  beforeEach(async () => {
    await makeTables(database.url, [COMMIT_TABLE_DDL])
    pool = mysql.createPool({ uri: database.url, connectionLimit: 8 })
    const prefix = newPrefix()
    for (let number = 0; number < APPLICATIONS; number += 1) {
      const { client, close } = await open()
      undo.push(close)
      served.push(
        await serveTx({
          environment: systemEnvironment,
          options: { pool, store: redisStore(client, { prefix, graceMs: GRACE_MS }) },
          above: [tellCode],
          below: addEffect,
        }),
      )
    }
  })
  afterEach(async () => {
    for (const one of served.splice(0)) await one.close()
    for (const one of undo.splice(0)) await one()
    await pool.end()
  })

  /** Resolves when every visitor has been answered with 200 since. */
  async function everybodyIsServed(load: Visitors): Promise<void> {
    for (let visitor = 0; visitor < VISITORS; ) if ((await load.request(visitor)) === 'stored') visitor += 1
  }

  async function failover(load: Visitors): Promise<void> {
    const [master, replica] = [nodes[from]!, nodes[to]!]
    await master.kill()
    await says(replica, IS_MASTER)
    if (findsReplica) await everybodyIsServed(load)
    await master.start()
    await says(master, FOLLOWS)
    await everybodyIsServed(load)
  }

  /** Sessions that were begun after the first of each visitor. */
  async function begunAnew(): Promise<number> {
    const [rows] = await pool.query<RowDataPacket[]>('SELECT COUNT(DISTINCT session) AS n FROM effect')
    return Number(rows[0]?.['n']) - VISITORS
  }

  test('a master is killed, its replica takes over, and it comes back as a replica: nothing is lost silently', async () => {
    const load = await Visitors.begin({
      urls: served.map(({ url }) => url),
      databaseUrl: database.url,
      count: VISITORS,
      sessionsEnd: true,
    })
    let over = false
    const worker = async (number: number): Promise<void> => {
      for (let turn = number; !over; turn += 1) await load.request(turn % VISITORS, turn % APPLICATIONS)
    }
    const working = Promise.all(Array.from({ length: WORKERS }, (_unused, number) => worker(number)))
    try {
      await Promise.race([failover(load), working])
    } finally {
      over = true
    }
    await working
    const { problems, effects } = await load.verify()
    const anew = await begunAnew()
    const commitsLost = served.reduce((sum, { tx }) => sum + tx.stats().commitsLost, 0)
    process.stdout.write(`${JSON.stringify({ answers: load.answers, effects, anew, commitsLost })}\n`)
    expect(problems).toEqual([])
    expect(Object.keys(load.answers).filter(kind => !/^(?:200 OK|503 .*)$/.test(kind))).toEqual([])
    expect(anew === 0 || commitsLost > 0).toBe(true)
  }, 60_000)
})
