/** Knex joins the request's transaction. */
import knex, { type Knex } from 'knex'
import type { PoolConnection } from 'mysql2'
import { describeBuilder, type Queries } from './contract.js'

function queries(db: Knex, connection?: PoolConnection): Queries {
  const item = (): Knex.QueryBuilder => {
    const builder = db('item')
    return connection === undefined ? builder : builder.connection(connection)
  }
  const config = connection === undefined ? {} : { connection }
  return {
    number: async id => {
      const row: unknown = await item().where({ id }).first()
      return (row as { n: number }).n
    },
    set: (id, n) => item().where({ id }).update({ n }),
    increment: id => item().where({ id }).increment('n', 1),
    transaction: work => db.transaction(trx => work(queries(trx)), config),
    atLevel: (isolationLevel, work) =>
      db.transaction(trx => work(queries(trx)), { ...config, isolationLevel }),
    stream: async () => {
      for await (const row of item().select().stream()) expect(row).toBeDefined()
    },
  }
}

describeBuilder(
  'Knex',
  pool => {
    const db = knex({ client: 'mysql2', connectionPool: pool } as Knex.Config)
    return {
      ambient: queries(db),
      on: connection => queries(db, connection),
      close: () => db.destroy(),
    }
  },
  { takesConnection: true },
)
