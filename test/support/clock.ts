/** A clock that stands still until the test moves it, and chance that is not left to chance. */
import { type Clock, type Environment, systemClock, type Timer } from '../../lib/transaction/clock.js'
import { deferred } from './barrier.js'

interface Armed {
  readonly at: number
  readonly delayMs: number
  readonly fire: () => void
}

const BIRTHDAY_MS = Date.UTC(2030, 0, 1)

export class FakeClock implements Clock {
  #nowMs = 1_000
  readonly #armed = new Set<Armed>()
  readonly #watchers = new Set<() => void>()

  now(): number {
    return this.#nowMs
  }
  wallNow(): number {
    return BIRTHDAY_MS + this.#nowMs
  }

  after(delayMs: number, fire: () => void): Timer {
    const armed = { at: this.#nowMs + delayMs, delayMs, fire }
    this.#armed.add(armed)
    for (const watcher of this.#watchers) watcher()
    return { cancel: () => void this.#armed.delete(armed) }
  }

  /** Delays of the timers that have neither fired nor been cancelled, in the order they were set. */
  get pending(): readonly number[] {
    return [...this.#armed].map(({ delayMs }) => delayMs)
  }

  /** Fires what is due on the way, earliest first. Work that a timer lets go on runs after this returns. */
  advance(ms: number): void {
    const until = this.#nowMs + ms
    for (;;) {
      const [next] = [...this.#armed].filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)
      if (next === undefined) break
      this.#armed.delete(next)
      this.#nowMs = Math.max(this.#nowMs, next.at)
      next.fire()
    }
    this.#nowMs = until
  }

  /** Resolves when a timer with such a delay is pending: the code under test has begun to wait. */
  async armed(matches: (delayMs: number) => boolean): Promise<void> {
    const found = deferred()
    const look = (): void => {
      if (this.pending.some(matches)) found.resolve()
    }
    this.#watchers.add(look)
    look()
    await found.promise
    this.#watchers.delete(look)
  }
}

/** Real time, and re-runs that do not wait: full jitter times 0. */
export const promptly: Environment = Object.freeze({ clock: systemClock, random: () => 0 })

/** For `sessionTx(options, environment)`. With `random` at ½ the first back-off is 5 ms, the second 10. */
export function fakeEnvironment(
  random: () => number = () => 0.5,
): Environment & { readonly clock: FakeClock } {
  return { clock: new FakeClock(), random }
}
