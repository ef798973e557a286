/**
 * Sessions in a store that was written for express-session or koa-session. Such a store keeps whole sessions and has no
 * versions, so this is best effort: requests of this process are kept apart like those of memoryStore; what another
 * process has changed is noticed when the store is asked again, before each write. Between that look and the write
 * another process's change is lost. Implements session/store.ts (capability `best-effort`). Knows no cookie and no SQL.
 */
import { SessionTxError } from '../errors.js'
import { shownKey } from '../session/identity.js'
import type {
  Claim,
  Disturbance,
  OpenSession,
  SessionSnapshot,
  SessionStore,
  SessionWrite,
  Settled,
  StoreCounts,
  StoreSettings,
} from '../session/store.js'
import { keyOf } from '../session/value-key.js'
import type { MaybePromise } from '../transaction/resource.js'
import { KeyLock } from './key-lock.js'
import { type LegacyAccess, LegacyClaim } from './legacy-claim.js'
import { contentsOf, type LegacySession, readContents, textOf, valueOf } from './legacy-contents.js'
import { dialectOf, type LegacyContents, type LegacyDialect } from './legacy-dialect.js'
import { LocalClaim } from './local-claim.js'
import { LocalSession, type LocalSessionOwner, type LocalTimes } from './local-session.js'

/** How a change of another process is called, to who lost to it; and what was there before. */
const ELSEWHERE = '(another process)'
const STORED = '(stored)'
/** Where nothing expires; stores want a number. */
const FOR_EVER_MS = 10 * 365 * 86_400_000

/**
 * Wraps an existing store, such as connect-redis or express-mysql-session. Best effort: it has no versions.
 * @throws MISCONFIGURED if it is no such store
 *
 * @example
 * app.use(sessionTx({ pool, store: legacyStore(new RedisStore({ client })) }))
 */
export function legacyStore(store: object): SessionStore {
  return new LegacyStore(store)
}

/** A session that somebody has open, and what the store had of it last. */
interface Live {
  readonly session: LocalSession
  texts: ReadonlyMap<string, string>
}

class LegacyStore implements SessionStore, LocalSessionOwner {
  readonly name = 'legacy'
  readonly capability = 'best-effort'
  readonly #dialect: LegacyDialect
  readonly #locks = new KeyLock()
  readonly #live = new Map<string, Live>()
  /** Nobody knows whether what the store has of them is committed. */
  readonly #doubted = new Set<string>()
  readonly #pending = new Set<Promise<void>>()
  #settings: StoreSettings | undefined

  constructor(store: object) {
    this.#dialect = dialectOf(store, {
      lifeMs: () => this.#lifeMs,
      wallNow: () => this.settings.clock.wallNow(),
    })
  }

  get settings(): StoreSettings {
    if (this.#settings === undefined) throw new TypeError('the store was used before sessionTx() started it')
    return this.#settings
  }

  start(settings: StoreSettings): void {
    if (this.#settings !== undefined) {
      const message = 'this store already belongs to another sessionTx(); give each its own'
      throw new SessionTxError('MISCONFIGURED', message)
    }
    this.#settings = settings
  }

  get #lifeMs(): number {
    const { idleMs, absoluteMs, touchGranularityMs } = this.settings
    if (idleMs !== false) return idleMs + touchGranularityMs
    return absoluteMs === false ? FOR_EVER_MS : absoluteMs
  }

  async open(key: string): Promise<OpenSession | undefined> {
    const unlock = await this.#lock(key)
    try {
      const found = await this.#ask(this.#dialect.get(key))
      const live = this.#refresh(key, found)
      if (live === undefined) return undefined
      if (live.session.hasExpired()) {
        this.#later(() => this.#dialect.destroy(key))
        return undefined
      }
      return this.#opened(key, live)
    } finally {
      unlock()
    }
  }

  create(key: string): OpenSession {
    return this.#opened(key, { session: new LocalSession(key, this), texts: new Map() })
  }

  #opened(key: string, live: Live): OpenSession {
    this.#live.set(key, live)
    return new OpenLegacySession(live.session.open(), write => {
      const inner = new LocalClaim(live.session, write)
      return new LegacyClaim(this.#access(key, live), inner, write)
    })
  }

  rested({ key }: LocalSession): void {
    this.#live.delete(key)
  }

  touched({ key }: LocalSession): void {
    this.#later(async () => {
      const unlock = await this.#lock(key)
      try {
        const read = readContents((await this.#dialect.get(key)) ?? {})
        if (read === undefined) return
        await this.#dialect.set(key, contentsOf(read.texts, read.createdAt, this.#wallNow), this.#lifeMs)
      } finally {
        unlock()
      }
    })
  }

  #access(key: string, live: Live): LegacyAccess {
    let texts = live.texts
    return {
      lock: () => this.#lock(key),
      refresh: async () => {
        // Its id was drawn a moment ago, so no store knows it: some are slow to say that, and some cannot.
        if (!live.session.ended && live.session.latest.version === 0) return undefined
        const found = await this.#ask(this.#dialect.get(key))
        if (this.#refresh(key, found) === undefined && live.session.isStored) live.session.end(ELSEWHERE)
        return found
      },
      write: async writes => {
        const changed = new Map(live.texts)
        for (const [name, settled] of writes) {
          if (settled === undefined) changed.delete(name)
          else changed.set(name, textOf(settled))
        }
        texts = changed
        const { clock } = this.settings
        const createdAt = this.#wallNow - (clock.now() - live.session.createdAt)
        await this.#ask(this.#dialect.set(key, contentsOf(changed, createdAt, this.#wallNow), this.#lifeMs))
      },
      destroy: () => this.#ask(this.#dialect.destroy(key)),
      committed: () => {
        live.texts = texts
      },
      takeBack: before =>
        before === undefined ? this.#dialect.destroy(key) : this.#dialect.set(key, before, this.#lifeMs),
      doubt: isDoubted => {
        if (isDoubted) this.#doubted.add(key)
        else this.#doubted.delete(key)
      },
      later: work => this.#later(work),
    }
  }

  get #wallNow(): number {
    return this.settings.clock.wallNow()
  }

  async #lock(key: string): Promise<() => void> {
    const unlock = await this.#locks.take(key)
    if (!this.#doubted.has(key)) return unlock
    unlock()
    const message = `session ${shownKey(key)} is held by a transaction whose outcome is not known yet`
    throw new SessionTxError('STORE_UNAVAILABLE', message)
  }

  /** What the store has now, in memory: what another process has changed becomes a commit that others see. */
  #refresh(key: string, found: LegacyContents | undefined): Live | undefined {
    const read = found === undefined ? undefined : readContents(found)
    if (read === undefined) return undefined
    const known = this.#live.get(key)
    const live =
      known === undefined || known.session.ended
        ? { session: new LocalSession(key, this, this.#timesOf(read)), texts: new Map<string, string>() }
        : known
    const isNew = live !== known
    const writes = new Map<string, Settled | undefined>()
    for (const [name, text] of read.texts)
      if (isNew || !isSameText(live.texts.get(name), text)) writes.set(name, valueOf(text, name))
    for (const name of live.texts.keys()) if (!read.texts.has(name)) writes.set(name, undefined)
    live.texts = read.texts
    if (writes.size > 0 || isNew)
      live.session.restore({ writes, by: isNew ? STORED : ELSEWHERE }, this.#timesOf(read).touchedAt)
    return live
  }

  #timesOf({ createdAt, touchedAt }: LegacySession): LocalTimes {
    const { clock } = this.settings
    const passed = clock.now() - clock.wallNow()
    return { createdAt: createdAt + passed, touchedAt: touchedAt + passed }
  }

  async #ask<T>(answer: Promise<T>): Promise<T> {
    try {
      return await answer
    } catch (cause) {
      throw new SessionTxError('STORE_UNAVAILABLE', 'the store that legacyStore wraps has failed', { cause })
    }
  }

  /** What nobody waits for but `close`. */
  #later(work: () => Promise<void>): void {
    const failed = (error: unknown): void =>
      process.emitWarning(`the store that legacyStore wraps has failed: ${String(error)}`, 'SessionTxWarning')
    const pending = work().catch(failed)
    this.#pending.add(pending)
    void pending.then(() => this.#pending.delete(pending))
  }

  /** Those that are open; how many there are else, only the store knows. */
  counts(): StoreCounts {
    return { live: this.#live.size, sizeBytes: 0 }
  }

  async close(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending)
  }
}

/** The order of an object's keys may change on the way through a store. */
function isSameText(before: string | undefined, now: string): boolean {
  if (before === undefined || before === now) return before === now
  return keyOf(JSON.parse(before)) === keyOf(JSON.parse(now))
}

class OpenLegacySession implements OpenSession {
  readonly #inner: OpenSession
  readonly #claim: (write: SessionWrite) => Claim

  constructor(inner: OpenSession, claim: (write: SessionWrite) => Claim) {
    this.#inner = inner
    this.#claim = claim
  }

  get key(): string {
    return this.#inner.key
  }
  get ended(): boolean {
    return this.#inner.ended
  }
  snapshot(): SessionSnapshot {
    return this.#inner.snapshot()
  }
  disturbance(since: SessionSnapshot): Disturbance {
    return this.#inner.disturbance(since)
  }
  pause(): MaybePromise<() => void> {
    return this.#inner.pause()
  }
  touch(): boolean {
    return this.#inner.touch()
  }
  claim(write: SessionWrite): Claim {
    return this.#claim(write)
  }
  release(): void {
    this.#inner.release()
  }
}
