/**
 * The turn of those who lost a race for rows, across processes: a named lock of the server for each table. A queue in
 * one process (transaction/ticket.ts) leaves one loser in every process to race with those of the others, and with four
 * processes seven re-runs of ten lost again. Such a lock is held by a connection and ends with it, so there is nothing
 * to clean up after a crash. It is a courtesy: who does not get it in time, or has a server without it, goes on, and is
 * protected by the commit as ever. On Galera it orders the losers of one node.
 *
 * Nobody waits here with a row lock in hand, and several are taken in one order, so no circle can close through it.
 * Source: MariaDB and MySQL, GET_LOCK(), several per connection since MariaDB 10.0.2 and MySQL 5.7.5.
 */
import { createHash } from 'node:crypto'

/** Names are compared without regard to case, and MySQL takes 64 characters. */
function nameOf(schema: string, table: string): string {
  const hash = createHash('sha256').update(`${schema}\0${table}`).digest('hex').slice(0, 40)
  return `'session-tx:${hash}'`
}

/** The statements that take and give back a turn on these tables. */
export class Turn {
  readonly take: string
  readonly giveBack: string

  /** @param waitMs for each table; the server counts in fractions of seconds */
  constructor(schema: string, tables: readonly string[], waitMs: number) {
    const names = tables.map(table => nameOf(schema, table))
    this.take = `SELECT ${names.map(name => `GET_LOCK(${name}, ${waitMs / 1000})`).join(', ')}`
    this.giveBack = `DO ${names.map(name => `RELEASE_LOCK(${name})`).join(', ')}`
  }
}
