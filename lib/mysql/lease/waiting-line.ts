/**
 * Those who wait for something that comes one at a time: first come, first served, each for a limited time
 * and until its signal aborts. Knows nothing of what they wait for.
 */
import type { Clock } from '../../transaction/clock.js'

interface Waiter<T> {
  readonly resolve: (thing: T) => void
  readonly reject: (reason: unknown) => void
  readonly stopWaiting: () => void
}

export class WaitingLine<T> {
  readonly #clock: Clock
  readonly #waiters = new Set<Waiter<T>>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get size(): number {
    return this.#waiters.size
  }

  /** @throws what `tooLong` makes after `waitMs`; `signal.reason`; what it is refused with */
  join(waitMs: number, signal: AbortSignal | undefined, tooLong: () => unknown): Promise<T> {
    return new Promise((resolve, reject) => {
      const abort = () => this.#refuse(waiter, signal?.reason)
      const timer = this.#clock.after(waitMs, () => this.#refuse(waiter, tooLong()))
      const stopWaiting = () => {
        timer.cancel()
        signal?.removeEventListener('abort', abort)
      }
      const waiter: Waiter<T> = { resolve, reject, stopWaiting }
      signal?.addEventListener('abort', abort, { once: true })
      this.#waiters.add(waiter)
    })
  }

  /** @returns false if nobody waits; `make` is not called then */
  serveFirst(make: () => T): boolean {
    for (const waiter of this.#waiters) {
      this.#waiters.delete(waiter)
      waiter.stopWaiting()
      waiter.resolve(make())
      return true
    }
    return false
  }

  /** The others came first, and may still be served by what was asked for on their behalf. */
  refuseYoungest(reason: unknown): void {
    const youngest = [...this.#waiters].at(-1)
    if (youngest !== undefined) this.#refuse(youngest, reason)
  }

  refuseAll(reason: unknown): void {
    for (const waiter of [...this.#waiters]) this.#refuse(waiter, reason)
  }

  #refuse(waiter: Waiter<T>, reason: unknown): void {
    if (!this.#waiters.delete(waiter)) return
    waiter.stopWaiting()
    waiter.reject(reason)
  }
}
