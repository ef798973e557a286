/**
 * The contract between an attempt's statements and whoever must know when they are sent and answered (the joint
 * snapshot). Types only.
 */
import type { FieldPacket } from '../driver.js'
import type { Lease } from '../lease/lease.js'
import type { StatementFacts } from './facts.js'

export interface Openable {
  /** Opens the read view now; waits for no row lock. */
  openView(): Promise<void>
}

/** Hears of every statement of an attempt; may throw a conflict from any of its methods. */
export interface StatementObserver {
  /** Right before the first statement, with the connection at hand. */
  opening(database: Openable, lease: Lease): Promise<void> | undefined
  sending(facts: StatementFacts): void
  /** A promise holds the answer back. */
  answered(
    facts: StatementFacts,
    rows: unknown,
    fields: readonly FieldPacket[] | undefined,
  ): Promise<void> | undefined
  failed(): void
  /** The database's transaction is over; the next statement opens another one. */
  ended(): void
  /** Marks the present state; the function is called when the database went back to it. */
  savepoint(): () => void
}
