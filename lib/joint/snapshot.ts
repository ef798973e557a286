/**
 * The joint snapshot: no request may see one side before a joint commit and the other side after it, although the
 * session's snapshot and InnoDB's read view open at two moments. Watches the statements of one attempt and keeps its
 * working copy in step. Knows the session and the statements; knows no HTTP. (Rules and figures: ARCHITECTURE.md.)
 *
 *   view      meaning                                                          a statement's sending   its answer
 *   closed    no read view: nothing was sent but what only locks               snapshot moves to now   check
 *   maybe     a statement may have opened it without our being able to tell    –                       check
 *   open      a plain SELECT returned a row of an InnoDB table                 –                       –
 *
 * An UPDATE, INSERT or FOR UPDATE that only locks (joint/locking-statements.ts) leaves the view closed, and the snapshot
 * moves to now at its answer, too: it may have waited for the lock of a request that has changed the session as well.
 * What it locked nobody changes any more, so the session fits it. Of who gave that lock free, the COMMIT may not have
 * been installed yet: that is waited for. `maybe` follows every other statement but a SELECT that returned a row.
 *
 * With locking reads (`serializable`, and `snapshot` on a server without snapshot isolation) rows are always current,
 * so the view counts as closed for ever. The snapshot never moves while a statement is on its way: the one sent first
 * may be the one that opened the view.
 */
import type { SessionTxError } from '../errors.js'
import type { FieldPacket } from '../mysql/driver.js'
import type { Lease } from '../mysql/lease/lease.js'
import type { StatementFacts } from '../mysql/statement/facts.js'
import type { Openable, StatementObserver } from '../mysql/statement/observer.js'
import { isPending } from '../transaction/resource.js'
import { LockingStatements } from './locking-statements.js'
import type { WorkingCopy } from '../session/working-copy.js'

interface JointSnapshotSetup {
  /** Opens the session; undefined where none can be torn: no cookie, or a level that promises nothing. */
  readonly copy: () => WorkingCopy | undefined
  /** Open both at one instant before the first statement: the request cannot be run again. */
  readonly opensTogether: boolean
  /** Whether a row of this table can only have come from a read view. */
  readonly opensView: (schema: string, table: string) => boolean
  readonly hasNoTrigger: (schema: string, table: string) => boolean
  readonly lose: (conflict: SessionTxError) => void
}

const OPENED_MAX = 5

export class JointSnapshot implements StatementObserver {
  readonly #setup: JointSnapshotSetup
  #view: 'closed' | 'maybe' | 'open' = 'closed'
  #lockingReads = false
  #inFlight = 0
  readonly #locking: LockingStatements

  constructor(setup: JointSnapshotSetup) {
    this.#setup = setup
    this.#locking = new LockingStatements(setup.hasNoTrigger)
  }

  opening(database: Openable, lease: Lease): Promise<void> | undefined {
    this.#lockingReads = !lease.server.rowSnapshot
    this.#locking.opening(lease)
    const copy = this.#setup.copy()
    if (!this.#setup.opensTogether || this.#lockingReads) return undefined
    if (copy?.opened === undefined || copy.opened.isReserved === true) return undefined
    return this.#openTogether(copy, database)
  }

  /** Lets nobody commit to the session while the view opens, then takes the snapshot; waits for no row lock. */
  async #openTogether(copy: WorkingCopy, database: Openable): Promise<void> {
    if (copy.opened?.confirm !== undefined) return this.#openConfirmed(copy, database)
    const pause = copy.opened?.pause()
    const resume = pause !== undefined && isPending(pause) ? await pause : pause
    try {
      await database.openView()
      if (!copy.advance()) this.#check(copy)
      this.#view = 'open'
    } finally {
      resume?.()
    }
  }

  /**
   * Of a store that other processes write to as well, and that nobody can stop: opens the view again until the session is
   * the same before and after. Who finds it never so has it checked at the end, like everybody.
   */
  async #openConfirmed(copy: WorkingCopy, database: Openable): Promise<void> {
    for (let opened = 1; opened <= OPENED_MAX; opened += 1) {
      if (!copy.advance()) this.#check(copy)
      await database.openView()
      if ((await copy.opened?.confirm?.()) === true) break
    }
    this.#check(copy)
    this.#view = 'open'
  }

  sending(facts: StatementFacts): void {
    const copy = this.#setup.copy()
    this.#locking.sending(facts)
    if (copy?.opened === undefined || this.#view === 'open') return
    if (this.#view === 'closed' && this.#inFlight === 0) copy.advance()
    this.#inFlight += 1
  }

  answered(
    facts: StatementFacts,
    rows: unknown,
    fields: readonly FieldPacket[] | undefined,
  ): Promise<void> | undefined {
    const copy = this.#setup.copy()
    if (copy?.opened === undefined || this.#view === 'open') return undefined
    this.#inFlight -= 1
    if (this.#view === 'closed' && (this.#lockingReads || this.#locking.opensNoView(facts)))
      return this.#moveOn(copy)
    this.#check(copy)
    if (facts.plainSelect && this.#showsView(rows, fields)) this.#view = 'open'
    else this.#view = 'maybe'
    return undefined
  }

  /** The view is closed still: the session may be as current as the rows are. */
  #moveOn(copy: WorkingCopy): Promise<void> | undefined {
    const hearing = copy.opened?.catchUp?.()
    return hearing === undefined ? this.#movedOn(copy) : hearing.then(() => this.#movedOn(copy))
  }

  #movedOn(copy: WorkingCopy): Promise<void> | undefined {
    const moved = this.#inFlight === 0 && copy.advance()
    this.#check(copy)
    return moved && copy.isDisturbed ? this.#afterWinner(copy) : undefined
  }

  /** Waits for those who have committed their rows and not yet installed their session; they wait for no lock of ours. */
  async #afterWinner(copy: WorkingCopy): Promise<void> {
    const pause = copy.opened?.pause()
    const resume = pause !== undefined && isPending(pause) ? await pause : pause
    try {
      if (this.#view === 'closed' && this.#inFlight === 0) copy.advance()
      this.#check(copy)
    } finally {
      resume?.()
    }
  }

  failed(): void {
    if (this.#setup.copy()?.opened === undefined || this.#view === 'open') return
    this.#inFlight -= 1
    if (!this.#lockingReads) this.#view = 'maybe'
  }

  #check(copy: WorkingCopy): void {
    const conflict = copy.checkSinceSnapshot()
    if (conflict === undefined) return
    this.#setup.lose(conflict)
    throw conflict
  }

  #showsView(rows: unknown, fields: readonly FieldPacket[] | undefined): boolean {
    if (!Array.isArray(rows) || rows.length === 0 || fields === undefined) return false
    return fields.some(({ schema, db, orgTable }) => this.#setup.opensView(schema ?? db ?? '', orgTable))
  }

  ended(): void {
    this.#view = 'closed'
    this.#inFlight = 0
  }

  /** Going back to a savepoint older than the view drops the view; statements in flight were waited for. */
  savepoint(): () => void {
    // A statement on its way may have put InnoDB into the transaction already: then going back keeps its view.
    const view = this.#view === 'closed' && this.#inFlight > 0 ? 'maybe' : this.#view
    return () => {
      this.#view = view
      this.#inFlight = 0
    }
  }
}
