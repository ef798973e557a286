/** A session of the Redis store as one attempt has it open (the contract is session/store.ts). Knows no step of Redis. */
import type {
  AttemptTransaction,
  Claim,
  Disturbance,
  OpenSession,
  SessionSnapshot,
  SessionWrite,
} from '../session/store.js'
import { RedisClaim, type RedisClaimSetup } from './redis-claim.js'
import { disturbanceOf, type Version } from './versioned-variables.js'

interface OpenSetup extends Omit<RedisClaimSetup, 'fresh' | 'fits' | 'transaction'> {
  /** `fetched` for this attempt: what it shows now was current a moment ago. */
  readonly known: 'cached' | 'fetched'
  readonly isReserved: boolean
  readonly touch: () => boolean
  /** Its reservation, if it has one, is given back. */
  readonly released: () => void
  /** Hears what is stored. @returns whether what the entry has then is of one moment; false if there is no session */
  readonly hear: () => Promise<boolean>
}

export class RedisSession implements OpenSession {
  readonly #setup: OpenSetup
  #fresh: SessionSnapshot | undefined
  #confirmed: SessionSnapshot | undefined

  constructor(setup: OpenSetup) {
    this.#setup = setup
    if (setup.known === 'fetched' || setup.isNew) this.#fresh = this.snapshot()
  }

  get key(): string {
    return this.#setup.key
  }
  get ended(): boolean {
    return this.#setup.entry.dead
  }

  get isReserved(): boolean {
    return this.#setup.isReserved
  }

  snapshot(): SessionSnapshot {
    return this.#setup.entry.variables.latest
  }

  disturbance(since: SessionSnapshot): Disturbance {
    return disturbanceOf(since as Version, [])
  }

  /** Only for those of this process who commit now: nothing keeps others from it, and what was read is checked at the end. */
  pause(): (() => void) | Promise<() => void> {
    const { settled } = this.#setup.entry
    return settled === undefined ? nothing : settled.then(() => nothing)
  }

  async catchUp(): Promise<void> {
    if (!this.#setup.isNew && (await this.#setup.hear())) this.#fresh = this.snapshot()
  }

  async confirm(): Promise<boolean> {
    if (this.#setup.isNew) return true
    const before = this.snapshot()
    const isSame = (await this.#setup.hear()) && before === this.snapshot()
    if (isSame) this.#confirmed = before
    return isSame
  }

  touch(): boolean {
    return this.#setup.touch()
  }

  claim(write: SessionWrite, transaction?: AttemptTransaction): Claim {
    const fits = write.base === this.#confirmed
    const fresh = fits || write.base === this.#fresh
    return new RedisClaim({ ...this.#setup, transaction, fresh, fits }, write)
  }

  /** The entry stays what it is, also when the cache drops it. */
  release(): void {
    this.#setup.released()
  }
}

function nothing(): void {}
