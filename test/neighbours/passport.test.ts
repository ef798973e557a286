/**
 * passport 0.7 on Express and koa-passport on Koa, with passport-local, each mounted as its README shows, below session-tx:
 * login, me and logout; what an attacker planted; logins that lose a race or meet another request of their session.
 */
import { bodyParser } from '@koa/bodyparser'
import Router from '@koa/router'
import { KoaPassport } from 'koa-passport'
import { Passport } from 'passport'
import { Strategy as LocalStrategy } from 'passport-local'
import { koas, serveTx, type TxContext, type TxMiddleware, type TxServed } from '../support/app.js'
import { deferred, Gate } from '../support/barrier.js'
import type { Answer, Client } from '../support/client.js'
import { type ExpressServed, expresses, serveExpress } from '../support/express-app.js'
import { setCookie } from '../support/set-cookie.js'

type Served = TxServed | ExpressServed
type Visit = Pick<TxContext, 'tx' | 'session'>
type Login = (user: object, options?: { keepSessionInfo: boolean }) => Promise<void>

/** What the tests want of a handler, beside what the README shows; told by a header. */
interface Extras {
  /** How often the password was looked at. */
  verified: number
  /** Happens at the end of the handler that the header names, in its first attempt. */
  onFirst: (visit: Visit) => Promise<void> | void
}

interface Site {
  readonly served: Served
  readonly extras: Extras
}

function verifying(extras: Extras): LocalStrategy {
  return new LocalStrategy((username, password, done) => {
    extras.verified += 1
    if (password === 'secret') done(null, { username })
    else done(null, false)
  })
}

function newExtras(): Extras {
  return { verified: 0, onFirst: () => {} }
}

async function atTheEnd(extras: Extras, wanted: unknown, visit: Visit): Promise<void> {
  if (wanted === 'extra' && visit.tx.attempt === 1) await extras.onFirst(visit)
}

async function expressSite(express: (typeof expresses)[number][1]): Promise<Site> {
  const extras = newExtras()
  const passport = new Passport()
  passport.use(verifying(extras))
  passport.serializeUser((user, done) => done(null, (user as { username: string }).username))
  passport.deserializeUser((username: string, done) => done(null, { username }))
  const served = await serveExpress({
    express,
    build: (app, tx) => {
      app.use(express.urlencoded({ extended: false }))
      app.use(tx)
      app.use(passport.initialize())
      app.use(passport.session())
      app.post('/login', passport.authenticate('local'), async (req, res) => {
        await atTheEnd(extras, req.get('x-wants'), req)
        res.json(req.user)
      })
      app.post('/login/keeping', passport.authenticate('local', { keepSessionInfo: true }), (req, res) => {
        res.json(req.user)
      })
      app.post('/login/by-hand', (req, res, next) => {
        req.login({ username: 'grace' }, error => {
          if (error !== undefined) next(error)
          else res.redirect('/me')
        })
      })
      app.get('/me', (req, res) => void res.json({ user: req.user ?? null, session: req.session }))
      app.post('/logout', (req, res, next) => {
        req.logout(error => {
          if (error !== undefined) return next(error)
          atTheEnd(extras, req.get('x-wants'), req).then(() => res.redirect('/me'), next)
        })
      })
      app.post('/put', async (req, res) => {
        req.session['count'] = ((req.session['count'] as number | undefined) ?? 0) + 1
        await atTheEnd(extras, req.get('x-wants'), req)
        res.json({ attempt: req.tx.attempt, user: req.user ?? null })
      })
    },
  })
  return { served, extras }
}

async function koaSite(Koa: (typeof koas)[number][1]): Promise<Site> {
  const extras = newExtras()
  const passport = new KoaPassport()
  passport.use(verifying(extras))
  passport.serializeUser((user, done) => done(null, (user as { username: string }).username))
  passport.deserializeUser((username: string, done) => done(null, { username }))
  const router = new Router<
    object,
    TxContext & { readonly login: Login; readonly logout: () => Promise<void> }
  >()
  const user = (ctx: TxContext): unknown => ctx.state['user'] ?? null
  router.post('/login', passport.authenticate('local') as never, async ctx => {
    await atTheEnd(extras, ctx.get('x-wants'), ctx)
    ctx.body = user(ctx)
  })
  router.post('/login/keeping', passport.authenticate('local', { keepSessionInfo: true }) as never, ctx => {
    ctx.body = user(ctx)
  })
  router.post('/login/by-hand', async ctx => {
    await ctx.login({ username: 'grace' })
    ctx.redirect('/me')
  })
  router.get('/me', ctx => {
    ctx.body = { user: user(ctx), session: ctx.session }
  })
  router.post('/logout', async ctx => {
    await ctx.logout()
    await atTheEnd(extras, ctx.get('x-wants'), ctx)
    ctx.redirect('/me')
  })
  router.post('/put', async ctx => {
    ctx.session['count'] = ((ctx.session['count'] as number | undefined) ?? 0) + 1
    await atTheEnd(extras, ctx.get('x-wants'), ctx)
    ctx.body = { attempt: ctx.tx.attempt, user: user(ctx) }
  })
  const served = await serveTx({
    Koa,
    above: [bodyParser() as TxMiddleware],
    below: [
      passport.initialize(),
      passport.session(),
      router.routes(),
    ] as readonly unknown[] as TxMiddleware[],
  })
  return { served, extras }
}

const sites: readonly (readonly [name: string, build: () => Promise<Site>])[] = [
  ...expresses.map(([name, express]) => [`passport on ${name}`, () => expressSite(express)] as const),
  ...koas.map(([name, Koa]) => [`koa-passport on ${name}`, () => koaSite(Koa)] as const),
]

const form = { 'content-type': 'application/x-www-form-urlencoded' }
const extra = { 'x-wants': 'extra' }

describe.each(sites)('%s', (_name, build) => {
  let site: Site
  beforeEach(async () => {
    site = await build()
  })
  afterEach(() => site.served.close())

  const visitor = (): Client => site.served.client()
  function login(client: Client, path = '/login', password = 'secret', more = {}): Promise<Answer> {
    return client.post(path, `username=ada&password=${password}`, { headers: { ...form, ...more } })
  }
  async function me(client: Client): Promise<unknown> {
    return (await client.get('/me')).json()
  }
  /** The same visitor in another window. */
  function tab(of: Client): Client {
    const other = visitor()
    for (const [name, value] of of.cookies) other.cookies.set(name, value)
    return other
  }
  const live = (): unknown => site.served.tx.stats().sessions

  const ada = { user: { username: 'ada' }, session: { passport: { user: 'ada' } } }
  const nobody = { user: null, session: {} }

  test('login, me and logout', async () => {
    const client = visitor()
    expect(await me(client)).toEqual(nobody)
    const answer = await login(client)
    expect([answer.status, answer.json()]).toEqual([200, { username: 'ada' }])
    expect(await me(client)).toEqual(ada)
    const old = tab(client)
    expect((await client.post('/logout')).headers.location).toBe('/me')
    expect(await me(client)).toEqual(nobody)
    expect(await me(old)).toEqual(nobody)
  })

  test('a wrong password is a 401 that stores nothing and sets no cookie', async () => {
    const client = visitor()
    const answer = await login(client, '/login', 'guessed')
    expect([answer.status, answer.text, setCookie(answer)]).toEqual([401, 'Unauthorized', undefined])
    expect(live()).toMatchObject({ live: 0 })
  })

  test('a login by hand, as after signing up', async () => {
    const client = visitor()
    expect((await client.post('/login/by-hand')).status).toBe(302)
    expect(await me(client)).toMatchObject({ user: { username: 'grace' } })
  })

  test('a session that an attacker began is not the one that the victim logs in to, and nothing of it comes along', async () => {
    const attacker = visitor()
    await attacker.post('/put')
    const victim = tab(attacker)
    const answer = await login(victim)
    expect(setCookie(answer)?.value).not.toBe(attacker.cookies.get('sid'))
    expect(await me(victim)).toEqual(ada)
    expect(await me(attacker)).toEqual(nobody)
  })

  test('keepSessionInfo takes the variables along, and only these', async () => {
    const client = visitor()
    await client.post('/put')
    await login(client, '/login/keeping')
    expect(await me(client)).toEqual({ ...ada, session: { count: 1, passport: { user: 'ada' } } })
  })

  test('a login that loses a race runs again from the password on; there is one new session, and one cookie', async () => {
    site.extras.onFirst = ({ tx }) => tx.conflict()
    const client = visitor()
    const answer = await login(client, '/login', 'secret', extra)
    expect([answer.status, answer.json()]).toEqual([200, { username: 'ada' }])
    expect(site.extras.verified).toBe(2)
    expect(setCookie(answer)).toBeDefined()
    expect(live()).toMatchObject({ live: 1 })
    expect(await me(client)).toEqual(ada)
  })

  test('a logout that loses a race logs out, once', async () => {
    const client = visitor()
    await login(client)
    site.extras.onFirst = ({ tx }) => tx.conflict()
    const old = tab(client)
    await client.post('/logout', undefined, { headers: extra })
    expect(site.served.tx.stats().attempts).toMatchObject({ 2: 1 })
    expect([await me(client), await me(old)]).toEqual([nobody, nobody])
  })

  test('an error after the login: nobody is logged in, and the session from before goes on', async () => {
    site.extras.onFirst = () => {
      throw new Error('the welcome page is broken')
    }
    const client = visitor()
    await client.post('/put')
    const answer = await login(client, '/login', 'secret', extra)
    expect([answer.status, setCookie(answer)]).toEqual([500, undefined])
    expect(await me(client)).toEqual({ user: null, session: { count: 1 } })
  })

  test('an error after the logout: the user is still logged in', async () => {
    site.extras.onFirst = () => {
      throw new Error('the farewell page is broken')
    }
    const client = visitor()
    await login(client)
    expect((await client.post('/logout', undefined, { headers: extra })).status).toBe(500)
    expect(await me(client)).toEqual(ada)
  })

  /** `slow` stops at its end, in its first attempt, until `other` has been answered. */
  async function during(slow: () => Promise<Answer>, other: () => Promise<unknown>): Promise<Answer> {
    const reached = deferred()
    const gate = new Gate()
    site.extras.onFirst = async () => {
      reached.resolve()
      await gate.passed()
    }
    const answer = slow()
    await reached.promise
    await other()
    gate.open()
    return answer
  }

  test('a login while another request writes the same session: that one does not bring the old session back', async () => {
    const client = visitor()
    await client.post('/put')
    const other = tab(client)
    const old = tab(client)
    const answer = await during(
      () => other.post('/put', undefined, { headers: extra }),
      () => login(client),
    )
    expect(answer.json()).toEqual({ attempt: 2, user: null })
    expect(setCookie(answer)).toBeUndefined()
    expect(await me(client)).toEqual(ada)
    expect(await me(old)).toEqual(nobody)
  })

  test('a write that commits while a login is running is of the old session, and dies with it', async () => {
    const client = visitor()
    await client.post('/put')
    const other = tab(client)
    const answer = await during(
      () => login(client, '/login', 'secret', extra),
      () => other.post('/put'),
    )
    expect(answer.json()).toEqual({ username: 'ada' })
    expect(await me(client)).toEqual(ada)
    expect(await me(other)).toEqual(nobody)
  })

  test('a logout while another request writes the same session: the user stays logged out', async () => {
    const client = visitor()
    await login(client)
    const other = tab(client)
    const answer = await during(
      () => other.post('/put', undefined, { headers: extra }),
      () => client.post('/logout'),
    )
    expect(answer.json()).toEqual({ attempt: 2, user: null })
    expect(setCookie(answer)).toBeUndefined()
    expect([await me(client), await me(other)]).toEqual([nobody, nobody])
  })
})
