/**
 * Deadlines that are all as far away as each other when they are set, so the oldest is always the next: one timer for all
 * of them, and none to start and cancel per request. Knows nothing of what has to be done by then.
 */
import type { Clock } from './clock.js'

export interface Due {
  /** By {@link Clock.now}. */
  readonly deadlineAt: number
  /** Not done in time; told once. */
  passDeadline(): void
}

export class Deadlines {
  readonly #clock: Clock
  readonly #delayMs: number
  /** In the order they came, which is the order of their deadlines. */
  readonly #due = new Set<Due>()
  #isTimed = false

  constructor(clock: Clock, delayMs: number) {
    this.#clock = clock
    this.#delayMs = delayMs
  }

  /** One whose deadline is `delayMs` from now. */
  add(one: Due): void {
    this.#due.add(one)
    if (!this.#isTimed) this.#time(this.#delayMs)
  }

  /** Done, or looked after by somebody else. The timer goes on: there will be others. */
  remove(one: Due): void {
    this.#due.delete(one)
  }

  #time(delayMs: number): void {
    this.#isTimed = true
    this.#clock.after(delayMs, () => this.#fire())
  }

  #fire(): void {
    this.#isTimed = false
    const now = this.#clock.now()
    for (const one of this.#due) {
      if (one.deadlineAt > now) {
        this.#time(one.deadlineAt - now)
        return
      }
      this.#due.delete(one)
      one.passDeadline()
    }
  }
}
