/**
 * The joint snapshot where sessions are rows of the same database: both sides commit at one instant, and the store checks
 * at the end, in the transaction itself, that what was read is what its read view shows (store/mysql-claim.ts). All that
 * is left to do here: the session's snapshot must be older than the view, so it is taken before the first statement is
 * sent; and who cannot run again gets both from one view.
 */
import type { SessionTxError } from '../errors.js'
import type { Lease } from '../mysql/lease/lease.js'
import type { StatementFacts } from '../mysql/statement/facts.js'
import type { Openable, StatementObserver } from '../mysql/statement/observer.js'
import type { StoreTransaction } from '../session/store.js'
import { isPending } from '../transaction/resource.js'
import { LockingStatements } from './locking-statements.js'
import type { WorkingCopy } from '../session/working-copy.js'

interface ViewSnapshotSetup {
  /** Opens the session; undefined where there is none to be torn. */
  readonly copy: () => WorkingCopy | undefined
  readonly opensTogether: boolean
  readonly hasNoTrigger: (schema: string, table: string) => boolean
  /** The transaction whose connection is at hand. */
  readonly transaction: () => Promise<StoreTransaction>
  readonly lose: (conflict: SessionTxError) => void
}

export class ViewSnapshot implements StatementObserver {
  readonly #setup: ViewSnapshotSetup
  readonly #locking: LockingStatements
  /** No statement so far can have opened the view. */
  #isClosed = true
  #inFlight = 0

  constructor(setup: ViewSnapshotSetup) {
    this.#setup = setup
    this.#locking = new LockingStatements(setup.hasNoTrigger)
  }

  opening(database: Openable, lease: Lease): Promise<void> | undefined {
    const copy = this.#setup.copy()
    this.#locking.opening(lease)
    if (copy?.opened === undefined) return undefined
    copy.takeSnapshot()
    // Where reads lock there is no view: what is read is current, and stays so until the end.
    if (!this.#setup.opensTogether || !lease.server.rowSnapshot) return undefined
    return this.#openTogether(copy, database)
  }

  async #openTogether(copy: WorkingCopy, database: Openable): Promise<void> {
    this.#isClosed = false
    await database.openView()
    await copy.opened?.refresh?.(await this.#setup.transaction())
    if (copy.advance()) return
    const conflict = copy.checkSinceSnapshot()
    if (conflict === undefined) return
    this.#setup.lose(conflict)
    throw conflict
  }

  sending(facts: StatementFacts): void {
    this.#locking.sending(facts)
    this.#inFlight += 1
  }

  /** It may have waited for the lock of a request that has changed the session as well. */
  answered(facts: StatementFacts): Promise<void> | undefined {
    this.#inFlight -= 1
    if (!this.#locking.opensNoView(facts)) this.#isClosed = false
    if (!this.#isClosed) return undefined
    const winner = this.#setup.copy()?.opened?.pause()
    if (winner !== undefined && isPending(winner)) return winner.then(() => this.#moveOn())
    this.#moveOn()
    return undefined
  }

  #moveOn(): void {
    if (this.#isClosed && this.#inFlight === 0) this.#setup.copy()?.advance()
  }

  failed(): void {
    this.#inFlight -= 1
    this.#isClosed = false
  }

  ended(): void {
    this.#isClosed = true
    this.#inFlight = 0
  }

  savepoint(): () => void {
    return () => {
      this.#inFlight = 0
    }
  }
}
