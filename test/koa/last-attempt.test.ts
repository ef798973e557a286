/**
 * A request at its last attempt, for a row that it has lost before: nobody overtakes it any more who could run again.
 */
import type { RowDataPacket } from 'mysql2/promise'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { deferred, Gate } from '../support/barrier.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { nothingOpen, valueOf } from '../support/observing.js'

let db: TestDatabase
let served: TxServed
let below: (ctx: TxContext) => Promise<void>

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: 4 })
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(async () => {
  await db.pool.query('REPLACE INTO item VALUES (1, 0), (2, 0)')
  served = await serveTx({
    options: { pool: db.pool, retry: { retries: ctx => (ctx.path === '/once' ? 0 : 1) } },
    below: async ctx => {
      await below(ctx)
      ctx.body = ctx.tx.attempt
    },
  })
})
afterEach(async () => {
  await served.close()
  await nothingOpen(db)
})

const read = async (ctx: TxContext, id = 1): Promise<number> => {
  const [[row]] = await ctx.tx.query<RowDataPacket[]>('SELECT n FROM item WHERE id = ?', [id])
  return Number(row?.['n'])
}
const write = (ctx: TxContext, n: number, id = 1): Promise<unknown> =>
  ctx.tx.query('UPDATE item SET n = ? WHERE id = ?', [n, id])
const attemptOf = async (path: string): Promise<unknown> => {
  const answer = await served.client().get(path)
  return answer.status === 200 ? Number(answer.text) : answer.status
}

/** Begins a request that loses the row once, and stands in its second attempt, having read, until the gate opens. */
async function elder(): Promise<{ readonly goesOn: Gate; readonly answer: Promise<unknown> }> {
  const [first, stands, goesOn] = [deferred(), deferred(), new Gate()]
  const overtaken = new Gate()
  below = async ctx => {
    const n = await read(ctx)
    if (ctx.path === '/elder' && ctx.tx.attempt === 1) {
      first.resolve()
      await overtaken.passed()
    }
    if (ctx.path === '/elder' && ctx.tx.attempt === 2) {
      stands.resolve()
      await goesOn.passed()
    }
    await write(ctx, n + 1)
  }
  const answer = attemptOf('/elder')
  await first.promise
  expect(await attemptOf('/wins')).toBe(1)
  overtaken.open()
  await stands.promise
  return { goesOn, answer }
}

test('who comes later, and would commit before it, gives way and runs after it', async () => {
  const { goesOn, answer } = await elder()
  const lost = deferred<unknown>()
  served.tx.on('conflict', ({ conflict }) => lost.resolve(conflict))
  const later = attemptOf('/later')
  expect(await Promise.race([lost.promise, later])).toMatchObject({
    kind: 'row',
    store: 'mysql',
    table: 'item',
  })
  goesOn.open()
  expect([await answer, await later]).toEqual([2, 2])
  expect(await valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = 1`)).toBe(3)
})

test('who cannot run again commits all the same', async () => {
  const { goesOn, answer } = await elder()
  expect(await attemptOf('/once')).toBe(1)
  goesOn.open()
  expect(await answer).toBe(503)
})

test('who only reads, or writes elsewhere, need not give way', async () => {
  await db.pool.query('CREATE TABLE IF NOT EXISTS other (id INT PRIMARY KEY) ENGINE=InnoDB')
  const { goesOn, answer } = await elder()
  below = async ctx => {
    await read(ctx)
    if (ctx.path === '/writes') await ctx.tx.query('REPLACE INTO other VALUES (1)')
  }
  expect([await attemptOf('/reads'), await attemptOf('/writes')]).toEqual([1, 1])
  goesOn.open()
  expect(await answer).toBe(2)
})
