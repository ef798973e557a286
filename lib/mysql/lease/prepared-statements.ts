/**
 * The prepared statements that ours made on one connection, kept few. mysql2 keeps up to 16 000 on each connection,
 * while a server has 16 382 for all of them (then errno 1461): a text with values written into it, executed once each,
 * would fill it for everybody. Knows nothing of what the statements do.
 */
import { LRUCache } from 'lru-cache'
import type { CoreConnection, PreparedText } from '../driver.js'

/** Per connection; with 100 connections it is 10 000 of the server's 16 382. */
const STATEMENTS_MAX = 100

export class PreparedStatements {
  readonly #recent: LRUCache<string, PreparedText>

  constructor(connection: CoreConnection) {
    this.#recent = new LRUCache({
      max: STATEMENTS_MAX,
      dispose: (statement, _key, reason) => {
        if (reason === 'evict') connection.unprepare(statement)
      },
    })
  }

  /** This one was executed: the one that was not for the longest time may be closed for it. */
  executed({ sql, nestTables, rowsAsArray }: PreparedText): void {
    // Alone in what mysql2 tells its statements apart by, so that it finds the same one again.
    this.#recent.set(JSON.stringify([sql, nestTables, rowsAsArray]), { sql, nestTables, rowsAsArray })
  }
}
