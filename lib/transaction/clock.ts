/**
 * Time and chance, as arguments: what waits, expires or backs off gets them from here, so that a test can hold both.
 * Knows nothing of who waits for what.
 */
import { performance } from 'node:perf_hooks'
import { runAs } from './current.js'

export interface Timer {
  cancel(): void
}

export interface Clock {
  /** Monotonic milliseconds: for durations and deadlines, never affected by a set system clock. */
  now(): number
  /** Milliseconds since 1970: for what people read and what outlives a process. */
  wallNow(): number
  /** Calls `fire` once after `delayMs`; a timer does not keep the process alive. */
  after(delayMs: number, fire: () => void): Timer
}

/** What a deployment gets; tests hand in their own. */
export interface Environment {
  readonly clock: Clock
  /** Uniform in [0, 1), as Math.random. */
  readonly random: () => number
}

class SystemTimer implements Timer {
  readonly #handle: NodeJS.Timeout
  constructor(delayMs: number, fire: () => void) {
    // Outside of the request that sets it, which a timer of a store or a pool would keep alive.
    this.#handle = runAs(undefined, () => setTimeout(fire, delayMs))
    this.#handle.unref()
  }
  cancel(): void {
    clearTimeout(this.#handle)
  }
}

export const systemClock: Clock = Object.freeze({
  now: () => performance.now(),
  wallNow: () => Date.now(),
  after: (delayMs: number, fire: () => void) => new SystemTimer(delayMs, fire),
})

export const systemEnvironment: Environment = Object.freeze({ clock: systemClock, random: Math.random })
