/** ctx.session over real HTTP: who wins, what is seen, what is stored, which cookie leaves (acceptance 28–34, 36, 38, 58). */
import { createHash } from 'node:crypto'
import type { RowDataPacket } from 'mysql2/promise'
import { resolvers, type SessionTxError } from '../../lib/index.js'
import type { TxContext, TxServed, TxServing } from '../support/app.js'
import { Barrier, deferred, Gate } from '../support/barrier.js'
import type { Answer, Client } from '../support/client.js'
import { fakeEnvironment } from '../support/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { attemptOf, type HandlerApp, handlerApp, meanwhile, resultOf, tab } from '../support/handler-app.js'

interface NumberRow extends RowDataPacket {
  readonly n: number
}

let database: TestDatabase
const open: TxServed[] = []

beforeAll(async () => {
  database = await openDatabase()
  await database.pool.query('CREATE TABLE counter (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
beforeEach(() => database.pool.query('REPLACE INTO counter VALUES (1, 0), (2, 0)'))
afterEach(async () => {
  for (const served of open.splice(0)) await served.close()
})
afterAll(() => database.close())

/** With the database, and closed when its test ends. */
async function shop(
  options: TxServing['options'] = {},
  environment?: TxServing['environment'],
): Promise<HandlerApp> {
  const app = await handlerApp({ pool: database.pool, ...options }, environment)
  open.push(app)
  return app
}

async function rows(): Promise<number[]> {
  const [found] = await database.pool.query<NumberRow[]>('SELECT n FROM counter ORDER BY id')
  return found.map(({ n }) => n)
}

const ascending = (numbers: readonly number[]): number[] => numbers.toSorted((a, b) => a - b)

describe('overlapping requests', () => {
  test('that set different variables are both kept, rows included, without a re-run', async () => {
    const app = await shop()
    const client = await app.shopper({ a: 0, b: 0 })
    const both = new Barrier(2)
    for (const [path, name, id] of [
      ['/a', 'a', 1],
      ['/b', 'b', 2],
    ] as const) {
      app.on(path, async ctx => {
        ctx.session[name] = Number(ctx.session[name]) + 1
        await ctx.tx.query('UPDATE counter SET n = n + 1 WHERE id = ?', [id])
        await both.arrive()
      })
    }
    const answers = await Promise.all([client.post('/a'), client.post('/b')])
    expect(answers.map(attemptOf)).toEqual([1, 1])
    expect(await app.stored(client)).toEqual({ a: 1, b: 1 })
    expect(await rows()).toEqual([1, 1])
  })

  test('that assign one variable without reading it: the first to commit wins, the other is run again', async () => {
    const app = await shop()
    const client = await app.shopper({ color: 'none' })
    const both = new Barrier(2)
    app.on('/paint', async ctx => {
      ctx.session['color'] = `of attempt ${ctx.tx.attempt}`
      if (ctx.tx.attempt === 1) await both.arrive()
    })
    const answers = await Promise.all([client.post('/paint'), client.post('/paint')])
    expect(ascending(answers.map(attemptOf))).toEqual([1, 2])
    expect(await app.stored(client)).toEqual({ color: 'of attempt 2' })
  })

  test('that increment one variable: one is run again, and the result is serial', async () => {
    const app = await shop()
    const client = await app.shopper({ n: 0 })
    const answers = await increments(app, client)
    expect(ascending(answers.map(attemptOf))).toEqual([1, 2])
    expect(ascending(answers.map(answer => resultOf<number>(answer)))).toEqual([1, 2])
    expect(await app.stored(client)).toEqual({ n: 2 })
    expect(await rows()).toEqual([2, 0])
  })

  test('that increment a variable with resolvers.counter: both count, without a re-run', async () => {
    const app = await shop({ resolve: { n: resolvers.counter } })
    const client = await app.shopper({ n: 0 })
    const answers = await increments(app, client, [1, 2])
    expect(answers.map(attemptOf)).toEqual([1, 1])
    // Each request shows its own value, not the merged one.
    expect(answers.map(answer => resultOf<number>(answer))).toEqual([1, 1])
    expect(await app.stored(client)).toEqual({ n: 2 })
    expect(await rows()).toEqual([1, 1])
  })

  test('also where the other one commits before our first statement is answered', async () => {
    const app = await shop({ resolve: { n: resolvers.counter } })
    const client = await app.shopper({ n: 0 })
    app.on('/n', async ctx => {
      ctx.session['n'] = Number(ctx.session['n']) + 1
      await ctx.tx.query('UPDATE counter SET n = n + 1 WHERE id = 2')
    })
    const answer = await meanwhile(
      app,
      client,
      async (ctx, pause) => {
        ctx.session['n'] = Number(ctx.session['n']) + 1
        await pause()
        await ctx.tx.query('UPDATE counter SET n = n + 1 WHERE id = 1')
      },
      () => client.post('/n'),
    )
    expect(attemptOf(answer)).toBe(1)
    expect(await app.stored(client)).toEqual({ n: 2 })
    expect(await rows()).toEqual([1, 1])
  })

  test('a whole crowd on one variable commits one after the other', async () => {
    const app = await shop()
    const client = await app.shopper({ n: 0 })
    app.on('/n', ctx => {
      ctx.session['n'] = Number(ctx.session['n']) + 1
    })
    const answers = await Promise.all(Array.from({ length: 25 }, () => client.post('/n')))
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 25 }, () => 200))
    expect(await app.stored(client)).toEqual({ n: 25 })
  })

  async function increments(
    app: HandlerApp,
    client: Client,
    ids: readonly number[] = [1, 1],
  ): Promise<Answer[]> {
    const both = new Barrier(2)
    for (const [place, id] of ids.entries()) {
      app.on(`/n${place}`, async ctx => {
        const next = Number(ctx.session['n']) + 1
        ctx.session['n'] = next
        // Before the row, whose lock would put the two in order by itself.
        if (ctx.tx.attempt === 1) await both.arrive()
        await ctx.tx.query('UPDATE counter SET n = n + 1 WHERE id = ?', [id])
        return next
      })
    }
    return Promise.all([client.post('/n0'), client.post('/n1')])
  }
})

describe('a resolver that throws', () => {
  const no = new Error('these cannot be merged')
  const refusing = {
    n: () => {
      throw no
    },
  }

  test('leaves a conflict that names the hashed session, the variable, both versions and the winner', async () => {
    const app = await shop({ resolve: refusing, retry: { retries: 0 } })
    const client = await app.shopper({ n: 0, secret: 'hush-hush' })
    app.on('/other', ctx => {
      ctx.session['n'] = 10
    })
    const answer = await meanwhile(
      app,
      client,
      async (ctx, pause) => {
        ctx.session['n'] = Number(ctx.session['n']) + 1
        await pause()
      },
      () => client.post('/other'),
    )
    expect(answer.status).toBe(503)
    const [error] = app.errors as readonly SessionTxError[]
    const conflict = error?.cause as SessionTxError
    const id = client.cookies.get('sid') ?? ''
    const session = createHash('sha256').update(id).digest('base64url').slice(0, 12)
    expect(error?.code).toBe('RETRIES_EXHAUSTED')
    expect(conflict.code).toBe('CONFLICT')
    expect(conflict.conflict).toEqual({
      kind: 'variable',
      store: 'memory',
      session,
      variable: 'n',
      lost: ['n'],
      baseVersion: 1,
      foundVersion: 2,
      winner: '(unmatched)',
    })
    expect(conflict.cause).toBe(no)
    const said = [error?.message, conflict.message, JSON.stringify(conflict.conflict)].join(' ')
    expect(said).not.toContain(id)
    expect(said).not.toContain('hush-hush')
    expect(await app.stored(client)).toMatchObject({ n: 10 })
  })

  test('leads to another run', async () => {
    const app = await shop({ resolve: refusing })
    const client = await app.shopper({ n: 0 })
    app.on('/other', ctx => {
      ctx.session['n'] = 10
    })
    const answer = await meanwhile(
      app,
      client,
      async (ctx, pause) => {
        ctx.session['n'] = Number(ctx.session['n']) + 1
        await pause()
      },
      () => client.post('/other'),
    )
    expect(attemptOf(answer)).toBe(2)
    expect(await app.stored(client)).toEqual({ n: 11 })
  })
})

describe('a reader', () => {
  test('sees one snapshot: x, then a commit of x and y, then y: the old pair, without a re-run', async () => {
    const app = await shop()
    const client = await app.shopper({ x: 'old', y: 'old' })
    app.on('/both', ctx => {
      Object.assign(ctx.session, { x: 'new', y: 'new' })
    })
    const answer = await meanwhile(
      app,
      client,
      async (ctx, pause) => {
        const { x } = ctx.session
        await pause()
        return { x, y: ctx.session['y'] }
      },
      () => client.post('/both'),
    )
    expect(answer.json()).toEqual({ result: { x: 'old', y: 'old' }, attempt: 1 })
    expect(await app.stored(client)).toEqual({ x: 'new', y: 'new' })
  })

  test('does not see a variable that was removed or added meanwhile, also in the list of names', async () => {
    const app = await shop()
    const client = await app.shopper({ x: 1, y: 1 })
    app.on('/both', ctx => {
      delete ctx.session['y']
      ctx.session['z'] = 1
    })
    const answer = await meanwhile(
      app,
      client,
      async (ctx, pause) => {
        const before = ctx.session['x']
        await pause()
        return [before, Object.keys(ctx.session), 'z' in ctx.session]
      },
      () => client.post('/both'),
    )
    expect(answer.json()).toEqual({ result: [1, ['x', 'y'], false], attempt: 1 })
  })
})

describe('a session that nobody touched for an hour', () => {
  const HOUR_MS = 3_600_000

  test('still reads after many sweeps, and still notices conflicts', async () => {
    const environment = fakeEnvironment()
    const app = await shop({ pool: undefined }, environment)
    const client = await app.shopper({ n: 0 })
    environment.clock.advance(HOUR_MS)
    expect(await app.stored(client)).toEqual({ n: 0 })
    environment.clock.advance(HOUR_MS)
    app.on('/n', ctx => {
      ctx.session['n'] = Number(ctx.session['n']) + 1
    })
    const answer = await meanwhile(
      app,
      client,
      async (ctx, pause) => {
        ctx.session['n'] = Number(ctx.session['n']) + 1
        await pause()
      },
      () => client.post('/n'),
    )
    expect(attemptOf(answer)).toBe(2)
    expect(await app.stored(client)).toEqual({ n: 2 })
  })

  test('also when a request had it open all the time, though it expires meanwhile', async () => {
    const environment = fakeEnvironment()
    const options = { pool: undefined, session: { idleMs: HOUR_MS / 4 }, retry: { deadlineMs: 10 * HOUR_MS } }
    const app = await shop(options, environment)
    const client = await app.shopper({ n: 0 })
    const answer = await meanwhile(
      app,
      client,
      async (ctx, pause) => {
        const before = Number(ctx.session['n'])
        await pause()
        ctx.session['n'] = before + 1
      },
      async () => environment.clock.advance(HOUR_MS),
    )
    expect(attemptOf(answer)).toBe(1)
    expect(await app.stored(client)).toEqual({ n: 1 })
    environment.clock.advance(HOUR_MS)
    expect(await app.stored(client)).toEqual({})
  })
})

describe('write skew: each checks both variables and clears one', () => {
  async function skew(
    options: TxServing['options'],
    promise: (ctx: TxContext, other: string) => void,
  ): Promise<{ attempts: number[]; left: unknown }> {
    const app = await shop(options)
    const client = await app.shopper({ x: 1, y: 1 })
    const both = new Barrier(2)
    for (const [path, mine, other] of [
      ['/x', 'x', 'y'],
      ['/y', 'y', 'x'],
    ] as const) {
      app.on(path, async ctx => {
        const sum = Number(ctx.session[mine]) + Number(ctx.session[other])
        promise(ctx, other)
        if (ctx.tx.attempt === 1) await both.arrive()
        if (sum === 2) ctx.session[mine] = 0
      })
    }
    const answers = await Promise.all([client.post('/x'), client.post('/y')])
    const left = await app.stored(client)
    return { attempts: ascending(answers.map(attemptOf)), left: ascending(Object.values(left).map(Number)) }
  }

  test('both commit under `snapshot`, as it says', async () => {
    expect(await skew({}, () => {})).toEqual({ attempts: [1, 1], left: [0, 0] })
  })
  test('is stopped by readCurrent', async () => {
    const found = await skew({}, (ctx, other) => ctx.tx.readCurrent(other))
    expect(found).toEqual({ attempts: [1, 2], left: [0, 1] })
  })
  test('is stopped by `serializable`', async () => {
    expect(await skew({ isolation: 'serializable' }, () => {})).toEqual({ attempts: [1, 2], left: [0, 1] })
  })
})

describe('mutation in place', () => {
  const fresh = () => ({
    list: [{ qty: 1 }],
    at: new Date(0),
    map: new Map<string, unknown>([['a', { at: new Date(0), deep: [1] }]]),
    set: new Set(['a']),
    bytes: new Uint8Array([1, 2]),
    nested: { bytes: new Uint8Array([1]), when: { at: new Date(0) } },
  })
  interface Fresh extends ReturnType<typeof fresh> {}

  const changes: readonly (readonly [string, keyof Fresh, (session: Fresh) => void])[] = [
    ['an object in an array', 'list', ({ list }) => list.forEach(item => (item.qty += 1))],
    ['an array', 'list', ({ list }) => void list.push({ qty: 9 })],
    ['a Date', 'at', ({ at }) => void at.setTime(5)],
    ['a Map', 'map', ({ map }) => void map.set('b', 1)],
    [
      'a Date and an array in an object in a Map',
      'map',
      ({ map }) => {
        const entry = map.get('a') as { at: Date; deep: number[] }
        entry.at.setTime(7)
        entry.deep.push(2)
      },
    ],
    ['a Set', 'set', ({ set }) => void set.add('b')],
    ['bytes', 'bytes', ({ bytes }) => void (bytes[0] = 9)],
    ['nested bytes', 'nested', ({ nested }) => void nested.bytes.fill(8)],
    ['a nested Date', 'nested', ({ nested }) => void nested.when.at.setTime(3)],
  ]

  test.each(changes)('of %s is stored on commit and invisible after a rollback', async (_, name, change) => {
    const app = await shop()
    const client = await app.shopper(fresh())
    let kept: unknown
    app.on('/look', ctx => {
      kept = structuredCloneOf(ctx.session[name])
    })
    app.on('/fail', ctx => {
      change(ctx.session as unknown as Fresh)
      throw new Error('no')
    })
    app.on('/change', ctx => change(ctx.session as unknown as Fresh))
    const before = fresh()
    expect((await client.post('/fail')).status).toBe(500)
    await client.get('/look')
    expect(kept).toEqual(before[name])
    await client.post('/change')
    await client.get('/look')
    const after = fresh()
    change(after)
    expect(kept).toEqual(after[name])
    expect(kept).not.toEqual(before[name])
  })

  test('by a losing attempt is invisible to the next attempt', async () => {
    const app = await shop()
    const client = await app.shopper({ list: [0] })
    app.on('/other', ctx => void (ctx.session['list'] as number[]).push(1))
    const answer = await meanwhile(
      app,
      client,
      async (ctx, pause) => {
        ;(ctx.session['list'] as number[]).push(2)
        await pause()
      },
      () => client.post('/other'),
    )
    expect(attemptOf(answer)).toBe(2)
    expect(await app.stored(client)).toEqual({ list: [0, 1, 2] })
  })

  test('two requests never share an object', async () => {
    const app = await shop()
    const client = await app.shopper(fresh())
    const seen: Fresh[] = []
    const both = new Barrier(2)
    const names = Object.keys(fresh()) as (keyof Fresh)[]
    app.on('/take', async ctx => {
      const mine = ctx.session as unknown as Fresh
      const held = Object.fromEntries(names.map(name => [name, mine[name]])) as unknown as Fresh
      seen.push(held)
      await both.arrive()
      if (seen[0] === held) for (const [, , change] of changes) change(held)
      else expect(held).toEqual(fresh())
      ctx.tx.doom()
    })
    const answers = await Promise.all([client.post('/take'), client.post('/take')])
    expect(answers.map(({ status }) => status)).toEqual([200, 200])
    for (const name of names) expect(seen[0]?.[name]).not.toBe(seen[1]?.[name])
  })

  test('what a handler assigns stays its own: not frozen, not shared, not changed', async () => {
    const app = await shop()
    const settings = { list: [1], at: new Date(1) }
    const client = await app.shopper({})
    app.on('/assign', ctx => void (ctx.session['settings'] = settings))
    app.on('/push', ctx => void (ctx.session['settings'] as typeof settings).list.push(2))
    await client.post('/assign')
    settings.list.push(99)
    settings.at.setTime(99)
    await client.post('/push')
    expect(settings).toEqual({ list: [1, 99], at: new Date(99) })
    expect(await app.stored(client)).toEqual({ settings: { list: [1, 2], at: new Date(1).toJSON() } })
  })
})

describe('an object of the session in ctx.body', () => {
  test('is rendered after the commit, as it was committed', async () => {
    const app = await shop()
    const client = await app.shopper({ list: [{ name: 'one', at: new Date(0) }] })
    app.on('/list', ctx => {
      const list = ctx.session['list'] as object[]
      list.push({ name: 'two' })
      ctx.body = { list, first: list[0] }
    })
    const one = { name: 'one', at: new Date(0).toJSON() }
    expect((await client.post('/list')).json()).toEqual({ list: [one, { name: 'two' }], first: one })
  })

  test('writing to it after the commit is refused, reading is not', async () => {
    const app = await shop()
    const client = await app.shopper({ list: [{ n: 1 }], map: new Map([['a', 1]]) })
    let list: { n: number }[] = []
    let map = new Map<string, number>()
    let whole: TxContext['session'] | undefined
    app.on('/list', ctx => {
      whole = ctx.session
      list = ctx.session['list'] as typeof list
      map = ctx.session['map'] as typeof map
      list.push({ n: 2 })
    })
    await client.post('/list')
    const closed = expect.objectContaining({ code: 'TRANSACTION_CLOSED' })
    expect(() => list.push({ n: 3 })).toThrow(closed)
    expect(() => list.forEach(item => (item.n = 5))).toThrow(closed)
    expect(() => map.set('b', 1)).toThrow(closed)
    expect(() => {
      if (whole !== undefined) whole['list'] = []
    }).toThrow(closed)
    expect(JSON.stringify(list)).toBe('[{"n":1},{"n":2}]')
    expect([...map]).toEqual([['a', 1]])
    expect(await app.stored(client)).toMatchObject({ list: [{ n: 1 }, { n: 2 }] })
  })
})

describe('the end of a session', () => {
  test('destroy: the cookie is cleared, the id is dead, the next visit gets a new session', async () => {
    const app = await shop()
    const client = await app.shopper({ user: 'ada' })
    const old = tab(app, client)
    app.on('/logout', ctx => ctx.session.destroy())
    const answer = await client.post('/logout')
    expect(client.cookies.has('sid')).toBe(false)
    expect(answer.headers['set-cookie']?.[0]).toMatch(/^sid=;.*expires=Thu, 01 Jan 1970/)
    expect(await app.stored(old)).toEqual({})
  })

  test('`ctx.session = null`: reading it afterwards throws, assigning an object starts another session', async () => {
    const app = await shop()
    const client = await app.shopper({ user: 'ada' })
    const before = client.cookies.get('sid')
    const old = tab(app, client)
    app.on('/switch', ctx => {
      Object.assign(ctx, { session: null })
      let code: unknown
      try {
        void ctx.session['user']
      } catch (error) {
        code = (error as SessionTxError).code
      }
      Object.assign(ctx, { session: { user: 'grace' } })
      return code
    })
    expect(resultOf(await client.post('/switch'))).toBe('SESSION_DESTROYED')
    expect(client.cookies.get('sid')).not.toBe(before)
    expect(await app.stored(client)).toEqual({ user: 'grace' })
    expect(await app.stored(old)).toEqual({})
  })

  test('regenerate: a new id that is empty or keeps the named variables; the old id is dead', async () => {
    const app = await shop()
    const client = await app.shopper({ basket: ['a'], token: 't' })
    const old = tab(app, client)
    app.on('/login', async ctx => {
      const before = ctx.session.id
      await ctx.session.regenerate({ keep: ['basket', 'absent'] })
      ctx.session['user'] = 'ada'
      return [before !== ctx.session.id, ctx.session.isNew, ctx.session['token'] === undefined]
    })
    expect(resultOf(await client.post('/login'))).toEqual([true, true, true])
    expect(await app.stored(client)).toEqual({ basket: ['a'], user: 'ada' })
    expect(await app.stored(old)).toEqual({})
    app.on('/empty', async ctx => {
      await ctx.session.regenerate()
      return ctx.session.id
    })
    app.on('/id', ctx => [ctx.session.id, ctx.session.isNew])
    const empty = resultOf(await client.post('/empty'))
    expect(client.cookies.get('sid')).toBe(empty)
    expect(resultOf(await client.get('/id'))).toEqual([empty, false])
    expect(await app.stored(client)).toEqual({})
  })

  test('a login that is rolled back leaves the old session as it was', async () => {
    const app = await shop()
    const client = await app.shopper({ basket: ['a'] })
    app.on('/login', async ctx => {
      await ctx.session.regenerate({ keep: ['basket'] })
      ;(ctx.session['basket'] as string[]).push('b')
      throw new Error('no')
    })
    const before = client.cookies.get('sid')
    expect((await client.post('/login')).headers['set-cookie']).toBeUndefined()
    expect(client.cookies.get('sid')).toBe(before)
    expect(await app.stored(client)).toEqual({ basket: ['a'] })
  })

  for (const [what, end] of [
    ['destroyed', (ctx: TxContext) => ctx.session.destroy()],
    ['regenerated', (ctx: TxContext) => ctx.session.regenerate()],
  ] as const) {
    test(`a slow request whose session was ${what} meanwhile runs again on an empty one: never stored, no cookie`, async () => {
      const app = await shop()
      const client = await app.shopper({ n: 5 })
      const slow = tab(app, client)
      app.on('/end', end)
      const seen: unknown[] = []
      const answer = await meanwhile(
        app,
        slow,
        async (ctx, pause) => {
          seen.push({ ...ctx.session })
          ctx.session['n'] = Number(ctx.session['n'] ?? 0) + 1
          await ctx.tx.query('UPDATE counter SET n = n + 1 WHERE id = 1')
          await pause()
        },
        () => client.post('/end'),
      )
      expect(seen).toEqual([{ n: 5 }, {}])
      expect(attemptOf(answer)).toBe(2)
      expect(answer.headers['set-cookie']).toBeUndefined()
      expect(app.tx.stats().sessions.live).toBe(what === 'destroyed' ? 0 : 1)
      expect(await app.stored(client)).toEqual({})
      // Only the session is gone: the row is written, once.
      expect(await rows()).toEqual([1, 0])
    })
  }

  test.each(['regenerate', 'destroy'] as const)(
    '%s does not throw away what another request committed to a variable that this one relies on',
    async way => {
      const app = await shop()
      const client = await app.shopper({ basket: ['a'] })
      app.on('/add', ctx => (ctx.session['basket'] as string[]).push('b'))
      const other = tab(app, client)
      const seen: unknown[] = []
      const answer = await meanwhile(
        app,
        client,
        async (ctx, pause) => {
          seen.push([...(ctx.session['basket'] as string[])])
          if (way === 'destroy') ctx.tx.readCurrent('basket')
          await pause()
          await (way === 'destroy' ? ctx.session.destroy() : ctx.session.regenerate({ keep: ['basket'] }))
        },
        async () => expect((await other.post('/add')).status).toBe(200),
      )
      expect(attemptOf(answer)).toBe(2)
      expect(seen).toEqual([['a'], ['a', 'b']])
      if (way === 'regenerate') expect(await app.stored(client)).toEqual({ basket: ['a', 'b'] })
    },
  )

  test('a refused regenerate() throws where it is called, so that nobody has to await it', async () => {
    const app = await shop({ readOnly: () => true })
    app.on('/careless', ctx => void ctx.session.regenerate())
    expect((await app.client().post('/careless')).status).toBe(500)
  })

  test('unless that one asks for a session of its own by regenerate()', async () => {
    const app = await shop()
    const client = await app.shopper({ n: 5 })
    const slow = tab(app, client)
    app.on('/end', ctx => ctx.session.destroy())
    const answer = await meanwhile(
      app,
      slow,
      async (ctx, pause) => {
        ctx.session['n'] = 1
        if (ctx.tx.attempt > 1) {
          await ctx.session.regenerate()
          ctx.session['mine'] = true
        }
        await pause()
      },
      () => client.post('/end'),
    )
    expect(answer.headers['set-cookie']).toHaveLength(1)
    expect(await app.stored(slow)).toEqual({ mine: true })
  })

  test('a slow request that only reads is not run again: it sees its snapshot', async () => {
    const app = await shop()
    const client = await app.shopper({ n: 5 })
    app.on('/end', ctx => ctx.session.destroy())
    const answer = await meanwhile(
      app,
      tab(app, client),
      async (ctx, pause) => {
        void ctx.session['n']
        await pause()
        return ctx.session['n']
      },
      () => client.post('/end'),
    )
    expect(answer.json()).toEqual({ result: 5, attempt: 1 })
    expect(answer.headers['set-cookie']).toBeUndefined()
  })

  test.each<[string, (ctx: TxContext) => unknown, readonly string[]]>([
    ['that sets the maxAge of its cookie', ctx => void (ctx.session.maxAge = 60_000), ['k']],
    ['whose cookie an old key signed', ctx => ctx.session['n'], ['new', 'k']],
  ])('a slow request %s does not send a dead id again', async (_what, read, keysLater) => {
    const keys = ['k']
    const app = await shop({ keys })
    const client = await app.shopper({ n: 5 })
    app.on('/end', ctx => ctx.session.destroy())
    const answer = await meanwhile(
      app,
      tab(app, client),
      async (ctx, pause) => {
        read(ctx)
        await pause()
      },
      async () => {
        await client.post('/end')
        keys.splice(0, 1, ...keysLater)
      },
    )
    expect(answer.status).toBe(200)
    expect(answer.headers['set-cookie']).toBeUndefined()
  })

  test('a slow request that destroys never loses', async () => {
    const app = await shop()
    const client = await app.shopper({ n: 5 })
    app.on('/n', ctx => void (ctx.session['n'] = 6))
    const answer = await meanwhile(
      app,
      tab(app, client),
      async (ctx, pause) => {
        void ctx.session['n']
        await pause()
        await ctx.session.destroy()
      },
      () => client.post('/n'),
    )
    expect(attemptOf(answer)).toBe(1)
    expect(await app.stored(client)).toEqual({})
  })
})

describe('`ctx.session = { … }`', () => {
  test('replaces everything, under the same id', async () => {
    const app = await shop()
    const client = await app.shopper({ a: 1, b: 1 })
    const before = client.cookies.get('sid')
    app.on('/replace', ctx => void Object.assign(ctx, { session: { c: 1 } }))
    await client.post('/replace')
    expect(client.cookies.get('sid')).toBe(before)
    expect(await app.stored(client)).toEqual({ c: 1 })
  })

  test('conflicts with any commit since its snapshot', async () => {
    const app = await shop()
    const client = await app.shopper({ a: 1 })
    app.on('/other', ctx => void (ctx.session['other'] = 1))
    const answer = await meanwhile(
      app,
      client,
      async (ctx, pause) => {
        const names = Object.keys(ctx.session)
        Object.assign(ctx, { session: { names } })
        await pause()
      },
      () => client.post('/other'),
    )
    expect(attemptOf(answer)).toBe(2)
    expect(await app.stored(client)).toEqual({ names: ['a', 'other'] })
  })

  test.each([
    ['runs again', {}, 2],
    ['is merged where it has a resolver', { resolve: { a: resolvers.counter } }, 1],
  ] as const)('a slower writer of a variable %s', async (_, options, attempts) => {
    const app = await shop(options)
    const client = await app.shopper({ a: 1, gone: 1 })
    app.on('/replace', ctx => void Object.assign(ctx, { session: { a: 100 } }))
    const answer = await meanwhile(
      app,
      client,
      async (ctx, pause) => {
        ctx.session['a'] = Number(ctx.session['a']) + 1
        await pause()
      },
      () => client.post('/replace'),
    )
    expect(attemptOf(answer)).toBe(attempts)
    expect(await app.stored(client)).toEqual({ a: 101 })
  })

  test.each([
    ['an array', []],
    ['a string', 'x'],
    ['a number', 1],
  ])('is refused for %s', async (_, value) => {
    const app = await shop()
    const client = await app.shopper({ a: 1 })
    app.on('/replace', ctx => void Object.assign(ctx, { session: value }))
    expect((await client.post('/replace')).status).toBe(500)
    expect(app.errors[0]).toBeInstanceOf(TypeError)
    expect(await app.stored(client)).toEqual({ a: 1 })
  })
})

describe('what cannot be stored', () => {
  test('more than session.sizeBytesMax: SESSION_TOO_LARGE, neither variable nor row', async () => {
    const app = await shop({ session: { sizeBytesMax: 1_000 } })
    const client = await app.shopper({ text: 'x'.repeat(900) })
    app.on('/more', async ctx => {
      ctx.session['more'] = 'y'.repeat(100)
      await ctx.tx.query('UPDATE counter SET n = 9 WHERE id = 1')
    })
    expect((await client.post('/more')).status).toBe(500)
    expect(app.errors).toMatchObject([{ code: 'SESSION_TOO_LARGE' }])
    expect(Object.keys(await app.stored(client))).toEqual(['text'])
    expect(await rows()).toEqual([0, 0])
  })

  test('making room in the same request is enough', async () => {
    const app = await shop({ session: { sizeBytesMax: 1_000 } })
    const client = await app.shopper({ text: 'x'.repeat(900) })
    app.on('/more', ctx => {
      ctx.session['more'] = 'y'.repeat(900)
      delete ctx.session['text']
    })
    expect((await client.post('/more')).status).toBe(200)
    expect(Object.keys(await app.stored(client))).toEqual(['more'])
  })

  test('a function: SESSION_VALUE with its path, neither variable nor row, no re-run', async () => {
    const app = await shop()
    const client = await app.shopper({ a: 1 })
    let runs = 0
    app.on('/bad', async ctx => {
      runs += 1
      ctx.session['a'] = { list: [{ f: () => {} }] }
      await ctx.tx.query('UPDATE counter SET n = 9 WHERE id = 1')
    })
    expect((await client.post('/bad')).status).toBe(500)
    expect(app.errors).toMatchObject([
      { code: 'SESSION_VALUE', message: expect.stringContaining('a.list[0].f') },
    ])
    expect(runs).toBe(1)
    expect(await app.stored(client)).toEqual({ a: 1 })
    expect(await rows()).toEqual([0, 0])
  })
})

describe('names and values that could poison', () => {
  const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'valueOf']

  test.each(names)('a variable called %s is a variable like any other', async name => {
    const app = await shop()
    const client = await app.shopper({})
    app.on('/set', ctx => void (ctx.session[name] = { polluted: 'yes' }))
    app.on('/get', ctx => [ctx.session[name], Object.keys(ctx.session)])
    await client.post('/set')
    expect(resultOf(await client.get('/get'))).toEqual([{ polluted: 'yes' }, [name]])
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined()
    expect(Object.prototype.toString.call({})).toBe('[object Object]')
  })

  test.each(names)('a key called %s inside of a value is stored as it is', async name => {
    const app = await shop()
    const client = await app.shopper({})
    const text = `{"value":{"${name}":{"polluted":"yes"}}}`
    app.on('/set', ctx => {
      const { value } = JSON.parse(text) as { value: object }
      ctx.session['value'] = value
    })
    app.on('/touch', ctx => {
      const value = ctx.session['value'] as Record<string, unknown>
      value['more'] = 1
      ctx.body = JSON.stringify([
        value,
        Object.keys(value),
        (value as { polluted?: unknown }).polluted === undefined,
      ])
    })
    await client.post('/set')
    const expected = `[{"${name}":{"polluted":"yes"},"more":1},["${name}","more"],true]`
    expect((await client.post('/touch')).text).toBe(expected)
    expect(({} as { polluted?: unknown }).polluted).toBeUndefined()
  })
})

describe('a new session', () => {
  test.each<readonly [string, (ctx: TxContext) => unknown]>([
    ['is not looked at', () => {}],
    ['is only read', ctx => [ctx.session['a'], Object.keys(ctx.session), ctx.session.id, ctx.session.isNew]],
    ['is given undefined', ctx => void (ctx.session['a'] = undefined)],
    [
      'is given a variable that is taken away again',
      ctx => {
        ctx.session['a'] = 1
        delete ctx.session['a']
      },
    ],
    ['is replaced by an empty one', ctx => void Object.assign(ctx, { session: {} })],
    ['is destroyed', ctx => ctx.session.destroy()],
    [
      'is touched and saved',
      async ctx => {
        ctx.session.touch()
        await ctx.session.save()
      },
    ],
  ])('that %s sets no cookie and stores nothing', async (_, handler) => {
    const app = await shop()
    app.on('/new', handler)
    const client = app.client()
    const answer = await client.get('/new')
    expect(answer.status).toBe(200)
    expect(answer.headers['set-cookie']).toBeUndefined()
    expect(app.tx.stats().sessions.live).toBe(0)
  })

  test('with a variable sets one cookie, and is there at the next visit', async () => {
    const app = await shop()
    const client = app.client()
    app.on('/new', ctx => {
      const { id, isNew } = ctx.session
      ctx.session['a'] = 1
      return { id, isNew }
    })
    const answer = await client.get('/new')
    expect(answer.headers['set-cookie']).toHaveLength(1)
    expect(resultOf(answer)).toEqual({ id: client.cookies.get('sid'), isNew: true })
    expect(await app.stored(client)).toEqual({ a: 1 })
  })

  test('of a request that was rolled back sets no cookie', async () => {
    const app = await shop()
    const client = app.client()
    app.on('/new', ctx => {
      ctx.session['a'] = 1
      ctx.throw(418)
    })
    expect((await client.get('/new')).headers['set-cookie']).toBeUndefined()
    expect(app.tx.stats().sessions.live).toBe(0)
  })

  test('parallel first requests get separate sessions', async () => {
    const app = await shop()
    const both = new Barrier(2)
    app.on('/new', async ctx => {
      ctx.session['mine'] = Number(ctx.get('x-client'))
      await both.arrive()
    })
    const clients = [app.client(), app.client()]
    await Promise.all(
      clients.map((client, index) => client.get('/new', { headers: { 'x-client': String(index) } })),
    )
    expect(clients[0]?.cookies.get('sid')).not.toBe(clients[1]?.cookies.get('sid'))
    expect(await Promise.all(clients.map(client => app.stored(client)))).toEqual([{ mine: 0 }, { mine: 1 }])
  })
})

describe('tx.run', () => {
  test('without sessionId works on a new session', async () => {
    const { tx } = await shop()
    const id = await tx.run((_tx, session) => {
      session['a'] = 1
      return session.id
    })
    expect(await tx.run((_tx, session) => session['a'], { sessionId: id })).toBe(1)
  })

  test('with sessionId works on that session, together with rows, or not at all', async () => {
    const app = await shop()
    const client = await app.shopper({ n: 1 })
    const options = { sessionId: client.cookies.get('sid') }
    const failing = app.tx.run(async (tx, session) => {
      session['n'] = 2
      await tx.query('UPDATE counter SET n = 2 WHERE id = 1')
      throw new RangeError('no')
    }, options)
    await expect(failing).rejects.toThrow(RangeError)
    expect([await app.stored(client), await rows()]).toEqual([{ n: 1 }, [0, 0]])
    await app.tx.run(async (tx, session) => {
      session['n'] = 2
      await tx.query('UPDATE counter SET n = 2 WHERE id = 1')
    }, options)
    expect([await app.stored(client), await rows()]).toEqual([{ n: 2 }, [2, 0]])
  })

  test('races with requests as they do among themselves, and gives the result of the attempt that committed', async () => {
    const app = await shop()
    const client = await app.shopper({ n: 0 })
    const reached = deferred()
    const gate = new Gate()
    app.on('/n', ctx => void (ctx.session['n'] = Number(ctx.session['n']) + 10))
    const running = app.tx.run(
      async (tx, session) => {
        const next = Number(session['n']) + 1
        session['n'] = next
        if (tx.attempt === 1) {
          reached.resolve()
          await gate.passed()
        }
        return [next, tx.attempt]
      },
      { sessionId: client.cookies.get('sid') },
    )
    await reached.promise
    await client.post('/n')
    gate.open()
    expect(await running).toEqual([11, 2])
    expect(await app.stored(client)).toEqual({ n: 11 })
  })

  test('waits for its after-commit hooks', async () => {
    const { tx } = await shop()
    const log: string[] = []
    await tx.run(transaction => {
      transaction.afterCommit(async () => {
        await Promise.resolve()
        log.push('hook')
      })
      log.push('work')
    })
    expect(log).toEqual(['work', 'hook'])
  })

  test('an id that cannot be one is a mistake, said at once', async () => {
    const { tx } = await shop()
    await expect(tx.run(() => 1, { sessionId: 'short' })).rejects.toThrow(TypeError)
  })
})

/** Plain copies, whatever proxies are in it. */
function structuredCloneOf(value: unknown): unknown {
  if (value instanceof Map) return new Map([...value].map(([key, item]) => [key, structuredCloneOf(item)]))
  if (value instanceof Set) return new Set(value)
  if (value instanceof Date) return new Date(value.getTime())
  if (value instanceof Uint8Array) return new Uint8Array(value)
  if (Array.isArray(value)) return value.map(structuredCloneOf)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, structuredCloneOf(item)]))
}
