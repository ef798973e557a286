/**
 * Whatever cookies, bodies, names and values come: nothing is thrown outside of the application's error handling, nobody
 * waits for ever, and nobody reaches another session. Both frameworks, both stores. `FUZZ_RUNS` makes it longer.
 */
import { connect } from 'node:net'
import { inspect } from 'node:util'
import { bodyParser } from '@koa/bodyparser'
import express from 'express'
import fc from 'fast-check'
import { isSessionTxError } from '../../lib/errors.js'
import { memoryStore, mysqlStore, type Session } from '../../lib/index.js'
import { sessionTables } from '../../lib/store/mysql-tables.js'
import { serveTx } from '../support/app.js'
import { Client } from '../support/client.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { serveExpress } from '../support/express-app.js'

const RUNS = Number(process.env['FUZZ_RUNS'] ?? 150)
jest.setTimeout(30_000 + RUNS * 200)

const SECRET = 'nobody else must see this'

let db: TestDatabase
beforeAll(async () => {
  db = await openDatabase()
  for (const { ddl } of sessionTables('sessions')) await db.pool.query(ddl)
})
afterAll(() => db.close())

/** What the handler does with the session of the request; set by the test before it sends one. */
type Work = (session: Session) => string | void

interface Fuzzed {
  readonly port: number
  readonly url: string
  readonly errors: readonly unknown[]
  work: Work
  close(): Promise<void>
}

const STORES = { memory: memoryStore, mysql: mysqlStore } as const
type StoreName = keyof typeof STORES

async function koaApp(store: StoreName): Promise<Fuzzed> {
  const served = await serveTx({
    options: { pool: db.pool, store: STORES[store]() },
    above: [bodyParser({ onError: (_error, ctx) => ctx.throw(400, 'bad body') })],
    below: ctx => {
      ctx.body = fuzzed.work(ctx.session) ?? 'nothing'
    },
  })
  const fuzzed: Fuzzed = { ...facts(served), errors: served.errors, work: () => {}, close: served.close }
  return fuzzed
}

async function expressApp(store: StoreName): Promise<Fuzzed> {
  const served = await serveExpress({
    express,
    options: { pool: db.pool, store: STORES[store]() },
    above: [express.json()],
    below: (req, res) => {
      res.send(fuzzed.work(req.session) ?? 'nothing')
    },
  })
  const fuzzed: Fuzzed = { ...facts(served), errors: served.errors, work: () => {}, close: served.close }
  return fuzzed
}

const facts = ({ url }: { readonly url: string }): Pick<Fuzzed, 'port' | 'url'> => ({
  url,
  port: Number(new URL(url).port),
})

const APPS: readonly (readonly [string, () => Promise<Fuzzed>])[] = [
  ['Koa, memory', () => koaApp('memory')],
  ['Koa, MySQL', () => koaApp('mysql')],
  ['Express, memory', () => expressApp('memory')],
  ['Express, MySQL', () => expressApp('mysql')],
]

const outside: unknown[] = []
const listen = (error: unknown): void => void outside.push(error)
beforeAll(() => {
  process.on('unhandledRejection', listen)
  process.on('uncaughtException', listen)
})
afterAll(() => {
  process.off('unhandledRejection', listen)
  process.off('uncaughtException', listen)
})

/** Bytes as they are, since no HTTP client sends what we want to send. Resolves to what came back, when it ended. */
function raw(port: number, bytes: Buffer): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    const chunks: Buffer[] = []
    socket.on('data', (chunk: Buffer) => chunks.push(chunk))
    socket.on('close', () => resolve(Buffer.concat(chunks).toString('latin1')))
    socket.on('error', error =>
      (error as NodeJS.ErrnoException).code === 'ECONNRESET' ? undefined : reject(error),
    )
    socket.write(bytes)
  })
}

/** One request with this cookie header and body. */
function requestOf(cookie: string, body: Uint8Array): Buffer {
  const head =
    'POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\n' +
    `Cookie: ${cookie}\r\nContent-Length: ${body.length}\r\n\r\n`
  return Buffer.concat([Buffer.from(head, 'latin1'), body])
}

const headerText = fc
  .array(
    fc.integer({ min: 0x20, max: 0xff }).filter(code => code !== 0x7f),
    { maxLength: 80 },
  )
  .map(codes => String.fromCharCode(...codes))
const idLike = fc
  .array(fc.constantFrom('A', 'Z', 'a', 'z', '0', '9', '-', '_'), { minLength: 42, maxLength: 44 })
  .map(letters => letters.join(''))
const cookieHeader = fc.oneof(
  headerText,
  fc
    .tuple(fc.constantFrom('sid', 'SID', 'sid.sig', '__proto__', 'sid '), fc.oneof(headerText, idLike))
    .map(pair => pair.join('=')),
  fc.array(idLike, { maxLength: 5 }).map(ids => ids.map(id => `sid=${id}`).join('; ')),
)
const bodyBytes = fc.oneof(
  fc.uint8Array({ maxLength: 200 }),
  fc.json().map(text => Buffer.from(text)),
  fc.constantFrom('{"__proto__":{"polluted":1}}', '[', '{"a":', '\0').map(text => Buffer.from(text)),
)

/** Names of everything that an object or a session has, and others. */
const variableName = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 30 }),
  fc.constantFrom(
    '__proto__',
    'constructor',
    'prototype',
    'toString',
    'valueOf',
    'then',
    'toJSON',
    'hasOwnProperty',
  ),
  fc.constantFrom('id', 'isNew', 'cookie', 'maxAge', 'save', 'reload', 'destroy', 'regenerate', 'touch', ''),
  fc.constantFrom('a'.repeat(300), '%', "'", '"', '`', '\\', ';--', '\0'),
)
const anything = fc.oneof(
  fc.anything({
    withBigInt: true,
    withDate: true,
    withMap: true,
    withSet: true,
    withTypedArray: true,
    withSparseArray: true,
    withNullPrototype: true,
    withObjectString: true,
    withBoxedValues: true,
  }),
  fc.constantFrom<unknown>(
    () => {},
    Symbol('s'),
    new Proxy({}, { ownKeys: () => [] }),
    {
      get trap() {
        throw new Error('a getter of the application')
      },
    },
    new (class Mine {
      a = 1
    })(),
    new Error('e'),
    /r/,
    new WeakMap(),
    Promise.resolve(1),
  ),
)

describe.each(APPS)('%s', (_, open) => {
  let app: Fuzzed
  let victim: Client
  let known: Set<string>
  beforeAll(async () => {
    app = await open()
    victim = new Client(app.url)
    app.work = session => {
      session['secret'] = SECRET
    }
    expect((await victim.post('/', {})).status).toBe(200)
    known = new Set(victim.cookies.values())
  })
  afterAll(() => app.close())

  /** The victim's session is what it was, nothing was thrown elsewhere, and no prototype has grown. */
  async function intact(): Promise<void> {
    app.work = session => String(session['secret'])
    expect((await victim.post('/', {})).text).toBe(SECRET)
    expect(outside).toEqual([])
    expect(Object.keys(Object.prototype)).toEqual([])
    expect(({} as Record<string, unknown>)['polluted']).toBe(undefined)
  }

  /** Ours, by its code, or the body parser's; without a word of any session in it. */
  function expectKnown(errors: readonly unknown[]): void {
    for (const error of errors) {
      const { status } = error as { readonly status?: number }
      if (!isSessionTxError(error) && status !== 400 && status !== 413) throw error
      const shown = inspect(error, { depth: 6 })
      for (const secret of [SECRET, ...known]) expect(shown).not.toContain(secret)
    }
  }

  test('any cookie and any body: an answer, and no session of somebody else', async () => {
    await fc.assert(
      fc.asyncProperty(cookieHeader, bodyBytes, async (cookie, body) => {
        const before = app.errors.length
        app.work = session => `${session.isNew} ${String(session['secret'])}`
        const answer = await raw(app.port, requestOf(cookie, body))
        expect(answer).toMatch(/^HTTP\/1\.1 (?:200|400|413) /)
        expect(answer).not.toContain(SECRET)
        if (answer.startsWith('HTTP/1.1 200')) expect(answer).toMatch(/true undefined$/)
        expectKnown(app.errors.slice(before))
      }),
      { numRuns: RUNS },
    )
    await intact()
  })

  test('any name and any value: stored or refused, and what was there before stays', async () => {
    await fc.assert(
      fc.asyncProperty(variableName, anything, async (name, value) => {
        const before = app.errors.length
        const client = new Client(app.url)
        app.work = session => {
          session['kept'] = 'kept'
        }
        await client.post('/', {})
        let thrown = false
        app.work = session => {
          try {
            session[name] = value
          } catch (error) {
            thrown = true
            throw error
          }
        }
        const { status } = await client.post('/', {})
        expect([200, 500]).toContain(status)
        app.work = session => String(session['kept'])
        const after = (await client.post('/', {})).text
        if (name !== 'kept') expect(after).toBe('kept')
        if (!thrown) expectKnown(app.errors.slice(before))
      }),
      { numRuns: RUNS },
    )
    await intact()
  })
})
