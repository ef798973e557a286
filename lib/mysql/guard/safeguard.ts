/**
 * Both lines of one attempt on one connection: the guard before a statement is sent, and what its answer shows that
 * escaped all the same. Knows what is asked of the server for that, and when; what is judged is in guard.ts and
 * escapes.ts.
 */
import { attachError, SessionTxError } from '../../errors.js'
import type { FieldPacket, OkPacket } from '../driver.js'
import type { Engines } from './engines.js'
import { Escapes, type TellEscape } from './escapes.js'
import { Guard } from './guard.js'
import type { Lease } from '../lease/lease.js'
import type { StatementFacts } from '../statement/facts.js'

interface SafeguardSetup {
  readonly policy: 'refuse' | 'warn'
  readonly engines: Engines
  readonly escaped: TellEscape
  readonly lease: Lease
  readonly transactionId: () => string
  /** A statement of our own on the lease. */
  control(sql: string): Promise<OkPacket>
  /** From here on the attempt can only be rolled back. */
  fail(error: SessionTxError): void
}

export class Safeguard {
  readonly #setup: SafeguardSetup
  readonly #guard: Guard
  readonly #escapes = new Escapes()

  constructor(setup: SafeguardSetup) {
    this.#setup = setup
    const { policy, engines, escaped, lease, transactionId, fail } = setup
    const writes = (table: string): void => escaped('nonTransactional', table)
    this.#guard = new Guard({ engines, policy, schema: lease.schema, transactionId, fail, writes })
  }

  /**
   * May this be sent? Undefined: at once.
   * @throws TRANSACTION_CONTROL IMPLICIT_COMMIT NOT_TRANSACTIONAL
   */
  vet(facts: StatementFacts, isFirst: boolean, hasSavepoint: boolean): Promise<void> | undefined {
    const looking = this.#guard.check(facts, this.#setup.lease.connection)
    const opens = facts.hidden && !this.#escapes.open
    if (looking === undefined && !opens) return undefined
    return this.#lookAndOpen(looking, opens, isFirst, hasSavepoint)
  }

  /**
   * What a procedure commits shows only if a transaction was known to be open before it. START TRANSACTION would
   * commit one that is, and forget a savepoint; so a statement without effect asks first.
   */
  async #lookAndOpen(
    looking: Promise<void> | undefined,
    opens: boolean,
    isFirst: boolean,
    hasSavepoint: boolean,
  ): Promise<void> {
    await looking
    if (!opens) return
    const { control } = this.#setup
    if (!isFirst) await control('DO 0')
    if (!this.#escapes.open && !hasSavepoint) await control('START TRANSACTION')
  }

  /** After a statement of our own. */
  controlled(ok: OkPacket): void {
    this.#escapes.controlled(ok)
  }

  /** After an error that took the transaction with it, or may have. */
  lost(): void {
    this.#escapes.lost()
  }

  /** @returns the error of a statement that has committed; the attempt has failed with it */
  answered(facts: StatementFacts, result: unknown, fields: unknown): SessionTxError | undefined {
    this.#guard.answered(facts)
    return this.#escapes.committedBy(result, fields, this.#isTransactional) ? this.#committed() : undefined
  }

  /** After an error of a hidden statement that left the transaction open, for all we know: it may have committed first. */
  async failed(error: unknown): Promise<unknown> {
    if (!this.#escapes.open) return error
    await this.#setup.control('DO 0')
    if (this.#escapes.open) return error
    const escaped = this.#committed()
    attachError(escaped, error)
    return escaped
  }

  #committed(): SessionTxError {
    const { escaped, fail, transactionId } = this.#setup
    const message =
      'the statement ended the transaction from within (a procedure that commits or runs DDL?): what was written until ' +
      'then is stored, what the session changed is not. Take the COMMIT or the DDL out of it, or call it outside of requests.'
    const error = new SessionTxError('IMPLICIT_COMMIT', message, { transactionId: transactionId() })
    fail(error)
    escaped('implicitCommit')
    return error
  }

  /** After ROLLBACK TO SAVEPOINT. */
  async wentBack(ok: OkPacket): Promise<void> {
    if (!this.#guard.madeTemporary) await this.rolledBack(ok, false)
  }

  /** After ROLLBACK; `byServer`: the server had rolled back before. */
  async rolledBack({ warningStatus }: OkPacket, byServer: boolean): Promise<void> {
    const { engines, escaped, lease } = this.#setup
    if (warningStatus === 0 && !(byServer && engines.hasNonTransactional)) return
    if (this.#guard.wroteTemporary || !(await this.#escapes.notRolledBack(lease.connection))) return
    escaped('nonTransactional')
    // A table that was InnoDB when the list was made, perhaps.
    if (engines.reloadDue) await engines.load(lease.connection)
  }

  readonly #isTransactional = ({ schema, db, orgTable }: FieldPacket): boolean =>
    this.#setup.engines.opensView(schema ?? db ?? '', orgTable)
}
