/**
 * What kind of table a name stands for: one of InnoDB, whose rows prove that the transaction's read view is open, one of
 * an engine that cannot roll back, or one whose triggers read what the text of a statement does not name. Knows nothing of statements or leases.
 *
 * For read views kept as the list of what *is* InnoDB, since the name that comes with a column need not be a table's:
 * MariaDB reports a merged view, derived table or WITH under its own name. An unknown name opens nothing, which costs
 * a check and is never wrong; it also makes the list be read again, because the table may be younger than the list.
 *
 * Names are compared in lower case whatever lower_case_table_names says: of two tables that differ in case only, the
 * one that asks for more care decides.
 */
import { LRUCache } from 'lru-cache'
import type { Clock } from '../../transaction/clock.js'
import type { CoreConnection } from '../driver.js'
import { rowsOf } from '../round-trip.js'

const RELOAD_AFTER_MS = 60_000
/** A name that is no table's is not asked for again until then. */
const ABSENT_FOR_MS = 60_000
const ABSENT_MAX = 1_000

const BASE = "t.TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')"
// Sequences are base tables of InnoDB by their engine, but are read outside of any view.
const COLUMNS =
  'SELECT t.TABLE_SCHEMA, t.TABLE_NAME, ' +
  `COALESCE(t.ENGINE, '') = 'InnoDB' AND ${BASE}, ` +
  `CASE WHEN e.TRANSACTIONS = 'NO' AND ${BASE} THEN t.ENGINE END ` +
  'FROM information_schema.TABLES t LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE '
const LIST = `${COLUMNS}WHERE t.TABLE_SCHEMA NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')`

// A trigger shows only to who may make one: who may not does not see that there is none.
const TRIGGERS = 'SELECT EVENT_OBJECT_SCHEMA, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS'
const OURS =
  "PRIVILEGE_TYPE = 'TRIGGER' AND GRANTEE = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')"
const SEES_TRIGGERS =
  `SELECT '%' FROM information_schema.USER_PRIVILEGES WHERE ${OURS} ` +
  `UNION ALL SELECT TABLE_SCHEMA FROM information_schema.SCHEMA_PRIVILEGES WHERE ${OURS}`

export class Engines {
  readonly #clock: Clock
  #opens: Map<string, boolean> | undefined
  readonly #nonTransactional = new Map<string, string>()
  readonly #absent: LRUCache<string, number>
  readonly #triggered = new Set<string>()
  /** Schemas whose triggers are seen; `%` stands for all. */
  readonly #seenThrough = new Set<string>()
  #loadedAt = 0
  #missed = false

  constructor(clock: Clock) {
    this.#clock = clock
    this.#absent = new LRUCache({ max: ABSENT_MAX })
  }

  /**
   * @param schema as in the column's packet (`schema` or `db`)
   * @param table as in the column's packet (`orgTable`)
   */
  opensView(schema: string, table: string): boolean {
    if (table === '') return false
    const opens = this.#opens?.get(key(schema, table))
    if (opens === undefined) this.#missed = true
    return opens ?? false
  }

  /**
   * Certainly a table of InnoDB that has no trigger. Certain is what is no older than a minute: a trigger that was made
   * since then is not known yet.
   */
  hasNoTrigger(schema: string, table: string): boolean {
    if (this.#isOld) {
      this.#missed = true
      return false
    }
    const name = key(schema, table)
    const isSeen = this.#seenThrough.has('%') || this.#seenThrough.has(schema.toLowerCase())
    return isSeen && this.#opens?.get(name) === true && !this.#triggered.has(name)
  }

  /** A name was asked for that the list lacks, and the list is not fresh. */
  get outdated(): boolean {
    return this.#opens === undefined || (this.#missed && this.#isOld)
  }

  /** Somebody changed an engine behind the list. */
  get reloadDue(): boolean {
    return this.#opens === undefined || this.#isOld
  }

  get #isOld(): boolean {
    return this.#clock.now() - this.#loadedAt >= RELOAD_AFTER_MS
  }

  /** There is a table that cannot be rolled back, as far as is known. */
  get hasNonTransactional(): boolean {
    return this.#nonTransactional.size > 0
  }

  /** The table's engine if it cannot roll back; undefined if it can, or is a view; null if it must be looked up. */
  nonTransactional(schema: string, table: string): string | undefined | null {
    const name = key(schema, table)
    const engine = this.#nonTransactional.get(name)
    if (engine !== undefined || this.#opens?.has(name) === true) return engine
    const absentSince = this.#absent.get(name)
    return absentSince !== undefined && this.#clock.now() - absentSince < ABSENT_FOR_MS ? undefined : null
  }

  async load(connection: CoreConnection): Promise<void> {
    this.#missed = false
    this.#loadedAt = this.#clock.now()
    const rows = await rowsOf(connection, LIST)
    this.#opens = new Map()
    this.#nonTransactional.clear()
    this.#absent.clear()
    for (const row of rows) this.#note(row)
    await this.#loadTriggers(connection)
  }

  async #loadTriggers(connection: CoreConnection): Promise<void> {
    const seen = await rowsOf(connection, SEES_TRIGGERS)
    const triggers = seen.length === 0 ? [] : await rowsOf(connection, TRIGGERS)
    this.#seenThrough.clear()
    this.#triggered.clear()
    // A grant is for a pattern; one that is a name with its underscores escaped is the usual one.
    for (const [schema] of seen) this.#seenThrough.add(String(schema).replaceAll('\\_', '_').toLowerCase())
    for (const [schema, table] of triggers) this.#triggered.add(key(String(schema), String(table)))
  }

  /** Asks for one table: it is younger than the list, or has another engine by now. */
  async lookUp(connection: CoreConnection, schema: string, table: string): Promise<void> {
    const where = `WHERE t.TABLE_SCHEMA = ${literal(schema)} AND t.TABLE_NAME = ${literal(table)}`
    const rows = await rowsOf(connection, COLUMNS + where)
    const name = key(schema, table)
    this.#opens?.delete(name)
    this.#nonTransactional.delete(name)
    if (rows.length === 0) this.#absent.set(name, this.#clock.now())
    for (const row of rows) this.#note(row)
  }

  #note([schema, table, innodb, engine]: readonly (string | null)[]): void {
    const name = key(String(schema), String(table))
    this.#opens?.set(name, innodb === '1' && this.#opens.get(name) !== false)
    if (engine !== null && engine !== undefined) this.#nonTransactional.set(name, engine)
  }
}

function key(schema: string, table: string): string {
  return `${schema}\0${table}`.toLowerCase()
}

/** Whatever the SQL mode makes of quotes and backslashes. */
function literal(text: string): string {
  return `_utf8 x'${Buffer.from(text).toString('hex')}'`
}
