/**
 * COMMIT not answered, as a client sees it: with a commit record, without one, and while the database is away. A proxy
 * in front of the real server loses what is to be lost.
 */
import mysql, { type Pool, type RowDataPacket } from 'mysql2/promise'
import { type EventPayloads, memoryStore, type SessionTxOptions } from '../../lib/index.js'
import type { KoaContext } from '../../lib/http/koa-context.js'
import { COMMIT_TABLE_DDL } from '../../lib/mysql/commit-record/commit-table.js'
import type { Environment } from '../../lib/transaction/clock.js'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import type { Answer, Client } from '../support/client.js'
import { deferred } from '../support/barrier.js'
import { fakeEnvironment, promptly } from '../support/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { nothingOpen, observedStore, valueOf } from '../support/observing.js'
import { openProxy, type Proxy } from '../support/proxy.js'

let db: TestDatabase
let proxy: Proxy
let pool: Pool
const undo: (() => unknown)[] = []

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: 2 })
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
  await db.pool.query(COMMIT_TABLE_DDL)
})
afterAll(() => db.close())
beforeEach(async () => {
  await db.pool.query('REPLACE INTO item VALUES (1, 0), (2, 0)')
  proxy = await openProxy(db.url)
  pool = mysql.createPool({ uri: proxy.url, connectionLimit: 4 })
})
afterEach(async () => {
  proxy.cut(false)
  for (const one of undo.splice(0).reverse()) await one()
  await pool.end()
  await proxy.close()
})

type Handler = (ctx: TxContext) => unknown

async function start(
  handlers: Readonly<Record<string, Handler>>,
  options: SessionTxOptions<KoaContext> = {},
  environment: Environment = promptly,
): Promise<TxServed> {
  const served = await serveTx({
    environment,
    options: { pool, commitRecord: 'always', ...options },
    above: [
      async (ctx, next) => {
        try {
          await next()
        } catch (error) {
          const { status, code, message } = error as { status?: number; code?: string; message: string }
          ctx.status = status ?? 500
          ctx.body = { code, message }
        }
      },
    ],
    below: async ctx => {
      await (handlers[ctx.path] as Handler)(ctx)
      ctx.body ??= 'ok'
    },
  })
  undo.push(() => served.close())
  return served
}

/** Adds 1 to the session's `n` and to the row. */
async function both(ctx: TxContext): Promise<void> {
  ctx.session['n'] = Number(ctx.session['n'] ?? 0) + 1
  await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 1')
  ctx.body = { n: ctx.session['n'], attempt: ctx.tx.attempt }
}
const read: Handler = ctx => void (ctx.body = { n: ctx.session['n'] })

const row = (): Promise<unknown> => valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = 1`)
const told = (answer: Answer): readonly [number, string | undefined] => [
  answer.status,
  answer.json<{ code?: string }>().code,
]

describe('the answer to COMMIT is lost (acceptance 44)', () => {
  test('with a commit record: the effect is there once, the session agrees, and the client gets its 200', async () => {
    const { client } = await start({ '/both': both, '/read': read })
    const one = client()
    await one.get('/both')
    void proxy.accident(/^COMMIT$/, 'answer lost')
    expect((await one.get('/both')).json()).toEqual({ n: 2, attempt: 1 })
    expect((await one.get('/read')).json()).toEqual({ n: 2 })
    expect(await row()).toBe(2)
  })

  test('without one: 503 COMMIT_UNKNOWN, not run again, and the session keeps its value', async () => {
    const { client } = await start({ '/both': both, '/read': read }, { commitRecord: 'off' })
    const one = client()
    await one.get('/both')
    void proxy.accident(/^COMMIT$/, 'answer lost')
    expect(told(await one.get('/both'))).toEqual([503, 'COMMIT_UNKNOWN'])
    expect((await one.get('/read')).json()).toEqual({ n: 1 })
    expect(await row()).toBe(2)
  })

  test('COMMIT itself is lost: the handler runs again, and the client gets the 200 of that', async () => {
    const { client } = await start({ '/both': both, '/read': read })
    const one = client()
    await one.get('/both')
    void proxy.accident(/^COMMIT$/, 'command lost')
    expect((await one.get('/both')).json()).toEqual({ n: 2, attempt: 2 })
    expect((await one.get('/read')).json()).toEqual({ n: 2 })
    expect(await row()).toBe(2)
  })

  test('a new session gets its cookie all the same', async () => {
    const { client } = await start({ '/both': both, '/read': read, '/warm': ctx => ctx.tx.query('DO 0') })
    await client().get('/warm')
    const one = client()
    void proxy.accident(/^COMMIT$/, 'answer lost')
    await one.get('/both')
    expect(one.cookies.size).toBe(1)
    expect((await one.get('/read')).json()).toEqual({ n: 1 })
  })
})

describe('connections are killed (acceptance 43)', () => {
  const killOwn = async (): Promise<void> => {
    const sql =
      'SELECT ID FROM information_schema.processlist WHERE DB = ? AND COMMAND = ? AND ID <> CONNECTION_ID()'
    const [rows] = await db.admin.query<(RowDataPacket & { ID: number })[]>(sql, [db.name, 'Sleep'])
    for (const { ID } of rows) await db.admin.query(`KILL ${ID}`).catch(() => {})
  }

  test('between requests: nobody notices', async () => {
    const { client, tx } = await start({ '/both': both, '/read': read })
    const one = client()
    await one.get('/both')
    await killOwn()
    expect((await one.get('/both')).json()).toMatchObject({ n: 2 })
    expect(await row()).toBe(2)
    expect(tx.stats()).toMatchObject({ requests: { committed: 2, rolledBack: 0 }, settled: { committed: 0 } })
  })

  test('inside: the whole handler runs again, each effect once', async () => {
    const { client } = await start({
      '/both': async ctx => {
        await both(ctx)
        if (ctx.tx.attempt === 1) await killOwn()
        await ctx.tx.query('SELECT 1')
      },
      '/read': read,
    })
    const one = client()
    expect((await one.get('/both')).json()).toEqual({ n: 1, attempt: 2 })
    expect((await one.get('/read')).json()).toEqual({ n: 1 })
    expect(await row()).toBe(1)
  })

  test('after the last statement, before the record is written: the same', async () => {
    const { client } = await start({
      '/both': async ctx => {
        await both(ctx)
        if (ctx.tx.attempt === 1) await killOwn()
      },
      '/read': read,
    })
    const one = client()
    expect((await one.get('/both')).json()).toEqual({ n: 1, attempt: 2 })
    expect(await row()).toBe(1)
  })
})

describe('the database is away when COMMIT is not answered', () => {
  /** A visitor whose last request is in doubt, answered 503, with the line cut. */
  async function inDoubt(
    handlers: Readonly<Record<string, Handler>>,
    committed: boolean,
    more: SessionTxOptions<KoaContext> = {},
    environment?: Environment,
  ) {
    const served = await start(
      { '/both': both, '/read': read, ...handlers },
      { retry: { deadlineMs: 600 }, acquireMs: 300, ...more },
      environment,
    )
    const one = served.client()
    await one.get('/both')
    if (committed) void proxy.accident(/^COMMIT$/, 'answer lost').then(() => proxy.cut(true))
    else
      proxy.onCommand = command => {
        if (command === 'COMMIT') proxy.cut(true)
      }
    const answer = one.get('/both')
    const settled = deferred<EventPayloads['settled']>()
    served.tx.on('settled', settled.resolve)
    return { ...served, one, answer, settled: settled.promise }
  }

  /** The line is there again, and what was in doubt is known. */
  async function back(settled: Promise<EventPayloads['settled']>): Promise<EventPayloads['settled']> {
    proxy.onCommand = () => {}
    proxy.cut(false)
    return settled
  }

  const endings = [
    [true, 'committed', 2],
    [false, 'rolledBack', 1],
  ] as const

  test.each(endings)(
    'committed: %p. 503 with its id; the session is held; when the database is back it is %s',
    async (committed, outcome, n) => {
      const hooks: string[] = []
      const { one, answer, settled, client, tx } = await inDoubt(
        {
          '/both': async ctx => {
            ctx.tx.afterCommit(() => hooks.push('afterCommit'))
            ctx.tx.afterRollback(() => hooks.push('afterRollback'))
            await both(ctx)
          },
          '/write': ctx => void (ctx.session['n'] = 100),
          '/replace': ctx => void (ctx.session = { n: 100 }),
          '/destroy': ctx => void (ctx.session = null),
          '/current': ctx => {
            ctx.tx.readCurrent('n')
            ctx.session['other'] = ctx.session['n']
          },
          '/other': ctx => void (ctx.session['apart'] = true),
        },
        committed,
      )
      const unknown = await answer
      hooks.splice(0, hooks.length) // of the first request
      expect(told(unknown)).toEqual([503, 'COMMIT_UNKNOWN'])
      expect(unknown.json<{ message: string }>().message).toMatch(/\(transaction [\w-]+-2\)/)
      expect(tx.stats()).toMatchObject({
        inDoubt: 1,
        requests: { unknown: 1 },
        settled: { committed: 0, rolledBack: 0 },
      })

      // Who reads gets the old value, who writes something else goes on, and nobody waits for what is held.
      expect((await one.get('/read')).json()).toEqual({ n: 1 })
      expect((await one.get('/other')).status).toBe(200)
      for (const path of ['/write', '/replace', '/destroy', '/current']) {
        const refused = await one.get(path)
        expect([path, ...told(refused)]).toEqual([path, 503, 'STORE_UNAVAILABLE'])
        expect(refused.json<{ message: string }>().message).toMatch(
          /is held by a transaction whose COMMIT was not answered/,
        )
      }
      expect((await client().get('/write')).status).toBe(200)
      expect(hooks).toEqual([])

      expect(await back(settled)).toMatchObject({ outcome, late: true, route: '(unmatched)', attempt: 1 })
      expect((await one.get('/read')).json()).toEqual({ n })
      expect(await row()).toBe(n)
      expect((await one.get('/write')).status).toBe(200)
      expect((await one.get('/read')).json()).toEqual({ n: 100 })
      await new Promise(setImmediate)
      expect(hooks).toEqual([committed ? 'afterCommit' : 'afterRollback'])
      expect(tx.stats()).toMatchObject({ inDoubt: 0, requests: { unknown: 1 }, settled: { [outcome]: 1 } })
    },
  )

  test('who already waits for the session is refused when the doubt begins, not when it ends', async () => {
    const environment = fakeEnvironment()
    const log: string[] = []
    const waits = deferred()
    const store = observedStore(memoryStore(), log, () => {
      if (log.filter(line => line === 'prepare session').length === 3) waits.resolve()
    })
    const handlers = {
      '/both': both,
      '/read': read,
      '/write': (ctx: TxContext) => void (ctx.session['n'] = 100),
    }
    const { client, tx } = await start(handlers, { store }, environment)
    const one = client()
    await one.get('/both')
    const happened = proxy.accident(/^COMMIT$/, 'answer late')
    const unknown = one.get('/both')
    await happened
    environment.clock.advance(9_000)
    const refused = one.get('/write')
    await waits.promise
    proxy.cut(true)
    environment.clock.advance(1_000) // nobody waits for the answer any more
    await environment.clock.armed(delayMs => delayMs === 2_000)
    environment.clock.advance(2_000) // nor for the resolver
    expect(told(await unknown)).toEqual([503, 'COMMIT_UNKNOWN'])
    expect(told(await refused)).toEqual([503, 'STORE_UNAVAILABLE'])
    const settled = deferred<EventPayloads['settled']>()
    tx.on('settled', settled.resolve)
    proxy.cut(false)
    // The resolver is trying right now, or will in a moment.
    await Promise.race([settled.promise, environment.clock.armed(delayMs => delayMs < 2_000)])
    environment.clock.advance(2_000)
    expect(await settled.promise).toMatchObject({ outcome: 'committed', late: true })
    expect((await one.get('/read')).json()).toEqual({ n: 2 })
  })

  test('rows and session are still seen together: who reads both is refused instead of shown one of them', async () => {
    const { client, tx } = await start(
      {
        '/both': both,
        '/together': async ctx => {
          const n = ctx.session['n']
          const [rows] = await ctx.tx.query<{ n: number }[]>('SELECT n FROM item WHERE id = 1')
          ctx.body = { session: n, row: rows[0]?.n }
        },
      },
      { retry: { deadlineMs: 2_000 } },
    )
    const settled = deferred<EventPayloads['settled']>()
    tx.on('settled', settled.resolve)
    const one = client()
    await one.get('/both')
    // Everybody reaches the database but the resolver.
    void proxy.accident(/^COMMIT$/, 'answer lost')
    for (let tries = 0; tries < 100; tries++) void proxy.accident(/^SELECT seq, txid/, 'command lost')
    expect(told(await one.get('/both'))).toEqual([503, 'COMMIT_UNKNOWN'])
    expect(await row()).toBe(2)
    const refused = await one.get('/together')
    expect(told(refused)).toEqual([503, 'STORE_UNAVAILABLE'])
    expect(refused.text).toMatch(/^.*the session is held by a transaction whose COMMIT was not answered/)
    proxy.forget()
    expect(await settled.promise).toMatchObject({ outcome: 'committed' })
    expect((await one.get('/together')).json()).toEqual({ session: 2, row: 2 })
  })

  test('close() waits for what is in doubt', async () => {
    const { answer, settled, tx, close } = await inDoubt({}, true)
    await answer
    expect(tx.stats()).toMatchObject({ inDoubt: 1 })
    const order: string[] = []
    void settled.then(() => order.push('settled'))
    const closing = close().then(() => order.push('closed'))
    expect(await back(settled)).toMatchObject({ outcome: 'committed' })
    await closing
    expect(order).toEqual(['settled', 'closed'])
    expect(tx.stats()).toMatchObject({ settled: { committed: 1 }, inDoubt: 0 })
  })

  test('… but not for ever: it gives up aloud, with the ids, and the session keeps its value', async () => {
    const warnings: string[] = []
    const spy = jest
      .spyOn(process, 'emitWarning')
      .mockImplementation(text => void warnings.push(String(text)))
    undo.push(() => spy.mockRestore())
    const environment = fakeEnvironment()
    const { answer, settled, tx, close } = await inDoubt({}, true, {}, environment)
    await environment.clock.armed(delayMs => delayMs < 200)
    environment.clock.advance(2_000)
    const { message } = (await answer).json<{ message: string }>()
    const id = /\(transaction ([\w-]+)\)/.exec(message)?.[1]
    const closing = close()
    await environment.clock.armed(delayMs => delayMs === 5_000)
    environment.clock.advance(4_999)
    expect(tx.stats().inDoubt).toBe(1)
    environment.clock.advance(1)
    await closing
    expect(await settled).toMatchObject({ outcome: 'unknown', late: true })
    expect(warnings).toEqual([
      expect.stringContaining(`gave up on 1 transaction(s) whose COMMIT was not answered: ${id}`),
    ])
    expect(tx.stats()).toMatchObject({ inDoubt: 0, settled: { unknown: 1 } })
    proxy.cut(false)
    await nothingOpen(db)
  })
})

test('many at once: as many are settled as were in doubt, and none is left', async () => {
  const pauses: Handler = ctx => ctx.tx.query('SELECT SLEEP(0.1)')
  const { client, tx } = await start({ '/both': both, '/read': read, '/pauses': pauses })
  const heard: string[] = []
  tx.on('settled', ({ outcome }) => heard.push(outcome))
  await Promise.all([1, 2, 3, 4].map(() => client().get('/pauses'))) // four connections
  const visitors: Client[] = Array.from({ length: 4 }, () => client())
  for (const visitor of visitors) await visitor.get('/both')
  for (const _ of visitors) void proxy.accident(/^COMMIT$/, 'answer lost')
  const answers = await Promise.all(visitors.map(visitor => visitor.get('/both')))
  expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200])
  expect(await row()).toBe(8)
  for (const visitor of visitors) expect((await visitor.get('/read')).json()).toEqual({ n: 2 })
  // An accident may also hit the COMMIT of who settles: then one of the four was never in doubt.
  const { settled, inDoubt } = tx.stats()
  expect(settled).toEqual({ committed: heard.length, rolledBack: 0, unknown: 0 })
  expect([inDoubt, heard.length > 0]).toEqual([0, true])
})
