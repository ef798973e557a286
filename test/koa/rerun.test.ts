/** What runs again, how often, and what the client sees of it: Koa on a real database. */
import type { ResultSetHeader, RowDataPacket } from 'mysql2/promise'
import { type SessionTxError, sessionTx } from '../../lib/index.js'
import { koas, serveTx, type TxContext, type TxServed, type TxServing } from '../support/app.js'
import { Barrier, Gate } from '../support/barrier.js'
import { openDatabase, type TestDatabase } from '../support/database.js'

interface Row extends RowDataPacket {
  readonly n: number
}

let db: TestDatabase

beforeAll(async () => {
  db = await openDatabase()
  await db.pool.query('CREATE TABLE acc (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(async () => {
  await db.pool.query('DELETE FROM acc')
  await db.pool.query('INSERT INTO acc VALUES (1, 0), (2, 0), (3, 0), (4, 0), (5, 0)')
})

async function n(id: number): Promise<number | undefined> {
  const [rows] = await db.pool.query<Row[]>('SELECT n FROM acc WHERE id = ?', [id])
  return rows[0]?.n
}
const increment = (ctx: TxContext, id: number) =>
  ctx.tx.execute('UPDATE acc SET n = n + 1 WHERE id = ?', [id])

describe.each(koas)('%s', (_name, Koa) => {
  let served: TxServed
  let ran: number

  async function serving(given: Omit<TxServing, 'Koa'>): Promise<TxServed> {
    ran = 0
    const count: TxServing['below'] = (_ctx, next) => {
      ran += 1
      return next()
    }
    const below = typeof given.below === 'function' ? [given.below] : given.below
    served = await serveTx({
      Koa,
      ...given,
      options: { pool: db.pool, ...given.options },
      below: [count, ...below],
    })
    return served
  }
  afterEach(() => served.close())

  test('conflict, conflict, success: the handler ran 3 times, the client sees the third response only', async () => {
    const { client, tx } = await serving({
      below: async ctx => {
        const { attempt, lastError, retries, isLastAttempt } = ctx.tx
        ctx.session['visits'] = Number(ctx.session['visits'] ?? 0) + 1
        await increment(ctx, 1)
        ctx.set(`X-Attempt-${attempt}`, 'here')
        ctx.body = {
          attempt,
          retries,
          isLastAttempt,
          lastError: lastError?.code,
          visits: ctx.session['visits'],
        }
        if (attempt < 3) ctx.tx.conflict()
      },
    })
    const answer = await client().get()
    expect(answer.status).toBe(200)
    expect(answer.json()).toEqual({
      attempt: 3,
      retries: 3,
      isLastAttempt: false,
      lastError: 'CONFLICT',
      visits: 1,
    })
    expect(Object.keys(answer.headers).filter(name => name.startsWith('x-attempt'))).toEqual(['x-attempt-3'])
    expect(ran).toBe(3)
    expect(await n(1)).toBe(1)
    expect(tx.stats()).toMatchObject({ requests: { committed: 1 }, attempts: { 3: 1 }, retried: 2 })
  })

  test('always in conflict: ran 1 + retries times, 503 with Retry-After, both sides as before', async () => {
    const { client, tx, errors } = await serving({
      options: { retry: { retries: 2 } },
      below: async ctx => {
        ctx.session['visits'] = ran
        await increment(ctx, 1)
        ctx.tx.conflict('as always')
      },
    })
    const visitor = client()
    const answer = await visitor.get()
    expect(answer).toMatchObject({ status: 503, text: 'Service Unavailable' })
    expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(1)
    expect(ran).toBe(3)
    expect(await n(1)).toBe(0)
    expect(visitor.cookies.size).toBe(0)
    expect(errors).toEqual([
      expect.objectContaining({
        code: 'RETRIES_EXHAUSTED',
        cause: expect.objectContaining({ code: 'CONFLICT' }),
      }),
    ])
    expect(tx.stats()).toMatchObject({
      exhausted: 1,
      refused: { RETRIES_EXHAUSTED: 1 },
      requests: { refused: 1 },
    })
  })

  test('retries: 0 runs once and says RETRIES_EXHAUSTED with the conflict as cause', async () => {
    const { client, errors, tx } = await serving({
      options: { retry: { retries: 0 } },
      below: ctx => ctx.tx.conflict(),
    })
    expect((await client().get()).status).toBe(503)
    expect(ran).toBe(1)
    expect(errors).toEqual([
      expect.objectContaining({
        code: 'RETRIES_EXHAUSTED',
        cause: expect.objectContaining({ code: 'CONFLICT' }),
      }),
    ])
    expect(tx.stats().notRerunnable).toEqual({})
  })

  test('retries can be decided per request', async () => {
    const { client } = await serving({
      options: { retry: { retries: ctx => (ctx.method === 'POST' ? 0 : 1) } },
      below: ctx => ctx.tx.conflict(),
    })
    await client().post()
    expect(ran).toBe(1)
    await client().get()
    expect(ran).toBe(3)
  })

  test('a TypeError runs once and comes through as it is', async () => {
    const { client, errors } = await serving({
      below: async ctx => {
        await increment(ctx, 1)
        throw new TypeError('my own')
      },
    })
    expect((await client().get()).status).toBe(500)
    expect(ran).toBe(1)
    expect(errors).toEqual([new TypeError('my own')])
    expect(await n(1)).toBe(0)
  })

  test('1020: another request committed the row first; the handler runs again and sees it', async () => {
    const bothHaveRead = new Barrier(2)
    const { client, tx } = await serving({
      below: async ctx => {
        const [rows] = await ctx.tx.query<Row[]>('SELECT n FROM acc WHERE id = 1')
        if (ctx.tx.attempt === 1) await bothHaveRead.arrive()
        await ctx.tx.execute('UPDATE acc SET n = ? WHERE id = 1', [(rows[0]?.n ?? NaN) + 1])
        ctx.body = 'ok'
      },
    })
    const answers = await Promise.all([client().get(), client().get()])
    expect(answers.map(({ status }) => status)).toEqual([200, 200])
    expect(await n(1)).toBe(2)
    expect(ran).toBe(3)
    expect(tx.stats().conflicts.byKind).toEqual({ row: 1 })
  })

  /** Somebody who has changed more rows, so that InnoDB chooses the request as the deadlock's victim. */
  async function lockedByABigOne(): Promise<{ crossing: () => Promise<unknown>; end: () => Promise<void> }> {
    const connection = await db.pool.getConnection()
    await connection.beginTransaction()
    // One by one: a range over so small a table would be a scan, and lock row 1, too.
    for (const id of [2, 3, 4, 5]) await connection.query('UPDATE acc SET n = n + 100 WHERE id = ?', [id])
    const end = async (): Promise<void> => {
      await connection.rollback()
      connection.release()
    }
    return { crossing: () => connection.query('UPDATE acc SET n = n + 100 WHERE id = 1'), end }
  }

  test.each(['lets through', 'swallows and answers 200 to'])(
    '1213 that the handler %s: run again, nothing partial committed',
    async what => {
      const big = await lockedByABigOne()
      const seen: unknown[] = []
      const { client, tx } = await serving({
        below: async ctx => {
          ctx.session['visits'] = ran
          await increment(ctx, 1)
          if (ctx.tx.attempt === 1) {
            const crossed = big.crossing()
            try {
              await increment(ctx, 2)
            } catch (error) {
              await crossed
              await big.end()
              seen.push((error as { errno?: number }).errno)
              if (what === 'lets through') throw error
              // The transaction is gone: nothing may be written as if it were not.
              await increment(ctx, 3).catch((late: SessionTxError) => seen.push(late.code))
            }
          } else {
            await increment(ctx, 2)
          }
          ctx.body = { attempt: ctx.tx.attempt, visits: ctx.session['visits'] }
        },
      })
      const answer = await client().get()
      expect(answer.json()).toEqual({ attempt: 2, visits: 2 })
      expect(seen).toEqual(what === 'lets through' ? [1213] : [1213, 'TRANSACTION_CLOSED'])
      expect([await n(1), await n(2), await n(3)]).toEqual([1, 1, 0])
      expect(tx.stats().conflicts.byKind).toEqual({ deadlock: 1 })
    },
  )

  test("1205 of the handler's own query: run again", async () => {
    const holder = await db.pool.getConnection()
    await holder.beginTransaction()
    await holder.query('SELECT * FROM acc WHERE id = 1 FOR UPDATE')
    const { client, tx } = await serving({
      options: { lockWaitMs: 1_000 },
      below: async ctx => {
        if (ctx.tx.attempt === 2) {
          await holder.rollback()
          holder.release()
        }
        await increment(ctx, 1)
        ctx.body = ctx.tx.lastError?.conflict?.kind
      },
    })
    expect((await client().get()).text).toBe('lockWait')
    expect(ran).toBe(2)
    expect(await n(1)).toBe(1)
    expect(tx.stats().conflicts.byKind).toEqual({ lockWait: 1 })
  })

  test("1062 is the handler's business: it runs once, and may catch it and go on", async () => {
    const { client } = await serving({
      below: async ctx => {
        await ctx.tx
          .execute('INSERT INTO acc VALUES (1, 7)')
          .catch((error: { errno?: number }) => (ctx.body = error.errno))
        await increment(ctx, 2)
      },
    })
    expect((await client().get()).text).toBe('1062')
    expect(ran).toBe(1)
    expect(await n(2)).toBe(1)
  })

  test('1062 runs again once with retry.duplicateIsConflict', async () => {
    const { client, errors } = await serving({
      options: { retry: { duplicateIsConflict: true } },
      below: ctx => ctx.tx.execute('INSERT INTO acc VALUES (1, 7)'),
    })
    expect((await client().get()).status).toBe(503)
    expect(ran).toBe(2)
    expect(errors).toEqual([expect.objectContaining({ code: 'RETRIES_EXHAUSTED' })])
  })

  test('two requests increment one session variable and one row: re-run, and the result is serial', async () => {
    const bothHaveRead = new Barrier(2)
    const { client } = await serving({
      below: async ctx => {
        if (ctx.path === '/login') ctx.session['visits'] = 0
        else {
          const visits = Number(ctx.session['visits'])
          if (ctx.tx.attempt === 1) await bothHaveRead.arrive()
          ctx.session['visits'] = visits + 1
          await increment(ctx, 1)
        }
        ctx.body = ctx.session['visits']
      },
    })
    const visitor = client()
    await visitor.get('/login')
    const answers = await Promise.all([visitor.get('/count'), visitor.get('/count')])
    expect(answers.map(({ text }) => text).sort()).toEqual(['1', '2'])
    expect(ran).toBe(4)
    expect(await n(1)).toBe(2)
  })

  test('two requests set different variables of one session: both are kept, nobody runs again', async () => {
    const bothHaveWritten = new Barrier(2)
    const { client } = await serving({
      below: async ctx => {
        if (ctx.path === '/login') ctx.session['user'] = 'ann'
        else if (ctx.path !== '/') {
          ctx.session[ctx.path.slice(1)] = true
          await bothHaveWritten.arrive()
        }
        ctx.body = { ...ctx.session }
      },
    })
    const visitor = client()
    await visitor.get('/login')
    await Promise.all([visitor.get('/a'), visitor.get('/b')])
    expect((await visitor.get()).json()).toEqual({ user: 'ann', a: true, b: true })
    expect(ran).toBe(4)
  })

  test('another transaction commits the variable in between: the second attempt sees its value', async () => {
    const { client, tx } = await serving({
      below: async ctx => {
        ctx.session['basket'] ??= ['apple']
        const basket = ctx.session['basket'] as string[]
        if (ctx.tx.attempt === 1 && ctx.path === '/add') {
          const { id: sessionId } = ctx.session
          await tx.run((_tx, session) => void (session['basket'] = ['pear']), { sessionId })
        }
        if (ctx.path === '/add') basket.push('plum')
        ctx.body = basket
      },
    })
    const visitor = client()
    await visitor.get('/')
    expect((await visitor.get('/add')).json()).toEqual(['pear', 'plum'])
    expect((await visitor.get('/')).json()).toEqual(['pear', 'plum'])
    expect(tx.stats().conflicts.byVariable).toEqual({ basket: 1 })
  })

  test('hooks belong to their attempt: conflict on attempt 1, commit on 2, exactly one mail', async () => {
    const log: string[] = []
    const mailed = new Gate()
    const { client } = await serving({
      below: async ctx => {
        const { attempt } = ctx.tx
        ctx.tx.beforeCommit(() => void log.push(`before commit of ${attempt}`))
        ctx.tx.afterRollback(() => void log.push(`after rollback of ${attempt}`))
        ctx.tx.afterCommit(() => {
          log.push(`mail of ${attempt}`)
          mailed.open()
        })
        await increment(ctx, 1)
        log.push(`ran ${attempt}`)
        if (attempt === 1) ctx.tx.conflict()
        ctx.body = 'ok'
      },
    })
    await client().get()
    await mailed.passed()
    expect(log).toEqual(['ran 1', 'after rollback of 1', 'ran 2', 'before commit of 2', 'mail of 2'])
  })

  test('the number of affected rows and the rows themselves come as mysql2 gives them', async () => {
    const { client } = await serving({
      below: async ctx => {
        const [result, fields] = await ctx.tx.execute<ResultSetHeader>('UPDATE acc SET n = 5 WHERE id = 1')
        const [rows] = await ctx.tx.query<Row[]>('SELECT n FROM acc WHERE id IN (?)', [[1, 2]])
        ctx.body = [result.affectedRows, fields === undefined, rows]
      },
    })
    expect((await client().get()).json()).toEqual([1, true, [{ n: 5 }, { n: 0 }]])
  })

  test('the budget of re-runs is empty: 503 BUDGET_EXHAUSTED, counted as such, and nothing is stored', async () => {
    const { client, tx } = await serving({
      options: { retry: { budget: { capacity: 1, ratio: 0, perSecond: 0 } } },
      below: async ctx => {
        await increment(ctx, 1)
        ctx.tx.conflict()
      },
    })
    const answer = await client().get()
    expect([answer.status, answer.headers['retry-after']]).toEqual([503, '1'])
    expect(ran).toBe(2)
    expect(tx.stats()).toMatchObject({
      refused: { BUDGET_EXHAUSTED: 1 },
      budget: { tokens: 0, capacity: 1 },
      exhausted: 0,
    })
    expect(await n(1)).toBe(0)
  })

  test('retry.rehearse: what went well runs once more, and only the second run is stored', async () => {
    const log: string[] = []
    const { client, tx } = await serving({
      options: { retry: { rehearse: true } },
      below: async ctx => {
        log.push(`run ${ctx.tx.attempt}`)
        ctx.tx.afterCommit(() => void log.push('mail'))
        await increment(ctx, 1)
        ctx.session['n'] = Number(ctx.session['n'] ?? 0) + 1
        if (ctx.path === '/fails') ctx.throw(418)
        ctx.body = ctx.session['n']
      },
    })
    expect((await client().get()).text).toBe('1')
    expect([log, await n(1)]).toEqual([['run 1', 'run 2', 'mail'], 1])
    expect(tx.stats().conflicts.byKind).toEqual({ rehearsal: 1 })
    expect((await client().get('/fails')).status).toBe(418)
    expect(log.slice(3)).toEqual(['run 1'])
  })

  test('retry.rehearse leaves alone what cannot run again', async () => {
    const { client } = await serving({
      options: { retry: { rehearse: true, retries: ctx => (ctx.path === '/once' ? 0 : 3) } },
      below: ctx => {
        ctx.body = ctx.tx.attempt
      },
    })
    expect([(await client().get('/once')).text, (await client().get('/')).text]).toEqual(['1', '2'])
  })
})

test.each([-1, Number.NaN, 1.5, Infinity])('retries: %p fails at start-up with a sentence', retries => {
  expect(() => sessionTx({ retry: { retries } })).toThrow(/^`retry\.retries` must be .* got /)
})

test('retries as a function that returns nonsense is an error of the request, not a silent default', async () => {
  const served = await serveTx({ options: { retry: { retries: () => -1 } }, below: () => {} })
  expect((await served.client().get()).status).toBe(500)
  expect(served.errors).toEqual([expect.objectContaining({ code: 'MISCONFIGURED' })])
  await served.close()
})
