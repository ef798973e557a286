/**
 * What every query builder must do inside a request, as sentences; each builder's test file tells how it reads, writes
 * and begins transactions. Real rows, real lost races; requests meet at barriers.
 */
import { createPool, type Pool as CorePool, type PoolConnection } from 'mysql2'
import { ambientPool, type AmbientPool, type KoaContext, type SessionTxOptions } from '../../lib/index.js'
import { promptly } from '../support/clock.js'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { Barrier } from '../support/barrier.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { nothingOpen } from '../support/observing.js'

export interface Queries {
  number(id: number): Promise<number>
  set(id: number, n: number): Promise<unknown>
  /** n + 1, without reading first. */
  increment(id: number): Promise<unknown>
  /** The builder's own transaction; on the inside of one, a nested one. */
  transaction<T>(work: (inner: Queries) => Promise<T>): Promise<T>
  /** A transaction that asks for an isolation level. */
  atLevel(
    level: 'read committed' | 'serializable',
    work: (inner: Queries) => Promise<unknown>,
  ): Promise<unknown>
  /** Reads all rows as a stream. */
  stream?(): Promise<unknown>
}

export interface Builder {
  readonly ambient: Queries
  /** For builders that take a connection. */
  readonly on?: (connection: PoolConnection) => Queries
  close?(): Promise<unknown>
}

export interface Served {
  readonly db: TestDatabase
  readonly pool: AmbientPool<CorePool>
  readonly ambient: Queries
  start(handler: Handler, options?: SessionTxOptions<KoaContext>): Promise<TxServed>
  rows(): Promise<number[]>
}

type Handler = (ctx: TxContext) => unknown
type Choose = (ctx: TxContext) => Queries

const PARALLEL = 20
const FIRST_OF_MANY = 100

interface Manner {
  /** `Builder.on` is there. */
  readonly takesConnection?: boolean
  /** `Queries.stream` is there. */
  readonly streams?: boolean
  /** Sentences of this builder alone. */
  readonly more?: (served: () => Served) => void
}

export function describeBuilder(
  name: string,
  open: (pool: AmbientPool<CorePool>, db: TestDatabase) => Builder | Promise<Builder>,
  { takesConnection = false, streams = true, more }: Manner = {},
): void {
  describe(name, () => {
    let db: TestDatabase
    let plain: CorePool
    let pool: AmbientPool<CorePool>
    let builder: Builder
    const undo: (() => unknown)[] = []

    beforeAll(async () => {
      db = await openDatabase()
      await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
      plain = createPool({ uri: db.url, connectionLimit: 5 })
      pool = ambientPool(plain)
      builder = await open(pool, db)
    })
    afterAll(async () => {
      await builder.close?.()
      await new Promise(resolve => plain.end(resolve))
      await db.close()
    })
    beforeEach(async () => {
      await db.pool.query('DELETE FROM item')
      await db.pool.query('INSERT INTO item VALUES (1, 0), (2, 0), (3, 0), (4, 0)')
    })
    afterEach(async () => {
      for (const one of undo.splice(0).reverse()) await one()
      await nothingOpen(db)
    })

    /** The handler on `/`; `/session` answers with the session. Fails if anything strayed. */
    async function start(handler: Handler, options: SessionTxOptions<KoaContext> = {}): Promise<TxServed> {
      const served = await serveTx({
        environment: promptly,
        options: { pool: plain, ...options },
        below: async ctx => {
          if (ctx.path === '/session') ctx.body = { ...ctx.session }
          else await handler(ctx)
          ctx.body ??= 'done'
        },
      })
      undo.push(async () => {
        const { stray } = served.tx.stats()
        await served.close()
        expect(stray.total).toBe(0)
      })
      return served
    }
    const rows = async (): Promise<number[]> => {
      const [found] = await db.admin.query({
        sql: `SELECT n FROM ${db.name}.item ORDER BY id`,
        rowsAsArray: true,
      })
      return (found as number[][]).map(([n = Number.NaN]) => n)
    }
    const elsewhere = (sql: string): Promise<unknown> =>
      db.admin.query(sql.replaceAll('item', `${db.name}.item`))
    const served = (): Served => ({ db, pool, ambient: builder.ambient, start, rows })

    const ways: [string, Choose][] = [['with ambientPool(pool)', () => builder.ambient]]
    if (takesConnection) {
      ways.push(['on ctx.tx.connection()', ctx => builder.on!(ctx.tx.connection<PoolConnection>())])
    }

    describe.each(ways)('%s', (_, choose) => {
      test('the handler throws: session and rows are as before', async () => {
        const { client, errors } = await start(async ctx => {
          const queries = choose(ctx)
          ctx.session['a'] = 1
          await queries.set(1, 1)
          expect(await queries.number(1)).toBe(1)
          await queries.transaction(inner => inner.set(2, 2))
          throw new Error('no')
        })
        const ann = client()
        await expect(ann.get()).resolves.toMatchObject({ status: 500 })
        expect(errors).toMatchObject([{ message: 'no' }])
        expect(await rows()).toEqual([0, 0, 0, 0])
        expect((await ann.get('/session')).json()).toEqual({})
      })

      test('a row that somebody else committed meanwhile: the handler runs again, its effect is there once', async () => {
        const { client, tx } = await start(async ctx => {
          const queries = choose(ctx)
          ctx.session['runs'] = ((ctx.session['runs'] as number | undefined) ?? 0) + 1
          const n = await queries.number(1)
          if (ctx.tx.attempt === 1) await elsewhere('UPDATE item SET n = 10 WHERE id = 1')
          await queries.transaction(inner => inner.set(1, n + 1))
          await queries.increment(2)
        })
        const ann = client()
        await expect(ann.get()).resolves.toMatchObject({ status: 200 })
        expect(await rows()).toEqual([11, 1, 0, 0])
        expect((await ann.get('/session')).json()).toEqual({ runs: 1 })
        expect(tx.stats()).toMatchObject({ retried: 1, conflicts: { byKind: { row: 1 } } })
      })

      test('the handler swallows the lost race: it runs again all the same', async () => {
        const { client, tx } = await start(async ctx => {
          const queries = choose(ctx)
          ctx.session['attempt'] = ctx.tx.attempt
          await queries.increment(2)
          await queries.number(1)
          if (ctx.tx.attempt === 1) await elsewhere('UPDATE item SET n = 10 WHERE id = 1')
          await queries.transaction(inner => inner.increment(1)).catch(() => {})
        })
        const ann = client()
        await expect(ann.get()).resolves.toMatchObject({ status: 200 })
        expect(await rows()).toEqual([11, 1, 0, 0])
        expect((await ann.get('/session')).json()).toEqual({ attempt: 2 })
        expect(tx.stats().conflicts.byKind).toEqual({ row: 1 })
      })

      test('a deadlock that both swallow: one runs again, nothing partial is committed', async () => {
        const both = new Barrier(2)
        const { client, tx } = await start(async ctx => {
          const queries = choose(ctx)
          const [first, second] = ctx.path === '/up' ? ([1, 2] as const) : ([2, 1] as const)
          const crossing = queries.transaction(async inner => {
            await inner.increment(first)
            if (ctx.tx.attempt === 1) await both.arrive()
            await inner.increment(second)
          })
          await crossing.catch(() => {})
        })
        const answers = await Promise.all([client().get('/up'), client().get('/down')])
        expect(answers.map(({ status }) => status)).toEqual([200, 200])
        expect(await rows()).toEqual([2, 2, 0, 0])
        expect(tx.stats().conflicts.byKind).toEqual({ deadlock: 1 })
      })

      test('its transaction throws and is caught: row and variable of that part are gone, the rest commits', async () => {
        const { client } = await start(async ctx => {
          const queries = choose(ctx)
          ctx.session['a'] = 1
          await queries.set(1, 1)
          const part = queries.transaction(async inner => {
            ctx.session['a'] = 2
            ctx.session['b'] = 2
            await inner.set(1, 2)
            await inner.set(2, 2)
            throw new Error('back')
          })
          await expect(part).rejects.toThrow('back')
          await queries.set(3, 3)
        })
        const ann = client()
        await expect(ann.get()).resolves.toMatchObject({ status: 200 })
        expect(await rows()).toEqual([1, 0, 3, 0])
        expect((await ann.get('/session')).json()).toEqual({ a: 1 })
      })

      test('a transaction in its transaction goes back alone', async () => {
        const { client } = await start(async ctx => {
          await choose(ctx).transaction(async outer => {
            ctx.session['a'] = 1
            await outer.set(1, 1)
            const nested = outer.transaction(async inner => {
              ctx.session['a'] = 2
              await inner.set(2, 2)
              throw new Error('back')
            })
            await expect(nested).rejects.toThrow('back')
            await outer.transaction(inner => inner.set(3, 3))
          })
        })
        const ann = client()
        await expect(ann.get()).resolves.toMatchObject({ status: 200 })
        expect(await rows()).toEqual([1, 0, 3, 0])
        expect((await ann.get('/session')).json()).toEqual({ a: 1 })
      })

      test('two of its transactions at once: the one that fails takes nothing of the other back', async () => {
        const { client } = await start(async ctx => {
          const queries = choose(ctx)
          const failing = queries.transaction(async inner => {
            await inner.set(1, 1)
            await inner.set(2, 1)
            throw new Error('back')
          })
          const other = queries.transaction(async inner => {
            await inner.set(3, 3)
            await inner.set(4, 4)
          })
          const ends = await Promise.allSettled([failing, other])
          expect(ends.map(({ status }) => status)).toEqual(['rejected', 'fulfilled'])
        })
        await expect(client().get()).resolves.toMatchObject({ status: 200 })
        expect(await rows()).toEqual([0, 0, 3, 4])
      })

      test('a weaker isolation level is ignored, a stronger one refused', async () => {
        const { client } = await start(async ctx => {
          const queries = choose(ctx)
          await queries.atLevel('read committed', inner => inner.set(1, 1))
          const strong = queries.atLevel('serializable', inner => inner.set(2, 2))
          const error: unknown = await strong.catch((refused: unknown) => refused)
          expect(errorsIn(error)).toContain('TRANSACTION_CONTROL')
        })
        await expect(client().get()).resolves.toMatchObject({ status: 200 })
        expect((await rows())[1]).toBe(0)
      })

      if (!streams) return
      test('a stream is refused, and the request goes on', async () => {
        const { client } = await start(async ctx => {
          const queries = choose(ctx)
          await expect(queries.stream?.()).rejects.toThrow('a stream cannot be part of the transaction')
          await queries.set(1, 1)
        })
        await expect(client().get()).resolves.toMatchObject({ status: 200 })
        expect(await rows()).toEqual([1, 0, 0, 0])
      })
    })

    test('outside of requests, in after-commit hooks and in outside() it uses the pool', async () => {
      const { ambient } = builder
      await ambient.set(1, 1)
      expect(await rows()).toEqual([1, 0, 0, 0])
      let hook: Promise<unknown> = Promise.resolve()
      const { client } = await start(async ctx => {
        ctx.session['a'] = 1
        await ambient.set(1, 9)
        await pool.outside(() => ambient.transaction(inner => inner.set(2, 2)))
        expect(await rows()).toEqual([1, 2, 0, 0])
        if (ctx.path === '/fail') throw new Error('no')
        ctx.tx.afterCommit(() => {
          hook = ambient.transaction(inner => inner.set(3, 3))
          return hook
        })
      })
      await client().get('/fail')
      expect(await rows()).toEqual([1, 2, 0, 0])
      await client().get()
      await hook
      expect(await rows()).toEqual([9, 2, 3, 0])
    })

    test(`${PARALLEL} requests with a transaction each, on a pool of 5: no deadlock, nothing lost`, async () => {
      const ids = Array.from({ length: PARALLEL }, (_, index) => FIRST_OF_MANY + index)
      await db.pool.query('INSERT INTO item VALUES ?', [ids.map(id => [id, 0])])
      const { client } = await start(async ctx => {
        const id = Number(ctx.query['id'])
        await builder.ambient.increment(4)
        await builder.ambient.transaction(async inner => {
          await inner.increment(id)
          ctx.session['mine'] = await inner.number(id)
        })
      })
      const answers = await Promise.all(ids.map(id => client().get(`/?id=${id}`)))
      expect(answers.map(({ status }) => status)).toEqual(ids.map(() => 200))
      expect(await rows()).toEqual([0, 0, 0, PARALLEL, ...ids.map(() => 1)])
    })

    more?.(served)
  })
}

/** Codes of an error and of what it wraps. */
export function errorsIn(error: unknown): unknown[] {
  if (typeof error !== 'object' || error === null) return []
  const { code, cause, original, driverError } = error as Record<string, unknown>
  return [code, ...errorsIn(cause), ...errorsIn(original), ...errorsIn(driverError)]
}
