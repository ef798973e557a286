/**
 * The life of a request, in one function: the only place that chooses between commit and rollback. Used by HTTP and by
 * `tx.run()` alike; what differs between them is behind {@link JointRequest}. Knows sessions and MySQL; knows no HTTP.
 *
 *   handler → verdict → before-commit hooks → prepare → COMMIT → install → respond → after-commit hooks
 *      └───────────┴──────────────┴─────────────┴────────┘ conflict: roll back both, free the connection, wait, again
 */
import { isSessionTxError, type SessionTxError } from '../errors.js'
import type { EventHub, NotRerunnableReason } from '../events.js'
import type { LeaseBroker } from '../mysql/lease.js'
import type { Resolver } from '../session/resolvers.js'
import type { SessionObject } from '../session/session-object.js'
import type { SessionStore } from '../session/store.js'
import type { Environment } from '../transaction/clock.js'
import { runAs } from '../transaction/current.js'
import { Interrupt } from '../transaction/interrupt.js'
import { type AttemptEnd, type AttemptOrder, type RetryOptions, withRetries } from '../transaction/retry.js'
import type { TicketOffice } from '../transaction/ticket.js'
import type { Activity } from './activity.js'
import { JointAttempt, ticketKey } from './attempt.js'
import { type ConflictOptions, recognise } from './conflicts.js'
import type { HookRunner } from './hook-runner.js'
import type { Tx } from './tx.js'

export type Isolation = 'read committed' | 'repeatable read' | 'snapshot' | 'serializable'

/** What all requests of one `sessionTx()` share. */
export interface JointParts {
  readonly environment: Environment
  readonly events: EventHub
  readonly store: SessionStore
  /** Undefined: no pool was configured. Connections are set up per isolation level. */
  readonly broker: ((isolation: Isolation) => LeaseBroker) | undefined
  readonly tickets: TicketOffice | undefined
  readonly hooks: HookRunner
  readonly activity: Activity
  readonly resolvers: ReadonlyMap<string, Resolver>
  readonly conflicts: ConflictOptions
  readonly sizeBytesMax: number
  readonly acquireMs: number
  readonly cookieMaxAgeMs: number | undefined
  readonly backoff: Omit<RetryOptions, 'retries'>
  readonly deadlineMs: number
  readonly nextId: () => string
}

/** What is particular to one request. */
export interface JointRequest<T> {
  readonly retries: number
  readonly isolation: Isolation
  readonly readOnly: boolean
  /** A router pattern or `(unmatched)`. */
  readonly route: () => string
  /** The well-formed id that came with the request. */
  readonly sessionId: () => string | undefined
  /** Makes attempt n > 1 look like attempt 1. */
  reset(attempt: number): void | Promise<void>
  work(tx: Tx, session: () => SessionObject): Promise<T>
  /** The handler returned, but nothing must be stored. */
  vetoes(): boolean
  /** The handler threw, but both sides are stored. Never asked for a conflict. */
  commitsOnError(error: unknown): boolean
  notRerunnable(): NotRerunnableReason | undefined
  readonly watchClient?: (gone: () => void) => () => void
  /** Both sides are stored: time for the cookie. */
  committed(attempt: JointAttempt): void
  /** Calls back when the response has finished or closed. */
  afterResponse(start: () => void): void
  /** The after-commit hooks will have run when `end` resolves. */
  hooksBegun?(end: Promise<void>): void
  /** Where failures of hooks are reported. */
  report(error: unknown): void
}

/**
 * Runs `request.work` until it commits, or until it is clear that it will not.
 * @throws the work's own error; RETRIES_EXHAUSTED QUEUE_FULL DEADLINE NOT_RERUNNABLE RESPONSE_STARTED COMMIT_UNKNOWN
 */
export async function live<T>(request: JointRequest<T>, parts: JointParts, begun?: (attempt: JointAttempt) => void): Promise<T> {
  const { environment, events, hooks } = parts
  const { clock } = environment
  const startedAt = clock.now()
  let knownId: string | undefined
  const id = (): string => (knownId ??= parts.nextId())
  const { watchClient } = request
  const interrupt = new Interrupt({ clock, deadlineMs: parts.deadlineMs, transactionId: id, watchClient })
  const ended = parts.activity.begin()
  let knewSession = false
  let lastOrder: AttemptOrder | undefined
  let settled = false
  const facts = (order: AttemptOrder) => ({ id: id(), route: request.route(), attempt: order.attempt })
  const lasted = (order: AttemptOrder) => ({ ...facts(order), durationMs: clock.now() - startedAt })

  async function attemptOnce(order: AttemptOrder): Promise<AttemptEnd<T>> {
    lastOrder = order
    const attemptStart = clock.now()
    if (order.attempt > 1) await request.reset(order.attempt)
    const neverAgain = request.retries === 0 || request.notRerunnable() !== undefined
    const opensTogether = order.opensTogether || neverAgain
    const attempt = new JointAttempt({ parts, request, order, interrupt, id, knewSession, opensTogether })
    const { transaction, tx } = attempt
    begun?.(attempt)
    if (events.hears('begin')) events.emit('begin', facts(order))
    const inside = <R>(work: () => Promise<R>): Promise<R> => interrupt.race(runAs(attempt, work))

    let value: T | undefined
    let failure: { readonly error: unknown } | undefined
    try {
      if (order.opensTogether) await inside(() => attempt.openTogether())
      value = await inside(() => request.work(tx, () => attempt.session))
    } catch (error) {
      failure = { error }
    }
    knewSession ||= attempt.knowsSession

    // The verdict. A conflict comes first, even one that the handler caught: what it answered was built on sand.
    const lost = lostRace(failure)
    if (lost !== undefined) return rollBack(lost)
    if (failure !== undefined && (interrupt.reason !== undefined || !request.commitsOnError(failure.error))) {
      return rollBack(undefined, 'error')
    }
    if (failure === undefined && transaction.doomed) return rollBack(undefined, 'doom')
    if (failure === undefined && request.vetoes()) return rollBack(undefined, 'veto')
    const answered = failure

    const commitStart = clock.now()
    try {
      if (transaction.hasBeforeCommit) await inside(() => transaction.runBeforeCommit())
      if (transaction.failure !== undefined) throw transaction.failure
    } catch (error) {
      failure = { error }
      return rollBack(lostRace(failure), 'error')
    }
    const lostLate = lostRace(undefined)
    if (lostLate !== undefined) return rollBack(lostLate)
    const outcome = await transaction.commit()
    attempt.close()
    if (outcome.kind === 'unknown') {
      settled = true
      events.emit('unknown', lasted(order))
      return { kind: 'failed', error: outcome.error }
    }
    if (outcome.kind === 'rolledBack') {
      await hooks.afterRollback(attempt.transaction, request)
      failure = { error: outcome.error }
      const conflict = lostRace(failure)
      if (conflict !== undefined) return conflictEnd(conflict)
      settled = outcome.error !== interrupt.reason
      if (settled) events.emit('rollback', { ...lasted(order), reason: 'error' })
      return { kind: 'failed', error: outcome.error }
    }
    const used = attempt.usedSession
    const resolved = used?.resource.resolved ?? []
    request.committed(attempt)
    const commitMs = transaction.isEmpty ? undefined : clock.now() - commitStart
    settled = true
    events.emit('commit', { ...lasted(order), commitMs, resolved })
    for (const error of outcome.lateErrors) hooks.failed(transaction, request, 'install', error)
    const hooksEnd = hooks.afterCommit(transaction, request)
    if (hooksEnd !== undefined) request.hooksBegun?.(hooksEnd)
    return answered === undefined ? { kind: 'done', value: value as T } : { kind: 'failed', error: answered.error }

    /** The conflict that ends this attempt, whether it was thrown at the end or swallowed on the way. */
    function lostRace(failed: { readonly error: unknown } | undefined): SessionTxError | undefined {
      if (transaction.conflict !== undefined) return transaction.conflict
      if (failed === undefined || failed.error === interrupt.reason) return undefined
      return recognise(failed.error, 'mariadb', parts.conflicts)?.conflict
    }

    async function rollBack(conflict: SessionTxError | undefined, reason?: 'error' | 'doom' | 'veto'): Promise<AttemptEnd<T>> {
      await transaction.rollback(conflict ?? failure?.error)
      attempt.close()
      await hooks.afterRollback(transaction, request)
      if (conflict !== undefined) return conflictEnd(conflict)
      // The deadline is a refusal, told as such when the request ends.
      settled = failure === undefined || failure.error !== interrupt.reason
      if (reason !== undefined && settled) {
        events.emit('rollback', { ...lasted(order), reason })
      }
      return failure === undefined ? { kind: 'done', value: value as T } : { kind: 'failed', error: failure.error }
    }

    function conflictEnd(error: SessionTxError): AttemptEnd<T> {
      const { session, lost = [] } = error.conflict ?? {}
      const queued = session !== undefined && error.conflict?.kind !== 'snapshot' && error.conflict?.kind !== 'session'
      const ticketKeys = queued ? lost.map(variable => ticketKey(session, variable)) : []
      return { kind: 'conflict', error, ticketKeys, attemptMs: clock.now() - attemptStart }
    }
  }

  try {
    return await withRetries<T>(
      {
        get id() {
          return id()
        },
        interrupt,
        attempt: attemptOnce,
        notRerunnable: () => request.notRerunnable(),
        onConflict: (error, order, attemptMs, refusal) => {
          const conflict = error.conflict ?? { kind: 'requested', store: 'application' }
          events.emit('conflict', { ...facts(order), conflict, attemptMs, decision: refusal?.code ?? 'rerun' })
        },
        onRerun: (attempt, waitMs, waitedFor) => {
          events.emit('rerun', { id: id(), route: request.route(), attempt, waitMs, waitedFor })
        },
      },
      { retries: request.retries, ...parts.backoff },
      { now: () => clock.now(), random: environment.random, tickets: parts.tickets },
    )
  } catch (error) {
    if (lastOrder !== undefined && !settled && isSessionTxError(error)) {
      const reason = error.code === 'NOT_RERUNNABLE' || error.code === 'RESPONSE_STARTED' ? request.notRerunnable() : undefined
      events.emit('refused', { ...lasted(lastOrder), code: error.code, ...(reason === undefined ? {} : { notRerunnable: reason }) })
    }
    throw error
  } finally {
    interrupt.end()
    ended()
  }
}
