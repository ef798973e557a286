/**
 * The claim of an attempt on a session in a store without versions. In `prepare`, with the session's lock in hand: the
 * store is asked again, what differs is lost or merged like anything else, and the session is written. So a store that
 * fails is known before COMMIT; if COMMIT fails, what was written is taken back. Knows no store.
 */
import type { Claim, SessionWrite, Settled } from '../session/store.js'
import type { LegacyContents } from './legacy-dialect.js'
import type { LocalClaim } from './local-claim.js'

export interface LegacyAccess {
  /** Resolves when nobody else of this process has the session, to the function that gives it back. */
  lock(): Promise<() => void>
  /** What the store has; what another process changed has been committed in memory. */
  refresh(): Promise<LegacyContents | undefined>
  write(writes: ReadonlyMap<string, Settled | undefined>): Promise<void>
  destroy(): Promise<void>
  /** What was written counts. */
  committed(): void
  takeBack(before: LegacyContents | undefined): Promise<void>
  /** Whoever wants the session meanwhile is refused. */
  doubt(isDoubted: boolean): void
  /** Nobody waits for it. */
  later(work: () => Promise<void>): void
}

export class LegacyClaim implements Claim {
  readonly #access: LegacyAccess
  readonly #inner: LocalClaim
  readonly #write: SessionWrite
  #preparing: Promise<void> | undefined
  #unlock: (() => void) | undefined
  #before: LegacyContents | undefined
  #isWritten = false
  #over = false

  constructor(access: LegacyAccess, inner: LocalClaim, write: SessionWrite) {
    this.#access = access
    this.#inner = inner
    this.#write = write
  }

  prepare(): Promise<void> | void {
    const { writes, current, replaces, destroys } = this.#write
    if (writes.size === 0 && current.size === 0 && !replaces && !destroys) return
    this.#preparing = this.#prepare()
    return this.#preparing
  }

  async #prepare(): Promise<void> {
    this.#unlock = await this.#access.lock()
    // Rolled back while it waited: by the time of each step.
    if (this.#over) return
    this.#before = await this.#access.refresh()
    if (this.#over) return
    await this.#inner.prepare()
    const { writes, replaces, destroys } = this.#write
    if (this.#over || (writes.size === 0 && !replaces && !destroys)) return
    this.#isWritten = true
    await (destroys ? this.#access.destroy() : this.#access.write(this.#inner.installs))
  }

  commit(): void {
    this.#inner.commit()
    if (this.#isWritten) this.#access.committed()
  }

  release(): void {
    this.#inner.release()
    this.#end()
  }

  doubt(): void {
    this.#inner.doubt()
    this.#access.doubt(true)
    this.#unlock?.()
  }

  rollback(): void {
    if (this.#over) return
    this.#over = true
    this.#inner.rollback()
    const preparing = this.#preparing
    if (preparing === undefined) return
    this.#access.later(async () => {
      await preparing.catch(() => {}) // it has been told
      try {
        if (this.#isWritten) await this.#access.takeBack(this.#before)
      } finally {
        this.#end()
      }
    })
  }

  #end(): void {
    this.#access.doubt(false)
    this.#unlock?.()
    this.#unlock = undefined
  }
}
