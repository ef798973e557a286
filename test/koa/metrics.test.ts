/**
 * The metrics of an application at work: every outcome moves its own counters and no others, the recent list says who
 * lost to whom, looking disturbs nobody, and nothing that must stay secret is in any of it.
 */
import { inspect } from 'node:util'
import Router from '@koa/router'
import mysql from 'mysql2/promise'
import {
  type EventName,
  type KoaContext,
  type KoaMiddleware,
  type MetricsOptions,
  memoryStore,
  resolvers,
  type SessionTxOptions,
  type Stats,
} from '../../lib/index.js'
import type { Environment } from '../../lib/transaction/clock.js'
import { serveTx, type TxContext, type TxMiddleware, type TxServed } from '../support/app.js'
import { Barrier, deferred, Gate } from '../support/barrier.js'
import { fakeEnvironment, promptly } from '../support/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { openProxy } from '../support/proxy.js'

let db: TestDatabase
const undo: (() => unknown)[] = []

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: 4 })
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(() => db.pool.query('REPLACE INTO item VALUES (1, 0), (2, 0)'))
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
})

type Handler = (ctx: TxContext) => unknown

interface Starting {
  readonly options?: SessionTxOptions<KoaContext>
  readonly environment?: Environment
  readonly metrics?: MetricsOptions<KoaContext>
}

/** Handlers behind a router, so that routes have names; the metrics stand above everything. */
async function start(
  routes: Record<string, Handler>,
  { options, environment = promptly, metrics = {} }: Starting = {},
): Promise<TxServed> {
  const router = new Router()
  for (const [path, handler] of Object.entries(routes)) {
    router.all(path, async ctx => {
      await handler(ctx as unknown as TxContext)
    })
  }
  const mounted: { look?: KoaMiddleware } = {}
  const look: TxMiddleware = (ctx, next) => mounted.look?.(ctx, next) as Promise<unknown>
  const served = await serveTx({
    environment,
    options: { pool: db.pool, ...options },
    above: [look],
    below: router.routes() as unknown as TxMiddleware,
  })
  undo.push(() => served.close())
  mounted.look = served.tx.metrics(metrics)
  return served
}

const elsewhere = (sql: string): Promise<unknown> => db.admin.query(sql.replaceAll('item', `${db.name}.item`))

/** Every counter that is not 0, by its path; what measures time or the moment is left out. */
function counters(stats: Stats): Record<string, number> {
  const { wastedMs: _, commitMs, budget: __, tickets: ___, recent, sessions, ...counts } = stats
  const { live: ____, ...events } = sessions
  const found: Record<string, number> = {}
  const walk = (value: unknown, path: string): void => {
    if (typeof value === 'number') {
      if (value !== 0) found[path] = value
    } else if (typeof value === 'object' && value !== null) {
      for (const [key, inner] of Object.entries(value)) walk(inner, path === '' ? key : `${path}.${key}`)
    }
  }
  walk({ ...counts, sessions: events, commits: commitMs.count, recent: recent.length }, '')
  return found
}

/** What `work` added. */
async function moved(served: TxServed, work: () => Promise<unknown>): Promise<Record<string, number>> {
  const before = counters(served.tx.stats())
  await work()
  const after = counters(served.tx.stats())
  const changes = Object.entries(after).map(([path, count]) => [path, count - (before[path] ?? 0)] as const)
  return Object.fromEntries(changes.filter(([, change]) => change !== 0))
}

function expectSums(served: TxServed): void {
  const { attempts, requests, conflicts, retried } = served.tx.stats()
  const sum = (counts: Readonly<Record<string, number | undefined>>): number =>
    Object.values(counts).reduce<number>((total, count) => total + (count ?? 0), 0)
  expect(sum(attempts)).toBe(sum(requests))
  expect(sum(conflicts.byKind)).toBe(conflicts.total)
  expect(sum(conflicts.byRoute)).toBe(conflicts.total)
  const again = Object.entries(attempts).reduce(
    (total, [number, count]) => total + (Number(number) - 1) * count,
    0,
  )
  expect(retried).toBe(again)
}

describe('one run of each outcome moves exactly its counters', () => {
  const write: Handler = async ctx => {
    ctx.session['n'] = 1
    await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 1')
    ctx.body = 'ok'
  }

  const once = async (
    handler: Handler,
    expected: Record<string, number>,
    starting: Starting = {},
    status = 200,
  ): Promise<TxServed> => {
    const served = await start({ '/route': handler }, starting)
    const changes = await moved(served, async () => {
      await expect(served.client().get('/route')).resolves.toMatchObject({ status })
    })
    expect(changes).toEqual(expected)
    expectSums(served)
    return served
  }

  test('committed on both sides', () => once(write, { 'requests.committed': 1, 'attempts.1': 1, commits: 1 }))

  test('committed, with nothing to commit', () =>
    once(ctx => void (ctx.body = 'ok'), { 'requests.committed': 1, 'attempts.1': 1 }))

  const rolledBack = { 'requests.rolledBack': 1, 'attempts.1': 1 }

  test('a handler’s error', () =>
    once(
      async ctx => {
        await write(ctx)
        throw new TypeError('a bug')
      },
      rolledBack,
      {},
      500,
    ))

  test('doom', () =>
    once(async ctx => {
      await write(ctx)
      ctx.tx.doom()
    }, rolledBack))

  test('a veto', () =>
    once(
      async ctx => {
        await write(ctx)
        ctx.status = 500
      },
      rolledBack,
      {},
      500,
    ))

  test('a lost race for a row, then committed', () =>
    once(
      async ctx => {
        await ctx.tx.query('SELECT n FROM item WHERE id = 1')
        if (ctx.tx.attempt === 1) await elsewhere('UPDATE item SET n = n + 1 WHERE id = 1')
        await write(ctx)
      },
      {
        'requests.committed': 1,
        'attempts.2': 1,
        'conflicts.total': 1,
        'conflicts.byKind.row': 1,
        'conflicts.byTable.item': 1,
        'conflicts.byRoute./route': 1,
        retried: 1,
        commits: 1,
        recent: 1,
      },
    ))

  test('requested by the application, and every allowed re-run lost, too', () =>
    once(
      ctx => ctx.tx.conflict(),
      {
        'requests.refused': 1,
        'attempts.3': 1,
        'conflicts.total': 3,
        'conflicts.byKind.requested': 3,
        'conflicts.byRoute./route': 3,
        'refused.RETRIES_EXHAUSTED': 1,
        exhausted: 1,
        retried: 2,
        recent: 3,
      },
      { options: { retry: { retries: 2 } } },
      503,
    ))

  test('a conflict after the response had started', () =>
    once(
      ctx => {
        ctx.respond = false
        ctx.res.statusCode = 200
        ctx.res.end('too early')
        ctx.tx.conflict()
      },
      {
        'requests.refused': 1,
        'attempts.1': 1,
        'conflicts.total': 1,
        'conflicts.byKind.requested': 1,
        'conflicts.byRoute./route': 1,
        'refused.RESPONSE_STARTED': 1,
        'notRerunnable.responseStarted': 1,
        recent: 1,
      },
    ))

  test('a body that was not kept, and a conflict', async () => {
    const served = await start(
      { '/route': ctx => ctx.tx.conflict() },
      { options: { hold: { requestBytesMax: 10 } } },
    )
    const changes = await moved(served, async () => {
      await expect(served.client().post('/route', 'x'.repeat(11))).resolves.toMatchObject({ status: 503 })
    })
    expect(changes).toEqual({
      'requests.refused': 1,
      'attempts.1': 1,
      'conflicts.total': 1,
      'conflicts.byKind.requested': 1,
      'conflicts.byRoute./route': 1,
      'refused.NOT_RERUNNABLE': 1,
      'notRerunnable.body': 1,
      recent: 1,
    })
    expectSums(served)
  })

  test('the deadline', async () => {
    const environment = fakeEnvironment()
    const entered = deferred()
    const served = await start(
      {
        '/route': async () => {
          entered.resolve()
          await new Promise(() => {})
        },
      },
      { environment },
    )
    const changes = await moved(served, async () => {
      const answer = served.client().get('/route')
      await entered.promise
      environment.clock.advance(10_000)
      await expect(answer).resolves.toMatchObject({ status: 503 })
    })
    expect(changes).toEqual({ 'requests.refused': 1, 'attempts.1': 1, 'refused.DEADLINE': 1 })
    expectSums(served)
  })

  test('COMMIT not answered', async () => {
    const proxy = await openProxy(db.url)
    const pool = mysql.createPool({ uri: proxy.url, connectionLimit: 1 })
    undo.push(
      () => proxy.close(),
      () => pool.end(),
    )
    void proxy.accident(/^COMMIT$/, 'answer lost')
    await once(write, { 'requests.unknown': 1, 'attempts.1': 1 }, { options: { pool } }, 503)
  })

  test('the database cannot be reached', async () => {
    const pool = mysql.createPool({ host: '127.0.0.1', port: 1 })
    undo.push(() => pool.end())
    const expected = {
      'attempts.2': 1,
      'conflicts.byKind.unavailable': 2,
      'conflicts.byRoute./route': 2,
      'conflicts.total': 2,
      recent: 2,
      'refused.STORE_UNAVAILABLE': 1,
      'requests.refused': 1,
      retried: 1,
    }
    await once(write, expected, { options: { pool, retry: { retries: 1 } } }, 503)
  })

  test('a stray query', () => {
    const stray: Handler = async ctx => {
      await db.pool.query('SELECT 1')
      ctx.body = 'ok'
    }
    const warnings = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    undo.push(() => warnings.mockRestore())
    return once(stray, {
      'requests.committed': 1,
      'attempts.1': 1,
      'stray.total': 1,
      'stray.byRoute./route': 1,
    })
  })

  test('a hook that failed after the outcome', async () => {
    const ran = deferred()
    const served = await start({
      '/route': ctx => {
        ctx.tx.afterCommit(() => Promise.reject(new Error('no mail server')))
        ctx.tx.afterCommit(() => ran.resolve())
        ctx.body = 'ok'
      },
    })
    const changes = await moved(served, async () => {
      await served.client().get('/route')
      await ran.promise
    })
    expect(changes).toEqual({ 'requests.committed': 1, 'attempts.1': 1, hooksFailed: 1 })
  })

  /** Two requests of one session that write the same variable, the second one committing in the middle of the first. */
  async function race(options: SessionTxOptions<KoaContext> = {}) {
    const inside = new Gate()
    const goOn = new Gate()
    const add = (ctx: TxContext): void => {
      ctx.session['visits'] = ((ctx.session['visits'] as number | undefined) ?? 0) + 1
      ctx.body = String(ctx.session['visits'])
    }
    const served = await start(
      {
        '/login': add,
        '/slow/:id': async ctx => {
          add(ctx)
          inside.open()
          await goOn.passed()
        },
        '/fast/:id': add,
      },
      { options },
    )
    const ann = served.client()
    await ann.get('/login')
    const changes = await moved(served, async () => {
      const slow = ann.get('/slow/7')
      await inside.passed()
      await ann.get('/fast/8')
      goOn.open()
      await expect(slow).resolves.toMatchObject({ status: 200 })
    })
    expectSums(served)
    return { served, ann, changes }
  }

  test('a lost race for a variable, and the recent list says who won', async () => {
    const { served, changes, ann } = await race()
    expect(changes).toEqual({
      'requests.committed': 2,
      'attempts.1': 1,
      'attempts.2': 1,
      'conflicts.total': 1,
      'conflicts.byKind.variable': 1,
      'conflicts.byVariable.visits': 1,
      'conflicts.byRoute./slow/:id': 1,
      retried: 1,
      commits: 2,
      recent: 1,
    })
    const [conflict] = served.tx.stats().recent
    expect(conflict).toEqual({
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/) as string,
      route: '/slow/:id',
      attempt: 1,
      kind: 'variable',
      store: 'memory',
      session: expect.stringMatching(/^[\w-]{12}$/) as string,
      variable: 'visits',
      baseVersion: 1,
      foundVersion: 2,
      waitMs: expect.any(Number) as number,
      winner: '/fast/:id',
      decision: 'rerun',
    })
    expect(ann.cookies.get('sid')).not.toContain(conflict?.session)
  })

  test('merged by a resolver: no conflict, counted as resolved', async () => {
    const { changes } = await race({ resolve: { visits: resolvers.counter } })
    expect(changes).toEqual({ 'requests.committed': 2, 'attempts.1': 2, 'resolved.visits': 1, commits: 2 })
  })

  test('a lost race for a row names its table', async () => {
    const served = await once(
      async ctx => {
        await ctx.tx.query('SELECT n FROM item WHERE id = 1')
        await elsewhere('UPDATE item SET n = n + 1 WHERE id = 1')
        await write(ctx)
      },
      {
        'requests.refused': 1,
        'attempts.1': 1,
        'conflicts.total': 1,
        'conflicts.byKind.row': 1,
        'conflicts.byTable.item': 1,
        'conflicts.byRoute./route': 1,
        'refused.RETRIES_EXHAUSTED': 1,
        exhausted: 1,
        recent: 1,
      },
      { options: { retry: { retries: 0 } } },
      503,
    )
    expect(served.tx.stats().recent).toEqual([
      {
        time: expect.any(String) as string,
        route: '/route',
        attempt: 1,
        kind: 'row',
        store: 'mysql',
        table: 'item',
        decision: 'RETRIES_EXHAUSTED',
      },
    ])
  })

  test('a queue that is full', async () => {
    const all = new Barrier(4)
    const holding = new Gate()
    const served = await start(
      {
        '/login': ctx => void (ctx.session['n'] = 0),
        '/hot': async ctx => {
          ctx.session['n'] = (ctx.session['n'] as number) + 1
          if (ctx.tx.attempt === 1) await all.arrive()
          else await holding.passed()
        },
      },
      { options: { retry: { tickets: { waitingMax: 1 } } } },
    )
    const ann = served.client()
    await ann.get('/login')
    const refused = deferred()
    served.tx.on('refused', () => refused.resolve())
    const changes = await moved(served, async () => {
      const answers = Array.from({ length: 4 }, () => ann.get('/hot'))
      await refused.promise
      // One has committed, one holds the ticket, one waits: the last one found the queue full.
      expect(served.tx.stats().tickets).toEqual({ waiting: 1, keys: 1 })
      holding.open()
      const statuses = (await Promise.all(answers)).map(({ status }) => status)
      expect(statuses.filter(status => status === 503)).toHaveLength(1)
    })
    expect(changes).toEqual({
      'requests.committed': 3,
      'requests.refused': 1,
      'attempts.1': 2,
      'attempts.2': 2,
      'conflicts.total': 3,
      'conflicts.byKind.variable': 3,
      'conflicts.byVariable.n': 3,
      'conflicts.byRoute./hot': 3,
      'refused.QUEUE_FULL': 1,
      retried: 2,
      commits: 3,
      recent: 3,
    })
    expect(served.tx.stats().tickets).toEqual({ waiting: 0, keys: 0 })
    expectSums(served)
  })

  test('sessions: missed, destroyed, evicted', async () => {
    const served = await start(
      {
        '/login': ctx => void (ctx.session['n'] = 1),
        '/read': ctx => void (ctx.body = String(ctx.session['n'])),
        '/logout': ctx => void (ctx.session = null),
      },
      { options: { store: memoryStore({ sessionsMax: 1 }) } },
    )
    const [ann, bob] = [served.client(), served.client()]
    await ann.get('/login')
    expect(await moved(served, () => bob.get('/login'))).toMatchObject({ 'sessions.evicted': 1 })
    expect(await moved(served, () => ann.get('/read'))).toMatchObject({ 'sessions.missed': 1 })
    expect(await moved(served, () => bob.get('/logout'))).toMatchObject({ 'sessions.destroyed': 1 })
    expect(served.tx.stats().sessions.live).toBe(0)
    expectSums(served)
  })

  test('sessions: expired', async () => {
    const environment = fakeEnvironment()
    const served = await start(
      {
        '/login': ctx => void (ctx.session['n'] = 1),
        '/read': ctx => void (ctx.body = String(ctx.session['n'])),
      },
      { environment, options: { session: { idleMs: 60_000, touchGranularityMs: 1_000 } } },
    )
    const ann = served.client()
    await ann.get('/login')
    const changes = await moved(served, async () => {
      environment.clock.advance(120_000)
      await ann.get('/read')
    })
    expect(changes).toMatchObject({ 'sessions.expired': 1 })
  })
})

describe('looking', () => {
  test('opens no transaction, takes no connection, makes no session, and works during a storm', async () => {
    const proxy = await openProxy(db.url)
    const pool = mysql.createPool({ uri: proxy.url, connectionLimit: 1 })
    undo.push(
      () => proxy.close(),
      () => pool.end(),
    )
    const gate = new Gate()
    const holding = new Gate()
    const begun = new Barrier(21)
    let transactions = 0
    const { client, tx } = await start(
      {
        '/storm': async ctx => {
          void begun.arrive()
          await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 1')
          holding.open()
          await gate.passed()
          ctx.body = 'ok'
        },
      },
      { options: { pool } },
    )
    tx.on('begin', () => {
      transactions += 1
    })
    const storm = Array.from({ length: 20 }, () => client().get('/storm'))
    // One holds the only connection and the row, all others wait for it.
    await Promise.all([begun.arrive(), holding.passed()])
    await client().get('/elsewhere')
    const from = { commands: proxy.commands.length, transactions }
    const ann = client()
    for (const path of ['/_tx', '/_tx/stats.json', '/_tx/metrics']) {
      await expect(ann.get(path)).resolves.toMatchObject({
        status: 200,
        headers: { 'cache-control': 'no-store' },
      })
    }
    expect({ commands: proxy.commands.length, transactions }).toEqual(from)
    expect([...ann.cookies]).toEqual([])
    gate.open()
    await Promise.all(storm)
    const stats = (await ann.get('/_tx/stats.json')).json<Stats>()
    expect(stats).toEqual(JSON.parse(JSON.stringify(tx.stats())))
    expect(stats.requests.committed).toBe(21)
  })

  test('shows the same numbers to people and to Prometheus', async () => {
    const { client } = await start({ '/item/:id': ctx => ctx.tx.attempt < 3 && ctx.tx.conflict('again') })
    await client().get('/item/5')
    const text = (await client().get('/_tx/metrics')).text
    expect(text).toMatch(/^sessiontx_\w*requests\w*\{[^}]*outcome="committed"[^}]*\} 1$/m)
    expect(text).toMatch(/^sessiontx_\w*conflicts\w*\{[^}]*route="\/item\/:id"[^}]*\} 2$/m)
    expect(text).not.toContain('/item/5')
  })
})

describe('who may look', () => {
  const status = async (
    headers: Record<string, string>,
    metrics: MetricsOptions<KoaContext> = {},
  ): Promise<number> => {
    const { client } = await start({}, { metrics })
    return (await client().get('/_tx/stats.json', { headers })).status
  }

  test('somebody on this machine', async () => {
    expect(await status({})).toBe(200)
    expect(await status({ host: 'localhost:3000' })).toBe(200)
  })

  test.each([
    ['x-forwarded-for', '127.0.0.1'],
    ['x-forwarded-host', 'localhost'],
    ['x-forwarded-proto', 'https'],
    ['forwarded', 'for=127.0.0.1'],
    ['x-real-ip', '127.0.0.1'],
    ['via', '1.1 proxy'],
  ])('nobody whose request came through a proxy: %s', async (name, value) => {
    expect(await status({ [name]: value })).toBe(404)
  })

  test.each(['shop.example', 'localhost.shop.example', '127.0.0.1.shop.example', '10.0.0.1'])(
    'no page that was re-bound to this machine: Host %s',
    async host => {
      expect(await status({ host })).toBe(404)
    },
  )

  test('whoever `allow` lets in, and nobody else', async () => {
    const allow = (ctx: KoaContext): boolean => ctx.req.headers['x-operator'] === 'yes'
    expect(
      await status({ 'x-operator': 'yes', 'x-forwarded-for': '1.2.3.4', host: 'shop.example' }, { allow }),
    ).toBe(200)
    expect(await status({}, { allow })).toBe(404)
  })

  test('under NODE_ENV=production `allow` must be given: start-up fails with a sentence', async () => {
    const { tx } = await start({})
    const before = process.env['NODE_ENV']
    process.env['NODE_ENV'] = 'production'
    try {
      expect(() => tx.metrics()).toThrow(expect.objectContaining({ code: 'MISCONFIGURED' }))
      expect(() => tx.metrics()).toThrow(/NODE_ENV=production.*`allow`/)
      expect(() => tx.metrics({ allow: () => true })).not.toThrow()
    } finally {
      process.env['NODE_ENV'] = before
    }
  })

  test('it is the 404 of any other address, and what is not ours passes on', async () => {
    const { client } = await start({ '/_tx/own': ctx => void (ctx.body = 'the application’s') })
    await expect(client().get('/_tx/own')).resolves.toMatchObject({ status: 200 })
    const refused = await client().get('/_tx', { headers: { via: '1.1 proxy' } })
    const absent = await client().get('/_tx/nothing')
    expect([refused.status, refused.text]).toEqual([absent.status, absent.text])
  })
})

test('no session value and no raw id in statistics, Prometheus text, errors or events', async () => {
  const SECRET = 'correct-horse-battery'
  const events: EventName[] = [
    ...([
      'begin',
      'conflict',
      'rerun',
      'commit',
      'rollback',
      'refused',
      'unknown',
      'settled',
      'commitsLost',
      'notRerunnable',
      'stray',
      'escaped',
    ] as const),
    ...(['hookFailed', 'session:missed', 'session:expired', 'session:destroyed', 'session:evicted'] as const),
  ]
  const heard: unknown[] = []
  const both = new Barrier(2)
  const served = await start(
    {
      '/login': ctx => {
        ctx.session['card'] = { number: SECRET, owner: [SECRET] }
        ctx.session['list'] = [SECRET]
      },
      '/race': async ctx => {
        ctx.session['card'] = { number: SECRET + ctx.query['by'] }
        await both.arrive()
      },
      '/merge': async ctx => {
        ;(ctx.session['list'] as string[]).push(SECRET)
        await both.arrive()
      },
      '/value': ctx => void (ctx.session['card'] = { number: SECRET, show: () => SECRET }),
      '/large': ctx => void (ctx.session['card'] = SECRET.repeat(100_000)),
      '/closed': ctx => {
        ctx.session = null
        void ctx.session['card']
      },
      '/late': ctx => {
        const { session } = ctx
        ctx.tx.afterCommit(() => void (session['card'] = SECRET))
      },
      '/read': ctx => void (ctx.body = Object.keys(ctx.session)),
    },
    {
      options: {
        keys: ['key of the application'],
        retry: { retries: 0 },
        resolve: {
          list: () => {
            throw new Error('cannot merge')
          },
        },
      },
    },
  )
  for (const name of events) served.tx.on(name, payload => heard.push(name, payload))
  const ids: string[] = []
  const login = async () => {
    const ann = served.client()
    await ann.get('/login')
    ids.push(ann.cookies.get('sid') ?? 'no cookie')
    return ann
  }
  const ann = await login()
  await Promise.all([ann.get('/race?by=1'), ann.get('/race?by=2')])
  await Promise.all([ann.get('/merge'), ann.get('/merge')])
  for (const path of ['/value', '/large', '/late', '/read', '/closed', '/read']) await ann.get(path)
  const stranger = served.client()
  stranger.cookies.set('sid', ids[0] ?? '')
  await stranger.get('/read')

  const everything = [
    JSON.stringify(served.tx.stats()),
    (await served.client().get('/_tx/stats.json')).text,
    (await served.client().get('/_tx/metrics')).text,
    (await served.client().get('/_tx')).text,
    ...served.errors.map(error => inspect(error, { depth: 20, showHidden: true, maxStringLength: null })),
    ...heard.map(payload => inspect(payload, { depth: 20, showHidden: true, maxStringLength: null })),
  ].join('\n')
  expect(served.errors.length).toBeGreaterThanOrEqual(5)
  expect(everything).toContain('RETRIES_EXHAUSTED')
  expect(everything).toContain('SESSION_VALUE')
  expect(everything).toContain('SESSION_TOO_LARGE')
  expect(everything).not.toContain(SECRET)
  expect(ids).toEqual([expect.stringMatching(/^[\w-]{43}$/)])
  for (const id of ids) expect(everything).not.toContain(id)
  expect(everything).not.toContain('key of the application')
})
