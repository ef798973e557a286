/**
 * How long a re-run waits when it has no ticket to queue for: full jitter, `random() × min(base × 2^k, max)`.
 * Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. Knows nothing of what is re-run.
 */

export interface BackoffOptions {
  readonly backoffBaseMs: number
  readonly backoffMaxMs: number
}

/** Milliseconds before re-run number `rerun` (counted from 1). */
export function backoffMs(rerun: number, options: BackoffOptions, random: () => number): number {
  const doublings = Math.min(rerun - 1, 30)
  return random() * Math.min(options.backoffBaseMs * 2 ** doublings, options.backoffMaxMs)
}
