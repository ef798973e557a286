/**
 * The joint snapshot where sessions are rows of the same database: both sides commit at one instant, and the store checks
 * at the end, in the transaction itself, that what was read is what its read view shows (store/mysql-claim.ts). All that
 * is left to do here: the session's snapshot must be older than the view, so it is taken before the first statement is
 * sent; and who cannot run again gets both from one view.
 */
import type { SessionTxError } from '../errors.js'
import type { Lease } from '../mysql/lease/lease.js'
import type { Openable, StatementObserver } from '../mysql/statement/observer.js'
import type { StoreTransaction } from '../session/store.js'
import type { WorkingCopy } from '../session/working-copy.js'

interface ViewSnapshotSetup {
  /** Opens the session; undefined where there is none to be torn. */
  readonly copy: () => WorkingCopy | undefined
  readonly opensTogether: boolean
  /** The transaction whose connection is at hand. */
  readonly transaction: () => Promise<StoreTransaction>
  readonly lose: (conflict: SessionTxError) => void
}

export class ViewSnapshot implements StatementObserver {
  readonly #setup: ViewSnapshotSetup

  constructor(setup: ViewSnapshotSetup) {
    this.#setup = setup
  }

  opening(database: Openable, lease: Lease): Promise<void> | undefined {
    const copy = this.#setup.copy()
    if (copy?.opened === undefined) return undefined
    copy.takeSnapshot()
    // Where reads lock there is no view: what is read is current, and stays so until the end.
    if (!this.#setup.opensTogether || !lease.server.rowSnapshot) return undefined
    return this.#openTogether(copy, database)
  }

  async #openTogether(copy: WorkingCopy, database: Openable): Promise<void> {
    await database.openView()
    await copy.opened?.refresh?.(await this.#setup.transaction())
    if (copy.advance()) return
    const conflict = copy.checkSinceSnapshot()
    if (conflict === undefined) return
    this.#setup.lose(conflict)
    throw conflict
  }

  sending(): void {}
  answered(): void {}
  failed(): void {}
  ended(): void {}
  savepoint(): () => void {
    return () => {}
  }
}
