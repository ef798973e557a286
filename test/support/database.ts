/** A database of its own for each test file, on the server that MYSQL_URL names. */

import { randomBytes } from 'node:crypto'
import mysql, { type Connection, type Pool, type PoolOptions } from 'mysql2/promise'

export interface TestDatabase {
  /** Connections into the new database. */
  readonly pool: Pool
  /** A connection outside the pool's limit, with no database selected: for KILL, GRANT, SHOW and to look at rows undisturbed. */
  readonly admin: Connection
  /** MYSQL_URL with the new database as its path. */
  readonly url: string
  readonly name: string
  /** Drops the database and closes every connection. May be called again. */
  close(): Promise<void>
}

/**
 * Creates a database with a random name.
 *
 * @param options of the pool, such as `connectionLimit` (default 10)
 */
export async function openDatabase(options: PoolOptions = {}): Promise<TestDatabase> {
  const server = new URL(serverUrl())
  const name = `t_${randomBytes(6).toString('hex')}`
  const url = new URL(server)
  url.pathname = `/${name}`
  server.pathname = '/'

  const admin = await mysql.createConnection(server.href)
  await admin.query(`CREATE DATABASE ${name}`)
  const pool = mysql.createPool({ connectionLimit: 10, ...options, uri: url.href })

  let closed: Promise<void> | undefined
  const close = async (): Promise<void> => {
    await pool.end()
    // A test that failed may have left a transaction open; its metadata lock would hold DROP for a day.
    await admin.query('SET SESSION lock_wait_timeout = 5')
    try {
      await admin.query(`DROP DATABASE IF EXISTS ${name}`)
    } finally {
      await admin.end()
    }
  }
  return { pool, admin, url: url.href, name, close: () => (closed ??= close()) }
}

function serverUrl(): string {
  const url = process.env.MYSQL_URL
  if (!url) throw new Error('MYSQL_URL is not set: run npm test; it starts a MariaDB')
  return url
}
