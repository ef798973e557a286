/**
 * What we use of mysql2's core (callback) classes, as structural types, and the one check that turns what an
 * application hands us into a core pool. Imports nothing of mysql2, so that the application decides which
 * version is loaded; knows nothing of transactions or leases.
 */
import { SessionTxError } from '../errors.js'

/**
 * What mysql2 says about a column of a result. Names are empty for expressions and materialised derived
 * tables.
 */
export interface FieldPacket {
  readonly name: string
  /** The alias in the statement. */
  readonly table: string
  /**
   * The table behind the alias; of a merged view, derived table or WITH it is *that* name, not a base
   * table's.
   */
  readonly orgTable: string
  readonly schema?: string
  readonly db?: string
}

/** The answer to a statement without a result set. */
export interface OkPacket {
  readonly affectedRows: number
  readonly insertId: number
  readonly info: string
  /** Bit 0 (value 1) is SERVER_STATUS_IN_TRANS: a transaction is open after this statement. */
  readonly serverStatus: number
  readonly warningStatus: number
}

export type ResultCallback = (error: Error | null, result?: unknown, fields?: unknown) => void
export type ConnectionCallback = (error: Error | null, connection?: CoreConnection) => void

/** mysql2's options of one statement; what we do not use passes through. */
export interface StatementOptions {
  readonly sql: string
  readonly values?: unknown
  readonly rowsAsArray?: boolean
  readonly typeCast?: unknown
  readonly [option: string]: unknown
}

interface Emitter {
  on(event: string, listener: (...args: never[]) => void): unknown
  once(event: string, listener: (...args: never[]) => void): unknown
  removeListener(event: string, listener: (...args: never[]) => void): unknown
}

/** A statement on its way; a stream of rows for those who asked for one. */
interface CoreCommand extends Emitter {
  emit(event: string, ...args: unknown[]): boolean
}

/** What tells the prepared statements of a connection apart. */
export interface PreparedText {
  /** As the server has it: named placeholders are question marks by now. */
  readonly sql: string
  readonly nestTables?: unknown
  readonly rowsAsArray?: unknown
}

interface ExecuteCommand {
  readonly sql: string
}

export interface CoreConnection extends Emitter {
  readonly threadId: number | null
  readonly config: { readonly queryFormat?: unknown }
  /** The statement with its values in it, as `query` would send it. */
  format(sql: string, values: unknown, namedPlaceholders?: unknown): string
  query(statement: string | StatementOptions, callback: ResultCallback): CoreCommand
  query(statement: string | StatementOptions, values: unknown, callback: ResultCallback): CoreCommand
  execute(statement: string | StatementOptions, callback: ResultCallback): ExecuteCommand
  execute(statement: string | StatementOptions, values: unknown, callback: ResultCallback): ExecuteCommand
  /** Closes a prepared statement; nothing happens if there is none. */
  unprepare(statement: PreparedText): unknown
  /** Gives it back to its pool, as it is. */
  release(): void
  /** Ends the socket and removes it from its pool. The server keeps its locks until it notices. */
  destroy(): void
}

export interface CorePool extends Emitter {
  readonly config: {
    readonly connectionLimit: number
    readonly waitForConnections: boolean
    readonly connectionConfig: object
  }
  getConnection(callback: ConnectionCallback): void
  query(...args: unknown[]): CoreCommand
  execute(...args: unknown[]): unknown
  escape(value: unknown): string
  escapeId(value: unknown): string
  format(sql: string, values?: unknown): string
  /** mysql2/promise's pool around this one; `lib/` uses what it has of these methods. */
  promise(): object
}

/** Where an ambient pool keeps the pool that it looks like; under Symbol.for, because of the two builds. */
export const BEHIND_AMBIENT = Symbol.for('session-tx.behindAmbientPool')

const POOL_METHODS = ['getConnection', 'query', 'execute', 'on', 'removeListener'] as const

/**
 * The callback pool inside whatever flavour of mysql2 pool the application made.
 *
 * @example
 * app.use(sessionTx({ pool: mysql.createPool({ uri }) }))
 * @throws MISCONFIGURED with what was handed in instead and what to do about it
 */
export function corePoolOf(pool: unknown): CorePool {
  const behind = read(pool, BEHIND_AMBIENT)
  if (behind !== undefined) return corePoolOf(behind)
  if (isCorePool(pool)) return pool
  const inner = read(pool, 'pool')
  if (isCorePool(inner)) return inner
  throw new SessionTxError(
    'MISCONFIGURED',
    `\`pool\` must be a mysql2 pool (mysql.createPool(…)), got ${describe(pool)}`,
  )
}

function isCorePool(value: unknown): value is CorePool {
  if (typeof value !== 'object' || value === null) return false
  if (typeof read(read(value, 'config'), 'connectionConfig') !== 'object') return false
  // A promise pool has the methods but no config; mysql 1.x has the config but no execute.
  return POOL_METHODS.every(name => typeof read(value, name) === 'function')
}

function describe(value: unknown): string {
  if (value === null || value === undefined) return `${value}`
  if (typeof value !== 'object') return `a ${typeof value}`
  if (typeof read(value, 'then') === 'function' && typeof read(value, 'query') !== 'function') {
    return 'a promise: await it first'
  }
  if (read(value, 'poolCluster') !== undefined || typeof read(value, 'of') === 'function') {
    return 'a PoolCluster: a transaction lives on one server, so hand in the pool of the one that is written'
  }
  if (read(value, '_cluster') !== undefined) return 'a namespace of a PoolCluster: hand in one pool'
  if (typeof read(value, 'beginTransaction') === 'function') {
    return 'a single Connection: each request needs its own, so use createPool with the same options'
  }
  if (typeof read(value, 'getConnection') === 'function') {
    return 'a pool of another driver (mysql 1.x, mariadb): use the mysql2 package, it speaks to both'
  }
  const name = Object.getPrototypeOf(value)?.constructor?.name
  if (Array.isArray(value) || (typeof name === 'string' && name !== 'Object')) return `an instance of ${name}`
  return 'a plain object: options belong into mysql.createPool(…), and its result here'
}

function read(value: unknown, key: string | symbol): unknown {
  return typeof value === 'object' && value !== null
    ? (value as Record<PropertyKey, unknown>)[key]
    : undefined
}
