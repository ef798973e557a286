/**
 * The store for many processes: sessions as rows in the application's own MySQL or MariaDB, written on the request's own
 * connection, so that session and rows are one InnoDB commit. Implements session/store.ts (capability
 * `same-connection`). Each process keeps what it has read in an lru-cache; every use of it is checked against the
 * database in the request's transaction. Knows nothing of cookies or requests.
 */
import type {
  AttemptTransaction,
  OpenSession,
  SessionStore,
  StoreCounts,
  StoreDatabase,
  StoreSettings,
  StoreTransaction,
} from '../session/store.js'
import { setUpError } from '../mysql/set-up-error.js'
import { fetchInto, holdInto } from './mysql-fetch.js'
import { MysqlSession } from './mysql-open.js'
import { isTableName, SESSIONS_TABLE, SessionStatements } from './mysql-tables.js'
import { MysqlTimes } from './mysql-times.js'
import type { RememberedSession } from './remembered-session.js'
import {
  assertKey,
  assertOptions,
  cacheBounds,
  refusal,
  SessionCache,
  type SessionCacheOptions,
} from './session-cache.js'

export interface MysqlStoreOptions {
  /** Default `sessions`; a second one, `sessions_times`, goes with it. `npx session-tx migrate` makes both. */
  readonly table?: string
  /** What this process remembers; false: nothing. */
  readonly cache?: SessionCacheOptions | false
}

/**
 * Sessions in the database of `pool`, shared by all processes that use it, kept over restarts.
 * @throws MISCONFIGURED for an unknown or bad option
 *
 * @example
 * app.use(sessionTx({ pool, store: mysqlStore() }))
 */
export function mysqlStore(options: MysqlStoreOptions = {}): SessionStore {
  assertOptions('mysqlStore', options, { table: undefined, cache: undefined })
  const { table = SESSIONS_TABLE, cache = {} } = options
  if (!isTableName(table)) {
    throw refusal(
      `mysqlStore's \`table\` must be a name of 1 to 58 letters, digits and _, got ${JSON.stringify(table)}`,
    )
  }
  return new MysqlStore(table, cacheBounds('mysqlStore', cache))
}

interface Started {
  readonly settings: StoreSettings
  readonly database: StoreDatabase
  readonly times: MysqlTimes
  readonly cache: SessionCache
}

class MysqlStore implements SessionStore {
  readonly name = 'mysql'
  readonly capability = 'same-connection'
  readonly #statements: SessionStatements
  readonly #explained: (error: unknown) => unknown
  readonly #bounds: Required<SessionCacheOptions> | undefined
  #state: Started | undefined
  readonly #reading = new Set<Promise<void>>()

  constructor(table: string, bounds: Required<SessionCacheOptions> | undefined) {
    this.#statements = new SessionStatements(table)
    this.#bounds = bounds
    const option = table === SESSIONS_TABLE ? '' : ` --sessions ${table}`
    const needs = {
      who: 'mysqlStore',
      tables: [table, `${table}_times`],
      remedy: `make them with \`npx session-tx migrate --url mysql://… --apply${option}\``,
    }
    this.#explained = error => setUpError(error, needs) ?? error
  }

  get #started(): Started {
    if (this.#state === undefined) throw new TypeError('the store was used before sessionTx() started it')
    return this.#state
  }

  start(settings: StoreSettings): void {
    const { database, clock, idleMs, absoluteMs, touchGranularityMs } = settings
    if (this.#state !== undefined)
      throw refusal('this store already belongs to another sessionTx(); give each its own')
    if (database === undefined)
      throw refusal('mysqlStore keeps sessions in the database: give sessionTx() a `pool`, too')
    const times = new MysqlTimes({
      clock,
      database,
      statements: this.#statements,
      idleMs: idleMs === false ? false : idleMs + touchGranularityMs,
      absoluteMs,
    })
    this.#state = { settings, database, times, cache: new SessionCache(settings, this.#bounds) }
  }

  open(
    key: string,
    fresh = false,
    turn?: AttemptTransaction,
  ): OpenSession | undefined | Promise<OpenSession | undefined> {
    assertKey(key)
    const { cache } = this.#started
    const entry = cache.get(key)
    if (turn !== undefined) return this.#hold(key, entry, turn)
    if (entry === undefined || entry.dead) return this.#fetch(key, cache.blank(key))
    if (fresh || entry.isBlank || entry.distrust > 0 || cache.expiry(entry) !== undefined)
      return this.#fetch(key, entry)
    return this.#session(key, entry, 'cached')
  }

  async #fetch(key: string, entry: RememberedSession): Promise<OpenSession | undefined> {
    const { cache, settings } = this.#started
    const askedAt = settings.clock.now()
    const isFirst = entry.isBlank
    const fetched = await this.#read(on => fetchInto(entry, key, this.#statements, on))
    if (fetched === undefined) {
      entry.die()
      cache.forget(key, entry)
      return undefined
    }
    cache.age(entry, fetched, askedAt, isFirst)
    if (cache.expire(key, entry)) return undefined
    if (entry.distrust > 0) entry.distrust -= 1
    cache.keep(key, entry)
    return this.#session(key, entry, fetched.isComplete ? 'fetched' : 'cached')
  }

  /** For who lost before, and is first in line in this process: first come, first served between processes, too. */
  async #hold(
    key: string,
    cached: RememberedSession | undefined,
    turn: AttemptTransaction,
  ): Promise<OpenSession | undefined> {
    const { cache } = this.#started
    // It has been used a moment ago, so its age is known; else it is asked for in the usual way.
    if (cached === undefined || cached.dead || cached.isBlank || cache.expiry(cached) !== undefined)
      return this.#fetch(key, cache.blank(key))
    const held = await holdInto(cached, key, this.#statements, await turn.begin())
    if (held === undefined) {
      cached.die()
      cache.forget(key, cached)
      return undefined
    }
    if (cached.distrust > 0) cached.distrust -= 1
    return this.#session(key, cached, held.isComplete ? 'held' : 'cached')
  }

  /** Answered before the COMMIT that ends it: nobody waits for that. */
  async #read<T>(work: (on: StoreTransaction) => Promise<T>): Promise<T> {
    const on = await this.#started.database.begin()
    try {
      return await work(on)
    } catch (error) {
      throw this.#explained(error)
    } finally {
      const ending = on.commit().catch(() => {}) // it read; a connection that is lost is replaced
      this.#reading.add(ending)
      void ending.then(() => this.#reading.delete(ending))
    }
  }

  create(key: string): OpenSession {
    return this.#session(key, this.#started.cache.unknown(), 'cached', true)
  }

  #session(
    key: string,
    entry: RememberedSession,
    known: 'cached' | 'fetched' | 'held',
    isNew = false,
  ): OpenSession {
    const { cache, settings } = this.#started
    return new MysqlSession({
      key,
      entry,
      isNew,
      known,
      statements: this.#statements,
      userVariable: settings.userVariable,
      explained: this.#explained,
      created: () => cache.keep(key, entry),
      ended: () => cache.ended(key, entry),
      touched: () => {
        this.#touch(key, entry)
        cache.resized(key, entry)
      },
      touch: () => this.#touch(key, entry),
      refresh: async on => {
        const fetched = await fetchInto(entry, key, this.#statements, on)
        if (fetched?.isComplete === true) return entry
        const own = cache.unknown()
        if (fetched !== undefined && (await fetchInto(own, key, this.#statements, on)) !== undefined)
          return own
        entry.die()
        return undefined
      },
    })
  }

  #touch(key: string, entry: RememberedSession): boolean {
    const { cache, times } = this.#started
    const at = cache.touch(entry)
    if (at !== undefined) times.touch(key, at)
    return at !== undefined
  }

  async sessionsOf(user: string): Promise<readonly string[]> {
    const rows = await this.#read(on => on.select(this.#statements.sessionsOf(user)))
    return rows.map(([session]) => session ?? '')
  }

  counts(): StoreCounts {
    return this.#state?.cache.counts() ?? { live: 0, sizeBytes: 0 }
  }

  /** Writes idle times that are still to be written. The pool's connections must still be lent. */
  async close(): Promise<void> {
    await this.#state?.times.close()
    await Promise.all(this.#reading)
  }
}
