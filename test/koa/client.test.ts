/** Waiting, and what ends it: the client that went away, the deadline; and what the ended attempts can still do: nothing. */
import { once } from 'node:events'
import { createPool, type RowDataPacket } from 'mysql2/promise'
import { currentTx, isConflict, type SessionTxError } from '../../lib/index.js'
import { koas, serveTx, type TxContext, type TxServed, type TxServing } from '../support/app.js'
import { deferred, Gate } from '../support/barrier.js'
import { fakeEnvironment } from '../support/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'

const isBackoff = (delayMs: number): boolean => delayMs > 0 && delayMs <= 250

let db: TestDatabase
const undo: (() => unknown)[] = []

beforeAll(async () => {
  db = await openDatabase()
  await db.pool.query('CREATE TABLE acc (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(async () => {
  await db.pool.query('REPLACE INTO acc VALUES (1, 0), (2, 0)')
})
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
})

async function serving(given: TxServing): Promise<TxServed> {
  const served = await serveTx({ ...given, options: { pool: db.pool, ...given.options } })
  undo.push(() => served.close())
  return served
}

interface Row extends RowDataPacket {
  readonly n: number
}
async function n(id = 1): Promise<number | undefined> {
  const [rows] = await db.pool.query<Row[]>('SELECT n FROM acc WHERE id = ?', [id])
  return rows[0]?.n
}
const increment = (ctx: TxContext, id = 1) => ctx.tx.execute('UPDATE acc SET n = n + 1 WHERE id = ?', [id])

/** Asked from outside of the pool, and answered at once. */
async function isLocked(id: number): Promise<boolean> {
  try {
    await db.admin.query(`SELECT n FROM ${db.name}.acc WHERE id = ? FOR UPDATE NOWAIT`, [id])
    return false
  } catch (error) {
    expect(error).toMatchObject({ errno: 1205 })
    return true
  }
}

/** The code that a promise, or a call, fails with. */
async function failure(work: () => unknown): Promise<unknown> {
  try {
    await work()
    return 'nothing'
  } catch (error) {
    return (error as SessionTxError).code
  }
}

describe.each(koas)('%s: the client goes away', (_name, Koa) => {
  test('while its request waits to run again: no further attempt, and nothing waits on', async () => {
    const environment = fakeEnvironment()
    const refused = deferred<string>()
    let ran = 0
    const { client, tx } = await serving({
      Koa,
      environment,
      below: async ctx => {
        ran += 1
        ctx.session['visits'] = 1
        await increment(ctx)
        ctx.tx.conflict()
      },
    })
    tx.on('refused', ({ code }) => refused.resolve(code))
    const { answer, leave } = client().start('GET', '/')
    await environment.clock.armed(isBackoff)
    leave()
    await expect(answer).rejects.toThrow('the client went away')
    expect(await refused.promise).toBe('CONFLICT')
    expect(environment.clock.pending.filter(isBackoff)).toEqual([])
    environment.clock.advance(1_000)
    expect(ran).toBe(1)
    expect(await n()).toBe(0)
    expect(tx.stats()).toMatchObject({ requests: { refused: 1 }, sessions: { live: 0 } })
  })

  test('while its request queues for a variable: its place is given up, who held it goes on', async () => {
    const [holding, goOn, queued, refused] = [new Gate(), new Gate(), new Gate(), new Gate()]
    let secondRan = 0
    const { client, tx } = await serving({
      Koa,
      below: async ctx => {
        if (ctx.path === '/login') {
          ctx.session['visits'] = 0
          return
        }
        const visits = Number(ctx.session['visits'])
        if (ctx.path === '/second') secondRan += 1
        // Somebody commits in between: the first loses, and its ticket reserves the variable, so the second loses to it.
        if (ctx.path === '/first' && ctx.tx.attempt === 1) {
          const { id: sessionId } = ctx.session
          await tx.run((_tx, session) => void (session['visits'] = Number(session['visits']) + 10), {
            sessionId,
          })
        } else if (ctx.path === '/first') {
          holding.open()
          await goOn.passed()
        }
        ctx.session['visits'] = visits + 1
        ctx.body = ctx.session['visits']
      },
    })
    const visitor = client()
    await visitor.get('/login')
    const first = visitor.get('/first')
    await holding.passed()
    tx.on('conflict', () => queued.open())
    tx.on('refused', () => refused.open())
    const second = visitor.start('GET', '/second')
    await queued.passed()
    second.leave()
    await expect(second.answer).rejects.toThrow('the client went away')
    await refused.passed()
    expect(tx.stats().tickets).toMatchObject({ waiting: 0 })
    goOn.open()
    expect((await first).status).toBe(200)
    expect(secondRan).toBe(1)
    expect(tx.stats().tickets).toEqual({ waiting: 0, keys: 0 })
  })

  test('while its handler runs: ctx.tx.signal aborts; the handler decides, and what it finishes is stored', async () => {
    const [started, committed] = [new Gate(), new Gate()]
    const { client, tx } = await serving({
      Koa,
      below: async ctx => {
        const { signal } = ctx.tx
        expect(signal.aborted).toBe(false)
        started.open()
        await once(signal, 'abort')
        expect(String(signal.reason)).toMatch(/went away/)
        await increment(ctx)
        ctx.body = 'for nobody'
      },
    })
    tx.on('commit', () => committed.open())
    const { answer, leave } = client().start('GET', '/')
    await started.passed()
    leave()
    await expect(answer).rejects.toThrow('the client went away')
    await committed.passed()
    expect(await n()).toBe(1)
  })

  test('while its handler runs and loses a race: it is not run again', async () => {
    const [started, refused] = [new Gate(), new Gate()]
    let ran = 0
    const { client, tx } = await serving({
      Koa,
      below: async ctx => {
        ran += 1
        started.open()
        await once(ctx.tx.signal, 'abort')
        ctx.tx.conflict()
      },
    })
    tx.on('refused', () => refused.open())
    const { answer, leave } = client().start('GET', '/')
    await started.passed()
    leave()
    await expect(answer).rejects.toThrow('the client went away')
    await refused.passed()
    expect(ran).toBe(1)
  })

  test("clientGone: 'rollback': what its handler finishes is not stored, and said to be so", async () => {
    const [started, rolledBack] = [new Gate(), new Gate()]
    const { client, tx } = await serving({
      Koa,
      options: { pool: db.pool, clientGone: 'rollback' },
      below: async ctx => {
        ctx.session['a'] = 1
        await increment(ctx)
        if (ctx.path === '/stays') return
        started.open()
        await once(ctx.tx.signal, 'abort')
      },
    })
    const reasons: string[] = []
    tx.on('rollback', ({ reason }) => {
      reasons.push(reason)
      rolledBack.open()
    })
    const { answer, leave } = client().start('GET', '/')
    await started.passed()
    leave()
    await expect(answer).rejects.toThrow('the client went away')
    await rolledBack.passed()
    expect([reasons, await n(), tx.stats().sessions.live]).toEqual([['clientGone'], 0, 0])
    await client().get('/stays')
    expect(await n()).toBe(1)
  })
})

test('waiting holds no connection and no lock, and does not stop other requests', async () => {
  const environment = fakeEnvironment()
  const pool = createPool({ uri: db.url, connectionLimit: 1 })
  undo.push(() => pool.end())
  const { client } = await serving({
    options: { pool },
    environment,
    below: async ctx => {
      await increment(ctx)
      if (ctx.path === '/waits' && ctx.tx.attempt === 1) ctx.tx.conflict()
      ctx.body = ctx.tx.attempt
    },
  })
  const waits = client().get('/waits')
  await environment.clock.armed(isBackoff)
  expect(await isLocked(1)).toBe(false)
  // On the pool's only connection, on the same row.
  expect((await client().get('/other')).text).toBe('1')
  expect(await n()).toBe(1)
  environment.clock.advance(250)
  expect((await waits).text).toBe('2')
  expect(await n()).toBe(2)
})

describe('the deadline', () => {
  test('rolls back even if the handler has not returned; what it does later is refused', async () => {
    const environment = fakeEnvironment()
    const [stuck, goOn] = [new Gate(), new Gate()]
    const late = deferred<unknown[]>()
    const { client, errors, tx } = await serving({
      environment,
      options: { retry: { deadlineMs: 5_000 } },
      below: async ctx => {
        const { tx: own, session } = ctx
        session['visits'] = 1
        await increment(ctx)
        stuck.open()
        await goOn.passed()
        late.resolve(
          await Promise.all([
            failure(() => own.execute('UPDATE acc SET n = 99')),
            failure(() => increment(ctx)),
            failure(() => (session['visits'] = 99)),
            failure(() => (ctx.session['visits'] = 99)),
            failure(() => own.afterCommit(() => {})),
            Promise.resolve(own.signal.aborted),
          ]),
        )
      },
    })
    const visitor = client()
    const answered = visitor.get()
    await stuck.passed()
    expect(await isLocked(1)).toBe(true)
    environment.clock.advance(4_999)
    expect(await isLocked(1)).toBe(true)
    environment.clock.advance(1)
    const answer = await answered
    expect(answer.status).toBe(503)
    expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(1)
    expect(errors).toEqual([expect.objectContaining({ code: 'DEADLINE' })])
    expect(await isLocked(1)).toBe(false)
    expect(await n()).toBe(0)
    expect(visitor.cookies.size).toBe(0)
    goOn.open()
    const closed = 'TRANSACTION_CLOSED'
    expect(await late.promise).toEqual([closed, closed, closed, closed, closed, true])
    expect(await n()).toBe(0)
    expect(tx.stats()).toMatchObject({
      refused: { DEADLINE: 1 },
      sessions: { live: 0 },
      requests: { refused: 1 },
    })
  })

  test('ends the wait between two attempts, with the lost race as cause', async () => {
    const environment = fakeEnvironment()
    let ran = 0
    const { client, errors } = await serving({
      environment,
      options: { retry: { deadlineMs: 100, backoffBaseMs: 250 } },
      below: ctx => {
        ran += 1
        ctx.tx.conflict('as always')
      },
    })
    const answered = client().get()
    await environment.clock.armed(delayMs => delayMs === 125)
    environment.clock.advance(100)
    expect((await answered).status).toBe(503)
    expect(ran).toBe(1)
    expect(errors).toEqual([
      expect.objectContaining({ code: 'DEADLINE', cause: expect.objectContaining({ code: 'CONFLICT' }) }),
    ])
    expect(environment.clock.pending.filter(isBackoff)).toEqual([])
  })

  test('ends a statement that waits for a lock, whoever holds it', async () => {
    const environment = fakeEnvironment()
    const holder = await db.pool.getConnection()
    await holder.beginTransaction()
    await holder.query('UPDATE acc SET n = 50 WHERE id = 1')
    undo.push(async () => {
      await holder.rollback()
      holder.release()
    })
    const { client, errors } = await serving({
      environment,
      options: { lockWaitMs: 60_000 },
      below: async ctx => {
        await increment(ctx, 2)
        await ctx.tx.query('UPDATE acc SET n = 8 WHERE id = 1')
      },
    })
    const answered = client().get()
    // Not from innodb_trx: whoever looks there more than ten times per second sees the same picture for ever.
    const waiting = `SELECT id FROM information_schema.processlist WHERE db = ? AND info LIKE 'UPDATE acc SET n = 8%'`
    for (let seen = 0; seen === 0; ) {
      seen = (await db.admin.query<RowDataPacket[]>(waiting, [db.name]))[0].length
    }
    environment.clock.advance(10_000)
    expect((await answered).status).toBe(503)
    expect(errors).toEqual([expect.objectContaining({ code: 'DEADLINE' })])
    // Only the holder's lock is left.
    expect([await isLocked(1), await isLocked(2)]).toEqual([true, false])
  })
})

describe('work of an attempt that nobody awaited', () => {
  test('cannot write into the next attempt: neither into its session nor into its rows, however it gets at them', async () => {
    const goOn = new Gate()
    const zombie = deferred<Record<string, unknown>>()
    const { client } = await serving({
      below: async ctx => {
        if (ctx.method === 'POST') {
          ctx.session['basket'] = { apples: 1 }
          return
        }
        const { tx: own, session: ownSession } = ctx
        ctx.session['visits'] = Number(ctx.session['visits'] ?? 0) + 1
        const basket = ctx.session['basket'] as { apples: number }
        basket.apples += 1
        await increment(ctx)

        async function haunt(): Promise<Record<string, unknown>> {
          await goOn.passed()
          return {
            attempt: currentTx()?.attempt,
            'its own handle': await failure(() => own.execute('UPDATE acc SET n = 99')),
            'ctx.tx read anew': await failure(() => ctx.tx.execute('UPDATE acc SET n = 99')),
            'currentTx()': await failure(() => currentTx()?.execute('UPDATE acc SET n = 99')),
            'its own session': await failure(() => (ownSession['visits'] = 99)),
            'a draft it kept': await failure(() => (basket.apples = 99)),
            'ctx.session read anew': await failure(() => (ctx.session['visits'] = 99)),
            'a new variable': await failure(() => (ctx.session['late'] = 99)),
            'ctx.session replaced': await failure(() => Object.assign(ctx, { session: { late: 99 } })),
            'ctx.session destroyed': await failure(() => ctx.session.destroy()),
            'ctx.session regenerated': await failure(() => ctx.session.regenerate()),
            'doom()': await failure(() => ctx.tx.doom()),
            'conflict()': await failure(() => ctx.tx.conflict()),
            'afterCommit()': await failure(() => ctx.tx.afterCommit(() => {})),
            'savepoint()': await failure(() => ctx.tx.savepoint(() => {})),
          }
        }
        if (ctx.tx.attempt === 1) {
          void haunt().then(zombie.resolve, zombie.reject)
          ctx.tx.conflict()
        }
        goOn.open()
        await zombie.promise
        ctx.body = { ...ctx.session }
      },
    })
    const visitor = client()
    await visitor.post()
    const answer = await visitor.get()
    const { attempt, ...refusals } = await zombie.promise
    expect(attempt).toBe(1)
    expect(Object.entries(refusals).filter(([, code]) => code !== 'TRANSACTION_CLOSED')).toEqual([])
    expect(answer.json()).toEqual({ visits: 1, basket: { apples: 2 } })
    expect(await n()).toBe(1)
  })

  test('finds no session either if its attempt had not looked at it', async () => {
    const goOn = new Gate()
    const zombie = deferred<unknown>()
    const { client, tx } = await serving({
      below: async ctx => {
        if (ctx.method === 'POST') ctx.session['visits'] = 1
        if (ctx.method === 'GET' && ctx.tx.attempt === 1) {
          void goOn
            .passed()
            .then(() => failure(() => (ctx.session['visits'] = 99)))
            .then(zombie.resolve)
          ctx.tx.conflict()
        }
        goOn.open()
        ctx.body = [ctx.session['visits'], ctx.method === 'GET' ? await zombie.promise : null]
      },
    })
    const visitor = client()
    await visitor.post()
    const answers = [await visitor.get(), await visitor.post()].map(answer => answer.json<unknown[]>())
    expect(answers).toEqual([
      [1, 'TRANSACTION_CLOSED'],
      [1, null],
    ])
    expect(tx.stats().sessions.live).toBe(1)
  })

  test('after the response ctx.tx and ctx.session are TRANSACTION_CLOSED, never a stray connection', async () => {
    const goOn = new Gate()
    const late = deferred<unknown[]>()
    const { client, tx } = await serving({
      below: async ctx => {
        ctx.session['visits'] = 1
        await increment(ctx)
        void goOn.passed().then(async () =>
          late.resolve([
            await failure(() => increment(ctx)),
            await failure(() => (ctx.session['visits'] = 99)),
            // What was read stays readable: the answer may still be rendered from it.
            ctx.session['visits'],
          ]),
        )
        ctx.body = 'ok'
      },
    })
    const visitor = client()
    await visitor.get()
    goOn.open()
    expect(await late.promise).toEqual(['TRANSACTION_CLOSED', 'TRANSACTION_CLOSED', 1])
    expect(await n()).toBe(1)
    expect(tx.stats().stray.total).toBe(0)
  })

  test('one branch of Promise.all throws while another still queries: its late query reaches nobody', async () => {
    const goOn = new Gate()
    const late = deferred<unknown>()
    const { client } = await serving({
      below: async ctx => {
        if (ctx.path === '/next') {
          goOn.open()
          await late.promise
          await increment(ctx, 2)
          ctx.body = 'ok'
          return
        }
        const slow = async (): Promise<void> => {
          await increment(ctx)
          await goOn.passed()
          late.resolve(await failure(() => ctx.tx.execute('UPDATE acc SET n = 99')))
        }
        const fails = async (): Promise<void> => {
          await increment(ctx, 2)
          throw new Error('mine')
        }
        await Promise.all([slow(), fails()])
      },
    })
    expect((await client().get()).status).toBe(500)
    expect((await client().get('/next')).text).toBe('ok')
    expect(await late.promise).toBe('TRANSACTION_CLOSED')
    expect([await n(1), await n(2)]).toEqual([0, 1])
  })

  test('a conflict among several branches is one conflict, and the other statements are waited for', async () => {
    const { client, tx } = await serving({
      below: async ctx => {
        if (ctx.tx.attempt === 1) {
          await Promise.all([
            increment(ctx, 1),
            increment(ctx, 2),
            Promise.resolve().then(() => ctx.tx.conflict('one')),
            Promise.resolve().then(() => ctx.tx.conflict('another')),
          ]).catch(error => {
            expect(isConflict(error)).toBe(true)
            throw error
          })
        }
        await increment(ctx)
        ctx.body = ctx.tx.attempt
      },
    })
    expect((await client().get()).text).toBe('2')
    expect([await n(1), await n(2)]).toEqual([1, 0])
    expect(tx.stats().conflicts.total).toBe(1)
  })
})
