/**
 * Time that stands still until a test moves it, so that expiry is tested to the millisecond and nobody sleeps.
 */
import type { Clock, Timer } from '../transaction/clock.js'

interface Alarm {
  readonly dueAt: number
  readonly fire: () => void
}

export class ManualClock implements Clock {
  #now = 1_000_000
  readonly #alarms = new Set<Alarm>()

  now(): number {
    return this.#now
  }
  wallNow(): number {
    return 1_700_000_000_000 + this.#now
  }
  after(delayMs: number, fire: () => void): Timer {
    const alarm = { dueAt: this.#now + delayMs, fire }
    this.#alarms.add(alarm)
    return { cancel: () => void this.#alarms.delete(alarm) }
  }

  /** Moves on, and lets what is due on the way happen at its time, in order. */
  advance(ms: number): void {
    const end = this.#now + ms
    for (let next = this.#nextBy(end); next !== undefined; next = this.#nextBy(end)) {
      this.#alarms.delete(next)
      this.#now = Math.max(this.#now, next.dueAt)
      next.fire()
    }
    this.#now = end
  }

  #nextBy(end: number): Alarm | undefined {
    const due = [...this.#alarms].filter(({ dueAt }) => dueAt <= end)
    return due.sort((a, b) => a.dueAt - b.dueAt)[0]
  }
}
