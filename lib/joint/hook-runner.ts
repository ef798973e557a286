/**
 * Runs the hooks that come after the outcome. They are outside of the transaction: a failure is reported and counted and
 * changes neither outcome nor answer, and the next hook runs. Knows nothing of what they do.
 */
import type { EventHub, EventPayloads } from '../events.js'
import { runAs } from '../transaction/current.js'
import type { Transaction } from '../transaction/transaction.js'
import type { Activity } from './activity.js'

/** What the runner needs to know of a request. */
interface HookedRequest {
  route(): string
  afterResponse(start: () => void): void
  report(error: unknown): void
}

export class HookRunner {
  readonly #events: EventHub
  readonly #activity: Activity

  constructor(events: EventHub, activity: Activity) {
    this.#events = events
    this.#activity = activity
  }

  /** Before the next attempt starts: what the hooks undo may be done again. */
  afterRollback(transaction: Transaction, request: HookedRequest): Promise<void> | undefined {
    return transaction.hooksAfter.length === 0
      ? undefined
      : this.#runAll(transaction, request, 'afterRollback')
  }

  /** When the response has finished or closed. Resolves when the last one has ended; undefined if there is none. */
  afterCommit(transaction: Transaction, request: HookedRequest): Promise<void> | undefined {
    if (transaction.hooksAfter.length === 0) return undefined
    const ended = this.#activity.begin()
    return new Promise(resolve => {
      request.afterResponse(() => {
        void this.#runAll(transaction, request, 'afterCommit').finally(() => {
          ended()
          resolve()
        })
      })
    })
  }

  async #runAll(
    transaction: Transaction,
    request: HookedRequest,
    kind: 'afterCommit' | 'afterRollback',
  ): Promise<void> {
    for (const hook of transaction.hooksAfter) {
      try {
        await runAs(undefined, () => hook())
      } catch (error) {
        this.failed(transaction, request, kind, error)
      }
    }
  }

  failed(
    transaction: Transaction,
    request: HookedRequest,
    hook: EventPayloads['hookFailed']['hook'],
    error: unknown,
  ): void {
    this.#events.emit('hookFailed', { id: transaction.id, route: request.route(), hook, error })
    try {
      request.report(error)
    } catch (reported) {
      // Koa's own listener throws for what is no Error: a report must not end the process.
      process.emitWarning(`reporting a failed ${hook} hook threw: ${String(reported)}`, 'SessionTxWarning')
    }
  }
}
