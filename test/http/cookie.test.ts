/**
 * The session's cookie as a browser and an attacker meet it: what is in it, how it is marked and signed, what a hostile one
 * gets. No database: the store is watched instead.
 */
import { createHash } from 'node:crypto'
import { type KoaContext, memoryStore, type SessionStore, type SessionTxOptions } from '../../lib/index.js'
import { isSessionId, newSessionId } from '../../lib/session/identity.js'
import { serveTx, type TxMiddleware, type TxServed } from '../support/app.js'

const served: TxServed[] = []
afterEach(async () => {
  for (const one of served.splice(0)) await one.close()
})

interface Watched {
  readonly store: SessionStore
  /** Every key that was asked for or made. */
  readonly opened: string[]
  readonly created: string[]
}

function watched(): Watched {
  const inner = memoryStore()
  const opened: string[] = []
  const created: string[] = []
  const store: SessionStore = {
    name: inner.name,
    capability: inner.capability,
    start: settings => inner.start(settings),
    open: key => (opened.push(key), inner.open(key)),
    create: key => (created.push(key), inner.create(key)),
    counts: () => inner.counts(),
    close: () => inner.close(),
  }
  return { store, opened, created }
}

/** `/login` regenerates, `/look` only reads, everything else counts visits. */
const shop: TxMiddleware = async ctx => {
  if (ctx.path === '/login') await ctx.session.regenerate({ keep: ['visits'] })
  if (ctx.path !== '/look') ctx.session['visits'] = Number(ctx.session['visits'] ?? 0) + 1
  ctx.body = String(ctx.session['visits'] ?? 0)
}

async function serving(options: SessionTxOptions<KoaContext> = {}): Promise<TxServed & Watched> {
  const watch = watched()
  const one = await serveTx({ options: { store: watch.store, ...options }, below: shop })
  served.push(one)
  return { ...one, ...watch }
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('base64url')

describe('the id', () => {
  test('is 256 random bits, and no two are alike', () => {
    const ids = Array.from({ length: 1000 }, newSessionId)
    expect(new Set(ids).size).toBe(1000)
    expect(ids.every(id => isSessionId(id) && Buffer.from(id, 'base64url').length === 32)).toBe(true)
  })

  test('is known to the cookie alone: the store gets its SHA-256', async () => {
    const { client, opened, created } = await serving()
    const visitor = client()
    await visitor.get()
    await visitor.get()
    const id = visitor.cookies.get('sid') ?? ''
    expect(isSessionId(id)).toBe(true)
    expect(created).toEqual([sha256(id)])
    expect(opened).toEqual([sha256(id)])
  })
})

describe('its attributes', () => {
  test('by default: HttpOnly, SameSite=Lax, path /, no Secure over plain HTTP, until the browser is closed', async () => {
    const { client } = await serving()
    const { headers } = await client().get()
    expect(headers['set-cookie']).toEqual([
      expect.stringMatching(/^sid=[\w-]{43}; path=\/; samesite=lax; httponly$/i),
    ])
  })

  test('Secure where the request is', async () => {
    const { app, client } = await serving()
    app.proxy = true
    const { headers } = await client().get('/', { headers: { 'x-forwarded-proto': 'https' } })
    expect(headers['set-cookie']).toEqual([expect.stringMatching(/; secure(;|$)/i)])
  })

  test('those that were asked for, with the prefix __Host-', async () => {
    const cookie = {
      prefix: 'host',
      sameSite: 'strict',
      secure: true,
      maxAge: 60_000,
      priority: 'high',
    } as const
    const { app, client } = await serving({ session: { name: 'shop', cookie } })
    app.proxy = true
    const { headers } = await client().get('/', { headers: { 'x-forwarded-proto': 'https' } })
    const [line = ''] = headers['set-cookie'] ?? []
    expect(line).toMatch(/^__Host-shop=[\w-]{43}; path=\/; /)
    for (const part of ['samesite=strict', 'secure', 'httponly', 'priority=high', 'expires=']) {
      expect(line.toLowerCase()).toContain(part)
    }
  })
})

describe('with keys', () => {
  test('it is signed, and without its signature or with another one it opens nothing', async () => {
    const { client, opened } = await serving({ keys: ['one'] })
    const visitor = client()
    expect((await visitor.get()).text).toBe('1')
    expect((await visitor.get()).text).toBe('2')
    const [id, signature] = [visitor.cookies.get('sid') ?? '', visitor.cookies.get('sid.sig') ?? '']
    opened.length = 0
    for (const cookie of [
      `sid=${id}`,
      `sid=${id}; sid.sig=${signature.slice(1)}`,
      `sid=${newSessionId()}; sid.sig=${signature}`,
    ]) {
      expect((await client().get('/look', { headers: { cookie } })).text).toBe('0')
    }
    expect(opened).toEqual([])
  })

  test('an older key still opens it, and it is signed anew with the newest', async () => {
    const { app, client } = await serving()
    app.keys = ['old']
    const visitor = client()
    await visitor.get()
    const [id, signature] = [visitor.cookies.get('sid'), visitor.cookies.get('sid.sig')]
    app.keys = ['new', 'old']
    expect((await visitor.get('/look')).text).toBe('1')
    expect(visitor.cookies.get('sid')).toBe(id)
    expect(visitor.cookies.get('sid.sig')).not.toBe(signature)
    app.keys = ['new']
    expect((await visitor.get('/look')).text).toBe('1')
  })

  test("Koa's own app.keys are taken", async () => {
    const { app, client } = await serving()
    app.keys = ['of the application']
    const visitor = client()
    await visitor.get()
    expect([...visitor.cookies.keys()].sort()).toEqual(['sid', 'sid.sig'])
  })
})

describe('a hostile cookie gets a new session, no error, and is not even looked up', () => {
  const id = newSessionId()
  test.each([
    ['truncated', id.slice(0, 42)],
    ['longer', `${id}A`],
    ['8 kB long', 'A'.repeat(8000)],
    ['empty', ''],
    ['of another alphabet', `${id.slice(0, 42)}%`],
    ['a path', '../../../../etc/passwd'],
    ['a name of every object', '__proto__'],
  ])('%s', async (_, value) => {
    const { client, errors, opened } = await serving()
    const visitor = client()
    const { status, text } = await visitor.get('/', { headers: { cookie: `sid=${value}` } })
    expect([status, text]).toEqual([200, '1'])
    expect(isSessionId(visitor.cookies.get('sid') ?? '')).toBe(true)
    expect(opened).toEqual([])
    expect(errors).toEqual([])
  })
})

describe('session fixation', () => {
  test('an id that an attacker made up never becomes the id of a session', async () => {
    const { client, created } = await serving()
    const fixed = newSessionId()
    const victim = client()
    await victim.get('/', { headers: { cookie: `sid=${fixed}` } })
    expect(victim.cookies.get('sid')).not.toBe(fixed)
    expect(created).not.toContain(sha256(fixed))
  })

  test('regenerate() at login: a new id, and whoever knows the old one has nothing', async () => {
    const { client } = await serving()
    const victim = client()
    await victim.get()
    const known = victim.cookies.get('sid') ?? ''
    expect((await victim.get('/login')).text).toBe('2')
    expect(victim.cookies.get('sid')).not.toBe(known)
    expect((await client().get('/look', { headers: { cookie: `sid=${known}` } })).text).toBe('0')
    expect((await victim.get('/look')).text).toBe('2')
  })
})
