/** What an attempt gives its MySQL resource. Types only. */
import type { Clock } from '../transaction/clock.js'
import type { Interrupt } from '../transaction/interrupt.js'
import type { Savepoint, Transaction } from '../transaction/transaction.js'
import type { Flavour, Moment, Recognised } from './errors.js'
import type { TellEscape } from './guard/escapes.js'
import type { LeaseBroker } from './lease/lease.js'
import type { StatementObserver } from './statement/observer.js'

export interface MysqlResourceSetup {
  readonly broker: LeaseBroker
  readonly acquireMs: number
  readonly clock: Clock
  readonly transaction: Transaction
  readonly interrupt: Interrupt
  readonly observer: StatementObserver
  readonly readOnly: boolean
  readonly nonTransactionalTables: 'refuse' | 'warn'
  /** An effect cannot be rolled back: the request must not run again. */
  readonly escaped: TellEscape
  /** Marks the present state of both sides. */
  mark(): Promise<Savepoint>
  /** Does something when the answer of the request is on its way; closing waits for it. */
  later(work: () => Promise<void>): void
  /** The one question of retryability (joint/conflicts.ts). */
  recognise(error: unknown, flavour: Flavour, moment: Moment): Recognised | undefined
}
