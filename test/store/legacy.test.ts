/**
 * legacyStore over real stores: express-session's own in memory, express-mysql-session on MariaDB, connect-redis
 * on Redis, and one in the form of koa-session. What it keeps of the contract, what it cannot, and that a failing store is told before COMMIT.
 */
import { RedisStore } from 'connect-redis'
import expressSession from 'express-session'
import withExpressSession from 'express-mysql-session'
import mysql, { type RowDataPacket } from 'mysql2/promise'
import { legacyStore, memoryStore, resolvers, sessionTx, type SessionTxOptions } from '../../lib/index.js'
import type { KoaContext } from '../../lib/http/koa-context.js'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { deferred } from '../support/barrier.js'
import type { Client } from '../support/client.js'
import { fakeEnvironment } from '../support/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { newPrefix, openNodeRedis } from '../support/redis.js'

let db: TestDatabase
const undo: (() => unknown)[] = []
const handlers = new Map<string, (ctx: TxContext) => unknown>()

beforeAll(async () => {
  db = await openDatabase()
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(async () => {
  await db.pool.query('REPLACE INTO item VALUES (1, 0)')
  handlers.clear()
  handlers.set('read', ctx => ctx.session['n'] ?? null)
  handlers.set('add', add)
})
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
})

/** Keeps texts, as all stores that are worth anything do; in the form that koa-session asks for. */
class KoaStore {
  readonly texts = new Map<string, string>()
  fails: Error | undefined
  readonly #before: () => Promise<void>

  constructor(before: () => Promise<void> = async () => {}) {
    this.#before = before
  }
  async get(key: string, maxAge: number, { rolling }: { readonly rolling: boolean }): Promise<unknown> {
    await this.#ready(maxAge, rolling)
    const text = this.texts.get(key)
    return text === undefined ? undefined : JSON.parse(text)
  }
  async set(
    key: string,
    session: object,
    maxAge: number,
    { changed }: { readonly changed: boolean },
  ): Promise<void> {
    await this.#ready(maxAge, changed)
    this.texts.set(key, JSON.stringify(session))
  }
  async destroy(key: string): Promise<void> {
    await this.#before()
    if (this.fails !== undefined) throw this.fails
    this.texts.delete(key)
  }
  async #ready(maxAge: number, flag: boolean): Promise<void> {
    if (!(maxAge > 0) || flag !== true) throw new TypeError('not asked as koa-session asks')
    await this.#before()
    if (this.fails !== undefined) throw this.fails
  }
}

async function mysqlSession(): Promise<object> {
  await db.pool.query('DROP TABLE IF EXISTS express_sessions')
  const pool = mysql.createPool({ uri: db.url, connectionLimit: 4 })
  undo.push(() => pool.end())
  const store = new (withExpressSession(expressSession))({ schema: { tableName: 'express_sessions' } }, pool)
  await store.onReady()
  undo.push(() => (store as unknown as { close(): Promise<void> }).close().catch(() => {}))
  return store
}

async function nodeRedis(): Promise<object> {
  const client = await openNodeRedis()
  undo.push(() => client.close())
  return new RedisStore({ client, prefix: newPrefix() })
}

const STORES: readonly (readonly [string, () => object | Promise<object>])[] = [
  ['express-session in memory', () => new expressSession.MemoryStore()],
  ['express-mysql-session', mysqlSession],
  ['connect-redis', nodeRedis],
  ['one in the form of koa-session', () => new KoaStore()],
]

async function serving(store: object, options: SessionTxOptions<KoaContext> = {}): Promise<TxServed> {
  const served = await serveTx({
    options: { pool: db.pool, store: legacyStore(store), ...options },
    below: async ctx => {
      ctx.body = { seen: (await handlers.get(ctx.path.slice(1))?.(ctx)) ?? null, attempt: ctx.tx.attempt }
    },
  })
  undo.push(() => served.close())
  return served
}

async function answerOf(client: Client, path: string): Promise<{ seen: unknown; attempt: number }> {
  const answer = await client.get(path)
  expect([answer.status, answer.text]).toEqual([200, expect.anything()])
  return answer.json()
}
const seenBy = async (client: Client, path: string): Promise<unknown> => (await answerOf(client, path)).seen

function sharing(client: Client, served: TxServed): Client {
  const other = served.client()
  for (const [name, value] of client.cookies) other.cookies.set(name, value)
  return other
}

function add(ctx: TxContext): number {
  const n = Number(ctx.session['n'] ?? 0) + 1
  ctx.session['n'] = n
  return n
}
const addRow = (ctx: TxContext): Promise<unknown> => ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 1')
async function row(): Promise<unknown> {
  const [rows] = await db.pool.query<RowDataPacket[]>('SELECT n FROM item WHERE id = 1')
  return rows[0]?.['n']
}

describe.each(STORES)('%s', (_, makeStore) => {
  test('keeps every kind of value, over a restart', async () => {
    const store = await makeStore()
    const client = (await serving(store)).client()
    const values = {
      text: 'ä\0"',
      big: 12n,
      at: new Date(5),
      bytes: new Uint8Array([1, 2]),
      map: new Map([['a', 1]]),
      set: new Set(['x']),
      list: [1, { a: null }],
      $dollar: 1,
      ['__proto__']: 2,
    }
    handlers.set('fill', ctx => {
      for (const name of Object.keys(values)) ctx.session[name] = (values as Record<string, unknown>)[name]
      ctx.session['__proto__'] = 2
    })
    await answerOf(client, '/fill')
    let found: unknown
    handlers.set('look', ctx => {
      found = structuredClone({
        text: ctx.session['text'],
        big: ctx.session['big'],
        at: (ctx.session['at'] as Date).getTime(),
        bytes: [...(ctx.session['bytes'] as Uint8Array)],
        map: [...(ctx.session['map'] as Map<string, number>)],
        set: [...(ctx.session['set'] as Set<string>)],
        list: JSON.stringify(ctx.session['list']),
        dollar: ctx.session['$dollar'],
        proto: ctx.session['__proto__'],
      })
    })
    await answerOf(sharing(client, await serving(store)), '/look')
    expect(found).toEqual({
      text: 'ä\0"',
      big: 12n,
      at: 5,
      bytes: [1, 2],
      map: [['a', 1]],
      set: ['x'],
      list: '[1,{"a":null}]',
      dollar: 1,
      proto: 2,
    })
  })

  test('50 parallel requests of one session, in one process: every increment counts', async () => {
    const client = (await serving(await makeStore())).client()
    await answerOf(client, '/add')
    handlers.set('both', async ctx => {
      const n = add(ctx)
      await addRow(ctx)
      return n
    })
    await Promise.all(Array.from({ length: 50 }, () => answerOf(client, '/both')))
    expect([await seenBy(client, '/read'), await row()]).toEqual([51, 50])
  })

  test('both sides or neither', async () => {
    const client = (await serving(await makeStore())).client()
    await answerOf(client, '/add')
    handlers.set('fails', async ctx => {
      add(ctx)
      await addRow(ctx)
      ctx.throw(418)
    })
    expect((await client.get('/fails')).status).toBe(418)
    expect([await seenBy(client, '/read'), await row()]).toEqual([1, 0])
  })

  test('what another process has changed is noticed before the write: run again, or merged', async () => {
    const store = await makeStore()
    const [a, b] = [await serving(store), await serving(store, { resolve: { n: resolvers.counter } })]
    const onA = a.client()
    await answerOf(onA, '/add')
    for (const [served, attempts] of [
      [a, 2],
      [b, 1],
    ] as const) {
      const [reached, go] = [deferred(), deferred()]
      handlers.set('slow', async ctx => {
        const n = add(ctx)
        if (ctx.tx.attempt === 1) {
          reached.resolve()
          await go.promise
        }
        return n
      })
      const slow = answerOf(sharing(onA, served), '/slow')
      await reached.promise
      await answerOf(sharing(onA, served === a ? b : a), '/add')
      go.resolve()
      expect((await slow).attempt).toBe(attempts)
    }
    expect(await seenBy(onA, '/read')).toBe(5)
  })

  test('destroy and regenerate: the old session is gone from the store', async () => {
    const store = await makeStore()
    const served = await serving(store)
    const client = served.client()
    await answerOf(client, '/add')
    const old = sharing(client, served)
    handlers.set('login', ctx => ctx.session.regenerate({ keep: ['n'] }))
    await answerOf(client, '/login')
    expect([await seenBy(client, '/read'), await seenBy(old, '/read')]).toEqual([1, null])
    const ended = sharing(client, served)
    handlers.set('logout', ctx => ctx.session.destroy())
    await answerOf(client, '/logout')
    expect(client.cookies.size).toBe(0)
    expect(await seenBy(ended, '/read')).toBe(null)
  })
})

test('a store that fails is 503 before COMMIT: no row is stored, and it works again alone', async () => {
  const store = new KoaStore()
  const served = await serving(store)
  const client = served.client()
  await answerOf(client, '/add')
  handlers.set('both', async ctx => {
    await addRow(ctx)
    store.fails = new Error('the store is away')
    return add(ctx)
  })
  const failed = await client.get('/both')
  expect([failed.status, failed.headers['retry-after']]).toEqual([503, '1'])
  expect(served.errors.at(-1)).toMatchObject({
    code: 'STORE_UNAVAILABLE',
    cause: { message: 'the store is away' },
  })
  expect(await row()).toBe(0)
  expect((await client.get('/read')).status).toBe(503)
  store.fails = undefined
  expect(await seenBy(client, '/read')).toBe(1)
})

test('COMMIT fails after the session was written: what was written is taken back, and nobody has seen it', async () => {
  const served = await serving(new KoaStore())
  const client = served.client()
  await answerOf(client, '/add')
  const [written, go] = [deferred(), deferred()]
  handlers.set('both', async ctx => {
    await addRow(ctx)
    ctx.tx.enlist({
      name: 'a queue',
      phases: 2,
      prepare: async () => {
        written.resolve()
        await go.promise
        throw new Error('no')
      },
      commit: () => {},
      rollback: () => {},
    })
    return add(ctx)
  })
  const failing = client.get('/both')
  await written.promise
  const reading = seenBy(client, '/read')
  go.resolve()
  expect((await failing).status).toBe(500)
  expect([await reading, await seenBy(client, '/read'), await row()]).toEqual([1, 1, 0])
})

test('idle and absolute age, and the idle time of who only reads', async () => {
  const environment = fakeEnvironment()
  const store = new KoaStore()
  const served = await serveTx({
    environment,
    options: {
      store: legacyStore(store),
      session: { idleMs: 60_000, absoluteMs: 150_000, touchGranularityMs: 1_000 },
    },
    below: async ctx => {
      ctx.body = { seen: (await handlers.get(ctx.path.slice(1))?.(ctx)) ?? null }
    },
  })
  undo.push(() => served.close())
  const client = served.client()
  const reasons: string[] = []
  served.tx.on('session:expired', ({ reason }) => reasons.push(reason))
  await answerOf(client, '/add')
  for (let round = 0; round < 2; round++) {
    environment.clock.advance(59_000)
    expect(await seenBy(client, '/read')).toBe(1)
  }
  environment.clock.advance(40_000)
  expect(await seenBy(client, '/read')).toBe(null)
  expect(reasons).toEqual(['absolute'])
  await answerOf(client, '/add')
  environment.clock.advance(62_000)
  expect(await seenBy(client, '/read')).toBe(null)
  expect(reasons).toEqual(['absolute', 'idle'])
})

describe('what express-session promises its stores', () => {
  /** Refuses as told to be asked for an id that it does not know, as stores of files do. */
  class FileStore {
    readonly texts = new Map<string, string>()
    readonly asked: string[] = []
    readonly #code: string
    constructor(code: string) {
      this.#code = code
    }
    /** Stores inherit it from express-session's own. */
    createSession(): void {}
    get(id: string, done: (error: unknown, session?: unknown) => void): void {
      this.asked.push(id)
      const text = this.texts.get(id)
      if (text === undefined) done(Object.assign(new Error('no such file'), { code: this.#code }))
      else done(null, JSON.parse(text))
    }
    set(id: string, session: unknown, done?: () => void): void {
      this.texts.set(id, JSON.stringify(session))
      done?.()
    }
    destroy(id: string, done?: () => void): void {
      this.texts.delete(id)
      done?.()
    }
  }

  test('a new session is written without asking for its id first', async () => {
    const store = new FileStore('EACCES')
    const client = (await serving(store)).client()
    await answerOf(client, '/add')
    expect([store.asked, store.texts.size]).toEqual([[], 1])
    expect(await seenBy(client, '/add')).toBe(2)
  })

  test('an error with the code ENOENT says that there is no such session, any other that the store failed', async () => {
    const found: [number, unknown][] = []
    for (const code of ['ENOENT', 'EACCES']) {
      const store = new FileStore(code)
      const client = (await serving(store)).client()
      await answerOf(client, '/add')
      store.texts.clear()
      const answer = await client.get('/add')
      found.push([answer.status, answer.status === 200 ? answer.json<{ seen: unknown }>().seen : undefined])
    }
    expect(found).toEqual([
      [200, 1],
      [503, undefined],
    ])
  })
})

test('it is labelled: best effort, where the others are transactional', async () => {
  const served = await serving(new KoaStore())
  expect(served.tx.stats().store).toEqual({ name: 'legacy', guarantee: 'best effort' })
  const own = sessionTx({ store: memoryStore() })
  expect(own.stats().store).toEqual({ name: 'memory', guarantee: 'transactional' })
  await own.close()
})

test('what is no store is refused, and a bare one names the remedy', () => {
  expect(() => legacyStore({ get() {} })).toThrow(
    'legacyStore(store) takes a store of express-session or koa-session',
  )
  expect(() => sessionTx({ store: new KoaStore() as never })).toThrow(/legacyStore\(store\) wraps one/)
})
