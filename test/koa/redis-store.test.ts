/**
 * Sessions in Redis, end to end: how many calls a request makes, what two processes (here: two applications with a cache
 * each) see of each other, who finishes what a lost publish left, and how losses and a bad set-up of Redis are told.
 */
import mysql, { type Pool, type RowDataPacket } from 'mysql2/promise'
import { type KoaContext, redisStore, resolvers, sessionTx, type SessionTxOptions } from '../../lib/index.js'
import { COMMIT_TABLE_DDL } from '../../lib/mysql/commit-record/commit-table.js'
import { systemEnvironment } from '../../lib/transaction/clock.js'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { deferred } from '../support/barrier.js'
import type { Client } from '../support/client.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { ownServer, type OwnServer } from '../support/own-server.js'
import { openProxy, type Proxy } from '../support/proxy.js'
import { newPrefix, type NodeRedis, openNodeRedis, redisUrl } from '../support/redis.js'

let db: TestDatabase
let proxy: Proxy
let pool: Pool
let prefix: string
const undo: (() => unknown)[] = []
const handlers = new Map<string, (ctx: TxContext) => unknown>()

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: 4 })
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
  await db.pool.query(COMMIT_TABLE_DDL)
})
afterAll(() => db.close())
beforeEach(async () => {
  await db.pool.query('REPLACE INTO item VALUES (1, 0)')
  proxy = await openProxy(redisUrl())
  pool = mysql.createPool({ uri: db.url, connectionLimit: 6 })
  prefix = newPrefix()
  handlers.clear()
})
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
  await pool.end()
  await proxy.close()
})

async function clientTo(url: string): Promise<NodeRedis> {
  const client = await openNodeRedis(url)
  undo.push(() => client.destroy())
  return client
}

/** One process of several: an application with its own store and connection. */
async function processWith(
  options: SessionTxOptions<KoaContext> = {},
  url: string = proxy.url,
): Promise<TxServed> {
  const client = await clientTo(url)
  const served = await serveTx({
    options: { pool, store: redisStore(client, { prefix, graceMs: 1_000 }), ...options },
    environment: systemEnvironment,
    below: async ctx => {
      const handler = handlers.get(ctx.path.slice(1))
      ctx.body = { seen: (await handler?.(ctx)) ?? null, attempt: ctx.tx.attempt }
    },
  })
  undo.push(() => served.close())
  return served
}

function sharing(client: Client, served: TxServed): Client {
  const other = served.client()
  for (const [name, value] of client.cookies) other.cookies.set(name, value)
  return other
}

/** A session with `n` = 1, cached by its process. */
async function started(served: TxServed): Promise<Client> {
  handlers.set('start', ctx => {
    Object.assign(ctx.session, { n: 1, other: 1 })
  })
  const client = served.client()
  expect((await client.get('/start')).status).toBe(200)
  return client
}

async function answerOf(client: Client, path: string): Promise<{ seen: unknown; attempt: number }> {
  const answer = await client.get(path)
  expect([answer.status, answer.text]).toEqual([200, expect.anything()])
  return answer.json()
}
const seenBy = async (client: Client, path: string): Promise<unknown> => (await answerOf(client, path)).seen

const read = (ctx: TxContext): unknown => ctx.session['n'] ?? null
const increment = (ctx: TxContext): number => {
  ctx.session['n'] = Number(ctx.session['n']) + 1
  return Number(ctx.session['n'])
}
const addRow = (ctx: TxContext): Promise<unknown> => ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 1')
const both = async (ctx: TxContext): Promise<number> => {
  const n = increment(ctx)
  await addRow(ctx)
  return n
}
async function row(): Promise<number> {
  const [rows] = await db.pool.query<RowDataPacket[]>('SELECT n FROM item WHERE id = 1')
  return Number(rows[0]?.['n'])
}

/** Steps of requests, without those of the sweeper. */
const steps = (from = 0): string[] =>
  proxy.commands.slice(from).flatMap(command => {
    const [step = ''] = command.split(' ')
    return step === 'sweep' || !/^[a-z]+$/.test(step) ? [] : [step]
  })

describe('calls of a request', () => {
  test.each([
    ['nothing touched: none', () => undefined, []],
    ['a cached session is read: one', read, ['look']],
    ['a session is changed: one commits', increment, ['commit']],
    [
      'a session is read and another variable changed: one',
      (ctx: TxContext) => {
        ctx.session['other'] = [read(ctx), Math.random()]
      },
      ['commit'],
    ],
    // After UPDATE has waited, perhaps, the session is asked for again: its snapshot may be as new as the row.
    ['session and rows are changed', both, ['fetch', 'stage', 'publish']],
    ['only rows are changed, a session is there: none', addRow, ['fetch']],
  ] as const)('%s', async (_, handler, expected) => {
    const client = await started(await processWith())
    handlers.set('go', handler)
    await answerOf(client, '/go') // sets up a connection
    const from = proxy.commands.length
    await answerOf(client, '/go')
    expect(steps(from)).toEqual(expected)
  })

  test('a session that is not cached is fetched with one, and not looked at again', async () => {
    const client = await started(await processWith())
    const other = sharing(client, await processWith())
    handlers.set('read', read)
    const from = proxy.commands.length
    expect(await seenBy(other, '/read')).toBe(1)
    expect(steps(from)).toEqual(['fetch'])
  })

  test('regenerate: the new session, then the end of the old one', async () => {
    const client = await started(await processWith())
    handlers.set('login', ctx => ctx.session.regenerate({ keep: ['n'] }))
    const from = proxy.commands.length
    await answerOf(client, '/login')
    expect(steps(from)).toEqual(['commit', 'commit'])
  })

  test('without a change of the session no commit record is written', async () => {
    const client = await started(await processWith())
    const decided = async (): Promise<number> => {
      const [rows] = await db.pool.query<RowDataPacket[]>('SELECT SUM(seq) AS n FROM sessiontx_commits')
      return Number(rows[0]?.['n'])
    }
    handlers.set('rows', addRow)
    handlers.set('session', increment)
    handlers.set('both', both)
    const before = await decided()
    await answerOf(client, '/rows')
    await answerOf(client, '/session')
    expect(await decided()).toBe(before)
    await answerOf(client, '/both')
    expect(await decided()).toBe(before + 1)
  })
})

describe('two processes', () => {
  test('what one has answered the other sees in its next request, also where it has an older session', async () => {
    const [a, b] = [await processWith(), await processWith()]
    const onA = await started(a)
    const onB = sharing(onA, b)
    handlers.set('read', read)
    handlers.set('add', increment)
    for (let n = 1; n < 6; n += 1) {
      expect(await seenBy(onB, '/read')).toBe(n)
      expect(await seenBy(onA, '/add')).toBe(n + 1)
    }
  })

  test('compete for one variable and one row: nothing is lost', async () => {
    const options = { retry: { retries: 20 } }
    const [a, b] = [await processWith(options), await processWith(options)]
    const onA = await started(a)
    const clients = [onA, sharing(onA, b)]
    handlers.set('both', both)
    handlers.set('read', read)
    await Promise.all(Array.from({ length: 20 }, (_, place) => answerOf(clients[place % 2]!, '/both')))
    expect([await seenBy(onA, '/read'), await row()]).toEqual([21, 20])
  })

  test('a resolver merges what the other has committed', async () => {
    const resolve = { n: resolvers.counter }
    const [a, b] = [await processWith({ resolve }), await processWith({ resolve })]
    const onA = await started(a)
    const [reached, go] = [deferred(), deferred()]
    handlers.set('slow', async ctx => {
      await seenAgain(ctx)
      const n = increment(ctx)
      reached.resolve()
      await go.promise
      return n
    })
    handlers.set('add', increment)
    handlers.set('read', read)
    const onB = sharing(onA, b)
    const slow = answerOf(onB, '/slow')
    await reached.promise
    await answerOf(onA, '/add')
    go.resolve()
    expect((await slow).attempt).toBe(1)
    expect(await seenBy(onA, '/read')).toBe(3)
  })
  const seenAgain = async (ctx: TxContext): Promise<void> => void ctx.session['other']

  test('a session that one has ended is gone for the other', async () => {
    const [a, b] = [await processWith(), await processWith()]
    const onA = await started(a)
    const onB = sharing(onA, b)
    handlers.set('read', read)
    handlers.set('logout', ctx => ctx.session.destroy())
    expect(await seenBy(onB, '/read')).toBe(1)
    const kept = sharing(onA, a)
    await answerOf(onA, '/logout')
    expect([await seenBy(onB, '/read'), await seenBy(kept, '/read')]).toEqual([null, null])
  })
})

describe('a step that is lost on its way', () => {
  test.each(['answer lost', 'command lost'] as const)(
    'publish (%s): the request is answered 200, and who comes next, elsewhere, sees both sides',
    async kind => {
      const [a, b] = [await processWith(), await processWith({}, redisUrl())]
      const onA = await started(a)
      handlers.set('both', both)
      handlers.set('read', read)
      void proxy.accident(/^publish/, kind)
      expect(await seenBy(onA, '/both')).toBe(2)
      expect([await seenBy(sharing(onA, b), '/read'), await row()]).toEqual([2, 1])
    },
  )

  test.each(['answer lost', 'command lost'] as const)(
    'commit of a session alone (%s): sent again, it is there once',
    async kind => {
      const client = await started(await processWith())
      handlers.set('add', increment)
      handlers.set('read', read)
      void proxy.accident(/^commit/, kind)
      expect(await seenBy(client, '/add')).toBe(2)
      expect(await seenBy(client, '/read')).toBe(2)
    },
  )

  test('an intent whose process is gone is decided within the grace, and nothing is left of it', async () => {
    const [a, b] = [await processWith(), await processWith({}, redisUrl())]
    const onA = await started(a)
    handlers.set('both', both)
    const staged = proxy.accident(/^stage/, 'answer late')
    const lost = onA.get('/both')
    await staged
    handlers.set('add', increment)
    // Not its own client: that one waits for an answer that never comes.
    expect(await seenBy(sharing(onA, b), '/add')).toBe(2)
    expect((await lost).status).toBe(503)
    expect(await row()).toBe(0)
  })
})

describe('a Redis of its own', () => {
  let server: OwnServer
  beforeAll(async () => {
    server = await ownServer('redis')
  }, 60_000)
  afterAll(() => server.close())

  test.each([
    ['appendonly', 'no', 'yes', 'appendonly is no'],
    ['maxmemory-policy', 'allkeys-lru', 'noeviction', 'maxmemory-policy is allkeys-lru'],
  ])('%s %s is refused, with a sentence', async (name, bad, good, sentence) => {
    const admin = await clientTo(server.url)
    await admin.configSet(name, bad)
    try {
      const served = await processWith({}, server.url)
      handlers.set('start', ctx => {
        ctx.session['n'] = 1
      })
      expect((await served.client().get('/start')).status).toBe(500)
      expect(String(served.errors[0])).toContain(sentence)
    } finally {
      await admin.configSet(name, good)
      // Until the first file is written Redis does not end, and keeps nothing.
      while (!/aof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0/.test(await admin.info('persistence'))) {}
    }
  })

  test('emptied: sessions begin anew, and it is told how many commits were lost', async () => {
    const served = await processWith({}, server.url)
    const lost: number[] = []
    served.tx.on('commitsLost', ({ transactions }) => lost.push(transactions))
    const client = await started(served)
    handlers.set('read', read)
    await (await clientTo(server.url)).flushAll()
    expect(await seenBy(client, '/read')).toBe(null)
    expect(lost[0]).toBeGreaterThan(0)
  })

  /** As a replica that had not got what came since, after a failover: the same keys as now, on another run of a server. */
  async function remembered(): Promise<() => Promise<void>> {
    const admin = await clientTo(server.url)
    const names = await admin.keys(`${prefix}*`)
    await Promise.all(names.map(name => admin.copy(name, `old:${name}`)))
    return async () => {
      const restoring = admin.multi().del(await admin.keys(`${prefix}*`))
      for (const name of names) restoring.rename(`old:${name}`, name)
      await restoring.exec()
    }
  }

  test('restarted with an older state of its data: the sessions that may have lost something end, loudly', async () => {
    const served = await processWith({}, server.url)
    const client = await started(served)
    handlers.set('read', read)
    handlers.set('add', increment)
    const lost: number[] = []
    served.tx.on('commitsLost', ({ transactions }) => lost.push(transactions))
    const restore = await remembered()
    await answerOf(client, '/add')
    await restore()
    await server.end()
    await server.start()
    expect(await seenBy(client, '/read')).toBe(null)
    expect(lost).toEqual([1])
  })

  test('restarted without what was staged, and its rows commit: the session ends, loudly', async () => {
    const line = await openProxy(server.url)
    undo.push(() => line.close())
    const served = await processWith({}, line.url)
    const client = await started(served)
    handlers.set('both', both)
    handlers.set('read', read)
    const lost: number[] = []
    served.tx.on('commitsLost', ({ transactions }) => lost.push(transactions))
    const restore = await remembered()
    const isPublishing = deferred()
    line.onCommand = command => {
      if (!command.startsWith('publish')) return
      line.cut(true)
      isPublishing.resolve()
    }
    const answer = answerOf(client, '/both')
    await isPublishing.promise
    line.onCommand = () => {}
    await restore()
    await server.end()
    await server.start()
    line.cut(false)
    expect((await answer).seen).toBe(2)
    expect([await seenBy(client, '/read'), await row()]).toEqual([null, 1])
    expect(lost).toEqual([1])
  })

  test('a master again after another was, which had not got everything: that is noticed, too', async () => {
    const served = await processWith({}, server.url)
    const client = await started(served)
    handlers.set('read', read)
    handlers.set('add', increment)
    const lost: number[] = []
    served.tx.on('commitsLost', ({ transactions }) => lost.push(transactions))
    const restore = await remembered()
    await answerOf(client, '/add')
    await restore()
    // Meanwhile the other one has answered more commits than were lost.
    const admin = await clientTo(server.url)
    const [session = ''] = await admin.keys(`${prefix}*:s:*`)
    const journal = session.replace(/s:[^:]*$/, 'journal')
    const { run = '', count = '' } = await admin.hGetAll(journal)
    await admin.hSet(journal, { run: 'another', runs: `${run}:${count} `, count: Number(count) + 10 })
    expect(await seenBy(client, '/read')).toBe(null)
    expect(lost).toEqual([1])
  })

  test('restarted with its data: nothing is lost', async () => {
    const served = await processWith({}, server.url)
    const lost: number[] = []
    served.tx.on('commitsLost', ({ transactions }) => lost.push(transactions))
    const client = await started(served)
    handlers.set('read', read)
    await server.kill()
    await server.start()
    expect([await seenBy(client, '/read'), lost]).toEqual([1, []])
  })
})

test('bad options and clients are refused at start-up', async () => {
  const client = await clientTo(redisUrl())
  expect(() => redisStore({} as never)).not.toThrow()
  expect(() => sessionTx({ store: redisStore({} as never) })).toThrow(/node-redis or ioredis/)
  expect(() => redisStore(client, { prefix: 'a{b}' })).toThrow(/`prefix`/)
  expect(() => redisStore(client, { graceMs: 1 })).toThrow(/`graceMs`/)
  expect(() => redisStore(client, { grace: 1 } as never)).toThrow(/unknown option of redisStore: `grace`/)
  expect(() => sessionTx({ pool, store: redisStore(client), commitRecord: 'off' })).toThrow(
    /needs the record/,
  )
})
