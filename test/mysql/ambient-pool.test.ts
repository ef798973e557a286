/** `ambientPool(pool)` as a pool, in both flavours: what it looks like, when it is the transaction and when the pool. */
import { EventEmitter } from 'node:events'
import { createPool, type Pool as CorePool } from 'mysql2'
import mysql, { type RowDataPacket } from 'mysql2/promise'
import { ambientPool, currentTx, type KoaContext, sessionTx, type SessionTxOptions } from '../../lib/index.js'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { nothingOpen } from '../support/observing.js'

let db: TestDatabase
let plain: CorePool
const undo: (() => unknown)[] = []

beforeAll(async () => {
  db = await openDatabase()
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
  plain = createPool({ uri: db.url, connectionLimit: 2 })
})
afterAll(async () => {
  await plain.promise().end()
  await db.close()
})
beforeEach(() => db.pool.query('DELETE FROM item'))
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
  await nothingOpen(db)
})

async function start(
  handler: (ctx: TxContext) => unknown,
  options: SessionTxOptions<KoaContext> = {},
): Promise<TxServed> {
  const served = await serveTx({
    options: { pool: plain, ...options },
    below: async ctx => {
      await handler(ctx)
      ctx.body ??= 'done'
    },
  })
  undo.push(() => served.close())
  return served
}

const ids = async (): Promise<number[]> => {
  const [rows] = await db.admin.query<RowDataPacket[]>(`SELECT id FROM ${db.name}.item ORDER BY id`)
  return rows.map(row => row['id'] as number)
}
const insert = (id: number): string => `INSERT INTO item VALUES (${id}, 0)`

test('looks like the pool, and there is one for each', () => {
  const promised = db.pool
  const [core, promise] = [ambientPool(plain), ambientPool(promised)]
  expect(core).toBeInstanceOf(EventEmitter)
  expect(core.constructor).toBe(plain.constructor)
  expect('getConnection' in promise).toBe(true)
  expect(core.escape("it's")).toBe("'it\\'s'")
  expect(core.on('release', () => {})).toBe(core)
  expect(ambientPool(plain)).toBe(core)
  expect(ambientPool(core)).toBe(core)
  expect(ambientPool(promise)).toBe(promise)
  expect((promise as unknown as { pool: unknown }).pool).toBe(
    ambientPool((promised as unknown as { pool: CorePool }).pool),
  )
  expect(core.promise()).toBe(core.promise())
  expect(() => ambientPool({})).toThrow(expect.objectContaining({ code: 'MISCONFIGURED' }))
})

test('every way to ask it joins the transaction inside a request, and is the pool outside', async () => {
  const core = ambientPool(plain)
  const promise = core.promise()
  const everyWay = async (first: number): Promise<void> => {
    await promise.query(insert(first))
    await promise.execute('INSERT INTO item VALUES (?, 0)', [first + 1])
    const connection = await promise.getConnection()
    await connection.query(insert(first + 2))
    promise.releaseConnection(connection)
    await new Promise(resolve => core.query(insert(first + 3), resolve))
    await new Promise(resolve => core.execute(insert(first + 4), resolve))
    await new Promise<void>((resolve, reject) =>
      core.getConnection((error, got) => {
        if (error !== null) reject(error)
        got.query(insert(first + 5), () => {
          core.releaseConnection(got)
          resolve()
        })
      }),
    )
  }
  const { client, tx } = await start(async () => {
    await everyWay(1)
    throw new Error('no')
  })
  await client().get()
  expect(await ids()).toEqual([])
  await everyWay(11)
  expect(await ids()).toEqual([11, 12, 13, 14, 15, 16])
  expect(tx.stats().stray.total).toBe(0)
})

test('a callback given to the promise flavour is refused: it would never be called', () => {
  const getConnection = ambientPool(db.pool).getConnection as (callback: () => void) => unknown
  expect(() => getConnection(() => {})).toThrow('ambientPool(pool).pool')
})

test('outside() is outside: of the transaction, of currentTx(), and of what counts as stray', async () => {
  const pool = ambientPool(plain)
  const { client, tx } = await start(
    async () => {
      const inside = await pool.outside(async () => {
        await pool.promise().query(insert(1))
        await plain.promise().query(insert(2))
        return currentTx()
      })
      expect(inside).toBeUndefined()
      expect(currentTx()).toBeDefined()
      throw new Error('no')
    },
    { strayQueries: 'refuse' },
  )
  await client().get()
  expect(await ids()).toEqual([1, 2])
  expect(tx.stats().stray.total).toBe(0)
})

test('in a request whose rows are in another pool it is the pool', async () => {
  const other = mysql.createPool({ uri: db.url })
  undo.push(() => other.end())
  const { client } = await start(async ctx => {
    await ambientPool(other).query(insert(1))
    await ctx.tx.query(insert(2))
    throw new Error('no')
  })
  await client().get()
  expect(await ids()).toEqual([1])
})

test('what goes on after the request is refused, instead of straying', async () => {
  let late: Promise<unknown> = Promise.resolve()
  let go: () => void = () => {}
  const { client } = await start(() => {
    const gone = new Promise<void>(resolve => {
      go = resolve
    })
    late = gone.then(() => ambientPool(plain).promise().query(insert(1)))
    late.catch(() => {})
  })
  await client().get()
  go()
  await expect(late).rejects.toMatchObject({ code: 'TRANSACTION_CLOSED' })
  expect(await ids()).toEqual([])
})

test('may be given to sessionTx() itself', async () => {
  const pool = ambientPool(plain)
  const { client } = await start(
    async ctx => {
      await ctx.tx.query(insert(1))
      await pool.promise().query(insert(2))
    },
    { pool },
  )
  await expect(client().get()).resolves.toMatchObject({ status: 200 })
  expect(await ids()).toEqual([1, 2])
})

test('joins tx.run(), too', async () => {
  const tx = sessionTx({ pool: plain })
  undo.push(() => tx.close())
  const failed = tx.run(async () => {
    await ambientPool(plain).promise().query(insert(1))
    throw new Error('no')
  })
  await expect(failed).rejects.toThrow('no')
  expect(await ids()).toEqual([])
})

test('writing in a read-only request is READ_ONLY', async () => {
  const { client, errors } = await start(() => ambientPool(plain).promise().query(insert(1)), {
    readOnly: () => true,
  })
  await client().get()
  expect(errors).toMatchObject([{ code: 'READ_ONLY' }])
})

test('of the other build of this package: joins the same transaction', async () => {
  let other: typeof ambientPool | undefined
  jest.isolateModules(() => {
    // oxlint-disable-next-line typescript/no-require-imports -- a second copy of the module
    other = (require('../../lib/index.js') as { ambientPool: typeof ambientPool }).ambientPool
  })
  expect(other).not.toBe(ambientPool)
  const { client } = await start(async () => {
    await other!(plain).promise().query(insert(1))
    throw new Error('no')
  })
  await client().get()
  expect(await ids()).toEqual([])
})
