/**
 * session-tx on a real Galera cluster whose nodes are all there: what one node has answered is seen on the others, lost
 * races are recognised as Galera reports them, and COMMITs in doubt are settled across nodes. Nodes that are stopped are in
 * galera-nodes.test.ts, the session store in galera-store.test.ts.
 */
import mysql, { type Connection, type RowDataPacket } from 'mysql2'
import { COMMIT_TABLE_DDL, decideSlot, insertSlot } from '../../lib/mysql/commit-record/commit-table.js'
import { settleOn } from '../../lib/mysql/commit-record/settle.js'
import { type CoreConnection } from '../../lib/mysql/driver.js'
import type { TxContext, TxServed } from '../support/app.js'
import { Barrier, deferred } from '../support/barrier.js'
import { type Cluster, openCluster } from '../support/cluster.js'
import { openProxy, type Proxy } from '../support/proxy.js'

let cluster: Cluster
const ROUNDS = 50

beforeAll(async () => {
  cluster = await openCluster()
  const admin = await cluster.admin(0)
  await admin.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
  // Long to apply, so that a node that does not wait is behind.
  await admin.query('CREATE TABLE bulk (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
  await admin.query('INSERT INTO bulk SELECT seq, 0 FROM seq_1_to_1000')
  await admin.query('CREATE TABLE plain (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=MyISAM')
  await admin.query(COMMIT_TABLE_DDL)
}, 180_000)
afterAll(() => cluster.close(), 30_000)
beforeEach(async () => {
  await query(0, 'REPLACE INTO item VALUES (1, 0), (2, 0), (3, 0)')
  await cluster.seenEverywhere()
})
afterEach(() => cluster.clear())

const query = (node: number, sql: string): Promise<RowDataPacket[]> => cluster.query(node, sql)

const increment = (ctx: TxContext): Promise<unknown> => ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 1')
const numberOf = async (ctx: TxContext): Promise<number> => {
  const [rows] = await ctx.tx.query<RowDataPacket[]>('SELECT n FROM item WHERE id = 1')
  return Number(rows[0]?.['n'])
}
const total = async (): Promise<number> =>
  Number((await query(0, 'SELECT n FROM item WHERE id = 1'))[0]?.['n'])

describe('what one node has answered, another one sees', () => {
  const READS: readonly (readonly [string, (ctx: TxContext) => Promise<number>])[] = [
    ['in the first statement', numberOf],
    [
      'after an UPDATE of something else',
      async ctx => {
        await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 2')
        return numberOf(ctx)
      },
    ],
    [
      'after an INSERT of something else',
      async ctx => {
        await ctx.tx.query('INSERT INTO item VALUES (9, 0)')
        return numberOf(ctx)
      },
    ],
    [
      'locked',
      async ctx => {
        const [rows] = await ctx.tx.query<RowDataPacket[]>('SELECT n FROM item WHERE id = 1 FOR UPDATE')
        return Number(rows[0]?.['n'])
      },
    ],
  ]
  test.each(READS)('%s', async (_, read) => {
    const writer = await cluster.serve(0, async ctx => {
      await ctx.tx.query('UPDATE bulk SET n = n + 1')
      await increment(ctx)
      ctx.body = ''
    })
    const reader = await cluster.serve(1, async ctx => {
      ctx.body = { n: await read(ctx) }
      ctx.tx.doom('only looking')
    })
    const [writing, reading] = [writer.client(), reader.client()]
    let stale = 0
    for (let round = 1; round <= ROUNDS; round++) {
      expect((await writing.send('POST', '/')).status).toBe(200)
      const answer = await reading.get('/')
      expect([answer.status, answer.text]).toEqual([200, expect.anything()])
      if (answer.json<{ n: number }>().n !== round) stale += 1
    }
    expect(stale).toBe(0)
  })
})

describe('lost races', () => {
  /** Both do this in their first attempt before either commits. */
  async function both(handler: (ctx: TxContext) => Promise<unknown>): Promise<readonly TxServed[]> {
    const arrived = [deferred<void>(), deferred<void>()]
    const apps: TxServed[] = []
    for (const node of [0, 1]) {
      apps.push(
        await cluster.serve(node, async ctx => {
          await handler(ctx)
          if (ctx.tx.attempt === 1) {
            arrived[node]?.resolve()
            await Promise.all(arrived.map(({ promise }) => promise))
          }
          ctx.body = { attempt: ctx.tx.attempt }
        }),
      )
    }
    const answers = await Promise.all(apps.map(app => app.client().send('POST', '/')))
    expect(answers.map(({ status }) => status)).toEqual([200, 200])
    return apps
  }
  const kinds = (apps: readonly TxServed[]): string[] =>
    apps.flatMap(({ tx }) => Object.entries(tx.stats().conflicts.byKind).map(([kind, n]) => `${kind} ${n}`))

  test('of two COMMITs on two nodes one fails its certification, and runs again', async () => {
    const apps = await both(increment)
    expect(kinds(apps)).toEqual(['certification 1'])
    expect(await total()).toBe(2)
  })

  test('two that insert the same key: the loser sees the winner when it runs again', async () => {
    const apps = await both(async ctx => {
      const [rows] = await ctx.tx.query<RowDataPacket[]>('SELECT n FROM item WHERE id = 7')
      if (rows.length === 0) await ctx.tx.query('INSERT INTO item VALUES (7, 1)')
      else await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 7')
    })
    expect(kinds(apps)).toEqual(['certification 1'])
    expect(await query(0, 'SELECT n FROM item WHERE id = 7')).toEqual([{ n: 2 }])
    await query(0, 'DELETE FROM item WHERE id = 7')
  })

  test('a row that another node has changed since the snapshot is 1020, and the handler runs again', async () => {
    const app = await cluster.serve(0, async ctx => {
      const n = await numberOf(ctx)
      if (ctx.tx.attempt === 1) {
        await query(1, 'UPDATE item SET n = n + 10 WHERE id = 1')
        await cluster.seenEverywhere()
      }
      await ctx.tx.query('UPDATE item SET n = ? WHERE id = 1', [n + 1])
      ctx.body = { attempt: ctx.tx.attempt }
    })
    expect((await app.client().send('POST', '/')).json()).toEqual({ attempt: 2 })
    expect(app.tx.stats().conflicts).toMatchObject({ byKind: { row: 1 }, byTable: { item: 1 } })
    expect(await total()).toBe(11)
  })

  test('a transaction that holds a row which another node has committed is aborted, and runs again', async () => {
    const app = await cluster.serve(0, async ctx => {
      await increment(ctx)
      if (ctx.tx.attempt === 1) {
        await query(1, 'UPDATE item SET n = n + 10 WHERE id = 1')
        await cluster.seenEverywhere() // also here: applied, so the holder has been aborted
      }
      await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 2')
      ctx.body = { attempt: ctx.tx.attempt }
    })
    expect((await app.client().send('POST', '/')).json()).toEqual({ attempt: 2 })
    expect(app.tx.stats().conflicts.byKind).toEqual({ deadlock: 1 })
    expect(await total()).toBe(11)
  })

  const SUM = 'SELECT SUM(n) AS sum FROM item WHERE id < 3'
  const BOTH_CHANGE = 'UPDATE item SET n = n + 1 WHERE id = 3'
  test.each([
    ['under serializable can pass: reads are not certified', 'serializable', [SUM], true],
    ['with FOR UPDATE can pass: locks are local to a node', 'snapshot', [`${SUM} FOR UPDATE`], true],
    ['does not pass where both change one row, too', 'snapshot', [SUM, BOTH_CHANGE], false],
  ] as const)(
    'a write skew across nodes %s',
    async (what, isolation, [read, ...also], passes) => {
      let barriers = { read: new Barrier(2), written: new Barrier(2) }
      const apps: TxServed[] = []
      for (const node of [0, 1]) {
        const handler = async (ctx: TxContext): Promise<void> => {
          const isFirst = ctx.tx.attempt === 1
          const [rows] = await ctx.tx.query<RowDataPacket[]>(read)
          if (isFirst) await barriers.read.arrive()
          if (Number(rows[0]?.['sum']) > 1)
            await ctx.tx.query('UPDATE item SET n = 0 WHERE id = ?', [node + 1])
          for (const sql of also) await ctx.tx.query(sql)
          // Whoever hears of the other's COMMIT before its own is aborted, for the rows it has locked on its node.
          if (isFirst) await barriers.written.arrive()
          ctx.body = ''
        }
        apps.push(await cluster.serve(node, handler, { isolation }))
      }
      const left: Record<string, number> = {}
      for (let round = 0; round < ROUNDS; round++) {
        barriers = { read: new Barrier(2), written: new Barrier(2) }
        await query(0, 'UPDATE item SET n = 1')
        await cluster.seenEverywhere()
        const answers = await Promise.all(apps.map(app => app.client().send('POST', '/')))
        expect(answers.map(({ status }) => status)).toEqual([200, 200])
        await cluster.seenEverywhere()
        const [row] = await query(0, SUM)
        const sum = String(row?.['sum'])
        left[sum] = (left[sum] ?? 0) + 1
      }
      process.stdout.write(`write skew ${what}: ${JSON.stringify(left)}\n`)
      expect((left['0'] ?? 0) > 0).toBe(passes)
    },
    60_000,
  )
})

test('a write to a table that cannot roll back is refused', async () => {
  const app = await cluster.serve(1, async ctx => {
    await ctx.tx.query('INSERT INTO plain VALUES (1, 1)').catch((error: { code: string }) => {
      ctx.body = error.code
    })
  })
  expect((await app.client().send('POST', '/')).text).toBe('NOT_TRANSACTIONAL')
})

test('incremented from all nodes at once, a row loses nothing', async () => {
  const counts = { requests: 0, refused: 0 }
  const apps = await Promise.all(
    cluster.nodes.map((_, node) =>
      cluster.serve(node, async ctx => {
        const n = await numberOf(ctx)
        await ctx.tx.query('UPDATE item SET n = ? WHERE id = 1', [n + 1])
        ctx.body = ''
      }),
    ),
  )
  const worker = async (app: TxServed): Promise<void> => {
    const client = app.client()
    for (let done = 0; done < 40; ) {
      counts.requests += 1
      const { status } = await client.send('POST', '/')
      expect([200, 503]).toContain(status)
      if (status === 200) done += 1
      else counts.refused += 1
    }
  }
  await Promise.all(apps.flatMap(app => [worker(app), worker(app)]))
  expect(await total()).toBe(240)
  const byKind: Record<string, number> = {}
  for (const { tx } of apps)
    for (const [kind, n] of Object.entries(tx.stats().conflicts.byKind))
      byKind[kind] = (byKind[kind] ?? 0) + n
  process.stdout.write(`${JSON.stringify({ committed: 240, ...counts, byKind })}\n`)
  expect(byKind['certification']).toBeGreaterThan(0)
}, 60_000)

describe('the commit record across nodes', () => {
  const connections: Connection[] = []
  const connect = (node: number, url = cluster.nodes[node]!.url): Connection => {
    const connection = mysql.createConnection(url)
    connection.on('error', () => {})
    connections.push(connection)
    return connection
  }
  const send = (connection: Connection, sql: string): Promise<unknown> =>
    new Promise((resolve, reject) => {
      connection.query(sql, (error, rows) => (error ? reject(error) : resolve(rows)))
    })
  let proxy: Proxy
  beforeEach(async () => {
    proxy = await openProxy(cluster.nodes[1]!.url)
  })
  afterEach(async () => {
    await cluster.clear()
    for (const connection of connections.splice(0)) connection.destroy()
    await proxy.close()
  })
  const settle = (slot: string, url?: string): ReturnType<typeof settleOn> =>
    settleOn(connect(1, url) as unknown as CoreConnection, { slot, seq: 1, txid: 'tx' }, [], () => 0)

  test('another node tells that a transaction has committed, right after its COMMIT', async () => {
    const owner = connect(0)
    for (let round = 0; round < 100; round++) {
      const slot = `done-${round}`
      await send(owner, insertSlot(slot))
      await send(owner, decideSlot(slot, 1, 'tx', 'C'))
      expect(await settle(slot)).toEqual({ outcome: 'committed' })
      for (const connection of connections.splice(1)) connection.destroy()
    }
  })

  test('another node forces one that is still open: its COMMIT fails for certain', async () => {
    const owner = connect(0)
    await send(owner, insertSlot('open'))
    await send(owner, 'SET autocommit = 0')
    await send(owner, 'UPDATE item SET n = n + 1 WHERE id = 1')
    await send(owner, decideSlot('open', 1, 'tx', 'C'))
    expect(await settle('open')).toEqual({ outcome: 'rolledBack' })
    await expect(send(owner, 'COMMIT')).rejects.toMatchObject({ errno: 1213 })
    expect(await total()).toBe(0)
  })

  test.each([
    ['locks the row', / FOR UPDATE$/],
    ['makes the step', /state = 'A'/],
    ['commits', /^COMMIT$/],
  ])('a COMMIT that is sent while the resolver of another node %s: both agree', async (_, moment) => {
    const owner = connect(0)
    await send(owner, 'SET autocommit = 0')
    const seen: Record<string, number> = {}
    let effects = 0
    for (let round = 0; round < 30; round++) {
      const slot = `race-${moment.source.length}-${round}`
      await send(owner, insertSlot(slot))
      await send(owner, 'COMMIT')
      await send(owner, 'UPDATE item SET n = n + 1 WHERE id = 1')
      await send(owner, decideSlot(slot, 1, 'tx', 'C'))
      const commit = deferred<boolean>()
      proxy.onCommand = command => {
        if (!moment.test(command)) return
        proxy.onCommand = () => {}
        void send(owner, 'COMMIT').then(
          () => commit.resolve(true),
          () => commit.resolve(false),
        )
      }
      const first = await settle(slot, proxy.url).catch(() => undefined)
      const sure = first ?? (await settle(slot))
      const committed = await commit.promise
      if (committed) effects += 1
      else await send(owner, 'ROLLBACK')
      expect(sure.outcome).toBe(committed ? 'committed' : 'rolledBack')
      const key = `${sure.outcome}${first === undefined ? ', at the second try' : ''}`
      seen[key] = (seen[key] ?? 0) + 1
      for (const connection of connections.splice(1)) connection.destroy()
    }
    process.stdout.write(`${moment.source}: ${JSON.stringify(seen)}\n`)
    expect(await total()).toBe(effects)
  })

  test('a transaction that is aborted before its record is a certification failure, and leaves nothing to settle', async () => {
    const handler = async (ctx: TxContext): Promise<void> => {
      await increment(ctx)
      if (ctx.tx.attempt === 1) {
        await query(0, 'UPDATE item SET n = n + 10 WHERE id = 1')
        await cluster.seenEverywhere()
      }
      ctx.body = { attempt: ctx.tx.attempt }
    }
    const app = await cluster.serve(1, handler, { commitRecord: 'always' }, proxy.url)
    expect((await app.client().send('POST', '/')).json()).toEqual({ attempt: 2 })
    expect(app.tx.stats().conflicts.byKind).toEqual({ certification: 1 })
    expect(proxy.commands.filter(command => command.endsWith('FOR UPDATE'))).toEqual([])
    expect(await total()).toBe(11)
  })

  test.each([
    ['answer lost', 1],
    ['command lost', 2],
  ] as const)(
    'of a COMMIT with the %s it is found out before the client is answered',
    async (accident, attempt) => {
      const handler = async (ctx: TxContext): Promise<void> => {
        await increment(ctx)
        ctx.body = { attempt: ctx.tx.attempt }
      }
      const app = await cluster.serve(1, handler, { commitRecord: 'always' }, proxy.url)
      // The first request sets a slot up, with a COMMIT of its own.
      expect((await app.client().send('POST', '/')).status).toBe(200)
      const happened = proxy.accident(/^COMMIT$/, accident)
      const answer = await app.client().send('POST', '/')
      expect([answer.status, answer.text]).toEqual([200, JSON.stringify({ attempt })])
      await happened
      expect(await total()).toBe(2)
    },
  )
})
