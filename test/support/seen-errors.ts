/**
 * The lost races that a real MariaDB was made to report, each with how. docs/mysql.md marks exactly these as
 * *run*; every other row of its table follows the servers' documentation, and test/koa/server-errors.test.ts.
 */
import type { PoolConnection } from 'mysql2/promise'
import type { TestDatabase } from './database.js'

interface Stage {
  readonly db: TestDatabase
  /** Two connections; the table `acc (id, n)` has rows 1 and 2. */
  readonly one: PoolConnection
  readonly two: PoolConnection
}

/** Those that take a cluster: test/faults/galera-nodes.test.ts. */
export const SEEN_ON_GALERA: ReadonlySet<number> = new Set([1047])

/** Each rejects with the error of its number. */
export const SEEN: Readonly<Record<number, (stage: Stage) => Promise<unknown>>> = Object.freeze({
  1213: async ({ one, two }) => {
    await one.query('START TRANSACTION')
    await two.query('START TRANSACTION')
    await one.query('UPDATE acc SET n = 1 WHERE id = 1')
    await two.query('UPDATE acc SET n = 2 WHERE id = 2')
    await Promise.all([
      one.query('UPDATE acc SET n = 1 WHERE id = 2'),
      two.query('UPDATE acc SET n = 2 WHERE id = 1'),
    ])
  },
  1020: async ({ one, two }) => {
    await one.query('SET SESSION innodb_snapshot_isolation = ON')
    await one.query('START TRANSACTION')
    await one.query('SELECT * FROM acc')
    await two.query('UPDATE acc SET n = n + 1 WHERE id = 1')
    await one.query('UPDATE acc SET n = n + 1 WHERE id = 1')
  },
  1205: async ({ one, two }) => {
    await one.query('START TRANSACTION')
    await one.query('UPDATE acc SET n = 1 WHERE id = 1')
    await two.query('SET SESSION innodb_lock_wait_timeout = 1')
    await two.query('UPDATE acc SET n = 2 WHERE id = 1')
  },
  1412: async ({ one, two }) => {
    await one.query('START TRANSACTION WITH CONSISTENT SNAPSHOT')
    await two.query('ALTER TABLE acc ADD COLUMN extra INT, ALGORITHM = COPY')
    await two.query('ALTER TABLE acc DROP COLUMN extra, ALGORITHM = COPY')
    await one.query('SELECT * FROM acc')
  },
  1062: async ({ one }) => {
    await one.query('INSERT INTO acc VALUES (1, 0)')
  },
})
