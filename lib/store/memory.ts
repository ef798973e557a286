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
import { LocalSession, type LocalSessionOwner } from './local-session.js'
import { UserIndex } from './user-index.js'

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

class MemoryStore implements SessionStore, LocalSessionOwner {
  readonly name = 'memory'
  readonly capability = 'local'
  /** Only sessions that no attempt has open. */
  readonly #resting: LRUCache<string, LocalSession>
  readonly #sessionsMax: number
  readonly #pinned = new Map<string, LocalSession>()
  readonly #users = new UserIndex()
  #settings: StoreSettings | undefined
  #sweeper: Timer | undefined

  constructor(sessionsMax: number, bytesMax: number) {
    this.#sessionsMax = sessionsMax
    // Without its own `max`: given one, lru-cache makes lists of that length, and clears them from end to end whenever its
    // only entry is deleted, which is at every request of somebody who is alone (200 000 places: 0.2 ms).
    this.#resting = new LRUCache({
      maxSize: bytesMax,
      dispose: (_session, key, reason) => {
        if (reason === 'evict') this.#evicted(key)
      },
    })
  }

  #evicted(key: string): void {
    this.#users.set(key, undefined)
    this.settings.events.emit('session:evicted', { session: shownKey(key) })
  }

  get settings(): StoreSettings {
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
    const session = this.#pinned.get(key) ?? this.#resting.peek(key)
    if (session === undefined || session.ended) return undefined
    if (this.#expire(session)) return undefined
    return this.#pin(session)
  }

  create(key: string): OpenSession {
    return this.#pin(new LocalSession(key, this))
  }

  #pin(session: LocalSession): OpenSession {
    if (!session.isOpen) {
      this.#resting.delete(session.key)
      this.#pinned.set(session.key, session)
    }
    return session.open()
  }

  committed({ key, ended, latest }: LocalSession): void {
    const { userVariable } = this.settings
    if (userVariable !== undefined)
      this.#users.set(key, ended ? undefined : userKeyOf(latest.get(userVariable)))
  }

  sessionsOf(user: string): readonly string[] {
    return this.#users.sessionsOf(user)
  }

  rested(session: LocalSession): void {
    const { key } = session
    this.#pinned.delete(key)
    // Nothing was ever committed to it, or it was destroyed: nothing to keep.
    if (!session.isStored) return
    if (this.#expire(session)) return
    this.#resting.set(key, session, { size: session.latest.sizeBytes + RECORD_BYTES })
    // Larger than all the room there is: the cache does not take it, and does not say so.
    if (!this.#resting.has(key)) this.#evicted(key)
    if (this.#resting.size > this.#sessionsMax) this.#resting.pop()
  }

  /** Drops an expired session; one that an attempt has open stays with that attempt only. */
  #expire(session: LocalSession): boolean {
    const isOver = session.hasExpired()
    if (isOver) {
      this.#resting.delete(session.key)
      this.#users.set(session.key, undefined)
    }
    return isOver
  }

  #scheduleSweep(): void {
    this.#sweeper = this.settings.clock.after(SWEEP_EVERY_MS, () => {
      this.#sweep()
      this.#scheduleSweep()
    })
  }

  /** Frees memory early; what it does not reach is dropped when it is asked for, or evicted as least recently used. */
  #sweep(): void {
    let looked = 0
    for (const key of this.#resting.rkeys()) {
      const session = this.#resting.peek(key)
      if (session !== undefined && !this.#expire(session)) {
        // Least recently used first: with idle expiry alone, whoever comes later is younger.
        if (this.settings.absoluteMs === false) return
      }
      looked += 1
      if (looked === SWEPT_AT_ONCE_MAX) return
    }
  }

  counts(): StoreCounts {
    let sizeBytes = this.#resting.calculatedSize
    let live = this.#resting.size
    for (const session of this.#pinned.values()) {
      if (!session.isStored) continue
      live += 1
      sizeBytes += session.latest.sizeBytes + RECORD_BYTES
    }
    return { live, sizeBytes }
  }

  close(): void {
    this.#sweeper?.cancel()
  }
}
