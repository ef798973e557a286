/** Logging a user out everywhere: `session.userVariable` and `destroySessionsOf(user)`, in memory and in MySQL. */
import { memoryStore, mysqlStore, type SessionStore, sessionTx } from '../../lib/index.js'
import { sessionTables } from '../../lib/store/mysql-tables.js'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { deferred } from '../support/barrier.js'
import type { Client } from '../support/client.js'
import { openDatabase, type TestDatabase } from '../support/database.js'

let db: TestDatabase
beforeAll(async () => {
  db = await openDatabase()
  for (const { ddl } of sessionTables('sessions')) await db.pool.query(ddl)
})
afterAll(() => db.close())

const STORES: readonly (readonly [string, () => SessionStore])[] = [
  ['memoryStore', () => memoryStore()],
  ['mysqlStore', () => mysqlStore()],
]

describe.each(STORES)('%s', (_, makeStore) => {
  let served: TxServed
  const handlers = new Map<string, (ctx: TxContext) => unknown>()
  beforeEach(async () => {
    handlers.clear()
    served = await serveTx({
      options: { pool: db.pool, store: makeStore(), session: { userVariable: 'user' } },
      below: async ctx => {
        ctx.body = { seen: (await handlers.get(ctx.path.slice(1))?.(ctx)) ?? null, attempt: ctx.tx.attempt }
      },
    })
    handlers.set('whoami', ctx => ctx.session['user'])
  })
  afterEach(() => served.close())

  async function loggedIn(user: unknown): Promise<Client> {
    handlers.set('login', async ctx => {
      await ctx.session.regenerate()
      ctx.session['user'] = user
    })
    const client = served.client()
    expect((await client.get('/login')).status).toBe(200)
    return client
  }
  const whoami = async (client: Client): Promise<unknown> =>
    (await client.get('/whoami')).json<{ seen: unknown }>().seen

  test('ends all sessions of that user, and no other', async () => {
    const [phone, laptop, other] = [await loggedIn('ann'), await loggedIn('ann'), await loggedIn('bob')]
    const destroyed: string[] = []
    served.tx.on('session:destroyed', ({ session }) => destroyed.push(session))
    expect(await served.tx.destroySessionsOf('ann')).toBe(2)
    expect(await Promise.all([phone, laptop, other].map(whoami))).toEqual([null, null, 'bob'])
    expect(destroyed).toHaveLength(2)
    expect(await served.tx.destroySessionsOf('ann')).toBe(0)
    expect(await served.tx.destroySessionsOf('carol')).toBe(0)
  })

  test('inside a request its own session ends with it: all or, if it fails, all but this one', async () => {
    const [here, there] = [await loggedIn(7), await loggedIn(7)]
    handlers.set('everywhere', async ctx => {
      await served.tx.destroySessionsOf(7)
      ctx.throw(418)
    })
    expect((await here.get('/everywhere')).status).toBe(418)
    expect(await Promise.all([here, there].map(whoami))).toEqual([7, null])
    handlers.set('everywhere', () => served.tx.destroySessionsOf(7))
    const answer = await here.get('/everywhere')
    expect(answer.json()).toMatchObject({ seen: 1 })
    expect(here.cookies.has('sid')).toBe(false)
    expect(await whoami(here)).toBe(null)
  })

  test('a slow request of such a session does not bring it back', async () => {
    const client = await loggedIn('ann')
    const [reached, go] = [deferred(), deferred()]
    const seen: unknown[] = []
    handlers.set('slow', async ctx => {
      seen.push(ctx.session['user'])
      if (ctx.tx.attempt > 1) return
      ctx.session['note'] = 'tea'
      reached.resolve()
      await go.promise
    })
    const slow = client.get('/slow')
    await reached.promise
    expect(await served.tx.destroySessionsOf('ann')).toBe(1)
    go.resolve()
    expect((await slow).json()).toMatchObject({ attempt: 2 })
    expect(seen).toEqual(['ann', undefined])
    expect(await whoami(client)).toBe(null)
  })

  test('who cannot be a user is refused', async () => {
    await expect(served.tx.destroySessionsOf(undefined)).rejects.toMatchObject({ code: 'SESSION_VALUE' })
    await expect(served.tx.destroySessionsOf(() => {})).rejects.toMatchObject({ code: 'SESSION_VALUE' })
  })
})

test('without session.userVariable there is nobody to look for: MISCONFIGURED', async () => {
  const tx = sessionTx()
  await expect(tx.destroySessionsOf('ann')).rejects.toMatchObject({
    code: 'MISCONFIGURED',
    message: 'destroySessionsOf needs the option `session.userVariable`',
  })
  await tx.close()
})

test('the tables hold no name of a user', async () => {
  const served = await serveTx({
    options: { pool: db.pool, store: mysqlStore(), session: { userVariable: 'user' } },
    below: ctx => {
      ctx.session['user'] = 'ann'
    },
  })
  await served.client().get('/')
  const [rows] = await db.pool.query('SELECT user FROM sessions_times WHERE user IS NOT NULL')
  expect(rows).toContainEqual({ user: expect.stringMatching(/^[\w-]{43}$/) })
  await served.close()
})
