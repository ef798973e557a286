/**
 * What middleware above session-tx sees of `ctx.session` when the request is over (access logs, pages that show an error),
 * with each kind of store: it reads what the request saw, is never answered with an error, and changes nothing.
 */
import expressSession from 'express-session'
import { legacyStore, memoryStore, mysqlStore, type SessionTxOptions } from '../../lib/index.js'
import { sessionTables } from '../../lib/store/mysql-tables.js'
import { type Handler, type HandlerApp, handlerApp } from '../support/handler-app.js'
import { koas, serveTx, type TxContext } from '../support/app.js'
import { openDatabase, type TestDatabase } from '../support/database.js'

let db: TestDatabase
const open: { close(): Promise<void> }[] = []

beforeAll(async () => {
  db = await openDatabase()
  for (const { ddl } of sessionTables('sessions')) await db.pool.query(ddl)
})
afterAll(() => db.close())
afterEach(async () => {
  for (const one of open.splice(0)) await one.close()
})

const STORES: readonly (readonly [string, () => SessionTxOptions['store']])[] = [
  ['memoryStore', () => memoryStore()],
  ['mysqlStore', () => mysqlStore()],
  ['mysqlStore without a cache', () => mysqlStore({ cache: false })],
  ['legacyStore', () => legacyStore(new expressSession.MemoryStore())],
]

/** What is read above once the request is over, or what was thrown there. */
type Above = (ctx: TxContext) => unknown

async function start(
  store: SessionTxOptions['store'],
  above: Above,
): Promise<HandlerApp & { seen: unknown[] }> {
  const seen: unknown[] = []
  const read = (ctx: TxContext): void => {
    try {
      seen.push(above(ctx))
    } catch (error) {
      seen.push(error)
    }
  }
  const app = await handlerApp({ pool: db.pool, store }, undefined, [
    async (ctx, next) => {
      try {
        await next()
      } catch (error) {
        ctx.status = (error as { status?: number }).status ?? 500
        ctx.body = 'an error page'
      }
      read(ctx)
    },
  ])
  open.push(app)
  return { ...app, seen }
}

const cart: Above = ctx => ({ ...ctx.session })

describe.each(STORES)('%s', (_, store) => {
  const requests: readonly (readonly [string, Handler, unknown])[] = [
    ['used it', ctx => void (ctx.session['n'] = 2), { n: 2, list: [1] }],
    ['did not use it', () => {}, { n: 1, list: [1] }],
    ['did not use it and failed', ctx => ctx.throw(418), { n: 1, list: [1] }],
  ]
  test.each(requests)(
    'a request that %s: its session can be read above',
    async (_what, handler, expected) => {
      const app = await start(store(), cart)
      const client = await app.shopper({ n: 1, list: [1] })
      app.on('/it', handler)
      app.seen.length = 0
      await client.post('/it')
      expect(app.seen).toEqual([expected])
    },
  )

  test('a request without a session: an empty one', async () => {
    const app = await start(store(), cart)
    app.on('/it', () => {})
    await app.client().post('/it')
    expect(app.seen).toEqual([{}])
  })

  const ends: readonly (readonly [string, Handler])[] = [
    ['destroy()', ctx => ctx.session.destroy()],
    ['`ctx.session = null`', ctx => void Object.assign(ctx, { session: null })],
    ['destroy() and an error', ctx => ctx.session.destroy().then(() => ctx.throw(418))],
  ]
  test.each(ends)('after %s: null, as in koa-session', async (_what, handler) => {
    const app = await start(store(), ctx => ctx.session as unknown)
    const client = await app.shopper({ n: 1 })
    app.on('/it', handler)
    app.seen.length = 0
    await client.post('/it')
    expect(app.seen).toEqual([null])
  })

  test.each<[string, Above]>([
    ['a variable', ctx => void (ctx.session['n'] = 3)],
    ['in place', ctx => void (ctx.session['list'] as number[]).push(2)],
    ['by ending it', ctx => void Object.assign(ctx, { session: null })],
  ])('changing it above, %s, is refused, and nothing is stored', async (_what, change) => {
    const app = await start(store(), change)
    const client = await app.shopper({ n: 1, list: [1] })
    app.on('/it', () => {})
    app.seen.length = 0
    await client.post('/it')
    expect(app.seen).toMatchObject([{ code: 'TRANSACTION_CLOSED' }])
    expect(await app.stored(client)).toEqual({ n: 1, list: [1] })
  })
})

describe.each(koas)('%s', (_, Koa) => {
  test('the store fails: the page that shows the error finds no session, and no second error', async () => {
    const store = new expressSession.MemoryStore()
    const seen: unknown[] = []
    const served = await serveTx({
      Koa,
      options: { store: legacyStore(store) },
      above: [
        async (ctx, next) => {
          try {
            await next()
          } catch (error) {
            seen.push((error as { code?: unknown }).code, ctx.session)
            ctx.status = 503
          }
        },
      ],
      below: ctx => {
        ctx.session['n'] = 1
        ctx.body = 'ok'
      },
    })
    open.push(served)
    const client = served.client()
    expect((await client.get()).status).toBe(200)
    const fails = (_id: string, done: (error: Error) => void): void => done(new Error('down'))
    Object.assign(store, { get: fails })
    expect((await client.get()).status).toBe(503)
    expect(seen).toEqual(['STORE_UNAVAILABLE', null])
  })
})
