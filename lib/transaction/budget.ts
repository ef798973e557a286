/**
 * The allowance for re-runs that sleep before they race again: a token bucket over all requests of a process, so that
 * trouble which every request has does not multiply the load by the number of retries. Requests fill it, and so does time.
 * Re-runs that queue are not charged: a queue lets through what the work takes.
 * Source: the token bucket of gRPC's retry throttling (gRFC A6) and of the AWS SDKs' standard retry mode. Knows no request.
 */
export interface BudgetOptions {
  /** Full at the start. */
  readonly capacity: number
  /** Tokens that each request brings. */
  readonly ratio: number
  /** Tokens that each second brings. */
  readonly perSecond: number
}

export class RetryBudget {
  readonly #options: BudgetOptions
  readonly #now: () => number
  #tokens: number
  #filledAt: number

  /** @param now milliseconds on a clock that never goes back */
  constructor(options: BudgetOptions, now: () => number) {
    this.#options = options
    this.#now = now
    this.#tokens = options.capacity
    this.#filledAt = now()
  }

  /** A request came. */
  earn(): void {
    this.#add(this.#options.ratio)
  }

  /** One re-run; false, and nothing taken, if there is not a whole token. */
  take(): boolean {
    this.#fill()
    if (this.#tokens < 1) return false
    this.#tokens -= 1
    return true
  }

  /** For the metrics. */
  get counts(): { readonly tokens: number; readonly capacity: number } {
    this.#fill()
    return { tokens: this.#tokens, capacity: this.#options.capacity }
  }

  #fill(): void {
    const now = this.#now()
    this.#add(((now - this.#filledAt) / 1000) * this.#options.perSecond)
    this.#filledAt = now
  }

  #add(tokens: number): void {
    this.#tokens = Math.min(this.#options.capacity, this.#tokens + tokens)
  }
}
