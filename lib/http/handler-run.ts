/**
 * One run of the handlers below us in Express: nobody returns there, so it is over when the response has been ended, when
 * everything was passed on with `next()`, or when an error came out. Knows no transaction and no response.
 */
import type { HoldingOwner } from './held-response.js'

/** The handler broke the connection: there is nobody to answer. */
export class ConnectionBroken extends Error {}

interface Failure {
  readonly error: unknown
  /** Goes on with the error where it had come to; undefined: it came all the way to us. */
  readonly resume: ((error: unknown) => void) | undefined
}

export class HandlerRun implements HoldingOwner {
  readonly over: Promise<void>
  /** What the handlers threw, if they failed. */
  failure: Failure | undefined
  /** They passed the request on; the box holds what `next` was called with. */
  left: { readonly with: unknown } | undefined
  readonly isStale: () => boolean
  #settled = false
  #noted: { readonly error: unknown } | undefined
  #awaited = 0
  #resolve: () => void = () => {}
  #reject: (error: unknown) => void = () => {}

  constructor(isStale: () => boolean) {
    this.isStale = isStale
    this.over = new Promise((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
  }

  get isSettled(): boolean {
    return this.#settled
  }

  fails(error: unknown, resume?: (error: unknown) => void): void {
    if (this.#settled) return
    this.#settled = true
    this.failure = { error, resume }
    this.#reject(error)
  }

  leaves(token: unknown): void {
    if (this.#settled) return
    this.left = { with: token }
    this.#succeed()
  }

  /**
   * The rest of the handler, up to its next `await`, still belongs to it: what it throws there is its failure. So is what
   * an asynchronous one rejects with at once, which is known when all microtasks have run.
   */
  ended(): void {
    const finish = (): void => {
      if (this.#noted === undefined) this.#succeed()
      else this.fails(this.#noted.error)
    }
    queueMicrotask(() => {
      if (this.#awaited > 0) setImmediate(finish)
      else finish()
    })
  }

  mustStart(): void {
    this.#succeed()
  }

  destroyed(error: unknown): void {
    this.fails(new ConnectionBroken('the handler destroyed the response', { cause: error }))
  }

  /** A handler threw. Express will tell; but only later, and perhaps after the end of the response. */
  threw(error: unknown): void {
    this.#noted ??= { error }
  }

  awaits(work: PromiseLike<unknown>): void {
    this.#awaited += 1
    work.then(
      () => void (this.#awaited -= 1),
      (error: unknown) => {
        this.#awaited -= 1
        this.threw(error)
      },
    )
  }

  #succeed(): void {
    if (this.#settled) return
    this.#settled = true
    this.#resolve()
  }
}
