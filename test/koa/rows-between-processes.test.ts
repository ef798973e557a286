/**
 * Requests of several processes (here: applications with a store and tickets of their own) that read a row, think, and
 * write it: those who lost run one after the other, whichever process they are in.
 */
import type { RowDataPacket } from 'mysql2/promise'
import { mysqlStore } from '../../lib/index.js'
import { sessionTables } from '../../lib/store/mysql-tables.js'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { Barrier } from '../support/barrier.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { nothingOpen, valueOf } from '../support/observing.js'

const PROCESSES = 4
const EACH = 5

let db: TestDatabase
const served: TxServed[] = []

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: PROCESSES * EACH })
  for (const { ddl } of sessionTables('sessions')) await db.pool.query(ddl)
  for (const table of ['item', 'other'])
    await db.pool.query(`CREATE TABLE ${table} (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB`)
})
afterAll(() => db.close())
beforeEach(async () => {
  for (const table of ['item', 'other']) await db.pool.query(`REPLACE INTO ${table} VALUES (1, 0)`)
})
afterEach(() => Promise.all(served.splice(0).map(one => one.close())))

async function processes(below: (ctx: TxContext) => Promise<void>): Promise<void> {
  for (let n = 0; n < PROCESSES; n++)
    served.push(await serveTx({ options: { pool: db.pool, store: mysqlStore() }, below }))
}

async function addOne(ctx: TxContext, table: string, thinking?: () => Promise<void>): Promise<void> {
  const [[row]] = await ctx.tx.query<RowDataPacket[]>(`SELECT n FROM ${table} WHERE id = 1`)
  await thinking?.()
  await ctx.tx.query(`UPDATE ${table} SET n = ? WHERE id = 1`, [Number(row?.['n']) + 1])
}

const attempts = (): number[] =>
  served.flatMap(({ tx }) =>
    Object.entries(tx.stats().attempts).flatMap(([count, requests]) =>
      Array.from({ length: requests }, () => Number(count)),
    ),
  )
const everywhere = (): Promise<number[]> =>
  Promise.all(
    served.flatMap(one => Array.from({ length: EACH }, async () => (await one.client().get('/')).status)),
  )

test('a hot row: one wins, and each of the others commits at its second attempt', async () => {
  const everybodyHasRead = new Barrier(PROCESSES * EACH)
  await processes(async ctx => {
    await addOne(ctx, 'item', () => (ctx.tx.attempt === 1 ? everybodyHasRead.arrive() : Promise.resolve()))
    ctx.body = ctx.tx.attempt
  })
  expect(new Set(await everywhere())).toEqual(new Set([200]))
  expect(attempts().sort()).toEqual([1, ...Array.from({ length: PROCESSES * EACH - 1 }, () => 2)])
  expect(await valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = 1`)).toBe(PROCESSES * EACH)
  await nothingOpen(db)
})

test('two hot rows, taken in either order: losers of a deadlock wait for their turn, too, and everybody gets through', async () => {
  let begun = 0
  await processes(async ctx => {
    begun += 1
    const [first, second] = begun % 2 === 0 ? ['item', 'other'] : ['other', 'item']
    await addOne(ctx, first)
    await addOne(ctx, second)
    ctx.body = ctx.tx.attempt
  })
  expect(new Set(await everywhere())).toEqual(new Set([200]))
  for (const table of ['item', 'other'])
    expect(await valueOf(db, `SELECT n FROM ${db.name}.${table} WHERE id = 1`)).toBe(PROCESSES * EACH)
  await nothingOpen(db)
})
