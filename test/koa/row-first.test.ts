/**
 * Requests of one session that change a row first and the session after it: they wait for each other at the row, with
 * nothing read of the session yet, so there is nothing that they must lose.
 */
import type { RowDataPacket } from 'mysql2/promise'
import { memoryStore, mysqlStore, type SessionStore } from '../../lib/index.js'
import { sessionTables } from '../../lib/store/mysql-tables.js'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { valueOf } from '../support/observing.js'

const PARALLEL = 50

let db: TestDatabase
let served: TxServed | undefined

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: 8 })
  for (const { ddl } of sessionTables('sessions')) await db.pool.query(ddl)
  for (const table of ['item', 'watched', 'other'])
    await db.pool.query(`CREATE TABLE ${table} (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB`)
  await db.pool.query(`CREATE TRIGGER looks BEFORE UPDATE ON watched FOR EACH ROW
    BEGIN DECLARE seen INT; SELECT n INTO seen FROM other WHERE id = 1; SET NEW.n = NEW.n + seen; END`)
})
afterAll(() => db.close())
beforeEach(async () => {
  for (const table of ['item', 'watched', 'other']) await db.pool.query(`REPLACE INTO ${table} VALUES (1, 0)`)
})
afterEach(() => served?.close())

async function crowd(store: SessionStore, handler: (ctx: TxContext) => Promise<void>): Promise<object> {
  served = await serveTx({ options: { pool: db.pool, store }, below: handler })
  const client = served.client()
  expect((await client.get('/')).status).toBe(200)
  const statuses = new Set<number>()
  await Promise.all(
    Array.from({ length: PARALLEL }, async () => statuses.add((await client.get('/')).status)),
  )
  const { attempts } = served.tx.stats()
  const runs = Object.entries(attempts).reduce((sum, [count, requests]) => sum + Number(count) * requests, 0)
  return { statuses: [...statuses], runs }
}

const STORES: readonly (readonly [string, () => SessionStore])[] = [
  ['memory', () => memoryStore()],
  ['MySQL', () => mysqlStore()],
]

describe.each(STORES)('sessions in %s, %s', (_, makeStore) => {
  test.each([
    ['UPDATE', 'UPDATE item SET n = n + 1 WHERE id = 1'],
    ['INSERT', 'INSERT INTO item (id, n) VALUES (1, 1) ON DUPLICATE KEY UPDATE n = n + VALUES(n)'],
  ])('%s first: each of 50 in parallel commits at its first attempt', async (_, sql) => {
    const seen = await crowd(makeStore(), async ctx => {
      await ctx.tx.query(sql)
      ctx.session['n'] = Number(ctx.session['n'] ?? 0) + 1
      ctx.body = ctx.session['n']
    })
    expect(seen).toEqual({ statuses: [200], runs: PARALLEL + 1 })
    expect(await valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = 1`)).toBe(PARALLEL + 1)
  })

  test('SELECT … FOR UPDATE first: row and variable are equal in each, at its first attempt', async () => {
    const seen = await crowd(makeStore(), async ctx => {
      const [[row]] = await ctx.tx.query<RowDataPacket[]>('SELECT n FROM item WHERE id = 1 FOR UPDATE')
      const n = Number(ctx.session['n'] ?? 0)
      if (row?.['n'] !== n) throw new Error(`row ${row?.['n']}, session ${n}`)
      ctx.session['n'] = n + 1
      await ctx.tx.query('UPDATE item SET n = ? WHERE id = 1', [n + 1])
      ctx.body = n + 1
    })
    expect(seen).toEqual({ statuses: [200], runs: PARALLEL + 1 })
  })

  test('a table with a trigger, which may have looked elsewhere: some run again, and all get through', async () => {
    const seen = await crowd(makeStore(), async ctx => {
      await ctx.tx.query('UPDATE watched SET n = n + 1 WHERE id = 1')
      ctx.session['n'] = Number(ctx.session['n'] ?? 0) + 1
      ctx.body = ctx.session['n']
    })
    expect(seen).toMatchObject({ statuses: [200] })
    expect(await valueOf(db, `SELECT n FROM ${db.name}.watched WHERE id = 1`)).toBe(PARALLEL + 1)
  })
})
