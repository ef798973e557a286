/**
 * Lost races in InnoDB, seen by an application: what runs again and what does not, what is left in between, what each
 * isolation level stops, and whose the pool's connections are. Two requests meet at barriers; nobody sleeps.
 */
import { connect } from 'node:net'
import mysql, { type Pool, type PoolOptions, type RowDataPacket } from 'mysql2/promise'
import { isConflict, type KoaContext, type SessionTxOptions, SessionTxError } from '../../lib/index.js'
import type { Environment } from '../../lib/transaction/clock.js'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { Barrier, deferred, Gate } from '../support/barrier.js'
import { fakeEnvironment, promptly } from '../support/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { isUnlocked, nothingOpen, valueOf } from '../support/observing.js'

let db: TestDatabase
const undo: (() => unknown)[] = []

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: 4 })
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(() => db.pool.query('REPLACE INTO item VALUES (1, 0), (2, 0), (3, 0), (4, 0)'))
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
})

type Handler = (ctx: TxContext) => unknown
type Options = SessionTxOptions<KoaContext>

async function start(
  routes: Record<string, Handler>,
  options: Options = {},
  environment: Environment = promptly,
): Promise<TxServed> {
  const all: Record<string, Handler> = { '/': ctx => (ctx.body = { ...ctx.session }), ...routes }
  const served = await serveTx({
    environment,
    options: { pool: db.pool, ...options },
    below: async ctx => {
      await all[ctx.path]?.(ctx)
    },
  })
  undo.push(() => served.close())
  return served
}

function openPool(options: PoolOptions): Pool {
  const pool = mysql.createPool({ uri: db.url, ...options })
  undo.push(() => pool.end())
  return pool
}

/** Connections of a user. */
const COUNT_OF = 'SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = ?'
const row = (id = 1): Promise<unknown> => valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = ?`, [id])
/** What another program commits meanwhile. */
const elsewhere = (sql: string): Promise<unknown> => db.admin.query(sql.replaceAll('item', `${db.name}.item`))
const numberOf = async (ctx: TxContext, id: number, suffix = ''): Promise<number> => {
  const [rows] = await ctx.tx.query<{ n: number }[]>(`SELECT n FROM item WHERE id = ?${suffix}`, [id])
  return rows[0]?.n ?? Number.NaN
}

describe('a handler that swallows a lost race', () => {
  test('1020: it answers 200, runs again, and nothing partial is committed', async () => {
    const { client, tx } = await start({
      '/swallow': async ctx => {
        ctx.session['attempt'] = ctx.tx.attempt
        await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 2')
        await numberOf(ctx, 1)
        if (ctx.tx.attempt === 1) await elsewhere('UPDATE item SET n = 10 WHERE id = 1')
        await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 1').catch(() => {})
        ctx.body = `attempt ${ctx.tx.attempt}`
      },
    })
    const ann = client()
    await expect(ann.get('/swallow')).resolves.toMatchObject({ status: 200, text: 'attempt 2' })
    expect([await row(1), await row(2)]).toEqual([11, 1])
    expect((await ann.get('/')).json()).toEqual({ attempt: 2 })
    expect(tx.stats().conflicts).toMatchObject({ total: 1, byKind: { row: 1 }, byTable: { item: 1 } })
  })

  test('1213: the same, and the statement after it is refused instead of being committed on its own', async () => {
    const both = new Barrier(2)
    const refusals: unknown[] = []
    const crossing =
      (first: number, second: number): Handler =>
      async ctx => {
        ctx.session['attempt'] = ctx.tx.attempt
        await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = ?', [first])
        if (ctx.tx.attempt === 1) await both.arrive()
        try {
          await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = ?', [second])
        } catch {
          await ctx.tx
            .query('UPDATE item SET n = 99 WHERE id = 3')
            .catch((error: unknown) => refusals.push(error))
        }
        ctx.body = `attempt ${ctx.tx.attempt}`
      }
    const { client, tx } = await start({ '/up': crossing(1, 2), '/down': crossing(2, 1) })
    const answers = await Promise.all([client().get('/up'), client().get('/down')])
    expect(answers.map(({ status }) => status)).toEqual([200, 200])
    expect(answers.map(({ text }) => text).sort()).toEqual(['attempt 1', 'attempt 2'])
    expect(refusals).toMatchObject([{ code: 'TRANSACTION_CLOSED', cause: { code: 'CONFLICT' } }])
    expect([await row(1), await row(2), await row(3)]).toEqual([2, 2, 0])
    expect(tx.stats().conflicts.byKind).toEqual({ deadlock: 1 })
    await nothingOpen(db)
  })
})

test('two requests lock two rows in crossed order: both succeed in the end, counted as deadlock', async () => {
  const both = new Barrier(2)
  const crossing =
    (first: number, second: number): Handler =>
    async ctx => {
      await numberOf(ctx, first, ' FOR UPDATE')
      if (ctx.tx.attempt === 1) await both.arrive()
      await numberOf(ctx, second, ' FOR UPDATE')
      await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id IN (1, 2)')
    }
  const { client, tx } = await start({ '/up': crossing(1, 2), '/down': crossing(2, 1) })
  await Promise.all([client().get('/up'), client().get('/down')])
  expect([await row(1), await row(2)]).toEqual([2, 2])
  expect(tx.stats()).toMatchObject({
    requests: { committed: 2 },
    attempts: { 1: 1, 2: 1 },
    conflicts: { total: 1, byKind: { deadlock: 1 } },
    retried: 1,
  })
})

describe('what is a lost race and what is not', () => {
  test('a TypeError runs once', async () => {
    let runs = 0
    const { client } = await start({
      '/bug': async ctx => {
        runs += 1
        await ctx.tx.query('UPDATE item SET n = 1 WHERE id = 1')
        throw new TypeError('a bug')
      },
    })
    await expect(client().get('/bug')).resolves.toMatchObject({ status: 500 })
    expect(runs).toBe(1)
    expect(await row()).toBe(0)
  })

  test.each([
    [false, 1, 500],
    [true, 2, 500],
  ])('1062 with duplicateIsConflict %s: runs %i times', async (duplicateIsConflict, times, status) => {
    let runs = 0
    const { client, errors } = await start(
      {
        '/duplicate': async ctx => {
          runs += 1
          await ctx.tx.query('INSERT INTO item VALUES (1, 1)')
        },
      },
      { retry: { duplicateIsConflict } },
    )
    const answer = await client().get('/duplicate')
    expect(runs).toBe(times)
    if (duplicateIsConflict)
      expect(errors).toMatchObject([{ code: 'RETRIES_EXHAUSTED', cause: { cause: { errno: 1062 } } }])
    else expect(errors).toMatchObject([{ errno: 1062 }])
    expect(answer.status).toBe(duplicateIsConflict ? 503 : status)
  })

  // Under snapshot isolation the key that is there already is a row that was committed since: 1020, not 1062.
  test.each([
    ['repeatable read', 'duplicate'],
    ['snapshot', 'row'],
  ] as const)(
    'duplicateIsConflict, %s: of two that look first and then insert one key, the second looks again',
    async (isolation, kind) => {
      const both = new Barrier(2)
      const create: Handler = async ctx => {
        const [found] = await ctx.tx.query<unknown[]>('SELECT n FROM item WHERE id = 77')
        if (ctx.tx.attempt === 1) await both.arrive()
        if (found.length === 0) await ctx.tx.query('INSERT INTO item VALUES (77, 1)')
        ctx.body = found.length === 0 ? 'made' : 'was there'
      }
      undo.push(() => elsewhere('DELETE FROM item WHERE id = 77'))
      const retry = { duplicateIsConflict: true }
      const { client, tx } = await start({ '/make': create }, { isolation, retry })
      const answers = await Promise.all([client().get('/make'), client().get('/make')])
      expect(answers.map(({ text }) => text).sort()).toEqual(['made', 'was there'])
      expect(tx.stats()).toMatchObject({ retried: 1, conflicts: { byKind: { [kind]: 1 } } })
    },
  )

  test('1205 runs again at most twice, and no row lock is left before the wait begins', async () => {
    const environment = fakeEnvironment()
    let runs = 0
    const { client, errors, tx } = await start(
      {
        '/wait': async ctx => {
          runs += 1
          await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 1')
          await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 2')
        },
      },
      { lockWaitMs: 1_000, retry: { retries: 9 } },
      environment,
    )
    const locker = await mysql.createConnection(db.url)
    undo.push(() => locker.end())
    await locker.beginTransaction()
    await locker.query('UPDATE item SET n = n + 1 WHERE id = 2')
    const answer = client().get('/wait')
    for (const delayMs of [2.5, 5]) {
      await environment.clock.armed(delay => delay === delayMs)
      expect(await isUnlocked(db, 'item', 1)).toBe(true)
      expect(await isUnlocked(db, 'item', 2)).toBe(false)
      environment.clock.advance(delayMs)
    }
    await expect(answer).resolves.toMatchObject({ status: 503, headers: { 'retry-after': '1' } })
    await locker.rollback()
    expect(runs).toBe(3)
    expect(tx.stats()).toMatchObject({ retried: 2, exhausted: 1, conflicts: { byKind: { lockWait: 3 } } })
    expect(errors).toMatchObject([
      { code: 'RETRIES_EXHAUSTED', cause: { conflict: { kind: 'lockWait' }, cause: { errno: 1205 } } },
    ])
    expect(await row(1)).toBe(0)
  })

  const wrappers: Readonly<Record<string, (error: unknown) => unknown>> = {
    'as it is': error => error,
    cause: error => new Error('query failed', { cause: error }),
    original: error => Object.assign(new Error('query failed'), { original: error }),
    parent: error => Object.assign(new Error('query failed'), { parent: error }),
    driverError: error => Object.assign(new Error('query failed'), { driverError: error }),
    'errors[]': error => new AggregateError([new Error('other'), error], 'several'),
    'cause of errors[] of cause': error =>
      new Error('outer', { cause: new AggregateError([new Error('inner', { cause: error })]) }),
  }

  test.each(Object.entries(wrappers))(
    'isConflict, %s: one of ours is one, what refuses a re-run is none',
    (_, wrap) => {
      const conflict = new SessionTxError('CONFLICT', 'lost')
      expect(isConflict(wrap(conflict))).toBe(true)
      expect(isConflict(wrap(new SessionTxError('RETRIES_EXHAUSTED', 'gave up', { cause: conflict })))).toBe(
        false,
      )
      expect(isConflict(wrap(new TypeError('a bug')))).toBe(false)
    },
  )

  describe('NOWAIT', () => {
    const tryLock = (ctx: TxContext): Promise<unknown> => numberOf(ctx, 1, ' FOR UPDATE NOWAIT')
    const locked = async (work: () => Promise<void>): Promise<void> => {
      await db.admin.beginTransaction()
      try {
        await elsewhere('UPDATE item SET n = 5 WHERE id = 1')
        await work()
      } finally {
        await db.admin.rollback()
      }
    }

    test('caught: the application expected it, and what it did instead is committed', async () => {
      const { client, tx } = await start({
        '/try': async ctx => {
          await tryLock(ctx).catch(() => {})
          await ctx.tx.query('UPDATE item SET n = 7 WHERE id = 2')
          ctx.body = `attempt ${ctx.tx.attempt}`
        },
      })
      await locked(async () => {
        await expect(client().get('/try')).resolves.toMatchObject({ status: 200, text: 'attempt 1' })
      })
      expect(await row(2)).toBe(7)
      expect(tx.stats().conflicts.total).toBe(0)
    })

    test.each(Object.entries(wrappers))(
      'thrown on, %s: it is a lost race, and runs again',
      async (_, wrap) => {
        const { client, tx } = await start({
          '/try': async ctx => {
            if (ctx.tx.attempt === 2) await db.admin.rollback()
            await tryLock(ctx).catch((error: unknown) => {
              throw wrap(error)
            })
            ctx.body = `attempt ${ctx.tx.attempt}`
          },
        })
        await locked(async () => {
          await expect(client().get('/try')).resolves.toMatchObject({ status: 200, text: 'attempt 2' })
        })
        expect(tx.stats().conflicts.byKind).toEqual({ lockWait: 1 })
      },
    )
  })

  test('retry.isRetryable decides first, both ways', async () => {
    const runs = { bug: 0, row: 0 }
    const isRetryable = (error: unknown): boolean | undefined => {
      if (error instanceof TypeError) return true
      return (error as { errno?: number }).errno === 1020 ? false : undefined
    }
    const { client, errors } = await start(
      {
        '/bug': ctx => {
          runs.bug += 1
          if (ctx.tx.attempt < 3) throw new TypeError('flaky')
          ctx.body = 'ok'
        },
        '/row': async ctx => {
          runs.row += 1
          await numberOf(ctx, 1)
          await elsewhere('UPDATE item SET n = n + 1 WHERE id = 1')
          await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 1')
        },
      },
      { retry: { isRetryable } },
    )
    await expect(client().get('/bug')).resolves.toMatchObject({ status: 200 })
    await expect(client().get('/row')).resolves.toMatchObject({ status: 500 })
    expect(runs).toEqual({ bug: 3, row: 1 })
    expect(errors).toMatchObject([{ errno: 1020 }])
  })
})

test('a connection killed inside a handler: the whole handler runs again, each effect once', async () => {
  const { client, tx } = await start({
    '/killed': async ctx => {
      ctx.session['n'] = ((ctx.session['n'] as number | undefined) ?? 0) + 1
      await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 1')
      if (ctx.tx.attempt === 1) {
        const [rows] = await ctx.tx.query<{ id: number }[]>('SELECT CONNECTION_ID() AS id')
        await db.admin.query(`KILL ${rows[0]?.id}`)
      }
      await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 2')
      ctx.body = `attempt ${ctx.tx.attempt}`
    },
  })
  const ann = client()
  await expect(ann.get('/killed')).resolves.toMatchObject({ status: 200, text: 'attempt 2' })
  expect([await row(1), await row(2)]).toEqual([1, 1])
  expect((await ann.get('/')).json()).toEqual({ n: 1 })
  expect(tx.stats().conflicts.byKind).toEqual({ connection: 1 })
  await nothingOpen(db)
})

test('connections killed between requests: nobody notices, though all of them are', async () => {
  const both = new Barrier(2)
  const { client, tx } = await start({
    '/warm': async ctx => {
      await numberOf(ctx, 1)
      await both.arrive()
    },
    '/write': async ctx => {
      ctx.session['n'] = ((ctx.session['n'] as number | undefined) ?? 0) + 1
      await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 1')
      ctx.body = 'written'
    },
  })
  await Promise.all([client().get('/warm'), client().get('/warm')])
  const [threads] = await db.admin.query<RowDataPacket[]>(
    'SELECT ID FROM information_schema.PROCESSLIST WHERE DB = ?',
    [db.name],
  )
  expect(threads.length).toBeGreaterThanOrEqual(2)
  for (const { ID } of threads) await db.admin.query(`KILL ${ID}`)
  const ann = client()
  await expect(ann.get('/write')).resolves.toMatchObject({ text: 'written' })
  expect(await row()).toBe(1)
  expect((await ann.get('/')).json()).toEqual({ n: 1 })
  // Seen by us before the next request, or at its first statement: then that one re-run is free.
  expect(tx.stats().requests).toMatchObject({ committed: 4, refused: 0 })
})

describe('no database', () => {
  const once =
    (served: TxServed, runs: () => number) =>
    async (status: number, error: object): Promise<void> => {
      await expect(served.client().get('/query')).resolves.toMatchObject({ status })
      expect(served.errors).toMatchObject([error])
      expect(runs()).toBe(1)
      expect(served.tx.stats()).toMatchObject({
        retried: 0,
        conflicts: { total: 0 },
        requests: { rolledBack: 1 },
      })
    }
  async function query(options: Options, sql = 'SELECT n FROM item', environment: Environment = promptly) {
    let runs = 0
    const handler: Handler = async ctx => {
      runs += 1
      await ctx.tx.query(sql)
    }
    const served = await start({ '/query': handler }, options, environment)
    return { served, expectOnce: once(served, () => runs) }
  }
  const withUrl = (change: (url: URL) => void): Options => {
    const url = new URL(db.url)
    change(url)
    return { pool: openPool({ uri: url.href, connectionLimit: 1 }) }
  }

  test('the pool is exhausted: 503 STORE_UNAVAILABLE after acquireMs, once', async () => {
    const environment = fakeEnvironment()
    const held = openPool({ connectionLimit: 1 })
    const gate = new Gate()
    const holding = deferred()
    const served = await start(
      {
        '/hold': async ctx => {
          await ctx.tx.query('SELECT n FROM item')
          holding.resolve()
          await gate.passed()
          ctx.body = 'held'
        },
        '/query': ctx => ctx.tx.query('SELECT n FROM item'),
      },
      { pool: held, acquireMs: 700 },
      environment,
    )
    const holder = served.client().get('/hold')
    await holding.promise
    const answer = served.client().get('/query')
    await environment.clock.armed(delayMs => delayMs === 700)
    environment.clock.advance(700)
    await expect(answer).resolves.toMatchObject({ status: 503, headers: { 'retry-after': '1' } })
    expect(served.errors).toMatchObject([{ code: 'STORE_UNAVAILABLE' }])
    gate.open()
    await expect(holder).resolves.toMatchObject({ status: 200 })
    expect(served.tx.stats().requests).toMatchObject({ committed: 1, rolledBack: 1 })
  })

  test('nobody listens there: tried again within `retries`, then 503 STORE_UNAVAILABLE', async () => {
    const { served } = await query({ ...withUrl(url => (url.port = '1')), retry: { retries: 2 } })
    const answer = await served.client().get('/query')
    expect(answer).toMatchObject({ status: 503, headers: { 'retry-after': '1' } })
    expect(served.errors).toMatchObject([{ code: 'STORE_UNAVAILABLE', cause: { code: 'ECONNREFUSED' } }])
    expect(served.tx.stats()).toMatchObject({
      attempts: { 3: 1 },
      conflicts: { byKind: { unavailable: 3 } },
      requests: { refused: 1 },
      refused: { STORE_UNAVAILABLE: 1 },
    })
  })

  test('a handler that can do without is not run again, and its session is stored', async () => {
    const { client, tx } = await start(
      {
        '/degrade': async ctx => {
          ctx.session['seen'] = ctx.tx.attempt
          ctx.body = await numberOf(ctx, 1).catch(() => 'from memory')
        },
      },
      withUrl(url => (url.port = '1')),
    )
    const ann = client()
    await expect(ann.get('/degrade')).resolves.toMatchObject({ status: 200, text: 'from memory' })
    expect((await ann.get('/')).json()).toEqual({ seen: 1 })
    expect(tx.stats().conflicts.total).toBe(0)
  })

  test('another service that refuses a connection is none of our business', async () => {
    let runs = 0
    const { client, errors } = await start({
      '/elsewhere': async ctx => {
        runs += 1
        await numberOf(ctx, 1)
        // As fetch() tells it.
        const cause = await new Promise(resolve => connect(1, '127.0.0.1').on('error', resolve))
        throw new TypeError('fetch failed', { cause })
      },
    })
    await expect(client().get('/elsewhere')).resolves.toMatchObject({ status: 500 })
    expect([runs, errors]).toMatchObject([1, [{ cause: { code: 'ECONNREFUSED' } }]])
  })

  describe('1226: the user has too many connections', () => {
    const user = `u_${process.pid}`
    beforeAll(async () => {
      await db.admin.query(`CREATE USER ${user}@'%' IDENTIFIED BY 'x' WITH MAX_USER_CONNECTIONS 1`)
      await db.admin.query(`GRANT ALL ON ${db.name}.* TO ${user}@'%'`)
    })
    afterAll(() => db.admin.query(`DROP USER ${user}@'%'`))
    const limited = (): string => {
      const url = new URL(db.url)
      url.username = user
      url.password = 'x'
      return url.href
    }

    test('waited for without a connection in hand, and served when there is one', async () => {
      const environment = fakeEnvironment()
      const other = await mysql.createConnection(limited())
      undo.push(() => other.end())
      const { client, tx } = await start(
        {
          '/write': async ctx => {
            await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 1')
            ctx.body = 'written'
          },
        },
        { pool: openPool({ uri: limited() }) },
        environment,
      )
      const answer = client().get('/write')
      await environment.clock.armed(delayMs => delayMs === 2.5)
      await other.end()
      while (((await valueOf(db, COUNT_OF, [user])) as number) > 0);
      environment.clock.advance(2.5)
      await expect(answer).resolves.toMatchObject({ text: 'written' })
      expect(await row()).toBe(1)
      expect(tx.stats().conflicts.byKind).toEqual({ unavailable: 1 })
    })

    test('to the end: 503 STORE_UNAVAILABLE with Retry-After', async () => {
      const other = await mysql.createConnection(limited())
      undo.push(() => other.end())
      const { client, errors } = await start(
        { '/query': ctx => ctx.tx.query('SELECT 1') },
        { pool: openPool({ uri: limited() }) },
      )
      await expect(client().get('/query')).resolves.toMatchObject({
        status: 503,
        headers: { 'retry-after': '1' },
      })
      expect(errors).toMatchObject([{ code: 'STORE_UNAVAILABLE', cause: { errno: 1226 } }])
    })
  })

  test('wrong credentials: the driver’s own error, once', async () => {
    const { expectOnce } = await query(
      withUrl(url => {
        url.username = 'nobody'
        url.password = 'wrong'
      }),
    )
    await expectOnce(500, { errno: 1045 })
  })

  test('an unknown database: the driver’s own error, once', async () => {
    const { expectOnce } = await query(withUrl(url => (url.pathname = '/nowhere')))
    await expectOnce(500, { errno: 1049 })
  })

  test('an unknown table: the driver’s own error, once, and the stack names the handler’s file', async () => {
    const { served, expectOnce } = await query({}, 'SELECT * FROM nowhere')
    await expectOnce(500, { errno: 1146, stack: expect.stringContaining('innodb.test') as string })
    await nothingOpen(db)
    expect(served.errors[0]).not.toBeInstanceOf(SessionTxError)
  })

  test('no pool was configured: MISCONFIGURED says what to do', async () => {
    const { expectOnce } = await query({ pool: undefined })
    await expectOnce(500, { code: 'MISCONFIGURED', message: expect.stringContaining('`pool`') as string })
  })
})

describe('the application’s own use of the pool', () => {
  test.each([
    ['warn', 200, 1],
    ['ignore', 200, 0],
    ['refuse', 500, 1],
  ] as const)(
    'inside a handler, strayQueries %s: answered with %i',
    async (strayQueries, status, counted) => {
      const warned: string[] = []
      const warnings = jest
        .spyOn(process, 'emitWarning')
        .mockImplementation(text => void warned.push(String(text)))
      undo.push(() => warnings.mockRestore())
      const { client, tx, errors } = await start(
        {
          '/stray': async ctx => {
            await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 1')
            await db.pool.query('UPDATE item SET n = n + 1 WHERE id = 2')
            ctx.body = 'ok'
          },
        },
        { strayQueries },
      )
      for (let turn = 1; turn <= 3; turn++) {
        await expect(client().get('/stray')).resolves.toMatchObject({ status })
        expect(tx.stats().stray).toEqual({
          total: turn * counted,
          byRoute: counted === 0 ? {} : { '(unmatched)': turn },
        })
      }
      const stray = warned.filter(text => text.includes('pool.query()'))
      expect(stray).toHaveLength(strayQueries === 'warn' ? 1 : 0)
      if (strayQueries === 'refuse') {
        expect(errors).toMatchObject(Array(3).fill({ code: 'STRAY_QUERY' }))
        expect([await row(1), await row(2)]).toEqual([0, 0])
      } else expect([await row(1), await row(2)]).toEqual([3, 3])
    },
  )

  test('it repeats with each attempt: that is what the warning is about', async () => {
    const { client, tx } = await start(
      {
        '/stray': async ctx => {
          await db.pool.query('UPDATE item SET n = n + 1 WHERE id = 2')
          if (ctx.tx.attempt < 3) ctx.tx.conflict()
        },
      },
      { strayQueries: 'warn' },
    )
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    undo.push(() => warnings.mockRestore())
    await client().get('/stray')
    expect(await row(2)).toBe(3)
    expect(tx.stats().stray.total).toBe(3)
  })

  test('in an after-commit hook it is nobody’s stray', async () => {
    const ran = deferred()
    const { client, tx } = await start(
      {
        '/hook': ctx => {
          ctx.tx.afterCommit(async () => {
            await db.pool.query('UPDATE item SET n = 1 WHERE id = 2')
            ran.resolve()
          })
        },
      },
      { strayQueries: 'refuse' },
    )
    await client().get('/hook')
    await ran.promise
    expect(await row(2)).toBe(1)
    expect(tx.stats().stray.total).toBe(0)
  })

  test('outside of requests, what it writes is committed, whatever we did with that connection before', async () => {
    const pool = openPool({ connectionLimit: 1 })
    const { client } = await start(
      { '/write': ctx => ctx.tx.query('UPDATE item SET n = 1 WHERE id = 1') },
      { pool },
    )
    for (let turn = 1; turn <= 5; turn++) {
      await client().get('/write')
      await pool.query('UPDATE item SET n = ? WHERE id = 2', [turn])
      expect(await row(2)).toBe(turn)
    }
    const [rows] = await pool.query<RowDataPacket[]>(
      'SELECT @@autocommit AS autocommit, @@in_transaction AS open',
    )
    expect(rows).toEqual([{ autocommit: 1, open: 0 }])
  })

  test('also what had to wait in the pool’s queue, under load', async () => {
    const pool = openPool({ connectionLimit: 2 })
    const { client, tx } = await start(
      {
        '/write': async ctx => {
          await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 1')
        },
      },
      { pool, retry: { retries: 50 } },
    )
    const requests = Array.from({ length: 60 }, () => client().get('/write'))
    const own = Array.from({ length: 60 }, () => pool.query('UPDATE item SET n = n + 1 WHERE id = 2'))
    await Promise.all([...requests, ...own])
    expect([await row(1), await row(2)]).toEqual([60, 60])
    expect(tx.stats().stray.total).toBe(0)
    await nothingOpen(db)
  })
})

test('many handlers at once on a pool of two: every one gets its turn, nothing is lost', async () => {
  const pool = openPool({ connectionLimit: 2 })
  const { client, tx } = await start(
    {
      '/write': async ctx => {
        const n = await numberOf(ctx, 1)
        await ctx.tx.query('UPDATE item SET n = ? WHERE id = 1', [n + 1])
        ctx.session['n'] = n
      },
    },
    { pool, acquireMs: 10_000, retry: { retries: 100 } },
  )
  const answers = await Promise.all(Array.from({ length: 100 }, () => client().get('/write')))
  expect(answers.filter(({ status }) => status >= 500)).toEqual([])
  expect(await row()).toBe(100)
  expect(tx.stats().requests).toEqual({ committed: 100, rolledBack: 0, refused: 0, unknown: 0 })
  await nothingOpen(db)
})

describe('isolation', () => {
  /** Two requests read a row and write what they read plus one: the classic lost update. */
  async function readThenWrite(options: Options) {
    const both = new Barrier(2)
    const served = await start(
      {
        '/add': async ctx => {
          const n = await numberOf(ctx, 1)
          if (ctx.tx.attempt === 1) await both.arrive()
          await ctx.tx.query('UPDATE item SET n = ? WHERE id = 1', [n + 1])
        },
      },
      options,
    )
    await Promise.all([served.client().get('/add'), served.client().get('/add')])
    return { n: await row(), conflicts: served.tx.stats().conflicts.byKind }
  }

  test('snapshot (the default): the lost update of a row is prevented, by 1020 and a re-run', async () => {
    await expect(readThenWrite({})).resolves.toEqual({ n: 2, conflicts: { row: 1 } })
  })

  test('serializable: prevented as well', async () => {
    const { n, conflicts } = await readThenWrite({ isolation: 'serializable' })
    expect(n).toBe(2)
    // The re-run may wait for the winner's lock and find the row newer than its own beginning: 1020, once more.
    expect(conflicts).toMatchObject({ deadlock: 1 })
  })

  test.each(['repeatable read', 'read committed'] as const)('%s: possible, as in MySQL', async isolation => {
    await expect(readThenWrite({ isolation })).resolves.toEqual({ n: 1, conflicts: {} })
  })

  /** Each may set its row to 1 only while the other is 0. */
  async function writeSkew(options: Options): Promise<unknown[]> {
    const both = new Barrier(2)
    const take =
      (own: number, other: number): Handler =>
      async ctx => {
        const taken = await numberOf(ctx, other)
        if (ctx.tx.attempt === 1) await both.arrive()
        if (taken === 0) await ctx.tx.query('UPDATE item SET n = 1 WHERE id = ?', [own])
      }
    const { client } = await start({ '/one': take(1, 2), '/two': take(2, 1) }, options)
    await Promise.all([client().get('/one'), client().get('/two')])
    return [await row(1), await row(2)]
  }

  test('snapshot: write skew is possible', async () => {
    await expect(writeSkew({})).resolves.toEqual([1, 1])
  })

  test('serializable: write skew is stopped', async () => {
    const rows = await writeSkew({ isolation: 'serializable' })
    expect(rows).toContain(0)
    expect(rows).toContain(1)
  })

  test('read committed sees what others commit meanwhile, the others do not', async () => {
    const seen = async (isolation: 'read committed' | 'repeatable read' | 'snapshot'): Promise<string> => {
      const { client } = await start(
        {
          '/twice': async ctx => {
            const first = await numberOf(ctx, 1)
            await elsewhere('UPDATE item SET n = n + 1 WHERE id = 1')
            ctx.body = `+${(await numberOf(ctx, 1)) - first}`
          },
        },
        { isolation },
      )
      return (await client().get('/twice')).text
    }
    expect([await seen('read committed'), await seen('repeatable read'), await seen('snapshot')]).toEqual([
      '+1',
      '+0',
      '+0',
    ])
  })
})

describe('readOnly', () => {
  const routes: Record<string, Handler> = {
    '/login': ctx => void (ctx.session['n'] = 1),
    '/read': async ctx => (ctx.body = `${await numberOf(ctx, 1)} ${String(ctx.session['n'])}`),
    '/row': ctx => ctx.tx.query('UPDATE item SET n = 1 WHERE id = 1'),
    '/variable': ctx => void (ctx.session['n'] = 2),
  }
  const readOnly = (ctx: KoaContext): boolean => ctx.path !== '/login'

  // `retries: 0` opens session and rows at one instant, by a statement of its own that must be read-only, too.
  test.each([3, 0])('writing is an error, reading is not (retries: %i)', async retries => {
    const { client, errors, tx } = await start(routes, { readOnly, retry: { retries } })
    const ann = client()
    await ann.get('/login')
    await expect(ann.get('/read')).resolves.toMatchObject({ status: 200, text: '0 1' })
    await expect(ann.get('/row')).resolves.toMatchObject({ status: 500 })
    await expect(ann.get('/variable')).resolves.toMatchObject({ status: 500 })
    await expect(ann.get('/read')).resolves.toMatchObject({ status: 200, text: '0 1' })
    expect(errors).toMatchObject([{ code: 'READ_ONLY', cause: { errno: 1792 } }, { code: 'READ_ONLY' }])
    expect(tx.stats().requests).toEqual({ committed: 3, rolledBack: 2, refused: 0, unknown: 0 })
  })

  test('the next request on the same connection writes again', async () => {
    const pool = openPool({ connectionLimit: 1 })
    const { client } = await start(
      { ...routes, '/write': routes['/row'] as Handler },
      { pool, readOnly: ctx => ctx.path === '/read' },
    )
    await client().get('/read')
    await client().get('/write')
    expect(await row()).toBe(1)
  })
})
