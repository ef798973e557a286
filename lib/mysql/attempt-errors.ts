/**
 * What the errors of one attempt's statements mean: for the attempt, which has lost, for its connection, which may be
 * unfit, and for the others to the same server. Knows nothing of how statements are sent.
 */
import type { Transaction } from '../transaction/transaction.js'
import { type Flavour, isFatal, type Moment, type Recognised } from './errors.js'
import type { Safeguard } from './guard/safeguard.js'
import type { AttemptLease } from './lease/attempt-lease.js'
import { readOnlyError } from './read-only.js'

interface AttemptErrorsSetup {
  readonly transaction: Transaction
  readonly readOnly: boolean
  recognise(error: unknown, flavour: Flavour, moment: Moment): Recognised | undefined
}

export class AttemptErrors {
  readonly #setup: AttemptErrorsSetup
  readonly #held: AttemptLease
  /** The server has answered something of this attempt, well or not. */
  #heard = false

  constructor(setup: AttemptErrorsSetup, held: AttemptLease) {
    this.#setup = setup
    this.#held = held
  }

  answered(): void {
    this.#heard = true
  }
  ended(): void {
    this.#heard = false
  }

  /**
   * Recognises a conflict where it is thrown, before any rollback: the attempt has lost even if the handler catches
   * this. A statement that says NOWAIT expects to fail: it counts only if nobody catches it.
   *
   * @returns what the handler is to see
   */
  noted(error: unknown, nowait: boolean, safeguard: Safeguard | undefined): unknown {
    const { transaction, readOnly, recognise } = this.#setup
    const lease = this.#held.current
    const moment = this.#heard ? 'later' : 'first'
    if (isFatal(error)) this.#held.spoil()
    else this.#heard = true
    const recognised = recognise(error, lease?.server.flavour ?? 'mariadb', moment)
    if (recognised === undefined) return readOnly ? readOnlyError(error, transaction.id) : error
    safeguard?.lost()
    const { conflict, sticky, unfit } = recognised
    if (unfit !== 'nothing') this.#held.spoil()
    // A connection that was dead when it was first used is seldom the only one: the others wait as long as it did.
    if (unfit === 'server' || (unfit === 'connection' && moment === 'first')) lease?.distrustServer()
    if (sticky === 'always' || (sticky === 'unlessNowait' && !nowait)) transaction.lose(conflict)
    return error
  }
}
