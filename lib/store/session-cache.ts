/**
 * What a process remembers of sessions that are kept elsewhere and shared: bounded, least recently used first out, each
 * with its age. What is in it may be old. Also how the options of such a store are checked. Knows nothing of where the
 * sessions are kept.
 */
import { LRUCache } from 'lru-cache'
import { SessionTxError } from '../errors.js'
import { shownKey } from '../session/identity.js'
import type { StoreCounts, StoreSettings } from '../session/store.js'
import { RememberedSession } from './remembered-session.js'

export interface SessionCacheOptions {
  /** Default 20 000. */
  readonly sessionsMax?: number
  /** Encoded size of all of them, default 64 MiB. */
  readonly bytesMax?: number
}

/** What a session says of its age. On the clock of where it is kept, so that no two machines' clocks have to agree. */
interface SessionAge {
  readonly createdMs: number
  readonly touchedMs: number
}

const DEFAULTS = Object.freeze({ sessionsMax: 20_000, bytesMax: 64 * 1024 * 1024 })
/** What a session costs beside its variables, for `bytesMax`. */
const ENTRY_BYTES = 300
const EXPIRED_KNOWN_MAX = 1_000
const KEY_FORM = /^[\w-]{1,43}$/

/** @throws MISCONFIGURED */
export function cacheBounds(
  who: string,
  cache: SessionCacheOptions | false,
): Required<SessionCacheOptions> | undefined {
  if (cache === false) return undefined
  if (typeof cache !== 'object' || cache === null)
    throw refusal(`${who}'s \`cache\` must be false or an object, got ${String(cache)}`)
  assertOptions(`the \`cache\` of ${who}`, cache, DEFAULTS)
  for (const [name, value] of Object.entries(cache)) {
    if (value === undefined || (Number.isSafeInteger(value) && value >= 1)) continue
    throw refusal(`${who}'s \`cache.${name}\` must be a whole number of 1 or more, got ${String(value)}`)
  }
  return {
    sessionsMax: cache.sessionsMax ?? DEFAULTS.sessionsMax,
    bytesMax: cache.bytesMax ?? DEFAULTS.bytesMax,
  }
}

/** @throws MISCONFIGURED for an option that is not known */
export function assertOptions(whose: string, given: object, known: object): void {
  const unknown = Object.keys(given).find(name => !Object.hasOwn(known, name))
  if (unknown === undefined) return
  throw refusal(`unknown option of ${whose}: \`${unknown}\`; it knows ${Object.keys(known).join(', ')}`)
}

export function refusal(message: string): SessionTxError {
  return new SessionTxError('MISCONFIGURED', message)
}

/** Only such a key is ever part of a statement or a command. */
export function assertKey(key: string): void {
  if (!KEY_FORM.test(key)) throw new TypeError('not a key of a session')
}

export class SessionCache {
  readonly #settings: StoreSettings
  readonly #sessions: LRUCache<string, RememberedSession> | undefined
  /** Told already; they may be stored until they are swept. */
  readonly #expiredKnown = new LRUCache<string, true>({ max: EXPIRED_KNOWN_MAX })

  /** @param bounds undefined: nothing is remembered */
  constructor(settings: StoreSettings, bounds: Required<SessionCacheOptions> | undefined) {
    this.#settings = settings
    if (bounds !== undefined)
      this.#sessions = new LRUCache({ max: bounds.sessionsMax, maxSize: bounds.bytesMax })
  }

  get(key: string): RememberedSession | undefined {
    return this.#sessions?.get(key)
  }

  get #now(): number {
    return this.#settings.clock.now()
  }

  /** Nothing is known of it yet. */
  unknown(): RememberedSession {
    return new RememberedSession(this.#now)
  }

  /** Remembered before it is known, so that all who ask for it at once learn from each other, and install in it. */
  blank(key: string): RememberedSession {
    const entry = this.unknown()
    this.keep(key, entry)
    return entry
  }

  /** With its present size. */
  keep(key: string, entry: RememberedSession): void {
    if (!entry.dead) this.#sessions?.set(key, entry, { size: entry.variables.latest.sizeBytes + ENTRY_BYTES })
  }

  /** Its size may have changed. */
  resized(key: string, entry: RememberedSession): void {
    if (this.#sessions?.has(key) === true) this.keep(key, entry)
  }

  forget(key: string, entry: RememberedSession): void {
    if (this.#sessions?.peek(key) === entry) this.#sessions.delete(key)
  }

  /** An idle time that this process has not written yet is newer than the one that was found. */
  age(
    entry: RememberedSession,
    { createdMs, touchedMs }: SessionAge,
    askedAt: number,
    isFirst: boolean,
  ): void {
    entry.createdAt = askedAt - createdMs
    const touchedAt = askedAt - touchedMs
    entry.touchedAt = isFirst ? touchedAt : Math.max(entry.touchedAt, touchedAt)
  }

  /** Never early: the idle time is written once per granularity, so it may be that much later than written. */
  expiry({ createdAt, touchedAt }: RememberedSession): 'idle' | 'absolute' | undefined {
    const { idleMs, absoluteMs, touchGranularityMs } = this.#settings
    const now = this.#now
    if (absoluteMs !== false && now - createdAt >= absoluteMs) return 'absolute'
    if (idleMs !== false && now - touchedAt >= idleMs + touchGranularityMs) return 'idle'
    return undefined
  }

  /** Forgets a session that has expired, and says so once. @returns whether it has */
  expire(key: string, entry: RememberedSession): boolean {
    const reason = this.expiry(entry)
    if (reason === undefined) return false
    this.forget(key, entry)
    if (!this.#expiredKnown.has(key))
      this.#settings.events.emit('session:expired', { session: shownKey(key), reason })
    this.#expiredKnown.set(key, true)
    return true
  }

  /** Somebody has ended it. */
  ended(key: string, entry: RememberedSession): void {
    this.forget(key, entry)
    this.#settings.events.emit('session:destroyed', { session: shownKey(key) })
  }

  /** @returns when it was used, if that is to be written; undefined: it was, a moment ago */
  touch(entry: RememberedSession): number | undefined {
    const now = this.#now
    if (entry.dead || now - entry.touchedAt < this.#settings.touchGranularityMs) return undefined
    entry.touchedAt = now
    return now
  }

  clear(): void {
    this.#sessions?.clear()
  }

  /** What this process remembers; nobody counts what is stored. */
  counts(): StoreCounts {
    return { live: this.#sessions?.size ?? 0, sizeBytes: this.#sessions?.calculatedSize ?? 0 }
  }
}
