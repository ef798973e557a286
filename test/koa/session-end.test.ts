/** Ids that are dead stay dead, whatever slow requests still carry them; who expires, and what is told of it (acceptance 35, 36). */
import type { EventName } from '../../lib/events.js'
import type { TxContext, TxServing } from '../support/app.js'
import type { Client } from '../support/client.js'
import { fakeEnvironment } from '../support/clock.js'
import { attemptOf, type HandlerApp, handlerApp, meanwhile, resultOf, tab } from '../support/handler-app.js'

const open: HandlerApp[] = []
afterEach(async () => {
  for (const app of open.splice(0)) await app.close()
})

async function start(
  options: TxServing['options'] = {},
  environment?: TxServing['environment'],
): Promise<HandlerApp> {
  const app = await handlerApp(options, environment)
  open.push(app)
  app.on('/login', async ctx => {
    await ctx.session.regenerate()
    ctx.session['user'] = 'ada'
  })
  app.on('/logout', ctx => ctx.session.destroy())
  return app
}

/** What the events told of sessions, by name. */
function listen({ tx }: HandlerApp): string[] {
  const told: string[] = []
  for (const name of ['session:missed', 'session:expired', 'session:destroyed'] satisfies EventName[])
    tx.on(name, payload => told.push('reason' in payload ? `${name} ${payload.reason}` : name))
  return told
}

describe('a slow request that came with an id before it died, and looks at its session only afterwards', () => {
  const ends = ['/login', '/logout'] as const
  const uses: readonly (readonly [string, (ctx: TxContext) => unknown])[] = [
    ['writes a variable', ctx => void (ctx.session['late'] = 1)],
    ['replaces the session', ctx => void Object.assign(ctx, { session: { late: 1 } })],
    ['sets the maxAge of its cookie', ctx => void (ctx.session.maxAge = 60_000)],
    ['destroys it', ctx => ctx.session.destroy()],
    ['only reads', ctx => ctx.session['user']],
  ]
  const cases = ends.flatMap(end => uses.map(([what, use]) => [end, what, use] as const))

  test.each(cases)(
    'after %s: it %s, and neither stores a session nor sends a cookie',
    async (end, _, use) => {
      const app = await start()
      const client = await app.shopper({ n: 1 })
      const slow = tab(app, client)
      const told = listen(app)
      const answer = await meanwhile(
        app,
        slow,
        async (ctx, pause) => {
          await pause()
          expect(Object.keys(ctx.session)).toEqual([])
          return use(ctx)
        },
        () => client.post(end),
      )
      expect([answer.status, attemptOf(answer)]).toEqual([200, 1])
      expect(answer.headers['set-cookie']).toBeUndefined()
      expect(app.tx.stats().sessions.live).toBe(end === '/login' ? 1 : 0)
      expect(await app.stored(client)).toEqual(end === '/login' ? { user: 'ada' } : {})
      // It knew the id: nobody guessed one.
      expect(told).toEqual(['session:destroyed'])
    },
  )

  test('may have a session of its own if it asks for one by regenerate()', async () => {
    const app = await start()
    const client = await app.shopper({ n: 1 })
    const slow = tab(app, client)
    const answer = await meanwhile(
      app,
      slow,
      async (ctx, pause) => {
        await pause()
        await ctx.session.regenerate()
        ctx.session['mine'] = true
      },
      () => client.post('/logout'),
    )
    expect(answer.headers['set-cookie']).toHaveLength(1)
    expect(await app.stored(slow)).toEqual({ mine: true })
  })

  test('is told from one that comes after the death, which gets a session of its own', async () => {
    const app = await start()
    const client = await app.shopper({ n: 1 })
    const late = tab(app, client)
    const told = listen(app)
    await client.post('/logout')
    app.on('/new', ctx => void (ctx.session['fresh'] = true))
    const before = late.cookies.get('sid')
    expect((await late.post('/new')).headers['set-cookie']).toHaveLength(1)
    expect(late.cookies.get('sid')).not.toBe(before)
    expect(await app.stored(late)).toEqual({ fresh: true })
    expect(told).toEqual(['session:destroyed', 'session:missed'])
  })
})

describe('two ends of one session', () => {
  test('a slow logout does not take away the cookie of a login that happened meanwhile', async () => {
    const app = await start()
    const client = await app.shopper({ n: 1 })
    const answer = await meanwhile(
      app,
      tab(app, client),
      async (ctx, pause) => {
        void ctx.session['n']
        await pause()
        await ctx.session.destroy()
      },
      () => client.post('/login'),
    )
    expect([answer.status, attemptOf(answer)]).toEqual([200, 1])
    expect(answer.headers['set-cookie']).toBeUndefined()
    expect(await app.stored(client)).toEqual({ user: 'ada' })
  })

  test('two logins at once: each has a session and a cookie, and the old id is dead', async () => {
    const app = await start()
    const client = await app.shopper({ n: 1 })
    const [other, old] = [tab(app, client), tab(app, client)]
    const answer = await meanwhile(
      app,
      other,
      async (ctx, pause) => {
        void ctx.session['n']
        await pause()
        await ctx.session.regenerate()
        ctx.session['user'] = 'grace'
      },
      () => client.post('/login'),
    )
    expect(answer.headers['set-cookie']).toHaveLength(1)
    expect([await app.stored(client), await app.stored(other)]).toEqual([{ user: 'ada' }, { user: 'grace' }])
    expect(await app.stored(old)).toEqual({})
  })

  test('a logout that was rolled back has killed nothing', async () => {
    const app = await start()
    const client = await app.shopper({ n: 1 })
    app.on('/fail', async ctx => {
      await ctx.session.destroy()
      ctx.throw(418)
    })
    const answer = await meanwhile(
      app,
      tab(app, client),
      async (ctx, pause) => {
        await pause()
        ctx.session['n'] = 2
      },
      async () => expect((await client.post('/fail')).status).toBe(418),
    )
    expect(answer.status).toBe(200)
    expect(await app.stored(client)).toEqual({ n: 2 })
  })
})

describe('expiry', () => {
  const MINUTE_MS = 60_000

  async function visit(app: HandlerApp, client: Client): Promise<unknown> {
    app.on('/n', ctx => ctx.session['n'] ?? null)
    return resultOf(await client.get('/n'))
  }

  test('idle: never early, however late the idle time was written, and told as such', async () => {
    const environment = fakeEnvironment()
    const session = { idleMs: 10 * MINUTE_MS, touchGranularityMs: MINUTE_MS }
    const app = await start({ session }, environment)
    const client = await app.shopper({ n: 1 })
    const told = listen(app)
    environment.clock.advance(MINUTE_MS - 1) // used, and too early to be written
    expect(await visit(app, client)).toBe(1)
    environment.clock.advance(10 * MINUTE_MS - 1)
    expect(await visit(app, client)).toBe(1)
    environment.clock.advance(11 * MINUTE_MS)
    expect(await visit(app, client)).toBeNull()
    expect(told).toEqual(['session:expired idle', 'session:missed'])
  })

  test('absolute: by its age, however much it is used', async () => {
    const environment = fakeEnvironment()
    const app = await start({ session: { absoluteMs: 60 * MINUTE_MS } }, environment)
    const client = await app.shopper({ n: 1 })
    const told = listen(app)
    for (let visits = 0; visits < 5; visits++) {
      environment.clock.advance(11 * MINUTE_MS)
      expect(await visit(app, client)).toBe(1)
    }
    environment.clock.advance(5 * MINUTE_MS)
    expect(await visit(app, client)).toBeNull()
    expect(told).toEqual(['session:expired absolute', 'session:missed'])
  })

  test('false for both: never', async () => {
    const environment = fakeEnvironment()
    const app = await start({ session: { idleMs: false, absoluteMs: false } }, environment)
    const client = await app.shopper({ n: 1 })
    environment.clock.advance(366 * 24 * 60 * MINUTE_MS)
    expect(await visit(app, client)).toBe(1)
  })
})
