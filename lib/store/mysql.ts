/**
 * The store for many processes: sessions as rows in the application's own MySQL or MariaDB, written on the request's own
 * connection, so that session and rows are one InnoDB commit. Implements session/store.ts (capability
 * `same-connection`). Each process keeps what it has read in an lru-cache; every use of it is checked against the
 * database in the request's transaction. Knows nothing of cookies or requests.
 */
import { LRUCache } from 'lru-cache'
import { SessionTxError } from '../errors.js'
import { shownKey } from '../session/identity.js'
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
import { MysqlEntry } from './mysql-entry.js'
import { type Fetched, fetchInto, holdInto } from './mysql-fetch.js'
import { MysqlSession } from './mysql-open.js'
import { isTableName, SESSIONS_TABLE, SessionStatements } from './mysql-tables.js'
import { MysqlTimes } from './mysql-times.js'

export interface MysqlStoreOptions {
  /** Default `sessions`; a second one, `sessions_times`, goes with it. `npx session-tx migrate` makes both. */
  readonly table?: string
  /** What this process remembers; false: nothing. */
  readonly cache?: MysqlCacheOptions | false
}

export interface MysqlCacheOptions {
  /** Default 20 000. */
  readonly sessionsMax?: number
  /** Encoded size of all of them, default 64 MiB. */
  readonly bytesMax?: number
}

const CACHE = Object.freeze({ sessionsMax: 20_000, bytesMax: 64 * 1024 * 1024 })
/** What a session costs beside its variables, for `bytesMax`. */
const ENTRY_BYTES = 300
const EXPIRED_KNOWN_MAX = 1_000
const KEY_FORM = /^[\w-]{1,43}$/

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
  if (cache === false) return new MysqlStore(table, undefined)
  if (typeof cache !== 'object' || cache === null)
    throw refusal(`mysqlStore's \`cache\` must be false or an object, got ${String(cache)}`)
  assertOptions('the `cache` of mysqlStore', cache, CACHE)
  for (const [name, value] of Object.entries(cache)) {
    if (value === undefined || (Number.isSafeInteger(value) && value >= 1)) continue
    throw refusal(`mysqlStore's \`cache.${name}\` must be a whole number of 1 or more, got ${String(value)}`)
  }
  const sessionsMax = cache.sessionsMax ?? CACHE.sessionsMax
  return new MysqlStore(table, { sessionsMax, bytesMax: cache.bytesMax ?? CACHE.bytesMax })
}

function assertOptions(whose: string, given: object, known: object): void {
  const unknown = Object.keys(given).find(name => !Object.hasOwn(known, name))
  if (unknown === undefined) return
  throw refusal(`unknown option of ${whose}: \`${unknown}\`; it knows ${Object.keys(known).join(', ')}`)
}

function refusal(message: string): SessionTxError {
  return new SessionTxError('MISCONFIGURED', message)
}

interface Started {
  readonly settings: StoreSettings
  readonly database: StoreDatabase
  readonly times: MysqlTimes
}

class MysqlStore implements SessionStore {
  readonly name = 'mysql'
  readonly capability = 'same-connection'
  readonly #statements: SessionStatements
  readonly #explained: (error: unknown) => unknown
  readonly #cache: LRUCache<string, MysqlEntry> | undefined
  /** Told already; their rows may be there until they are swept. */
  readonly #expiredKnown = new LRUCache<string, true>({ max: EXPIRED_KNOWN_MAX })
  #state: Started | undefined
  readonly #reading = new Set<Promise<void>>()

  constructor(table: string, cache: Required<MysqlCacheOptions> | undefined) {
    this.#statements = new SessionStatements(table)
    const option = table === SESSIONS_TABLE ? '' : ` --sessions ${table}`
    const needs = {
      who: 'mysqlStore',
      tables: [table, `${table}_times`],
      remedy: `make them with \`npx session-tx migrate --url mysql://… --apply${option}\``,
    }
    this.#explained = error => setUpError(error, needs) ?? error
    if (cache !== undefined) this.#cache = new LRUCache({ max: cache.sessionsMax, maxSize: cache.bytesMax })
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
    this.#state = { settings, database, times }
  }

  open(
    key: string,
    fresh = false,
    turn?: AttemptTransaction,
  ): OpenSession | undefined | Promise<OpenSession | undefined> {
    if (!KEY_FORM.test(key)) throw new TypeError('not a key of a session')
    const entry = this.#cache?.get(key)
    if (turn !== undefined) return this.#hold(key, entry, turn)
    if (entry === undefined || entry.dead) return this.#fetch(key, this.#blank(key))
    if (fresh || entry.isBlank || entry.distrust > 0 || this.#expiry(entry) !== undefined)
      return this.#fetch(key, entry)
    return this.#session(key, entry, 'cached')
  }

  /** Remembered before it is known, so that all who ask for it at once learn from each other, and install in it. */
  #blank(key: string): MysqlEntry {
    const entry = new MysqlEntry(this.#now)
    this.#keep(key, entry)
    return entry
  }

  get #now(): number {
    return this.#started.settings.clock.now()
  }

  async #fetch(key: string, entry: MysqlEntry): Promise<OpenSession | undefined> {
    const askedAt = this.#now
    const isFirst = entry.isBlank
    const fetched = await this.#read(on => fetchInto(entry, key, this.#statements, on))
    if (fetched === undefined) {
      entry.die()
      this.#forget(key, entry)
      return undefined
    }
    this.#age(entry, fetched, askedAt, isFirst)
    const reason = this.#expiry(entry)
    if (reason !== undefined) {
      this.#forget(key, entry)
      if (!this.#expiredKnown.has(key))
        this.#started.settings.events.emit('session:expired', { session: shownKey(key), reason })
      this.#expiredKnown.set(key, true)
      return undefined
    }
    if (entry.distrust > 0) entry.distrust -= 1
    this.#keep(key, entry)
    return this.#session(key, entry, fetched.isComplete ? 'fetched' : 'cached')
  }

  /** For who lost before, and is first in line in this process: first come, first served between processes, too. */
  async #hold(
    key: string,
    cached: MysqlEntry | undefined,
    turn: AttemptTransaction,
  ): Promise<OpenSession | undefined> {
    // It has been used a moment ago, so its age is known; else it is asked for in the usual way.
    if (cached === undefined || cached.dead || cached.isBlank || this.#expiry(cached) !== undefined)
      return this.#fetch(key, this.#blank(key))
    const held = await holdInto(cached, key, this.#statements, await turn.begin())
    if (held === undefined) {
      cached.die()
      this.#forget(key, cached)
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

  /** An idle time that this process has not written yet is newer than the database's. */
  #age(entry: MysqlEntry, { createdMs, touchedMs }: Fetched, askedAt: number, isFirst: boolean): void {
    entry.createdAt = askedAt - createdMs
    const touchedAt = askedAt - touchedMs
    entry.touchedAt = isFirst ? touchedAt : Math.max(entry.touchedAt, touchedAt)
  }

  /** Never early: the idle time is written once per granularity, so it may be that much later than written. */
  #expiry({ createdAt, touchedAt }: MysqlEntry): 'idle' | 'absolute' | undefined {
    const { idleMs, absoluteMs, touchGranularityMs } = this.#started.settings
    const now = this.#now
    if (absoluteMs !== false && now - createdAt >= absoluteMs) return 'absolute'
    if (idleMs !== false && now - touchedAt >= idleMs + touchGranularityMs) return 'idle'
    return undefined
  }

  #forget(key: string, entry: MysqlEntry): void {
    if (this.#cache?.peek(key) === entry) this.#cache.delete(key)
  }

  #keep(key: string, entry: MysqlEntry): void {
    if (!entry.dead) this.#cache?.set(key, entry, { size: entry.variables.latest.sizeBytes + ENTRY_BYTES })
  }

  create(key: string): OpenSession {
    return this.#session(key, new MysqlEntry(this.#now), 'cached', true)
  }

  #session(key: string, entry: MysqlEntry, known: 'cached' | 'fetched' | 'held', isNew = false): OpenSession {
    return new MysqlSession({
      key,
      entry,
      isNew,
      known,
      statements: this.#statements,
      userVariable: this.#started.settings.userVariable,
      explained: this.#explained,
      created: () => this.#keep(key, entry),
      ended: () => {
        this.#forget(key, entry)
        this.#started.settings.events.emit('session:destroyed', { session: shownKey(key) })
      },
      touched: () => {
        this.#touch(key, entry)
        if (this.#cache?.has(key) === true) this.#keep(key, entry) // with its new size
      },
      touch: () => this.#touch(key, entry),
      refresh: async on => {
        const fetched = await fetchInto(entry, key, this.#statements, on)
        if (fetched?.isComplete === true) return entry
        const own = new MysqlEntry(this.#now)
        if (fetched !== undefined && (await fetchInto(own, key, this.#statements, on)) !== undefined)
          return own
        entry.die()
        return undefined
      },
    })
  }

  #touch(key: string, entry: MysqlEntry): boolean {
    const { touchGranularityMs } = this.#started.settings
    const now = this.#now
    if (entry.dead || now - entry.touchedAt < touchGranularityMs) return false
    entry.touchedAt = now
    this.#started.times.touch(key, now)
    return true
  }

  async sessionsOf(user: string): Promise<readonly string[]> {
    const rows = await this.#read(on => on.select(this.#statements.sessionsOf(user)))
    return rows.map(([session]) => session ?? '')
  }

  /** What this process remembers; nobody counts the rows. */
  counts(): StoreCounts {
    return { live: this.#cache?.size ?? 0, sizeBytes: this.#cache?.calculatedSize ?? 0 }
  }

  /** Writes idle times that are still to be written. The pool's connections must still be lent. */
  async close(): Promise<void> {
    await this.#state?.times.close()
    await Promise.all(this.#reading)
  }
}
