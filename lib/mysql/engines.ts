/**
 * Which tables are InnoDB's, and so: whether a row of a result proves that the transaction's read view is
 * open. Knows nothing of statements or leases.
 *
 * Kept as the list of what *is* InnoDB, since the name that comes with a column need not be a table's:
 * MariaDB reports a merged view, derived table or WITH under its own name. An unknown name opens nothing,
 * which costs a check and is never wrong; it also makes the list be read again, because the table may be
 * younger than the list.
 */
import type { Clock } from '../transaction/clock.js'
import type { CoreConnection } from './driver.js'
import { rowsOf } from './round-trip.js'

const RELOAD_AFTER_MS = 60_000

// Sequences are base tables of InnoDB by their engine, but are read outside of any view.
const LIST =
  'SELECT TABLE_SCHEMA, TABLE_NAME, ' +
  "COALESCE(ENGINE, '') = 'InnoDB' AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') " +
  'FROM information_schema.TABLES ' +
  "WHERE TABLE_SCHEMA NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')"

export class Engines {
  readonly #clock: Clock
  #opens: ReadonlyMap<string, boolean> | undefined
  #loadedAt = 0
  #missed = false

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /**
   * @param schema as in the column's packet (`schema` or `db`)
   * @param table as in the column's packet (`orgTable`)
   */
  opensView(schema: string, table: string): boolean {
    if (table === '') return false
    // Lower case whatever lower_case_table_names says: of two tables that differ in case only, the engines
    // decide.
    const opens = this.#opens?.get(key(schema, table))
    if (opens === undefined) this.#missed = true
    return opens ?? false
  }

  /** A name was asked for that the list lacks, and the list is not fresh. */
  get outdated(): boolean {
    if (this.#opens === undefined) return true
    return this.#missed && this.#clock.now() - this.#loadedAt >= RELOAD_AFTER_MS
  }

  async load(connection: CoreConnection): Promise<void> {
    this.#missed = false
    this.#loadedAt = this.#clock.now()
    const opens = new Map<string, boolean>()
    for (const [schema, table, innodb] of await rowsOf(connection, LIST)) {
      const name = key(String(schema), String(table))
      opens.set(name, innodb === '1' && opens.get(name) !== false)
    }
    this.#opens = opens
  }
}

function key(schema: string, table: string): string {
  return `${schema}\0${table}`.toLowerCase()
}
