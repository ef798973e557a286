/** Drizzle joins the request's transaction. */
import { eq, sql } from 'drizzle-orm'
import { int, mysqlTable } from 'drizzle-orm/mysql-core'
import { drizzle, type MySql2Database } from 'drizzle-orm/mysql2'
import { describeBuilder, type Queries } from './contract.js'

const item = mysqlTable('item', { id: int().primaryKey(), n: int().notNull() })

type Db = Pick<MySql2Database, 'select' | 'update' | 'transaction'>

function queries(db: Db): Queries {
  return {
    number: async id => {
      const [row] = await db.select().from(item).where(eq(item.id, id))
      return row?.n ?? Number.NaN
    },
    set: async (id, n) => db.update(item).set({ n }).where(eq(item.id, id)),
    increment: async id => db.update(item).set({ n: sql`n + 1` }).where(eq(item.id, id)),
    transaction: work => db.transaction(trx => work(queries(trx as unknown as Db))),
    atLevel: (isolationLevel, work) =>
      db.transaction(trx => work(queries(trx as unknown as Db)), { isolationLevel }),
    stream: async () => {
      for await (const row of db.select().from(item).iterator()) expect(row).toBeDefined()
    },
  }
}

describeBuilder(
  'Drizzle',
  pool => ({ ambient: queries(drizzle(pool)), on: connection => queries(drizzle(connection)) }),
  { takesConnection: true },
)

describeBuilder('Drizzle with a promise pool', pool => ({ ambient: queries(drizzle(pool.promise())) }))
