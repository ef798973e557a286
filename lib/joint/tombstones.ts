/**
 * Sessions that ended a short while ago: a request that came with such an id before it ended must not start a session of
 * its own, whose cookie would take the place of that of the login that ended the old one. Kept as long as a request can
 * live. Knows nothing of stores: what ended in another process, a store has to tell by `OpenSession.ended`.
 */
import type { Clock } from '../transaction/clock.js'

const TOMBSTONES_MAX = 100_000

export class Tombstones {
  readonly #clock: Clock
  readonly #keptMs: number
  /** In the order of dying. */
  readonly #graves = new Map<string, { readonly number: number; readonly at: number }>()
  #deaths = 0

  /** @param keptMs the longest that a request lives */
  constructor(clock: Clock, keptMs: number) {
    this.#clock = clock
    this.#keptMs = keptMs
  }

  /** How many sessions have ended so far: what a request notes when it begins. */
  get deaths(): number {
    return this.#deaths
  }

  add(key: string): void {
    const at = this.#clock.now()
    this.#deaths += 1
    this.#graves.set(key, { number: this.#deaths, at })
    for (const [oldest, grave] of this.#graves) {
      if (grave.at + this.#keptMs >= at && this.#graves.size <= TOMBSTONES_MAX) return
      this.#graves.delete(oldest)
    }
  }

  /** The session ended when there had been more deaths than `deathsBefore`. */
  has(key: string, deathsBefore: number): boolean {
    return (this.#graves.get(key)?.number ?? 0) > deathsBefore
  }
}
