/** The session's cookie: what it says, what is believed of one that comes back, and what hostile ones achieve. */
import Keygrip from 'keygrip'
import { memoryStore, type SessionTxOptions, type KoaContext } from '../../lib/index.js'
import { sessionKey } from '../../lib/session/identity.js'
import { koas, serveTx, type TxMiddleware, type TxServed } from '../support/app.js'
import type { Answer, Client } from '../support/client.js'

let served: TxServed
let looked: string[]
afterEach(() => served.close())

/** `POST` stores something, `DELETE` ends the session, `GET` tells what there is. */
const handler: TxMiddleware = ctx => {
  if (ctx.method === 'POST') ctx.session['user'] = 'ann'
  if (ctx.method === 'DELETE') void ctx.session.destroy()
  else ctx.body = { isNew: ctx.session.isNew, user: ctx.session['user'] ?? null }
}

async function serving(options: SessionTxOptions<KoaContext> = {}, Koa = koas[0]?.[1]): Promise<TxServed> {
  const store = memoryStore()
  const open = store.open.bind(store)
  looked = []
  jest.spyOn(store, 'open').mockImplementation(key => {
    looked.push(key)
    return open(key)
  })
  served = await serveTx({
    ...(Koa === undefined ? {} : { Koa }),
    options: { store, ...options },
    below: handler,
  })
  return served
}

const https = { 'x-forwarded-proto': 'https' }
const STRANGER = { isNew: true, user: null }
const ANN = { isNew: false, user: 'ann' }

/** What Set-Cookie says, by name: the attributes in lower case, the value left out. */
function attributes({ headers }: Answer): Record<string, string[]> {
  const lines = headers['set-cookie'] ?? []
  return Object.fromEntries(
    lines.map(line => {
      const [pair = '', ...rest] = line.split('; ')
      return [
        pair.slice(0, pair.indexOf('=')),
        rest.map(part => part.toLowerCase().replace(/^expires=.*/, 'expires')).sort(),
      ]
    }),
  )
}

async function loggedIn(of: TxServed, name = 'sid'): Promise<Client & { readonly sid: string }> {
  const client = of.client()
  await client.post()
  return Object.assign(client, { sid: client.cookies.get(name) ?? '' })
}

describe.each(koas)('%s: the cookie', (_name, Koa) => {
  test('carries 256 random bits, HttpOnly, SameSite=Lax, for the whole site, until the browser is closed', async () => {
    const { client } = await serving({}, Koa)
    const visitor = client()
    const answer = await visitor.post()
    expect(attributes(answer)).toEqual({ sid: ['httponly', 'path=/', 'samesite=lax'] })
    const sid = visitor.cookies.get('sid') ?? ''
    expect(Buffer.from(sid, 'base64url')).toHaveLength(32)
    expect((await visitor.get()).json()).toEqual(ANN)
    expect((await visitor.get()).headers['set-cookie']).toBeUndefined()
    expect(looked).toContain(sessionKey(sid))
    expect(looked).not.toContain(sid)
  })

  test('is Secure by itself on https, also behind a proxy that the application trusts', async () => {
    const { client, app } = await serving({}, Koa)
    expect(attributes(await client().send('POST', '/', { headers: https }))['sid']).not.toContain('secure')
    app.proxy = true
    expect(attributes(await client().send('POST', '/', { headers: https }))['sid']).toContain('secure')
    expect(attributes(await client().post())['sid']).not.toContain('secure')
  })

  test('is signed with app.keys where there are any', async () => {
    const { client, app } = await serving({}, Koa)
    app.keys = ['the key']
    const visitor = client()
    const answer = await visitor.post()
    expect(attributes(answer)).toEqual({
      sid: ['httponly', 'path=/', 'samesite=lax'],
      'sid.sig': ['httponly', 'path=/', 'samesite=lax'],
    })
    const sid = visitor.cookies.get('sid') ?? ''
    expect(visitor.cookies.get('sid.sig')).toBe(new Keygrip(['the key'], 'sha256').sign(`sid=${sid}`))
    expect((await visitor.get()).json()).toEqual(ANN)
  })
})

describe('what it says', () => {
  test('secure: true and secure: false are taken at their word, on any connection', async () => {
    const { client } = await serving({ session: { cookie: { secure: true } } })
    expect(attributes(await client().post())['sid']).toContain('secure')
    await served.close()
    const { client: other, app } = await serving({ session: { cookie: { secure: false } } })
    app.proxy = true
    expect(attributes(await other().send('POST', '/', { headers: https }))['sid']).not.toContain('secure')
  })

  test("prefix: 'host' gives __Host-, which is Secure on any connection: browsers drop it otherwise", async () => {
    const { client } = await serving({ keys: ['k'], session: { cookie: { prefix: 'host' } } })
    const answer = await client().post()
    const expected = ['httponly', 'path=/', 'samesite=lax', 'secure']
    expect(attributes(answer)).toEqual({ '__Host-sid': expected, '__Host-sid.sig': expected })
  })

  test.each([{ sameSite: 'none' }, { partitioned: true }] as const)(
    '%j is Secure for the same reason',
    async cookie => {
      const { client } = await serving({ session: { cookie } })
      expect(attributes(await client().post())['sid']).toContain('secure')
    },
  )

  test('every attribute as it was configured', async () => {
    const cookie = {
      path: '/shop',
      domain: 'example.com',
      sameSite: 'strict',
      httpOnly: false,
      maxAge: 60_000,
      priority: 'high',
    } as const
    const { client } = await serving({ session: { name: 'basket', cookie } })
    expect(attributes(await client().post())).toEqual({
      basket: ['domain=example.com', 'expires', 'path=/shop', 'priority=high', 'samesite=strict'],
    })
  })

  test('other cookies of the answer stay', async () => {
    served = await serveTx({
      below: ctx => {
        ctx.cookies.set('theme', 'dark')
        ctx.session['user'] = 'ann'
      },
    })
    const visitor = served.client()
    await visitor.get()
    expect([...visitor.cookies.keys()].sort()).toEqual(['sid', 'theme'])
  })

  test('it is taken away, with its signature, when the session ends', async () => {
    const visitor = await loggedIn(await serving({ keys: ['k'] }))
    expect([...visitor.cookies.keys()].sort()).toEqual(['sid', 'sid.sig'])
    const answer = await visitor.send('DELETE', '/')
    expect(attributes(answer)['sid']).toEqual(['expires', 'httponly', 'path=/', 'samesite=lax'])
    expect(visitor.cookies.size).toBe(0)
    expect((await visitor.get()).json()).toEqual(STRANGER)
  })
})

describe('a hostile cookie is a new session, no error, and nothing but a well-formed id is looked up:', () => {
  const last = (sid: string): string => sid.slice(0, -1) + (sid.endsWith('A') ? 'E' : 'A')

  test.each<[string, (sid: string) => string, lookedUp: boolean]>([
    ['tampered with, still well-formed', last, true],
    ['of nobody', () => 'x'.repeat(43), true],
    ['truncated', sid => sid.slice(0, 42), false],
    ['one character too long', sid => `${sid}A`, false],
    ['8 kB long', sid => sid + 'A'.repeat(8_000), false],
    ['empty', () => '', false],
    ['with characters of no id', sid => `${sid.slice(0, 42)}/`, false],
    ['a path', () => '../../etc/passwd', false],
    ['__proto__', () => '__proto__', false],
    ['as JSON', sid => JSON.stringify({ sid }), false],
    ['percent-encoded', sid => `%${sid.slice(1)}`, false],
    ['its own hash', sid => sessionKey(sid), true],
  ])('%s', async (_what, tamper, lookedUp) => {
    const of = await serving()
    const { sid } = await loggedIn(of)
    const sent = tamper(sid)
    looked = []
    const answer = await of.client().get('/', { headers: { cookie: `sid=${sent}` } })
    expect(answer.status).toBe(200)
    expect(answer.json()).toEqual(STRANGER)
    expect(looked).toEqual(lookedUp ? [sessionKey(sent)] : [])
    expect(of.errors).toEqual([])
    // What the stranger stores gets an id of our making, not the one that was sent.
    const stored = await of.client().send('POST', '/', { headers: { cookie: `sid=${sent}` } })
    expect(String(stored.headers['set-cookie'])).not.toContain(`sid=${sent};`)
    expect(String(stored.headers['set-cookie'])).toMatch(/^sid=[\w-]{43};/)
    expect((await of.client().get('/', { headers: { cookie: `sid=${sid}` } })).json()).toEqual(ANN)
  })

  test.each<[string, (sid: string, signature: string) => string]>([
    ['without its signature', sid => `sid=${sid}`],
    ['with an empty signature', sid => `sid=${sid}; sid.sig=`],
    ['with a signature that was tampered with', (sid, signature) => `sid=${sid}; sid.sig=${last(signature)}`],
    ['with a signature cut short', (sid, signature) => `sid=${sid}; sid.sig=${signature.slice(0, 10)}`],
    [
      'with the signature of another key',
      sid => `sid=${sid}; sid.sig=${new Keygrip(['other'], 'sha256').sign(`sid=${sid}`)}`,
    ],
    [
      'with the signature of another name',
      sid => `sid=${sid}; sid.sig=${new Keygrip(['k'], 'sha256').sign(`id=${sid}`)}`,
    ],
    ['with a SHA-1 signature', sid => `sid=${sid}; sid.sig=${new Keygrip(['k']).sign(`sid=${sid}`)}`],
  ])('signed, but %s', async (_what, cookie) => {
    const of = await serving({ keys: ['k'] })
    const visitor = await loggedIn(of)
    looked = []
    const headers = { cookie: cookie(visitor.sid, visitor.cookies.get('sid.sig') ?? '') }
    const answer = await of.client().get('/', { headers })
    expect(answer).toMatchObject({ status: 200, text: JSON.stringify(STRANGER) })
    expect(looked).toEqual([])
    expect((await visitor.get()).json()).toEqual(ANN)
  })
})

describe('keys rotate', () => {
  /** Another process of the same application, with other keys; what it stores is the same store. */
  async function rotated(
    path: string,
  ): Promise<{ answer: Answer; visitor: Client; signed: (key: string) => string }> {
    const keys = ['old']
    const of = await serving({ keys, session: { cookie: { path } } })
    const visitor = await loggedIn(of)
    keys.unshift('new')
    const answer = await visitor.get()
    const signed = (key: string): string => new Keygrip([key], 'sha256').sign(`sid=${visitor.sid}`)
    return { answer, visitor, signed }
  }

  test.each(['/', '/shop'])(
    'one signed with an old key is still good and is signed anew, with its own attributes (path %s)',
    async path => {
      const { answer, visitor, signed } = await rotated(path)
      expect(answer.json()).toEqual(ANN)
      expect(visitor.cookies.get('sid.sig')).toBe(signed('new'))
      expect(attributes(answer)['sid.sig']).toEqual(['httponly', `path=${path}`, 'samesite=lax'])
      expect((await visitor.get()).headers['set-cookie']).toBeUndefined()
    },
  )

  test('the signature of one session is no good for another, though it was right a moment ago', async () => {
    const of = await serving({ keys: ['k'] })
    const [visitor, other] = [await loggedIn(of), await loggedIn(of)]
    expect((await other.get()).json()).toEqual(ANN)
    visitor.cookies.set('sid.sig', other.cookies.get('sid.sig') ?? '')
    expect((await visitor.get()).json()).toEqual(STRANGER)
  })

  test('one signed with a key that was taken out is worth nothing, however often it was right before', async () => {
    const keys = ['new', 'old']
    const of = await serving({ keys })
    const visitor = await loggedIn(of)
    expect((await visitor.get()).json()).toEqual(ANN)
    keys.shift()
    expect((await visitor.get()).json()).toEqual(STRANGER)
  })

  test('it is signed anew also when the first attempt lost a race', async () => {
    const keys = ['old']
    served = await serveTx({
      options: { keys },
      below: ctx => {
        if (ctx.method === 'POST') ctx.session['user'] = 'ann'
        ctx.body = ctx.session['user']
        if (ctx.tx.attempt === 1 && ctx.method === 'GET') ctx.tx.conflict()
      },
    })
    const visitor = served.client()
    await visitor.post()
    const old = visitor.cookies.get('sid.sig')
    keys.unshift('new')
    expect((await visitor.get()).text).toBe('ann')
    expect(visitor.cookies.get('sid.sig')).not.toBe(old)
  })

  test('a keygrip of your own is used as it is, one without index() too', async () => {
    const sha1 = new Keygrip(['k'])
    for (const keys of [
      sha1,
      {
        sign: (data: string) => sha1.sign(data),
        verify: (data: string, sig: string) => sha1.verify(data, sig),
      },
    ]) {
      const visitor = await loggedIn(await serving({ keys }))
      expect(visitor.cookies.get('sid.sig')).toBe(sha1.sign(`sid=${visitor.sid}`))
      expect((await visitor.get()).json()).toEqual(ANN)
      await served.close()
    }
  })

  test('`keys` stands before app.keys', async () => {
    const of = await serving({ keys: ['mine'] })
    of.app.keys = ["the application's"]
    const visitor = await loggedIn(of)
    expect(visitor.cookies.get('sid.sig')).toBe(new Keygrip(['mine'], 'sha256').sign(`sid=${visitor.sid}`))
  })
})
