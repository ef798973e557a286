/**
 * The store for one process: sessions in an lru-cache, bounded by number and by bytes. Implements session/store.ts
 * (capability `local`) and knows nothing of cookies, databases or requests. It forgets everything when the process ends.
 *
 * A session that a running attempt has open is pinned: it leaves the cache, so that it is neither evicted nor expired
 * under it, and comes back with its new size.
 */
import { LRUCache } from 'lru-cache'
import { SessionTxError } from '../errors.js'
import { shownKey } from '../session/identity.js'
import { userKeyOf } from '../session/user-key.js'
import type { OpenSession, SessionStore, StoreCounts, StoreSettings } from '../session/store.js'
import type { Timer } from '../transaction/clock.js'
import { MemoryPin } from './memory-pin.js'
import { SessionRecord } from './memory-record.js'

export interface MemoryStoreOptions {
  /** Default 200 000. */
  readonly sessionsMax?: number
  /** Encoded size of all sessions, default 256 MiB. */
  readonly bytesMax?: number
}

const DEFAULTS = Object.freeze({ sessionsMax: 200_000, bytesMax: 256 * 1024 * 1024 })
const SWEEP_EVERY_MS = 60_000
const SWEPT_AT_ONCE_MAX = 5_000
/** What a session costs beside its variables, for `bytesMax`: records, maps, versions. */
const RECORD_BYTES = 200

/**
 * Sessions in this process's memory.
 * @throws MISCONFIGURED for an unknown or bad option
 *
 * @example
 * app.use(sessionTx({ pool, store: memoryStore({ sessionsMax: 50_000 }) }))
 */
export function memoryStore(options: MemoryStoreOptions = {}): SessionStore {
  for (const [name, value] of Object.entries(options)) {
    if (!(name in DEFAULTS)) {
      const known = Object.keys(DEFAULTS).join(', ')
      throw new SessionTxError(
        'MISCONFIGURED',
        `unknown option of memoryStore: \`${name}\`; it knows ${known}`,
      )
    }
    if (value === undefined || (Number.isSafeInteger(value) && value >= 1)) continue
    const message = `memoryStore's \`${name}\` must be a whole number of 1 or more, got ${String(value)}`
    throw new SessionTxError('MISCONFIGURED', message)
  }
  const sessionsMax = options.sessionsMax ?? DEFAULTS.sessionsMax
  return new MemoryStore(sessionsMax, options.bytesMax ?? DEFAULTS.bytesMax)
}

class MemoryStore implements SessionStore {
  readonly name = 'memory'
  readonly capability = 'local'
  /** Only sessions that no attempt has open. */
  readonly #resting: LRUCache<string, SessionRecord>
  readonly #sessionsMax: number
  readonly #pinned = new Map<string, SessionRecord>()
  /** Keys of sessions by the key of their user. */
  readonly #users = new Map<string, Set<string>>()
  #settings: StoreSettings | undefined
  #sweeper: Timer | undefined

  constructor(sessionsMax: number, bytesMax: number) {
    this.#sessionsMax = sessionsMax
    // Without its own `max`: given one, lru-cache makes lists of that length, and clears them from end to end whenever its
    // only entry is deleted, which is at every request of somebody who is alone (200 000 places: 0.2 ms).
    this.#resting = new LRUCache({
      maxSize: bytesMax,
      dispose: (record, key, reason) => {
        if (reason === 'evict') this.#evicted(key, record)
      },
    })
  }

  #evicted(key: string, record: SessionRecord): void {
    this.#belongs(key, record, undefined)
    this.#started.events.emit('session:evicted', { session: shownKey(key) })
  }

  get #started(): StoreSettings {
    if (this.#settings === undefined) throw new TypeError('the store was used before sessionTx() started it')
    return this.#settings
  }

  start(settings: StoreSettings): void {
    if (this.#settings !== undefined) {
      throw new SessionTxError(
        'MISCONFIGURED',
        'this store already belongs to another sessionTx(); give each its own',
      )
    }
    this.#settings = settings
    this.#scheduleSweep()
  }

  open(key: string): OpenSession | undefined {
    const record = this.#pinned.get(key) ?? this.#resting.peek(key)
    if (record === undefined || record.dead) return undefined
    if (this.#expire(key, record)) return undefined
    return this.#pin(key, record)
  }

  create(key: string): OpenSession {
    return this.#pin(key, new SessionRecord(this.#started.clock.now()))
  }

  #pin(key: string, record: SessionRecord): OpenSession {
    if (record.pins === 0) {
      this.#resting.delete(key)
      this.#pinned.set(key, record)
    }
    record.pins += 1
    return new MemoryPin({
      key,
      record,
      touch: () => this.#touch(record),
      installed: writes => {
        const { userVariable } = this.#started
        if (userVariable !== undefined && writes.has(userVariable))
          this.#belongs(key, record, userKeyOf(writes.get(userVariable)))
      },
      released: () => this.#unpin(key, record),
      ended: () => {
        this.#belongs(key, record, undefined)
        this.#started.events.emit('session:destroyed', { session: shownKey(key) })
      },
    })
  }

  #belongs(key: string, record: SessionRecord, user: string | undefined): void {
    const before = record.user
    if (before === user) return
    record.user = user
    if (before !== undefined) {
      const sessions = this.#users.get(before)
      sessions?.delete(key)
      if (sessions?.size === 0) this.#users.delete(before)
    }
    if (user === undefined) return
    const sessions = this.#users.get(user) ?? new Set()
    this.#users.set(user, sessions.add(key))
  }

  sessionsOf(user: string): readonly string[] {
    return [...(this.#users.get(user) ?? [])]
  }

  #unpin(key: string, record: SessionRecord): void {
    record.pins -= 1
    if (record.pins > 0) return
    this.#pinned.delete(key)
    // Nothing was ever committed to it, or it was destroyed: nothing to keep.
    if (record.dead || record.latest.version === 0) return
    if (this.#expire(key, record)) return
    this.#resting.set(key, record, { size: record.latest.sizeBytes + RECORD_BYTES })
    // Larger than all the room there is: the cache does not take it, and does not say so.
    if (!this.#resting.has(key)) this.#evicted(key, record)
    if (this.#resting.size > this.#sessionsMax) this.#resting.pop()
  }

  #touch(record: SessionRecord): boolean {
    // A dead session's cookie must not be sent again over that of a login that happened meanwhile.
    if (record.dead) return false
    const { clock, touchGranularityMs } = this.#started
    const now = clock.now()
    if (now - record.touchedAt < touchGranularityMs) return false
    record.touchedAt = now
    return true
  }

  /** Drops an expired session; one that an attempt has open stays with that attempt only. */
  #expire(key: string, record: SessionRecord): boolean {
    const reason = this.#expiry(record)
    if (reason === undefined) return false
    this.#resting.delete(key)
    this.#belongs(key, record, undefined)
    if (!record.expiryReported) {
      record.expiryReported = true
      this.#started.events.emit('session:expired', { session: shownKey(key), reason })
    }
    return true
  }

  /**
   * Never early: the idle time is written once per granularity, so it may be that much later than written. A session that
   * an attempt has open is not idle.
   */
  #expiry(record: SessionRecord): 'idle' | 'absolute' | undefined {
    const { clock, idleMs, absoluteMs, touchGranularityMs } = this.#started
    const now = clock.now()
    if (absoluteMs !== false && now - record.createdAt >= absoluteMs) return 'absolute'
    if (idleMs !== false && record.pins === 0 && now - record.touchedAt >= idleMs + touchGranularityMs)
      return 'idle'
    return undefined
  }

  #scheduleSweep(): void {
    this.#sweeper = this.#started.clock.after(SWEEP_EVERY_MS, () => {
      this.#sweep()
      this.#scheduleSweep()
    })
  }

  /** Frees memory early; what it does not reach is dropped when it is asked for, or evicted as least recently used. */
  #sweep(): void {
    let looked = 0
    for (const key of this.#resting.rkeys()) {
      const record = this.#resting.peek(key)
      if (record !== undefined && !this.#expire(key, record)) {
        // Least recently used first: with idle expiry alone, whoever comes later is younger.
        if (this.#started.absoluteMs === false) return
      }
      looked += 1
      if (looked === SWEPT_AT_ONCE_MAX) return
    }
  }

  counts(): StoreCounts {
    let sizeBytes = this.#resting.calculatedSize
    let live = this.#resting.size
    for (const record of this.#pinned.values()) {
      if (record.dead || record.latest.version === 0) continue
      live += 1
      sizeBytes += record.latest.sizeBytes + RECORD_BYTES
    }
    return { live, sizeBytes }
  }

  close(): void {
    this.#sweeper?.cancel()
  }
}
