/** A session of the MySQL store as one attempt has it open (the contract is session/store.ts). Knows no statement. */
import {
  type AttemptTransaction,
  type Claim,
  type Disturbance,
  NAMES,
  type OpenSession,
  type SessionSnapshot,
  type SessionWrite,
  type StoreTransaction,
} from '../session/store.js'
import { type ClaimSetup, MysqlClaim } from './mysql-claim.js'
import { type RememberedSession, stampIn } from './remembered-session.js'
import { disturbanceOf, type Version } from './versioned-variables.js'

interface OpenSetup
  extends Pick<ClaimSetup, 'statements' | 'userVariable' | 'explained' | 'created' | 'ended' | 'touched'> {
  readonly key: string
  readonly entry: RememberedSession
  readonly isNew: boolean
  /** `fetched` for this attempt: what it shows now was current a moment ago. `held`: it is until the attempt ends. */
  readonly known: 'cached' | 'fetched' | 'held'
  readonly touch: () => boolean
  /** The entry, or one of its own if others know newer things: what the transaction sees; undefined if that is nothing. */
  readonly refresh: (transaction: StoreTransaction) => Promise<RememberedSession | undefined>
}

export class MysqlSession implements OpenSession {
  readonly #setup: OpenSetup
  #fresh: SessionSnapshot | undefined
  /** What the attempt's own view shows, once it has been asked for. */
  #viewed: RememberedSession | undefined

  constructor(setup: OpenSetup) {
    this.#setup = setup
    if (setup.known !== 'cached' || setup.isNew) this.#fresh = this.snapshot()
  }

  get key(): string {
    return this.#setup.key
  }
  get ended(): boolean {
    return this.#setup.entry.dead
  }

  snapshot(): SessionSnapshot {
    return (this.#viewed ?? this.#setup.entry).variables.latest
  }

  disturbance(since: SessionSnapshot): Disturbance {
    return this.#viewed === undefined
      ? disturbanceOf(since as Version, [])
      : difference(since, this.snapshot())
  }

  /** Only for those who commit now: nothing keeps others from it, and what was read is checked at the end. */
  pause(): (() => void) | Promise<() => void> {
    const { settled } = this.#setup.entry
    return settled === undefined ? nothing : settled.then(() => nothing)
  }

  async refresh(transaction: StoreTransaction): Promise<void> {
    this.#viewed = await this.#setup.refresh(transaction)
    if (this.#viewed !== undefined) this.#fresh = this.snapshot()
  }

  touch(): boolean {
    return this.#setup.touch()
  }

  claim(write: SessionWrite, transaction?: AttemptTransaction): Claim {
    if (transaction === undefined)
      throw new TypeError('mysqlStore commits in the transaction of the attempt only')
    const fresh = write.base === this.#fresh
    const fits = fresh && (this.#viewed !== undefined || this.#setup.known === 'held')
    return new MysqlClaim({ ...this.#setup, transaction, fresh, fits }, write)
  }

  /** Nothing is held for it; it stays what it is, also when the cache drops it. */
  release(): void {}
}

function nothing(): void {}

/** Between two snapshots that need not follow one another. */
function difference(before: SessionSnapshot, now: SessionSnapshot): Disturbance {
  const names = (snapshot: SessionSnapshot): string => JSON.stringify(snapshot.names().sort())
  return {
    none: false,
    has: part => {
      if (typeof part === 'string') return stampIn(before, part) !== stampIn(now, part)
      return part === NAMES && names(before) !== names(now)
    },
  }
}
