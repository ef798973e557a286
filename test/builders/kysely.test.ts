/** Kysely joins the request's transaction. */
import { Kysely, MysqlDialect, sql } from 'kysely'
import { describeBuilder, type Queries } from './contract.js'

interface Database {
  item: { id: number; n: number }
}

let savepoints = 0

function queries(db: Kysely<Database>, inside = false): Queries {
  return {
    number: async id => {
      const row = await db.selectFrom('item').select('n').where('id', '=', id).executeTakeFirstOrThrow()
      return row.n
    },
    set: (id, n) => db.updateTable('item').set({ n }).where('id', '=', id).execute(),
    increment: id =>
      db
        .updateTable('item')
        .set(eb => ({ n: eb('n', '+', 1) }))
        .where('id', '=', id)
        .execute(),
    transaction: work =>
      inside ? nested(db, work) : db.transaction().execute(trx => work(queries(trx, true))),
    atLevel: (level, work) =>
      db
        .transaction()
        .setIsolationLevel(level)
        .execute(trx => work(queries(trx, true))),
    stream: async () => {
      for await (const row of db.selectFrom('item').selectAll().stream()) expect(row).toBeDefined()
    },
  }
}

/** Kysely has savepoints instead of nested transactions. */
async function nested<T>(db: Kysely<Database>, work: (inner: Queries) => Promise<T>): Promise<T> {
  const name = sql.id(`s${++savepoints}`)
  await sql`savepoint ${name}`.execute(db)
  try {
    const result = await work(queries(db, true))
    await sql`release savepoint ${name}`.execute(db)
    return result
  } catch (error) {
    await sql`rollback to ${name}`.execute(db)
    throw error
  }
}

describeBuilder(
  'Kysely',
  pool => ({ ambient: queries(new Kysely<Database>({ dialect: new MysqlDialect({ pool }) })) }),
  {
    more: served => {
      test('a controlled transaction with its savepoints goes back over both sides', async () => {
        const { pool, start, rows } = served()
        const db = new Kysely<Database>({ dialect: new MysqlDialect({ pool }) })
        const { client } = await start(async ctx => {
          const trx = await db.startTransaction().execute()
          await queries(trx).set(1, 1)
          ctx.session['a'] = 1
          const afterFirst = await trx.savepoint('first').execute()
          await queries(afterFirst).set(2, 2)
          ctx.session['a'] = 2
          const back = await afterFirst.rollbackToSavepoint('first').execute()
          await queries(back).set(3, 3)
          await back.rollbackToSavepoint('first').execute()
          await trx.commit().execute()
        })
        const ann = client()
        await expect(ann.get()).resolves.toMatchObject({ status: 200 })
        expect(await rows()).toEqual([1, 0, 0, 0])
        expect((await ann.get('/session')).json()).toEqual({ a: 1 })
      })

      test('one that is neither committed nor rolled back when the handler ends: nothing is stored, and it is said', async () => {
        const { pool, start, rows } = served()
        const db = new Kysely<Database>({ dialect: new MysqlDialect({ pool }) })
        const { client, errors } = await start(async () => {
          const trx = await db.startTransaction().execute()
          await queries(trx).set(1, 1)
        })
        await expect(client().get()).resolves.toMatchObject({ status: 500 })
        expect(errors).toMatchObject([{ code: 'TRANSACTION_CONTROL' }])
        expect(await rows()).toEqual([0, 0, 0, 0])
      })
    },
  },
)
