/** Plain mysql2, in both flavours, joins the request's transaction. */
import type { Readable } from 'node:stream'
import type { PoolConnection as CoreConnection, Pool as CorePool } from 'mysql2'
import type { Connection, Pool, RowDataPacket } from 'mysql2/promise'
import { describeBuilder, type Queries } from './contract.js'

type Asks = Pick<Pool, 'query' | 'execute'>
type Within = <T>(work: (connection: Connection) => Promise<T>) => Promise<T>

function queries(db: Asks, within: Within, stream?: () => Readable): Queries {
  const begin = async <T>(work: (inner: Queries) => Promise<T>, level?: string): Promise<T> =>
    within(async connection => {
      if (level !== undefined) await connection.query(`SET TRANSACTION ISOLATION LEVEL ${level}`)
      await connection.beginTransaction()
      try {
        const result = await work(queries(connection, within => within(connection)))
        await connection.commit()
        return result
      } catch (error) {
        await connection.rollback()
        throw error
      }
    })
  return {
    number: async id => {
      const [rows] = await db.query<RowDataPacket[]>('SELECT n FROM item WHERE id = ?', [id])
      return rows[0]?.['n'] as number
    },
    set: (id, n) => db.execute('UPDATE item SET n = ? WHERE id = ?', [n, id]),
    increment: id => db.query({ sql: 'UPDATE item SET n = n + 1 WHERE id = ?', values: [id] }),
    transaction: work => begin(work),
    atLevel: (level, work) => begin(work, level),
    ...(stream === undefined ? {} : { stream: () => stream().toArray() }),
  }
}

function ofPool(pool: Pool): Queries {
  return queries(pool, async work => {
    const connection = await pool.getConnection()
    try {
      return await work(connection)
    } finally {
      connection.release()
    }
  })
}

describeBuilder(
  'mysql2/promise',
  pool => ({
    ambient: ofPool(pool.promise()),
    on: connection => {
      const promised = connection.promise()
      return queries(promised, work => work(promised))
    },
  }),
  { takesConnection: true, streams: false },
)

/** The callback flavour, made awaitable here and not by mysql2. */
function asking(db: CorePool | CoreConnection): Asks {
  const call =
    (method: 'query' | 'execute') =>
    (statement: unknown, values?: unknown): Promise<unknown> =>
      new Promise((resolve, reject) => {
        const done = (error: Error | null, rows: unknown, fields: unknown): void =>
          error === null ? resolve([rows, fields]) : reject(error)
        const ask = db[method].bind(db) as (...args: unknown[]) => void
        if (values === undefined) ask(statement, done)
        else ask(statement, values, done)
      })
  return { query: call('query'), execute: call('execute') } as unknown as Asks
}

const controlling = (connection: CoreConnection): Connection => {
  const call = (method: 'beginTransaction' | 'commit' | 'rollback') => (): Promise<void> =>
    new Promise((resolve, reject) =>
      connection[method](error => (error === null ? resolve() : reject(error))),
    )
  const control = {
    beginTransaction: call('beginTransaction'),
    commit: call('commit'),
    rollback: call('rollback'),
  }
  return { ...asking(connection), ...control } as unknown as Connection
}

describeBuilder(
  'mysql2 with callbacks',
  pool => ({
    ambient: queries(
      asking(pool),
      async work => {
        const connection = await new Promise<CoreConnection>((resolve, reject) =>
          pool.getConnection((error, got) => (error === null ? resolve(got) : reject(error))),
        )
        try {
          return await work(controlling(connection))
        } finally {
          connection.release()
        }
      },
      () => pool.query('SELECT * FROM item').stream(),
    ),
    on: connection =>
      queries(
        asking(connection),
        work => work(controlling(connection)),
        () => connection.execute('SELECT * FROM item').stream(),
      ),
  }),
  { takesConnection: true },
)
