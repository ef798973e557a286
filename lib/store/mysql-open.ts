/** A session of the MySQL store as one attempt has it open (the contract is session/store.ts). Knows no statement. */
import type {
  AttemptTransaction,
  Claim,
  Disturbance,
  OpenSession,
  SessionSnapshot,
  SessionWrite,
  StoreTransaction,
} from '../session/store.js'
import { type ClaimSetup, MysqlClaim } from './mysql-claim.js'
import type { MysqlEntry } from './mysql-entry.js'
import { disturbanceOf, type Version } from './versioned-variables.js'

interface OpenSetup extends Pick<ClaimSetup, 'statements' | 'explained' | 'created' | 'ended' | 'touched'> {
  readonly key: string
  readonly entry: MysqlEntry
  readonly isNew: boolean
  /** `fetched` for this attempt: what it shows now was current a moment ago. `held`: it is until the attempt ends. */
  readonly known: 'cached' | 'fetched' | 'held'
  readonly touch: () => boolean
  readonly refresh: (transaction: StoreTransaction) => Promise<void>
}

export class MysqlSession implements OpenSession {
  readonly #setup: OpenSetup
  #fresh: SessionSnapshot | undefined

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
    return this.#setup.entry.variables.latest
  }

  disturbance(since: SessionSnapshot): Disturbance {
    return disturbanceOf(since as Version, [])
  }

  pause(): () => void {
    return () => {}
  }

  async refresh(transaction: StoreTransaction): Promise<void> {
    await this.#setup.refresh(transaction)
    this.#fresh = this.snapshot()
  }

  touch(): boolean {
    return this.#setup.touch()
  }

  claim(write: SessionWrite, transaction?: AttemptTransaction): Claim {
    if (transaction === undefined)
      throw new TypeError('mysqlStore commits in the transaction of the attempt only')
    const fresh = write.base === this.#fresh
    const held = fresh && this.#setup.known === 'held'
    return new MysqlClaim({ ...this.#setup, transaction, fresh, held }, write)
  }

  /** Nothing is held for it; it stays what it is, also when the cache drops it. */
  release(): void {}
}
