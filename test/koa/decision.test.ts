/** Commit or not: what the handler's answer, its error, the options and `ctx.tx` decide. */
import { createPool } from 'mysql2/promise'
import type { RowDataPacket } from 'mysql2/promise'
import { memoryStore } from '../../lib/index.js'
import { corePoolOf } from '../../lib/mysql/driver.js'
import { sessionKey } from '../../lib/session/identity.js'
import { koas, serveTx, type TxContext, type TxServed, type TxServing } from '../support/app.js'
import { fakeEnvironment } from '../support/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'

let db: TestDatabase
let served: TxServed

beforeAll(async () => {
  db = await openDatabase()
  await db.pool.query('CREATE TABLE acc (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(async () => {
  await db.pool.query('REPLACE INTO acc VALUES (1, 0)')
})
afterEach(() => served.close())

async function serving(given: TxServing): Promise<TxServed> {
  served = await serveTx({ ...given, options: { pool: db.pool, ...given.options } })
  return served
}

/** Changes both sides. */
async function work(ctx: TxContext): Promise<void> {
  ctx.session['visits'] = Number(ctx.session['visits'] ?? 0) + 1
  await ctx.tx.execute('UPDATE acc SET n = n + 1 WHERE id = 1')
}

async function row(): Promise<number | undefined> {
  const [rows] = await db.pool.query<(RowDataPacket & { n: number })[]>('SELECT n FROM acc WHERE id = 1')
  return rows[0]?.n
}

/** Sessions stored and rows changed: always equal, or something is torn. */
async function stored(): Promise<'both' | 'nothing' | 'torn'> {
  const both = [served.tx.stats().sessions.live, await row()].join()
  return both === '1,1' ? 'both' : both === '0,0' ? 'nothing' : 'torn'
}

describe.each(koas)('%s: what a handler answers with', (_name, Koa) => {
  test.each([200, 201, 204, 302, 400, 404, 409, 499])('%d commits both sides', async status => {
    const { client } = await serving({
      Koa,
      below: async ctx => {
        await work(ctx)
        ctx.status = status
      },
    })
    const visitor = client()
    expect((await visitor.get()).status).toBe(status)
    expect(await stored()).toBe('both')
    expect([...visitor.cookies.keys()]).toEqual(['sid'])
  })

  test.each([500, 503])('%d is delivered and stores nothing', async status => {
    const { client, tx } = await serving({
      Koa,
      below: async ctx => {
        await work(ctx)
        ctx.status = status
        ctx.body = 'an error page rendered below'
      },
    })
    const visitor = client()
    expect(await visitor.get()).toMatchObject({ status, text: 'an error page rendered below' })
    expect(await stored()).toBe('nothing')
    expect(visitor.cookies.size).toBe(0)
    expect(tx.stats().requests).toMatchObject({ rolledBack: 1 })
  })

  test('nothing at all (404) commits', async () => {
    const { client } = await serving({ Koa, below: work })
    expect((await client().get()).status).toBe(404)
    expect(await stored()).toBe('both')
  })

  test.each([
    ['ctx.throw(409)', (ctx: TxContext): never => ctx.throw(409, 'sold out'), 409],
    [
      'an error',
      () => {
        throw new Error('mine')
      },
      500,
    ],
    [
      'something that is no error',
      () => {
        // oxlint-disable-next-line no-throw-literal, only-throw-error -- applications do
        throw 'a string'
      },
      500,
    ],
  ])('%s thrown rolls back both sides and comes through', async (_what, fail, status) => {
    const { client } = await serving({
      Koa,
      below: async ctx => {
        await work(ctx)
        fail(ctx)
      },
    })
    expect((await client().get()).status).toBe(status)
    expect(await stored()).toBe('nothing')
  })
})

describe('the options decide', () => {
  test('veto replaces the rule of 500: it may refuse a 404 and let a 500 commit', async () => {
    const { client } = await serving({
      options: { veto: ctx => ctx.status === 404 },
      below: async ctx => {
        await work(ctx)
        ctx.status = ctx.path === '/missing' ? 404 : 500
      },
    })
    expect((await client().get('/missing')).status).toBe(404)
    expect(await stored()).toBe('nothing')
    expect((await client().get('/broken')).status).toBe(500)
    expect(await stored()).toBe('both')
  })

  test('a veto never stops a re-run: the 500 of an attempt that lost is not the answer', async () => {
    const { client } = await serving({
      below: async ctx => {
        await work(ctx)
        try {
          if (ctx.tx.attempt === 1) ctx.tx.conflict()
          ctx.body = 'ok'
        } catch {
          ctx.status = 500
        }
      },
    })
    expect(await client().get()).toMatchObject({ status: 200, text: 'ok' })
    expect(await stored()).toBe('both')
  })

  test.each(['veto', 'commitOnError'])(
    '%s itself throws: both sides are rolled back, and the error comes through',
    async option => {
      const pool = createPool({ uri: db.url, connectionLimit: 1 })
      const bad = (): boolean => {
        throw new TypeError(`the ${option} is broken`)
      }
      const { client, errors, tx } = await serving({
        options: { pool, [option]: bad },
        below: async ctx => {
          await work(ctx)
          if (option === 'commitOnError') throw new Error('mine')
        },
      })
      for (let time = 1; time <= 2; time++) expect((await client().get()).status).toBe(500)
      expect(errors).toHaveLength(2)
      expect(String(errors[1])).toMatch(/broken|mine/)
      expect(await stored()).toBe('nothing')
      expect(tx.stats().requests).toMatchObject({ rolledBack: 2 })
      await tx.close()
      await pool.end()
    },
  )

  test('retry.isRetryable that throws has no opinion: the error comes through, both sides are rolled back', async () => {
    const { client, errors, tx } = await serving({
      options: {
        retry: {
          isRetryable: () => {
            throw new TypeError('the option is broken')
          },
        },
      },
      below: async ctx => {
        await work(ctx)
        throw new Error('mine')
      },
    })
    expect((await client().get()).status).toBe(500)
    expect(errors).toEqual([new Error('mine')])
    expect(tx.stats().requests).toMatchObject({ rolledBack: 1 })
    expect(await stored()).toBe('nothing')
  })

  test('commitOnError stores both sides though the handler threw, and the error comes through', async () => {
    const { client, errors } = await serving({
      options: { commitOnError: error => (error as { status?: number }).status === 401 },
      below: async ctx => {
        await work(ctx)
        ctx.throw(ctx.path === '/login' ? 401 : 403)
      },
    })
    const visitor = client()
    expect((await visitor.get('/elsewhere')).status).toBe(403)
    expect(await stored()).toBe('nothing')
    expect((await visitor.get('/login')).status).toBe(401)
    expect(await stored()).toBe('both')
    expect(errors).toHaveLength(2)
  })

  test('commitOnError on a new session: the error page brings the cookie of what was stored', async () => {
    const constant = Object.freeze(new Error('a constant'))
    const { client } = await serving({
      options: { commitOnError: () => true },
      above: [
        async (ctx, next) => {
          try {
            await next()
          } catch (error) {
            if (error !== constant) throw error
            ctx.body = 'handled above'
          }
        },
      ],
      below: ctx => {
        ctx.session['failures'] = Number(ctx.session['failures'] ?? 0) + 1
        if (ctx.path === '/constant') throw constant
        ctx.throw(401, `failure ${String(ctx.session['failures'])}`, { headers: { 'x-own': 'yes' } })
      },
    })
    const visitor = client()
    const first = await visitor.get('/login')
    expect([first.status, first.text, first.headers['x-own']]).toEqual([401, 'failure 1', 'yes'])
    expect((await visitor.get('/login')).text).toBe('failure 2')
    const other = client()
    expect((await other.get('/constant')).text).toBe('handled above')
    expect((await other.get('/login')).text).toBe('failure 2')
  })

  test('commitOnError is never asked about a conflict', async () => {
    const asked: unknown[] = []
    const { client } = await serving({
      options: { commitOnError: error => asked.push(error) > 0, retry: { retries: 1 } },
      below: async ctx => {
        await work(ctx)
        ctx.tx.conflict()
      },
    })
    expect((await client().get()).status).toBe(503)
    expect(asked).toEqual([])
    expect(await stored()).toBe('nothing')
  })

  test('readOnly: reading is served, writing either side is READ_ONLY', async () => {
    const { client, errors } = await serving({
      options: { readOnly: ctx => ctx.method === 'GET' },
      below: async ctx => {
        if (ctx.path === '/session') ctx.session['visits'] = 1
        else if (ctx.path === '/row') await ctx.tx.execute('UPDATE acc SET n = 1 WHERE id = 1')
        else ctx.body = [ctx.session['visits'] ?? 0, (await ctx.tx.query('SELECT n FROM acc'))[0]]
      },
    })
    expect((await client().get('/')).json()).toEqual([0, [{ n: 0 }]])
    expect((await client().get('/session')).status).toBe(500)
    expect((await client().get('/row')).status).toBe(500)
    expect(errors).toEqual([
      expect.objectContaining({ code: 'READ_ONLY' }),
      expect.objectContaining({ code: 'READ_ONLY' }),
    ])
    expect(await stored()).toBe('nothing')
  })
})

test('a handler that throws undefined is rolled back, and counted', async () => {
  const { tx } = await serving({ below: () => {} })
  const end = tx.run(async own => {
    await own.query('UPDATE acc SET n = 1 WHERE id = 1')
    // oxlint-disable-next-line no-throw-literal, only-throw-error -- what is tested
    throw undefined
  })
  await expect(end).rejects.toBeUndefined()
  expect(await stored()).toBe('nothing')
  expect(tx.stats().requests).toMatchObject({ committed: 0, rolledBack: 1 })
})

test('readOnly may say what must still be current at commit', async () => {
  const { client } = await serving({
    options: { readOnly: ctx => ctx.method === 'GET' },
    below: ctx => {
      if (ctx.method === 'POST') ctx.session['visits'] = 1
      else ctx.tx.readCurrent('visits')
      ctx.body = 'served'
    },
  })
  const visitor = client()
  await visitor.post()
  expect((await visitor.get()).text).toBe('served')
})

describe('ctx.tx decides', () => {
  test('doom(): the 200 is delivered, nothing is stored, no re-run, counted', async () => {
    let ran = 0
    const { client, tx } = await serving({
      below: async ctx => {
        ran += 1
        await work(ctx)
        ctx.tx.doom('a preview')
        ctx.body = { visits: ctx.session['visits'] }
      },
    })
    const visitor = client()
    expect(await visitor.get()).toMatchObject({ status: 200, text: '{"visits":1}' })
    expect(ran).toBe(1)
    expect(visitor.cookies.size).toBe(0)
    expect(await stored()).toBe('nothing')
    expect(tx.stats().requests).toMatchObject({ rolledBack: 1, committed: 0 })
  })

  test('a conflict after doom() still runs again', async () => {
    const { client } = await serving({
      below: async ctx => {
        await work(ctx)
        if (ctx.tx.attempt > 1) return
        ctx.tx.doom()
        ctx.tx.conflict()
      },
    })
    await client().get()
    expect(await stored()).toBe('both')
  })

  test('a before-commit hook that throws rolls back both, and nothing can commit afterwards', async () => {
    const { client, errors } = await serving({
      below: async ctx => {
        await work(ctx)
        ctx.tx.beforeCommit(() => {
          throw new Error('the hook')
        })
      },
    })
    expect((await client().get()).status).toBe(500)
    expect(errors).toEqual([new Error('the hook')])
    expect(await stored()).toBe('nothing')
  })
})

describe('a request that changes nothing costs nothing', () => {
  test('a GET that touches nothing takes no connection, sets no cookie, stores nothing', async () => {
    const taken = jest.spyOn(corePoolOf(db.pool), 'getConnection')
    const commits: unknown[] = []
    const { client, tx } = await serving({ below: ctx => (ctx.body = 'hello') })
    tx.on('commit', ({ commitMs }) => commits.push(commitMs))
    const visitor = client()
    expect(await visitor.get()).toMatchObject({ status: 200, text: 'hello' })
    expect(taken).not.toHaveBeenCalled()
    taken.mockRestore()
    expect(visitor.cookies.size).toBe(0)
    expect(tx.stats().sessions.live).toBe(0)
    expect(commits).toEqual([undefined])
  })

  test('an empty new session that is only looked at sets no cookie and stores nothing', async () => {
    const { client, tx } = await serving({
      below: ctx =>
        (ctx.body = [ctx.session.isNew, ctx.session['visits'] === undefined, Object.keys(ctx.session)]),
    })
    const visitor = client()
    expect((await visitor.get()).json()).toEqual([true, true, []])
    expect(visitor.cookies.size).toBe(0)
    expect(tx.stats().sessions.live).toBe(0)
  })

  test('a request that only reads takes no connection, makes no version, and moves the idle time once per granularity', async () => {
    const environment = fakeEnvironment()
    const store = memoryStore()
    const taken = jest.spyOn(corePoolOf(db.pool), 'getConnection')
    const { client } = await serving({
      environment,
      // A cookie that ends by itself is sent again whenever the idle time has moved: that is how it shows.
      options: { store, session: { touchGranularityMs: 30_000, cookie: { maxAge: 3_600_000 } } },
      below: ctx => {
        if (ctx.method === 'POST') ctx.session['basket'] = { apples: 1 }
        ctx.body = ctx.session['basket']
      },
    })
    const visitor = client()
    await visitor.post()
    const key = sessionKey(visitor.cookies.get('sid') ?? '')
    const version = async (): Promise<number | undefined> => {
      const opened = await store.open(key)
      const found = opened?.snapshot().version
      opened?.release()
      return found
    }
    const before = await version()
    expect(before).toBeGreaterThan(0)

    const moved: boolean[] = []
    for (const passedMs of [1_000, 28_000, 1_000, 29_999, 1]) {
      environment.clock.advance(passedMs)
      const answer = await visitor.get()
      expect(answer.json()).toEqual({ apples: 1 })
      moved.push(answer.headers['set-cookie'] !== undefined)
    }
    expect(moved).toEqual([false, false, true, false, true])
    expect(await version()).toBe(before)
    expect(taken).not.toHaveBeenCalled()
    taken.mockRestore()
  })
})
