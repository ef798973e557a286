/**
 * One session in the memory of one process: its variables and versions, who has it open, who holds what of it, when it
 * was last used, whether it has expired. What every store of capability `local` needs and none has to write anew; the
 * contract is session/store.ts. Knows nothing of the store: neither where its sessions lie nor how they are kept.
 */
import { HoldTable } from '../session/hold.js'
import { shownKey } from '../session/identity.js'
import type {
  Claim,
  Disturbance,
  OpenSession,
  SessionSnapshot,
  SessionWrite,
  Settled,
  StoredVariable,
  StoreSettings,
} from '../session/store.js'
import { type LocalChange, LocalClaim } from './local-claim.js'
import { disturbanceOf, UNDISTURBED, type Version, VersionedVariables } from './versioned-variables.js'

/** The store that a session belongs to, as the session needs it. */
export interface LocalSessionOwner {
  /** As given to `start`. */
  readonly settings: StoreSettings
  /**
   * A transaction committed to it: `change` is in it already, or it has ended. Called before anybody else gets a turn.
   * Must not throw: the rows are committed.
   */
  committed?(session: LocalSession, change: LocalChange): void
  /** Its idle time was moved, and nothing else. */
  touched?(session: LocalSession): void
  /** Nobody has it open any more. */
  rested?(session: LocalSession): void
}

/** On the clock of `start`, in milliseconds. */
export interface LocalTimes {
  readonly createdAt: number
  readonly touchedAt: number
}

const NO_WRITES: ReadonlyMap<string, Settled | undefined> = new Map()

export class LocalSession {
  readonly key: string
  readonly createdAt: number
  readonly holds = new HoldTable()
  readonly #owner: LocalSessionOwner
  readonly #variables = new VersionedVariables()
  #touchedAt: number
  #opened = 0
  #ended = false
  #expiryReported = false
  #lastWriter: string | undefined

  /** Nothing is stored in it yet. */
  constructor(key: string, owner: LocalSessionOwner, times?: LocalTimes) {
    this.key = key
    this.#owner = owner
    this.createdAt = times?.createdAt ?? owner.settings.clock.now()
    this.#touchedAt = times?.touchedAt ?? this.createdAt
  }

  get latest(): Version {
    return this.#variables.latest
  }

  get touchedAt(): number {
    return this.#touchedAt
  }

  /** Destroyed: nobody can commit to it any more. */
  get ended(): boolean {
    return this.#ended
  }

  /** Something was committed to it, and it has not ended. */
  get isStored(): boolean {
    return !this.#ended && this.latest.version > 0
  }

  get isOpen(): boolean {
    return this.#opened > 0
  }

  /** Route of the last commit. */
  get lastWriter(): string | undefined {
    return this.#lastWriter
  }

  /** For one attempt, which releases it. */
  open(): OpenSession {
    this.#opened += 1
    return new OpenLocalSession(this, () => {
      this.#opened -= 1
      if (this.#opened === 0) this.#owner.rested?.(this)
    })
  }

  /** Puts in what was committed before this process began. */
  restore({ writes, by }: LocalChange, touchedAt: number): void {
    this.#install(writes, by, false)
    this.#touchedAt = touchedAt
  }

  /** For the claim, with everything held and the rows committed. */
  commit(change: LocalChange, whole: boolean): void {
    this.#install(change.writes, change.by, whole)
    this.#moveIdleTime()
    this.#owner.committed?.(this, change)
  }

  /** For the claim, likewise. */
  end(by: string): void {
    if (this.#ended) return
    this.#ended = true
    this.#lastWriter = by
    this.#variables.end()
    this.#owner.settings.events.emit('session:destroyed', { session: shownKey(this.key) })
    this.#owner.committed?.(this, { writes: NO_WRITES, by })
  }

  touch(): boolean {
    const isMoved = this.#moveIdleTime()
    if (isMoved) this.#owner.touched?.(this)
    return isMoved
  }

  /**
   * Whether the store has to forget it; the event of it is emitted once. Never early: the idle time is written once per
   * granularity, so it may be that much later than written. A session that an attempt has open is not idle.
   */
  hasExpired(): boolean {
    const reason = this.#expiry()
    if (reason === undefined) return false
    if (!this.#expiryReported) {
      this.#expiryReported = true
      this.#owner.settings.events.emit('session:expired', { session: shownKey(this.key), reason })
    }
    return true
  }

  #expiry(): 'idle' | 'absolute' | undefined {
    const { clock, idleMs, absoluteMs, touchGranularityMs } = this.#owner.settings
    const now = clock.now()
    if (absoluteMs !== false && now - this.createdAt >= absoluteMs) return 'absolute'
    if (idleMs !== false && !this.isOpen && now - this.#touchedAt >= idleMs + touchGranularityMs)
      return 'idle'
    return undefined
  }

  #moveIdleTime(): boolean {
    // A dead session's cookie must not be sent again over that of a login that happened meanwhile.
    if (this.#ended) return false
    const { clock, touchGranularityMs } = this.#owner.settings
    const now = clock.now()
    if (now - this.#touchedAt < touchGranularityMs) return false
    this.#touchedAt = now
    return true
  }

  #install(writes: ReadonlyMap<string, Settled | undefined>, by: string, whole: boolean): void {
    const version = this.latest.version + 1
    const stored = new Map<string, StoredVariable | undefined>()
    for (const [name, settled] of writes)
      stored.set(name, settled && { value: settled.value, sizeBytes: settled.sizeBytes, version, by })
    this.#variables.install(stored, whole)
    this.#lastWriter = by
  }
}

/** As one attempt has it open. */
class OpenLocalSession implements OpenSession {
  readonly #session: LocalSession
  #close: (() => void) | undefined

  constructor(session: LocalSession, close: () => void) {
    this.#session = session
    this.#close = close
  }

  get key(): string {
    return this.#session.key
  }

  get ended(): boolean {
    return this.#session.ended
  }

  snapshot(): SessionSnapshot {
    return this.#session.latest
  }

  disturbance(since: SessionSnapshot): Disturbance {
    const { holds, latest } = this.#session
    if (since === latest && holds.idle) return UNDISTURBED
    return disturbanceOf(since as Version, holds.changing())
  }

  pause(): (() => void) | Promise<() => void> {
    return this.#session.holds.pause()
  }

  touch(): boolean {
    return this.#session.touch()
  }

  claim(write: SessionWrite): Claim {
    return new LocalClaim(this.#session, write)
  }

  release(): void {
    this.#close?.()
    this.#close = undefined
  }
}
