/** What was assigned to `session.cookie` lasts in every store, and in a shared one is seen by other processes. */
import {
  type KoaContext,
  memoryStore,
  mysqlStore,
  type SessionStore,
  type SessionTxOptions,
} from '../../lib/index.js'
import { sessionTables } from '../../lib/store/mysql-tables.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { type HandlerApp, handlerApp, resultOf, tab } from '../support/handler-app.js'

const DAY_MS = 86_400_000
let db: TestDatabase
const open: HandlerApp[] = []

beforeAll(async () => {
  db = await openDatabase()
  for (const { ddl } of sessionTables('sessions')) await db.pool.query(ddl)
})
afterEach(async () => {
  for (const app of open.splice(0)) await app.close()
})
afterAll(() => db.close())

async function start(options: SessionTxOptions<KoaContext>): Promise<HandlerApp> {
  const app = await handlerApp({ pool: db.pool, ...options })
  open.push(app)
  app.on('/set', ctx => {
    ctx.session.maxAge = DAY_MS
    ctx.session.cookie.path = '/shop'
  })
  app.on('/look', ctx => [ctx.session.maxAge, ctx.session.cookie.path, Object.keys(ctx.session)])
  return app
}

test.each<readonly [string, () => SessionStore, processes: number]>([
  ['memoryStore', () => memoryStore(), 1],
  ['mysqlStore', () => mysqlStore(), 2],
])('%s', async (_, store, processes) => {
  const apps: HandlerApp[] = []
  for (let n = 0; n < processes; n++) apps.push(await start({ store: store() }))
  const [writer, reader = writer] = apps
  if (writer === undefined || reader === undefined) throw new Error('no process')
  const client = await writer.shopper({ n: 1 })
  expect((await client.post('/set')).status).toBe(200)
  expect(resultOf(await tab(reader, client).get('/look'))).toEqual([DAY_MS, '/shop', ['n']])
})
