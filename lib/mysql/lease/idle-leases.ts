/**
 * The leased connections that nobody holds, and the one timer that sends them home when they were idle for
 * too long. Knows nothing of where home is.
 */
import type { Clock, Timer } from '../../transaction/clock.js'
import type { LeasedConnection } from './leased-connection.js'

const IDLE_MS_MAX = 1_000

export class IdleLeases {
  readonly #clock: Clock
  readonly #onOld: (leased: LeasedConnection) => void
  /** Most recently used last: that one is taken first, and the others get old enough to go. */
  readonly #stack: LeasedConnection[] = []
  #timer: Timer | undefined

  constructor(clock: Clock, onOld: (leased: LeasedConnection) => void) {
    this.#clock = clock
    this.#onOld = onOld
  }

  push(leased: LeasedConnection): void {
    leased.idleSince = this.#clock.now()
    this.#stack.push(leased)
    this.#timer ??= this.#clock.after(IDLE_MS_MAX, this.#sweep)
  }

  takeNewest(): LeasedConnection | undefined {
    return this.#stack.pop()
  }

  takeOldest(): LeasedConnection | undefined {
    return this.#stack.shift()
  }

  /** And stops the timer. */
  takeAll(): LeasedConnection[] {
    this.#timer?.cancel()
    this.#timer = undefined
    return this.#stack.splice(0)
  }

  remove(leased: LeasedConnection): void {
    const index = this.#stack.indexOf(leased)
    if (index !== -1) this.#stack.splice(index, 1)
  }

  /** While leases come and go it fires once a second and finds nothing to do: no timer per request. */
  readonly #sweep = (): void => {
    this.#timer = undefined
    const now = this.#clock.now()
    let old = 0
    while (old < this.#stack.length && now - (this.#stack[old]?.idleSince ?? now) >= IDLE_MS_MAX) old += 1
    for (const leased of this.#stack.splice(0, old)) this.#onOld(leased)
    const oldest = this.#stack[0]
    if (oldest !== undefined)
      this.#timer = this.#clock.after(IDLE_MS_MAX - (now - oldest.idleSince), this.#sweep)
  }
}
