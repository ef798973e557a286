/**
 * The second line, behind the guard: notices from the server's answers that an effect has escaped the transaction,
 * through a procedure, a trigger or a view. Too late to undo it, in time not to repeat it. Knows no statement's text.
 *
 *   what escaped       how it shows
 *   implicitCommit     an OK packet without SERVER_STATUS_IN_TRANS, though a transaction was open before
 *   nonTransactional   warning 1196 after ROLLBACK: "Some non-transactional changed tables couldn't be rolled back"
 *
 * Under autocommit=0 the bit is set by the first statement that uses a transactional table, not by SET, DO or
 * `SELECT 1`; mysql2 shows it of OK packets only, not of result sets.
 */
import type { EscapeReason } from '../../events.js'
import type { CoreConnection, FieldPacket, OkPacket } from '../driver.js'
import { rowsOf } from '../round-trip.js'

const IN_TRANSACTION = 1
const NOT_ROLLED_BACK = '1196'

/** `table`: where it is known. */
export type TellEscape = (reason: EscapeReason, table?: string) => void

export class Escapes {
  #open = false

  /** A transaction is known to be open. */
  get open(): boolean {
    return this.#open
  }

  /** After a statement of our own, which commits nothing: what the server says is so. */
  controlled({ serverStatus }: OkPacket): void {
    this.#open = (serverStatus & IN_TRANSACTION) !== 0
  }

  /** After an error that took the transaction with it, or may have. */
  lost(): void {
    this.#open = false
  }

  /**
   * After a statement of the handler.
   * @param fields as mysql2 gives them: undefined for an OK packet; of several results, one entry each
   * @param isTransactional whether a column belongs to a transactional table
   * @returns true if it has committed
   */
  committedBy(result: unknown, fields: unknown, isTransactional: (field: FieldPacket) => boolean): boolean {
    if (Array.isArray(fields) && fields.some(one => one === undefined || Array.isArray(one))) {
      const results = result as readonly unknown[]
      let committed = false
      fields.forEach((one: unknown, at) => {
        if (this.#committedByOne(results[at], one, isTransactional)) committed = true
      })
      return committed
    }
    return this.#committedByOne(result, fields, isTransactional)
  }

  #committedByOne(
    result: unknown,
    fields: unknown,
    isTransactional: (field: FieldPacket) => boolean,
  ): boolean {
    if (fields !== undefined) {
      this.#open ||= (fields as FieldPacket[]).some(isTransactional)
      return false
    }
    const { serverStatus } = result as Partial<OkPacket>
    if (serverStatus === undefined) return false
    const before = this.#open
    this.#open = (serverStatus & IN_TRANSACTION) !== 0
    return before && !this.#open
  }

  /**
   * After ROLLBACK, or ROLLBACK TO SAVEPOINT. ROLLBACK leaves the warnings of the statement before it in place, so
   * that of a transaction which the server has rolled back itself (1020, 1213) is still there.
   */
  async notRolledBack(connection: CoreConnection): Promise<boolean> {
    const warnings = await rowsOf(connection, 'SHOW WARNINGS')
    return warnings.some(([, code]) => code === NOT_ROLLED_BACK)
  }
}
