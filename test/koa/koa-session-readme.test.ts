/**
 * What koa-session 7's README documents, member by member and option by option, as far as session-tx has an equivalent.
 * The names are those of its README; where ours differ, the sentence says so.
 */
import type { SessionTxOptions, KoaContext } from '../../lib/index.js'
import { koas, serveTx, type TxContext, type TxMiddleware, type TxServed } from '../support/app.js'
import type { Answer } from '../support/client.js'
import { fakeEnvironment } from '../support/clock.js'
import { lasts, setCookie } from '../support/set-cookie.js'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

let served: TxServed | undefined
afterEach(async () => {
  await served?.close()
  served = undefined
})

interface App extends TxServed {
  /** What GET does next. */
  handle(handler: (ctx: TxContext) => unknown): void
}

async function start(
  options: SessionTxOptions<KoaContext> = {},
  serving: Partial<Parameters<typeof serveTx>[0]> = {},
): Promise<App> {
  let now: (ctx: TxContext) => unknown = () => {}
  const below: TxMiddleware = async ctx => {
    const body = await now(ctx)
    ctx.body ??= JSON.stringify(body ?? null)
  }
  const app = await serveTx({ options, below, ...serving })
  served = app
  return { ...app, handle: handler => (now = handler) }
}

const store = (ctx: TxContext): void => void (ctx.session['n'] = 1)
const told = (answer: Answer): unknown => answer.json()

describe.each(koas)('%s: the example', (_name, Koa) => {
  test('counts the views of a visitor, and of each visitor by itself', async () => {
    const app = await start({ keys: ['some secret'] }, { Koa })
    app.handle(ctx => {
      const n = Number(ctx.session['views'] ?? 0) + 1
      ctx.session['views'] = n
      return n
    })
    const [one, other] = [app.client(), app.client()]
    const seen: unknown[] = []
    for (const client of [one, one, other, one]) seen.push(told(await client.get()))
    expect(seen).toEqual([1, 2, 1, 3])
  })
})

describe('options', () => {
  test('key (session.name): the name of the cookie', async () => {
    const app = await start({ session: { name: 'koa.sess' } })
    app.handle(store)
    expect(setCookie(await app.client().get(), 'koa.sess')).toBeDefined()
  })

  test('maxAge (session.cookie.maxAge): how long browsers keep the cookie', async () => {
    const app = await start({ session: { cookie: { maxAge: DAY_MS } } })
    app.handle(store)
    expect(lasts(setCookie(await app.client().get()), DAY_MS)).toBe(true)
  })

  test("maxAge 'session' (which is our default): until the browser is closed", async () => {
    const app = await start()
    app.handle(store)
    expect(setCookie(await app.client().get())).toMatchObject({ lastsMs: undefined })
  })

  test('overwrite: a cookie of that name that the handler has set does not go out beside it', async () => {
    const app = await start()
    app.handle(ctx => {
      ctx.cookies.set('sid', 'mine')
      store(ctx)
    })
    expect(setCookie(await app.client().get())?.value).not.toBe('mine')
  })

  test.each([
    ['httpOnly', true, 'httponly', true],
    ['httpOnly', false, 'httponly', undefined],
    ['sameSite', 'strict', 'samesite', 'strict'],
    ['sameSite', false, 'samesite', undefined],
    ['secure', true, 'secure', true],
    ['secure', false, 'secure', undefined],
    ['path', '/shop', 'path', '/shop'],
    ['domain', 'example.com', 'domain', 'example.com'],
    ['partitioned', true, 'partitioned', true],
    ['priority', 'high', 'priority', 'high'],
  ] as const)('%s: %s goes to the `cookies` package', async (name, value, attribute, expected) => {
    const app = await start({ session: { cookie: { [name]: value } } })
    app.handle(store)
    expect(setCookie(await app.client().get())?.attributes[attribute]).toBe(expected)
  })

  test('signed (by `keys`): a cookie that was tampered with is a new session', async () => {
    const app = await start({ keys: ['k'] })
    app.handle(store)
    const client = app.client()
    await client.get()
    expect(client.cookies.has('sid.sig')).toBe(true)
    app.handle(ctx => ctx.session.isNew)
    expect(told(await client.get())).toBe(false)
    const signature = client.cookies.get('sid.sig') ?? ''
    client.cookies.set('sid.sig', `${signature.startsWith('x') ? 'y' : 'x'}${signature.slice(1)}`)
    expect(told(await client.get())).toBe(true)
  })

  test('signed: false (no keys): the random id stands alone', async () => {
    const app = await start()
    app.handle(store)
    const client = app.client()
    await client.get()
    expect([...client.cookies.keys()]).toEqual(['sid'])
  })

  test('rolling and renew: the countdown begins anew with use, at most once per touchGranularityMs', async () => {
    const environment = fakeEnvironment()
    const session = { touchGranularityMs: 60_000, cookie: { maxAge: HOUR_MS } }
    const app = await start({ session }, { environment })
    const client = app.client()
    app.handle(store)
    await client.get()
    app.handle(ctx => ctx.session['n'])
    environment.clock.advance(59_999)
    expect(setCookie(await client.get())).toBeUndefined()
    environment.clock.advance(1)
    const again = setCookie(await client.get())
    expect(again?.value).toBe(client.cookies.get('sid'))
    expect(lasts(again, HOUR_MS)).toBe(true)
  })

  test('autoCommit: what was changed is stored without a word', async () => {
    const app = await start()
    const client = app.client()
    app.handle(store)
    await client.get()
    app.handle(ctx => ctx.session['n'])
    expect(told(await client.get())).toBe(1)
  })

  test('store: the cookie carries an id, and none of the content', async () => {
    const app = await start()
    const client = app.client()
    app.handle(ctx => void (ctx.session['secret'] = 'hush-hush'))
    const answer = await client.get()
    const { value = '' } = setCookie(answer) ?? {}
    expect(value).toMatch(/^[\w-]{43}$/)
    expect(Buffer.from(value, 'base64').toString('latin1')).not.toContain('hush')
  })

  test.each(['key', 'rolling', 'renew', 'genid', 'encode', 'autoCommit'])(
    '%s as koa-session spells it fails at start-up: nothing is ignored',
    name => expect(() => start({ [name]: 'x' })).rejects.toMatchObject({ code: 'MISCONFIGURED' }),
  )
})

describe('events, on the middleware instead of on the application', () => {
  test('session:missed: the cookie names a session that the store does not have', async () => {
    const app = await start()
    const heard: object[] = []
    app.tx.on('session:missed', payload => heard.push(payload))
    app.handle(ctx => ctx.session.isNew)
    const client = app.client()
    client.cookies.set('sid', 'A'.repeat(43))
    expect(told(await client.get())).toBe(true)
    expect(heard).toEqual([{ session: expect.stringMatching(/^[\w-]{12}$/) }])
  })

  test('session:expired: it has not been used for too long', async () => {
    const environment = fakeEnvironment()
    const app = await start({ session: { idleMs: HOUR_MS, touchGranularityMs: 0 } }, { environment })
    const heard: object[] = []
    app.tx.on('session:expired', payload => heard.push(payload))
    const client = app.client()
    app.handle(store)
    await client.get()
    environment.clock.advance(HOUR_MS)
    app.handle(ctx => ctx.session['n'] ?? 'gone')
    expect(told(await client.get())).toBe('gone')
    expect(heard).toMatchObject([{ reason: 'idle' }])
  })

  test('session:invalid has no equal: a cookie that cannot be ours is not even looked up', async () => {
    const app = await start()
    const heard: object[] = []
    app.tx.on('session:missed', payload => heard.push(payload))
    app.handle(ctx => ctx.session.isNew)
    const client = app.client()
    client.cookies.set('sid', 'not-an-id')
    expect(told(await client.get())).toBe(true)
    expect(heard).toEqual([])
  })
})

describe('Session#isNew', () => {
  test('is true until the session was stored once', async () => {
    const app = await start()
    const client = app.client()
    app.handle(ctx => {
      store(ctx)
      return ctx.session.isNew
    })
    expect([told(await client.get()), told(await client.get())]).toEqual([true, false])
  })

  test('stays true as long as nothing was stored', async () => {
    const app = await start()
    const client = app.client()
    app.handle(ctx => ctx.session.isNew)
    expect([told(await client.get()), told(await client.get())]).toEqual([true, true])
  })
})

describe('Session#maxAge', () => {
  test('is what the cookie is configured with', async () => {
    const app = await start({ session: { cookie: { maxAge: HOUR_MS } } })
    app.handle(ctx => ctx.session.maxAge)
    expect(told(await app.client().get())).toBe(HOUR_MS)
  })

  test('assigned, sends the cookie with it', async () => {
    const app = await start()
    app.handle(ctx => {
      store(ctx)
      ctx.session.maxAge = DAY_MS
    })
    expect(lasts(setCookie(await app.client().get()), DAY_MS)).toBe(true)
  })

  test('assigned in a request that changes nothing else, sends it, too', async () => {
    const app = await start()
    const client = app.client()
    app.handle(store)
    await client.get()
    app.handle(ctx => void (ctx.session.maxAge = DAY_MS))
    expect(lasts(setCookie(await client.get()), DAY_MS)).toBe(true)
  })

  test('assigned, is kept with the session: later requests see it, and send it again', async () => {
    const app = await start({ session: { touchGranularityMs: 0 } })
    const client = app.client()
    app.handle(ctx => {
      store(ctx)
      ctx.session.maxAge = DAY_MS
    })
    await client.get()
    app.handle(ctx => ctx.session.maxAge)
    const later = await client.get()
    expect(told(later)).toBe(DAY_MS)
    expect(lasts(setCookie(later), DAY_MS)).toBe(true)
  })

  test('is not among the variables, however it was assigned', async () => {
    const app = await start()
    const client = app.client()
    app.handle(ctx => {
      store(ctx)
      ctx.session.maxAge = DAY_MS
    })
    await client.get()
    app.handle(ctx => [Object.keys(ctx.session), ctx.session, 'cookie' in { ...ctx.session }])
    expect(told(await client.get())).toEqual([['n'], { n: 1 }, false])
  })

  test("assigned 'session' or undefined, is until the browser is closed, also where a maxAge is configured", async () => {
    const app = await start({ session: { cookie: { maxAge: HOUR_MS } } })
    for (const value of ['session', undefined] as const) {
      const client = app.client()
      app.handle(ctx => {
        store(ctx)
        ctx.session.maxAge = value
      })
      expect(setCookie(await client.get())).toMatchObject({ lastsMs: undefined })
      app.handle(ctx => ctx.session.maxAge ?? 'none')
      expect(told(await client.get())).toBe('none')
    }
  })

  test('assigned by a request that fails, is forgotten', async () => {
    const app = await start()
    const client = app.client()
    app.handle(store)
    await client.get()
    app.handle(ctx => {
      ctx.session.maxAge = DAY_MS
      ctx.throw(418)
    })
    expect(setCookie(await client.get())).toBeUndefined()
    app.handle(ctx => ctx.session.maxAge ?? 'none')
    expect(told(await client.get())).toBe('none')
  })

  test('assigned to a new session without a variable, stores nothing', async () => {
    const app = await start()
    app.handle(ctx => void (ctx.session.maxAge = DAY_MS))
    expect(setCookie(await app.client().get())).toBeUndefined()
    expect(app.tx.stats().sessions.live).toBe(0)
  })

  test.each([
    ['a text', '1d'],
    ['NaN', Number.NaN],
    ['a century and more', 4e12],
  ])('refuses %s', async (_, value) => {
    const app = await start()
    app.handle(ctx => {
      store(ctx)
      Object.assign(ctx.session, { maxAge: value })
    })
    expect((await app.client().get()).status).toBe(500)
    expect(app.errors).toMatchObject([{ message: expect.stringContaining('maxAge') }])
  })
})

describe('Session#externalKey', () => {
  test('is the id in the cookie', async () => {
    const app = await start()
    const client = app.client()
    app.handle(ctx => {
      store(ctx)
      return ctx.session.externalKey
    })
    expect(told(await client.get())).toBe(client.cookies.get('sid'))
  })
})

describe.each(['save', 'manuallyCommit'] as const)('Session#%s()', name => {
  test('may be awaited anywhere: the change is stored with the transaction', async () => {
    const app = await start()
    const client = app.client()
    app.handle(async ctx => {
      store(ctx)
      await ctx.session[name]()
      ctx.session['later'] = 2
    })
    await client.get()
    app.handle(ctx => ctx.session)
    expect(told(await client.get())).toEqual({ n: 1, later: 2 })
  })

  test('does not store what a request did that failed afterwards', async () => {
    const app = await start()
    app.handle(async ctx => {
      store(ctx)
      await ctx.session[name]()
      ctx.throw(418)
    })
    expect(setCookie(await app.client().get())).toBeUndefined()
    expect(app.tx.stats().sessions.live).toBe(0)
  })

  test('of a new session without a variable stores nothing, where koa-session would', async () => {
    const app = await start()
    app.handle(ctx => ctx.session[name]())
    expect(setCookie(await app.client().get())).toBeUndefined()
    expect(app.tx.stats().sessions.live).toBe(0)
  })
})

describe('destroying', () => {
  test('`ctx.session = null` ends the session and takes the cookie away', async () => {
    const app = await start()
    const client = app.client()
    app.handle(store)
    await client.get()
    app.handle(ctx => void Object.assign(ctx, { session: null }))
    const gone = setCookie(await client.get())
    expect([gone?.value, (gone?.lastsMs ?? 0) < 0, client.cookies.size]).toEqual(['', true, 0])
    app.handle(ctx => ctx.session.isNew)
    expect(told(await client.get())).toBe(true)
  })

  test('reading it afterwards in the same request throws, where koa-session has null', async () => {
    const app = await start()
    app.handle(ctx => {
      Object.assign(ctx, { session: null })
      return ctx.session['n']
    })
    expect((await app.client().get()).status).toBe(500)
    expect(app.errors).toMatchObject([{ code: 'SESSION_DESTROYED' }])
  })
})
