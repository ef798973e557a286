/**
 * What a joint transaction needs to know of the request it runs for, what all requests of one `sessionTx()` share, and
 * what a request sees of its running attempt: the seam between joint/ and whoever has requests.
 */
import type { EventHub, NotRerunnableReason } from '../events.js'
import type { CorePool } from '../mysql/driver.js'
import type { LeaseBroker } from '../mysql/lease/lease.js'
import type { ConfiguredCookie } from '../session/cookie-attributes.js'
import type { SentCookie } from '../session/cookie-settings.js'
import type { Resolver } from '../session/resolvers.js'
import { sessionKey } from '../session/identity.js'
import type { SessionObject } from '../session/session-object.js'
import type { SessionStore } from '../session/store.js'
import type { RetryBudget } from '../transaction/budget.js'
import type { Heat } from '../transaction/heat.js'
import type { Environment } from '../transaction/clock.js'
import type { Deadlines } from '../transaction/deadlines.js'
import type { RetryOptions } from '../transaction/retry.js'
import type { TicketOffice } from '../transaction/ticket.js'
import type { TransactionState } from '../transaction/transaction.js'
import type { Activity } from './activity.js'
import type { ConflictOptions } from './conflicts.js'
import type { HookRunner } from './hook-runner.js'
import type { Tombstones } from './tombstones.js'
import type { Tx } from './tx.js'
import type { Tracing } from './tracing.js'

export type Isolation = 'read committed' | 'repeatable read' | 'snapshot' | 'serializable'

/** What all requests of one `sessionTx()` share. */
export interface JointParts {
  readonly environment: Environment
  readonly events: EventHub
  readonly store: SessionStore
  /** Undefined: no pool was configured. Connections are set up per isolation level. */
  readonly broker: ((isolation: Isolation) => LeaseBroker) | undefined
  /** Whose connections the broker lends. */
  readonly pool: CorePool | undefined
  readonly tickets: TicketOffice | undefined
  readonly budget: RetryBudget | undefined
  readonly heat: Heat
  readonly hooks: HookRunner
  readonly activity: Activity
  /** Transactions in doubt whose request has been answered. */
  readonly doubts: Activity
  readonly resolvers: ReadonlyMap<string, Resolver>
  readonly conflicts: ConflictOptions
  readonly sizeBytesMax: number
  readonly acquireMs: number
  readonly nonTransactionalTables: 'refuse' | 'warn'
  readonly cookie: ConfiguredCookie
  readonly tombstones: Tombstones
  readonly backoff: Omit<RetryOptions, 'retries'>
  /** Every handler that can run again does so once, without having lost a race. */
  readonly rehearse: boolean
  readonly clientGone: 'finish' | 'rollback'
  readonly deadlineMs: number
  readonly deadlines: Deadlines
  readonly nextId: () => string
  /** Undefined: nobody traces. */
  readonly tracing: Tracing | undefined
}

/** What is particular to one request. */
export interface JointRequest<T> {
  readonly retries: number
  readonly isolation: Isolation
  readonly readOnly: boolean
  /** A router pattern or `(unmatched)`. */
  route(): string
  /** Method and path, which tell the route of a request before a router has found it. Works of `tx.run` have none. */
  address?(): string
  /** The well-formed id that came with the request. */
  sessionId(): string | undefined
  /** Its key; also for who knows that, and not the id. Undefined: it follows from the id. */
  readonly sessionKey?: string | undefined
  /** An attempt exists from now on; nothing of it has run. */
  begun(attempt: RunningAttempt): void
  /** Makes attempt n > 1 look like attempt 1. */
  reset(attempt: number): void | Promise<void>
  work(tx: Tx, session: () => SessionObject): Promise<T>
  /** The handler returned, but nothing must be stored. */
  vetoes(): boolean
  /** The handler threw, but both sides are stored. Never asked for a conflict. */
  commitsOnError(error: unknown): boolean
  notRerunnable(): NotRerunnableReason | undefined
  watchClient?(gone: () => void): () => void
  /** Both sides are stored: time for the cookie. */
  committed(attempt: RunningAttempt): void
  /** Calls back when the response has finished or closed. */
  afterResponse(start: () => void): void
  /** The after-commit hooks will have run when `end` resolves. */
  hooksBegun?(end: Promise<void>): void
  /** The last attempt is over, however it ended. */
  ended?(): void
  /** Where failures of hooks are reported. */
  report(error: unknown): void
}

/** When a request began whose handler runs already: that run is the work of the first attempt. */
export interface Beginning {
  /** By the clock. */
  readonly startedAt: number
  /** How many sessions had ended. */
  readonly deathsBefore: number
}

/** What the client has to be told once the attempt has committed. */
export type CookieChange =
  | { readonly kind: 'none' }
  /** The session goes on under this id; nothing to tell unless the cookie's signature is old. */
  | { readonly kind: 'kept'; readonly id: string; readonly sent: SentCookie }
  | { readonly kind: 'set'; readonly id: string; readonly sent: SentCookie }
  | { readonly kind: 'clear'; readonly sent: SentCookie }

/** The attempt as a request sees it; also what is current below its handler. */
export interface RunningAttempt {
  readonly request: JointRequest<unknown>
  readonly tx: Tx
  readonly state: TransactionState
  /** Assigning null ends the session, an object replaces it. */
  get session(): SessionObject
  set session(value: unknown)
  /**
   * The same while the attempt runs. For what runs above it, or after it (access logs, pages that show an error): never an
   * error, but null where it has ended the session, or where that would have to be asked for now.
   */
  readonly visibleSession: SessionObject | null
  readonly cookieChange: CookieChange
}

export function keyOfSession(request: JointRequest<unknown>): string | undefined {
  const { sessionKey: known } = request
  const id = known === undefined ? request.sessionId() : undefined
  return id === undefined ? known : sessionKey(id)
}
