/**
 * Sessions in MySQL, end to end: what goes over the wire, what two processes (here: two applications with a cache each)
 * see of each other, what loses and what is merged, and what an operator finds in the tables.
 */
import mysql, { type Pool, type RowDataPacket } from 'mysql2/promise'
import { type KoaContext, mysqlStore, resolvers, sessionTx, type SessionTxOptions } from '../../lib/index.js'
import { sessionTables } from '../../lib/store/mysql-tables.js'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { deferred } from '../support/barrier.js'
import type { Client } from '../support/client.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { nothingOpen, valueOf } from '../support/observing.js'
import { openProxy, type Proxy } from '../support/proxy.js'

let db: TestDatabase
let proxy: Proxy
let pool: Pool
const undo: (() => unknown)[] = []
const handlers = new Map<string, (ctx: TxContext) => unknown>()

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: 4 })
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(async () => {
  for (const table of ['sessions', 'sessions_times']) await db.pool.query(`DROP TABLE IF EXISTS ${table}`)
  for (const { ddl } of sessionTables('sessions')) await db.pool.query(ddl)
  await db.pool.query('REPLACE INTO item VALUES (1, 0), (2, 0)')
  proxy = await openProxy(db.url)
  pool = mysql.createPool({ uri: proxy.url, connectionLimit: 4 })
  handlers.clear()
})
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
  await pool.end()
  await proxy.close()
})

/** One process of several: an application with its own store. */
async function processWith(options: SessionTxOptions<KoaContext> = {}): Promise<TxServed> {
  const served = await serveTx({
    options: { pool, store: mysqlStore(), ...options },
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

/** Commands that reach the server until the answer is there, and until nothing is open any more. */
async function commandsOf(work: () => Promise<unknown>): Promise<{ before: string[]; after: string[] }> {
  const from = proxy.commands.length
  await work()
  const answered = proxy.commands.length
  await nothingOpen(db)
  return { before: proxy.commands.slice(from, answered), after: proxy.commands.slice(answered) }
}

const increment = (ctx: TxContext): number => {
  ctx.session['n'] = Number(ctx.session['n']) + 1
  return Number(ctx.session['n'])
}
const addRow = (ctx: TxContext): Promise<unknown> => ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 1')
const variables = async (): Promise<readonly unknown[]> => {
  const [rows] = await db.pool.query<RowDataPacket[]>(
    'SELECT variable, version, value, written_by FROM sessions ORDER BY variable',
  )
  return rows.map(row => [row['variable'], row['version'], row['value'], row['written_by']] as unknown)
}

let made = 0

describe('on the wire', () => {
  const CASES: readonly (readonly [string, (ctx: TxContext) => unknown, number, number])[] = [
    ['nothing touched: no connection', () => undefined, 0, 0],
    ['a cached session is read: one, and its end after the answer', ctx => ctx.session['n'], 1, 1],
    ['a session is changed: two', increment, 2, 0],
    ['session and rows are changed, N = 1: N + 2', ctx => [increment(ctx), addRow(ctx)][1], 3, 0],
    ['the session is read, rows are changed, N = 1: N + 2', ctx => [ctx.session['n'], addRow(ctx)][1], 3, 0],
    [
      'a variable more, N = 1: N + 3',
      ctx => {
        ctx.session[`made${++made}`] = Number(ctx.session['n'])
        return addRow(ctx)
      },
      4,
      0,
    ],
    [
      'a variable that is not there is looked for, another changed: two',
      ctx => {
        ctx.session['n'] = ctx.session['none'] === undefined ? Number(ctx.session['n']) + 1 : 0
      },
      2,
      0,
    ],
  ]

  test.each(CASES)('%s', async (_, handler, before, after) => {
    const client = await started(await processWith())
    handlers.set('go', handler)
    await answerOf(client, '/go') // sets up a connection
    await nothingOpen(db)
    const sent = await commandsOf(() => answerOf(client, '/go'))
    expect([sent.before.length, sent.after.length, sent.before, sent.after]).toEqual([
      before,
      after,
      expect.anything(),
      expect.anything(),
    ])
  })

  test('a session that is not cached is fetched with one, before the handler', async () => {
    const client = await started(await processWith())
    const other = await processWith()
    await answerOf(sharing(await started(other), other), '/start') // its connection is set up
    handlers.set('go', ctx => ctx.session['n'])
    await nothingOpen(db)
    const { before } = await commandsOf(() => answerOf(sharing(client, other), '/go'))
    expect(before.filter(command => command !== 'COMMIT')).toEqual([
      expect.stringContaining('SELECT s.variable'),
    ])
  })

  test('what is written grows with what changed, not with the session', async () => {
    handlers.set('many', ctx => {
      for (let index = 0; index < 1_000; index++) ctx.session[`v${index}`] = 'x'.repeat(20)
    })
    handlers.set('go', ctx => {
      ctx.session['v7'] = `${Number(ctx.tx.attempt)}${made++}`
    })
    const client = (await processWith()).client()
    await answerOf(client, '/many')
    const { before } = await commandsOf(() => answerOf(client, '/go'))
    expect(before.join('').length).toBeLessThan(1_200)
  })
})

describe('two processes', () => {
  test("B's next request after A's answer sees A's write, though B remembers the session", async () => {
    const [a, b] = [await processWith(), await processWith()]
    const onA = await started(a)
    const onB = sharing(onA, b)
    handlers.set('read', ctx => ctx.session['n'])
    handlers.set('write', increment)
    expect(await answerOf(onB, '/read')).toEqual({ seen: 1, attempt: 1 })
    expect(await answerOf(onA, '/write')).toEqual({ seen: 2, attempt: 1 })
    expect(await answerOf(onB, '/read')).toEqual({ seen: 2, attempt: 2 })
    expect(b.tx.stats().conflicts.byKind).toEqual({ stale: 1 })
    expect(await answerOf(onB, '/write')).toEqual({ seen: 3, attempt: 1 })
    expect((await answerOf(onA, '/read')).seen).toBe(3)
  })

  test.each([
    ['throws', (ctx: TxContext) => ctx.throw(409, 'sold out')],
    ['answers 500', (ctx: TxContext) => Object.assign(ctx, { status: 500 })],
    ['dooms itself', (ctx: TxContext) => ctx.tx.doom()],
  ])('what is old is noticed, too, where the request %s because of it', async (_, gives) => {
    const [a, b] = [await processWith(), await processWith()]
    const onA = await started(a)
    const onB = sharing(onA, b)
    handlers.set('read', ctx => ctx.session['n'])
    handlers.set('write', increment)
    handlers.set('judge', ctx => {
      if (ctx.session['n'] !== 1) return ctx.session['n']
      gives(ctx)
      return undefined
    })
    await answerOf(onB, '/read')
    await answerOf(onA, '/write')
    expect(await answerOf(onB, '/judge')).toEqual({ seen: 2, attempt: 2 })
  })

  test('what is old is free, and who lost has its turn: nobody of any process overtakes it', async () => {
    const [a, b] = [await processWith(), await processWith({ retry: { retries: 1 } })]
    const onA = await started(a)
    const onB = sharing(onA, b)
    handlers.set('read', ctx => ctx.session['n'])
    handlers.set('write', increment)
    await answerOf(onB, '/read')
    await answerOf(onA, '/write')
    const seen: unknown[] = []
    const [second, go] = [deferred(), deferred()]
    handlers.set('slow', async ctx => {
      seen.push([ctx.session['n'], ctx.tx.isLastAttempt])
      if (ctx.tx.attempt === 2) {
        second.resolve()
        await go.promise
      }
      return increment(ctx)
    })
    const slow = answerOf(onB, '/slow')
    await second.promise
    const overtaking = answerOf(onA, '/write')
    for (let trip = 0; trip < 5; trip++) await db.admin.query('SELECT 1')
    go.resolve()
    expect(await slow).toEqual({ seen: 3, attempt: 2 })
    expect(await overtaking).toEqual({ seen: 4, attempt: 2 })
    expect(seen).toEqual([
      [1, false],
      [2, false],
    ])
    expect(b.tx.stats().conflicts.byKind).toEqual({ stale: 1 })
  })

  test('who cannot run again has its session checked before the handler', async () => {
    const [a, b] = [await processWith(), await processWith({ retry: { retries: 0 } })]
    const onA = await started(a)
    const onB = sharing(onA, b)
    handlers.set('read', ctx => ctx.session['n'])
    handlers.set('write', increment)
    await answerOf(onB, '/read')
    await answerOf(onA, '/write')
    expect(await answerOf(onB, '/read')).toEqual({ seen: 2, attempt: 1 })
  })

  test('and has session and rows from one view', async () => {
    const [a, b] = [await processWith(), await processWith({ retry: { retries: 0 } })]
    const onA = await started(a)
    const [reached, go] = [deferred(), deferred()]
    handlers.set('both', async ctx => {
      increment(ctx)
      await addRow(ctx)
    })
    handlers.set('read', async ctx => {
      await ctx.tx.query('SELECT 1')
      reached.resolve()
      await go.promise
      const [rows] = await ctx.tx.query<{ n: number }[]>('SELECT n FROM item WHERE id = 1')
      return [ctx.session['n'], rows[0]?.n]
    })
    const reading = answerOf(sharing(onA, b), '/read')
    await reached.promise
    await answerOf(onA, '/both')
    go.resolve()
    expect(await reading).toEqual({ seen: [1, 0], attempt: 1 })
  })

  test('changing different variables of one session at the same time both commit at once', async () => {
    const [a, b] = [await processWith(), await processWith()]
    const onA = await started(a)
    const onB = sharing(onA, b)
    const [reached, go] = [deferred(), deferred()]
    handlers.set('slow', async ctx => {
      ctx.session['other'] = Number(ctx.session['other']) + 1
      await addRow(ctx)
      await ctx.tx.query('SELECT n FROM item WHERE id = 2') // the view is open
      reached.resolve()
      await go.promise
    })
    handlers.set('write', increment)
    handlers.set('all', ctx => ({ n: ctx.session['n'], other: ctx.session['other'] }))
    const slow = answerOf(onB, '/slow')
    await reached.promise
    expect(await answerOf(onA, '/write')).toMatchObject({ attempt: 1 })
    go.resolve()
    expect(await slow).toMatchObject({ attempt: 1 })
    expect((await answerOf(onA, '/all')).seen).toEqual({ n: 2, other: 2 })
  })

  test('a variable that was only read may change under a view that shows it as it was', async () => {
    const [a, b] = [await processWith(), await processWith()]
    const onA = await started(a)
    const [reached, go] = [deferred(), deferred()]
    handlers.set('slow', async ctx => {
      await ctx.tx.query('SELECT n FROM item WHERE id = 2') // the view is open
      reached.resolve()
      await go.promise
      ctx.session['other'] = Number(ctx.session['n']) * 10
      await addRow(ctx)
    })
    handlers.set('write', increment)
    const slow = answerOf(sharing(onA, b), '/slow')
    await reached.promise
    await answerOf(onA, '/write')
    go.resolve()
    expect(await slow).toMatchObject({ attempt: 1 })
    expect(await variables()).toContainEqual(['other', 2, '10', '(unmatched)'])
  })

  test('adding to one variable with a resolver: merged, also under an open view, without a re-run', async () => {
    const resolve = { n: resolvers.counter }
    const [a, b] = [await processWith({ resolve }), await processWith({ resolve })]
    const onA = await started(a)
    const [reached, go] = [deferred(), deferred()]
    handlers.set('slow', async ctx => {
      increment(ctx)
      await ctx.tx.query('SELECT n FROM item WHERE id = 2')
      await addRow(ctx)
      reached.resolve()
      await go.promise
    })
    handlers.set('write', increment)
    handlers.set('read', ctx => ctx.session['n'])
    const slow = answerOf(sharing(onA, b), '/slow')
    await reached.promise
    expect(await answerOf(onA, '/write')).toEqual({ seen: 2, attempt: 1 })
    go.resolve()
    expect(await slow).toMatchObject({ attempt: 1 })
    expect((await answerOf(onA, '/read')).seen).toBe(3)
    expect(b.tx.stats().resolved).toMatchObject({ n: 1 })
  })

  test("a resolver merges no old reading: B's answer counts what A's answer has counted before", async () => {
    const resolve = { n: resolvers.counter }
    const [a, b] = [await processWith({ resolve }), await processWith({ resolve })]
    const onA = await started(a)
    const onB = sharing(onA, b)
    handlers.set('write', increment)
    expect(await answerOf(onB, '/write')).toEqual({ seen: 2, attempt: 1 })
    expect(await answerOf(onA, '/write')).toMatchObject({ seen: 3 })
    expect(await answerOf(onB, '/write')).toEqual({ seen: 4, attempt: 2 })
    expect(b.tx.stats().conflicts.byKind).toEqual({ stale: 1 })
    expect(b.tx.stats().resolved).toEqual({})
  })

  test('adding to one variable from both: nothing is lost, nobody refused', async () => {
    const all = [await processWith({ retry: { retries: 10 } }), await processWith({ retry: { retries: 10 } })]
    const [a] = all
    if (a === undefined) throw new Error('no process')
    const onA = await started(a)
    handlers.set('both', async ctx => {
      increment(ctx)
      await addRow(ctx)
    })
    handlers.set('read', ctx => ctx.session['n'])
    const adding = all.flatMap(one => Array.from({ length: 20 }, () => answerOf(sharing(onA, one), '/both')))
    await Promise.all(adding)
    expect((await answerOf(onA, '/read')).seen).toBe(41)
    expect(await valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = 1`)).toBe(40)
    for (const one of all) expect(Number(Object.keys(one.tx.stats().attempts).at(-1))).toBeLessThanOrEqual(4)
  })

  test('one ends the session: the other knows it at its next request, and a slow one of it does not bring it back', async () => {
    const [a, b] = [await processWith(), await processWith()]
    const onA = await started(a)
    const onB = sharing(onA, b)
    const [reached, go] = [deferred(), deferred()]
    handlers.set('slow', async ctx => {
      if (ctx.tx.attempt === 1) {
        reached.resolve()
        await go.promise
      }
      ctx.session['n'] = 5
    })
    handlers.set('end', ctx => {
      ctx.session = null as never
    })
    handlers.set('read', ctx => ctx.session['n'] ?? null)
    const slow = onB.get('/slow')
    await reached.promise
    await answerOf(onA, '/end')
    go.resolve()
    const answer = await slow
    expect([answer.status, answer.headers['set-cookie']]).toEqual([200, undefined])
    expect((await answerOf(onB, '/read')).seen).toBeNull()
    expect(await variables()).toEqual([])
    expect(await valueOf(db, `SELECT COUNT(*) FROM ${db.name}.sessions_times`)).toBe(0)
  })
})

describe('both sides', () => {
  test.each<readonly [string, (ctx: TxContext) => unknown]>([
    ['throws', () => Promise.reject(new Error('no'))],
    ['answers 500', ctx => (ctx.status = 500)],
  ])('a handler that %s changes neither', async (_, end) => {
    const served = await processWith()
    const client = await started(served)
    const before = await variables()
    handlers.set('go', async ctx => {
      increment(ctx)
      ctx.session['more'] = 1
      await addRow(ctx)
      await end(ctx)
    })
    expect((await client.get('/go')).status).toBe(500)
    expect(await variables()).toEqual(before)
    expect(await valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = 1`)).toBe(0)
  })

  test.each(['answer lost', 'command lost'] as const)(
    'COMMIT, its %s: the two sides agree, whatever the client is told',
    async kind => {
      const served = await processWith({ commitRecord: 'off' })
      const client = await started(served)
      handlers.set('both', async ctx => {
        increment(ctx)
        await addRow(ctx)
      })
      handlers.set('read', ctx => ctx.session['n'])
      const happened = proxy.accident(/^COMMIT$/, kind)
      expect((await client.get('/both')).status).toBe(503)
      await happened
      await nothingOpen(db)
      const rows = Number(await valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = 1`))
      expect(rows).toBe(kind === 'answer lost' ? 1 : 0)
      expect((await answerOf(client, '/read')).seen).toBe(1 + rows)
    },
  )

  test('only the session: the same', async () => {
    const client = await started(await processWith({ commitRecord: 'off' }))
    handlers.set('write', increment)
    handlers.set('read', ctx => ctx.session['n'])
    const happened = proxy.accident(/^COMMIT$/, 'answer lost')
    expect((await client.get('/write')).status).toBe(503)
    await happened
    expect((await answerOf(client, '/read')).seen).toBe(2)
  })
})

describe('what an operator sees', () => {
  test('a row for each variable, with its value as JSON, and who wrote it', async () => {
    const client = (await processWith()).client()
    handlers.set('fill', ctx => {
      Object.assign(ctx.session, {
        cart: ['tea', { n: 2 }],
        'last seen': new Date(0),
        'Ünïcode "\'\\ ': 'ä€😀',
      })
    })
    await answerOf(client, '/fill')
    expect(await variables()).toEqual([
      ['', 1, '', '(unmatched)'],
      ['%00dcn%00efcode%0020%0022%0027%005c%0020', 1, '"ä€😀"', '(unmatched)'],
      ['cart', 1, '["tea",{"n":2}]', '(unmatched)'],
      ['last%0020seen', 1, '{"$date":"1970-01-01T00:00:00.000Z"}', '(unmatched)'],
    ])
    const other = sharing(client, await processWith())
    handlers.set('read', ctx => ctx.session['Ünïcode "\'\\ '])
    expect((await answerOf(other, '/read')).seen).toBe('ä€😀')
  })

  test('names that differ in case, blanks or accents only are different variables', async () => {
    const client = (await processWith()).client()
    const names = ['a', 'A', 'a ', 'ä', '', ' ', '%', '%0041', '__proto__', 'constructor', '\ud800']
    handlers.set('fill', ctx => {
      for (const [index, name] of names.entries()) ctx.session[name] = index + 1
    })
    handlers.set('read', ctx => names.map(name => ctx.session[name]))
    await answerOf(client, '/fill')
    const other = sharing(client, await processWith())
    expect((await answerOf(other, '/read')).seen).toEqual(names.map((_, index) => index + 1))
  })

  test('a name that is too long is refused before anything is sent', async () => {
    const served = await processWith()
    const client = await started(served)
    handlers.set('go', ctx => {
      ctx.session['x'.repeat(256)] = 1
    })
    const { before } = await commandsOf(() => client.get('/go'))
    expect(before).toEqual([])
    expect(served.errors.at(-1)).toMatchObject({ code: 'SESSION_VALUE' })
  })

  test('a value of a newer session-tx is refused with both formats, and only to who reads it', async () => {
    const served = await processWith()
    const client = await started(await processWith())
    await db.pool.query("UPDATE sessions SET format = 2 WHERE variable = 'other'")
    handlers.set('read', ctx => ctx.session[ctx.query['name'] as string])
    const other = sharing(client, served)
    expect((await answerOf(other, '/read?name=n')).seen).toBe(1)
    expect((await other.get('/read?name=other')).status).toBe(503)
    expect(served.errors.at(-1)).toMatchObject({
      code: 'STORE_UNAVAILABLE',
      message: expect.stringMatching(/'other'.* in format 2, and this session-tx reads 1/) as string,
    })
  })

  test('without the tables: MISCONFIGURED names the command that makes them', async () => {
    await db.pool.query('DROP TABLE sessions')
    const served = await processWith()
    handlers.set('go', ctx => {
      ctx.session['n'] = 1
    })
    expect((await served.client().get('/go')).status).toBe(500)
    expect(served.errors.at(-1)).toMatchObject({
      code: 'MISCONFIGURED',
      message: expect.stringMatching(
        /needs the tables sessions and sessions_times: make them with `npx session-tx migrate/,
      ) as string,
    })
  })

  test('without a pool it does not start, nor with options that make no sense', () => {
    expect(() => sessionTx({ store: mysqlStore() })).toThrow(/give sessionTx\(\) a `pool`/)
    expect(() => mysqlStore({ table: 'a`b' })).toThrow(/`table` must be a name/)
    expect(() => mysqlStore({ cach: false } as never)).toThrow(/unknown option of mysqlStore: `cach`/)
    expect(() => mysqlStore({ cache: { sessionsMax: 0 } })).toThrow(
      /`cache.sessionsMax` must be a whole number/,
    )
  })

  test('its own table, and nothing remembered: the same', async () => {
    for (const { ddl } of sessionTables('logins')) await db.pool.query(ddl)
    const store = (): SessionTxOptions<KoaContext> => ({
      store: mysqlStore({ table: 'logins', cache: false }),
    })
    const client = await started(await processWith(store()))
    handlers.set('write', increment)
    expect(await answerOf(client, '/write')).toEqual({ seen: 2, attempt: 1 })
    expect(await answerOf(sharing(client, await processWith(store())), '/write')).toEqual({
      seen: 3,
      attempt: 1,
    })
    await db.pool.query('DROP TABLE logins, logins_times')
  })
})
