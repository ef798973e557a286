/**
 * What a session's id is, who knows it, and that nobody can choose it: from the browser to the store, which is watched.
 */
import { createHash } from 'node:crypto'
import { memoryStore, type SessionStore } from '../../lib/index.js'
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

async function serving(): Promise<TxServed & Watched> {
  const watch = watched()
  const one = await serveTx({ options: { store: watch.store }, below: shop })
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
