/**
 * Who waits in a mysql2 pool's queue: us, or somebody else? The pool does not say, so it is told from the
 * order of its events. Knows nothing of leases.
 *
 * The queue is first come, first served. Every request that had to queue gets a number (`enqueue` is emitted
 * once per such request); `served` is the highest number of which we know that it, and with it all before it,
 * is out of the queue. Somebody else waits as long as the last foreign number is above `served`. We can be
 * wrong in one direction only: a request served by the application's own release goes unnoticed until the
 * next event, so that a lease is given back for nobody; the pool then keeps it and says so (`release`), and
 * we know better.
 */
import type { ConnectionCallback, CoreConnection, CorePool } from '../driver.js'
import { runAs } from '../../transaction/current.js'
import { markOwnUse } from '../stray-queries.js'

type Answer = (error: Error | null, connection: CoreConnection | undefined, fresh: boolean) => void

export class PoolQueue {
  readonly #pool: CorePool
  readonly #onForeignWait: () => void
  #attached = false
  #enqueued = 0
  #served = 0
  #lastForeign = 0
  /**
   * Our own call of getConnection that is being made right now, with the number it gets if it has to queue.
   */
  #asking: { position: number } | undefined
  #sawEmpty = false
  #fresh: CoreConnection | undefined

  constructor(pool: CorePool, onForeignWait: () => void) {
    this.#pool = pool
    this.#onForeignWait = onForeignWait
  }

  /** Starts to listen, once. */
  attach(): void {
    if (this.#attached) return
    this.#attached = true
    this.#pool.on('enqueue', this.#enqueue)
    this.#pool.on('release', this.#empty)
    this.#pool.on('connection', this.#connection)
    this.#pool.on('acquire', this.#acquire)
  }

  detach(): void {
    this.#attached = false
    this.#pool.removeListener('enqueue', this.#enqueue)
    this.#pool.removeListener('release', this.#empty)
    this.#pool.removeListener('connection', this.#connection)
    this.#pool.removeListener('acquire', this.#acquire)
  }

  /**
   * @param comingBack connections that will be given back in a moment: the first in the queue are as good as
   * served
   */
  foreignWaits(comingBack: number): boolean {
    return this.#lastForeign > this.#served + comingBack
  }

  /** pool.getConnection. `fresh` says that the connection was made for this call. */
  ask(answer: Answer): void {
    const request = { position: 0 }
    const callback: ConnectionCallback = (error, connection) => {
      this.#served = Math.max(this.#served, request.position)
      answer(error, connection, connection !== undefined && connection === this.#fresh)
    }
    this.#asking = request
    try {
      // Outside of the request: a connection that is made for it lives longer, and would keep it alive.
      runAs(undefined, () => this.#pool.getConnection(markOwnUse(callback)))
    } finally {
      this.#asking = undefined
    }
  }

  /**
   * Gives a connection back; the pool hands it to the first in its queue or, if there is none, says
   * `release`.
   */
  give(connection: CoreConnection): void {
    this.#sawEmpty = false
    connection.release()
    if (!this.#sawEmpty) this.#served = Math.min(this.#served + 1, this.#enqueued)
  }

  readonly #enqueue = (): void => {
    this.#enqueued += 1
    const own = this.#asking
    this.#asking = undefined
    if (own !== undefined) {
      own.position = this.#enqueued
      return
    }
    this.#lastForeign = this.#enqueued
    this.#onForeignWait()
  }

  readonly #empty = (): void => {
    this.#sawEmpty = true
    this.#served = this.#enqueued
  }

  /** A new one; the callback it was made for is called before this tick ends. */
  readonly #connection = (connection: CoreConnection): void => {
    this.#fresh = connection
    process.nextTick(() => {
      this.#fresh = undefined
    })
  }

  /**
   * A free connection was there to be taken, so nobody queued. A new one proves nothing: it may replace a
   * dead one.
   */
  readonly #acquire = (connection: CoreConnection): void => {
    if (connection !== this.#fresh) this.#served = this.#enqueued
  }
}
