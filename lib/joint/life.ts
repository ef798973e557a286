/**
 * The life of a request, in one function: the only place that chooses between commit and rollback. Used by HTTP and by
 * `tx.run()` alike; what differs between them is behind {@link JointRequest}. Knows sessions and MySQL; knows no HTTP.
 *
 *   handler → verdict → before-commit hooks → prepare → COMMIT → install → respond → after-commit hooks
 *      └───────────┴──────────────┴─────────────┴────────┘ conflict: roll back both, free the connection, wait, again
 */
import { attachError, isSessionTxError, type SessionTxError } from '../errors.js'
import type { EscapeReason, EventPayloads, NotRerunnableReason } from '../events.js'
import { runAs } from '../transaction/current.js'
import { Interrupt } from '../transaction/interrupt.js'
import {
  type AttemptEnd,
  type AttemptOrder,
  firstOrder,
  type RetryRequest,
  withRetries,
} from '../transaction/retry.js'
import type { Settled } from '../transaction/two-phase-commit.js'
import { JointAttempt } from './attempt.js'
import { recognise, rehearsal } from './conflicts.js'
import { boxed, type Failure } from './failure.js'
import type { Beginning, JointParts, JointRequest } from './request.js'
import { RequestEvents, type RollbackReason } from './request-events.js'
import { expectedTicketKeys, noteLost, noteWon } from './route-heat.js'
import { givenWay, lostParts, ticketKeysOf } from './ticket-keys.js'
import type { Trace } from './tracing.js'

/**
 * Runs `request.work` until it commits, or until it is clear that it will not.
 * @throws the work's own error; RETRIES_EXHAUSTED QUEUE_FULL DEADLINE NOT_RERUNNABLE RESPONSE_STARTED COMMIT_UNKNOWN
 */
export async function live<T>(request: JointRequest<T>, parts: JointParts, since?: Beginning): Promise<T> {
  const ended = parts.activity.begin()
  const life = new Life(request, parts, since)
  const { clock, random } = parts.environment
  const { tickets, budget, backoff } = parts
  try {
    const { backoffBaseMs, backoffMaxMs } = backoff
    const tools = { now: () => clock.now(), random, tickets, budget }
    return await withRetries<T>(life, { retries: request.retries, backoffBaseMs, backoffMaxMs }, tools)
  } catch (error) {
    life.refused(error)
    throw error
  } finally {
    life.interrupt.end()
    life.traced()
    request.ended?.()
    ended()
  }
}

/** Begins the only attempt of a request that is over, without having asked for anything. */
export function overAtOnce(request: JointRequest<unknown>, parts: JointParts, since: Beginning): void {
  new Life(request, parts, since).overAtOnce()
}

const NONE: readonly string[] = Object.freeze([])

/** One request over all its attempts. */
class Life<T> implements RetryRequest<T> {
  readonly interrupt: Interrupt
  readonly name = (): string => this.#request.route()
  readonly #request: JointRequest<T>
  readonly #parts: JointParts
  #id: string | undefined
  #knewSession = false
  readonly #deathsBefore: number
  readonly #trace: Trace | undefined
  #lastOrder: AttemptOrder | undefined
  readonly #told: RequestEvents
  readonly #isLate: boolean

  constructor(request: JointRequest<T>, parts: JointParts, since: Beginning | undefined) {
    const { clock } = parts.environment
    const startedAt = since?.startedAt ?? clock.now()
    this.#isLate = since !== undefined
    this.#request = request
    this.#parts = parts
    this.#trace = parts.tracing?.begin()
    this.#deathsBefore = since?.deathsBefore ?? parts.tombstones.deaths
    const { watchClient } = request
    const { events } = parts
    this.#told = new RequestEvents({ events, clock, id: this.#idOf, route: this.name, startedAt })
    this.interrupt = new Interrupt({
      clock,
      startedAt,
      deadlineMs: parts.deadlineMs,
      transactionId: this.#idOf,
      watchClient: watchClient && (gone => watchClient.call(request, gone)),
    })
  }

  get id(): string {
    this.#id ??= this.#parts.nextId()
    return this.#id
  }
  readonly #idOf = (): string => this.id

  notRerunnable(): NotRerunnableReason | undefined {
    return this.#told.escape ?? this.#request.notRerunnable()
  }

  expectedTicketKeys(): readonly string[] {
    return this.#isLate ? NONE : expectedTicketKeys(this.#request, this.#parts.heat, this.#isNeverRunAgain)
  }

  attempt(order: AttemptOrder): Promise<AttemptEnd<T>> {
    if (this.#trace === undefined) return this.#attempt(order)
    return this.#trace.attempt(order.attempt, () => this.#attempt(order))
  }

  /** The life of a request, as far as one attempt goes. */
  async #attempt(order: AttemptOrder): Promise<AttemptEnd<T>> {
    const { clock } = this.#parts.environment
    const startedAt = clock.now()
    this.#lastOrder = order
    if (order.attempt > 1) await this.interrupt.race(Promise.resolve(this.#request.reset(order.attempt)))
    const attempt = this.#begin(order)
    const { transaction } = attempt
    const conflictEnd = (conflict: SessionTxError) =>
      this.#conflictEnd(attempt, order, conflict, clock.now() - startedAt)

    // The handler.
    let value: T | undefined
    let failure: Failure | undefined
    try {
      const turn = attempt.takeTurn()
      if (turn !== undefined) await this.interrupt.race(turn)
      const finding = attempt.findSession()
      if (finding !== undefined) await this.interrupt.race(finding)
      if (order.ticketKeys.length > 0) await this.interrupt.race(attempt.afterWinner())
      if (order.opensTogether) await this.#inside(attempt, () => attempt.openTogether())
      value = await this.#inside(attempt, () => this.#request.work(attempt.tx, () => attempt.session))
    } catch (error) {
      failure = { error }
    }
    this.#knewSession ||= attempt.knowsSession
    // Returned, but the time is over or a savepoint could not be gone back to: nobody must be told that it went well.
    if (failure === undefined) failure = boxed(transaction.failure ?? this.interrupt.reason)

    // The verdict. A conflict comes first, even one that the handler caught: what it answered was built on sand.
    let conflict = this.#lostRace(attempt, failure) ?? this.#rehearsal(order, failure)
    let reason: RollbackReason | undefined
    try {
      if (conflict === undefined) reason = this.#reasonToRollBack(attempt, failure)
    } catch (error) {
      // A policy of the application threw: nobody has agreed to a commit.
      reason = 'error'
      if (failure === undefined) failure = { error }
      else attachError(failure.error, error)
    }
    if (reason !== undefined && reason !== 'clientGone') conflict = await this.#oldReading(attempt)
    if (conflict !== undefined || reason !== undefined) {
      await this.#rollBack(attempt, conflict ?? failure?.error)
      if (conflict !== undefined) return conflictEnd(conflict)
      this.#tellRollback(order, failure, reason ?? 'error')
      return failure === undefined ? { kind: 'done', value: value as T } : { kind: 'failed', ...failure }
    }

    // The last words of the application, still inside.
    const commitStart = clock.now()
    const objection = transaction.hasBeforeCommit ? await this.#beforeCommit(attempt) : undefined
    conflict = this.#lostRace(attempt, objection) ?? this.#givesWay(attempt, order)
    const isMissed = this.#clientIsMissed
    if (conflict !== undefined || objection !== undefined || transaction.doomed || isMissed) {
      await this.#rollBack(attempt, conflict ?? objection?.error)
      if (conflict !== undefined) return conflictEnd(conflict)
      const otherwise = transaction.doomed ? 'doom' : 'clientGone'
      this.#tellRollback(order, objection, objection === undefined ? otherwise : 'error')
      const answer = objection ?? failure
      return answer === undefined ? { kind: 'done', value: value as T } : { kind: 'failed', ...answer }
    }

    // The commit: prepare, COMMIT, install.
    const outcome = await transaction.commit()
    attempt.close()
    if (outcome.kind === 'unknown') {
      this.#told.unknown(order.attempt)
      this.#told.settled(order.attempt, outcome, false)
      if (outcome.settling !== undefined) this.#settleLater(order, attempt, outcome.settling)
      return { kind: 'failed', error: outcome.error }
    }
    this.#told.settled(order.attempt, outcome, false)
    if (outcome.kind === 'rolledBack') {
      await this.#hooksAfterRollback(attempt)
      conflict = this.#lostRace(attempt, outcome)
      if (conflict !== undefined) return conflictEnd(conflict)
      this.#tellRollback(order, outcome, 'error')
      return { kind: 'failed', error: outcome.error }
    }

    // Both sides are stored, and nothing fails the request any more. (A handler's error may be its answer all the same.)
    this.#afterCommit(order, attempt, clock.now() - commitStart, outcome.lateErrors)
    return failure === undefined ? { kind: 'done', value: value as T } : { kind: 'failed', ...failure }
  }

  overAtOnce(): void {
    this.interrupt.end()
    const attempt = this.#create(firstOrder(this.#request.retries, NONE))
    attempt.transaction.commitNothing()
    attempt.close()
  }

  #begin(order: AttemptOrder): JointAttempt {
    const attempt = this.#create(order)
    this.#told.begin(order.attempt)
    return attempt
  }

  #create(order: AttemptOrder): JointAttempt {
    const neverAgain = this.#isNeverRunAgain
    const attempt = new JointAttempt({
      parts: this.#parts,
      request: this.#request,
      order,
      interrupt: this.interrupt,
      id: this.#idOf,
      knewSession: this.#knewSession,
      deathsBefore: this.#deathsBefore,
      opensTogether: order.opensTogether || neverAgain,
      life: this,
    })
    this.#request.begun(attempt)
    return attempt
  }

  /** The application's code: with the attempt as the current one, and not beyond the deadline. */
  #inside<R>(attempt: JointAttempt, work: () => Promise<R>): Promise<R> {
    return this.interrupt.race(runAs(attempt, work))
  }

  async #beforeCommit(attempt: JointAttempt): Promise<Failure | undefined> {
    try {
      await this.#inside(attempt, () => attempt.transaction.runBeforeCommit())
      return boxed(attempt.transaction.failure)
    } catch (error) {
      return { error }
    }
  }

  /** The conflict that ends the attempt, whether it was thrown at the end or swallowed on the way. */
  #lostRace(attempt: JointAttempt, failure: Failure | undefined): SessionTxError | undefined {
    const { conflict } = attempt.transaction
    if (conflict !== undefined) return conflict
    if (failure === undefined || failure.error === this.interrupt.reason) return undefined
    return recognise(failure.error, attempt.flavour, this.#parts.conflicts)?.conflict
  }

  /**
   * What is not committed is not checked, but answered: a shared store may have shown the handler a session of before.
   * Whatever else is wrong with the store or the connection is not what the client is to hear of.
   */
  async #oldReading({ transaction, usedSession }: JointAttempt): Promise<SessionTxError | undefined> {
    if (usedSession === undefined || transaction.state !== 'active') return undefined
    if (transaction.failure !== undefined || this.interrupt.reason !== undefined) return undefined
    try {
      await this.interrupt.race(Promise.resolve(usedSession.resource.verify()))
    } catch (error) {
      return isSessionTxError(error) && error.code === 'CONFLICT' ? error : undefined
    }
    return undefined
  }

  /**
   * Somebody who has lost a row of the same table before is at its last attempt, and we can run again. (For a session's
   * variables session/resource.ts gives way, and sooner: they are finer than tables.)
   */
  #givesWay(attempt: JointAttempt, order: AttemptOrder): SessionTxError | undefined {
    const { tickets } = this.#parts
    if (tickets === undefined || tickets.isIdle || order.isLast || this.#isNeverRunAgain) return undefined
    return givenWay(tickets, attempt.lockedTables, order.ticketKeys)
  }

  /** For development: a first run that went well is thrown away, as if it had lost a race. */
  #rehearsal(order: AttemptOrder, failure: Failure | undefined): SessionTxError | undefined {
    const { rehearse } = this.#parts
    if (!rehearse || order.attempt > 1 || failure !== undefined || this.#isNeverRunAgain) return undefined
    return rehearsal()
  }

  get #isNeverRunAgain(): boolean {
    return this.#request.retries === 0 || this.notRerunnable() !== undefined
  }

  /** The policies: each can only keep an attempt from being stored. */
  #reasonToRollBack({ transaction }: JointAttempt, failure: Failure | undefined): RollbackReason | undefined {
    if (transaction.failure !== undefined || this.interrupt.reason !== undefined) return 'error'
    if (failure !== undefined && !this.#request.commitsOnError(failure.error)) return 'error'
    if (transaction.doomed) return 'doom'
    if (failure === undefined && this.#request.vetoes()) return 'veto'
    return this.#clientIsMissed ? 'clientGone' : undefined
  }

  /** Nobody hears the answer, and the application wants nothing stored then. */
  get #clientIsMissed(): boolean {
    return this.#parts.clientGone === 'rollback' && this.interrupt.clientIsGone
  }

  async #rollBack(attempt: JointAttempt, reason: unknown): Promise<void> {
    const { transaction } = attempt
    await transaction.rollback(reason)
    attempt.close()
    await this.#hooksAfterRollback(attempt)
  }

  /** What they undo may be done again by the next attempt, so it waits for them, within the deadline. */
  async #hooksAfterRollback({ transaction }: JointAttempt): Promise<void> {
    const hooks = this.#parts.hooks.afterRollback(transaction, this.#request)
    if (hooks !== undefined) await this.interrupt.race(hooks).catch(() => {})
  }

  /** The request has been answered: COMMIT_UNKNOWN. What it did becomes visible, or is taken back, when that is known. */
  #settleLater(order: AttemptOrder, attempt: JointAttempt, settling: Promise<Settled>): void {
    const { doubts, hooks } = this.#parts
    const ended = doubts.begin()
    const { transaction } = attempt
    const follow = async (): Promise<void> => {
      const settled = await settling
      this.#told.settled(order.attempt, settled, true)
      if (settled.kind === 'committed') {
        for (const error of settled.lateErrors) hooks.failed(transaction, this.#request, 'install', error)
        void hooks.afterCommit(transaction, this.#request)
      } else await hooks.afterRollback(transaction, this.#request)
    }
    void follow().finally(ended)
  }

  #conflictEnd(
    attempt: JointAttempt,
    order: AttemptOrder,
    error: SessionTxError,
    attemptMs: number,
  ): AttemptEnd<T> {
    const { conflict } = error
    const lost = lostParts(conflict, attempt.lockedTables)
    noteLost(this.#request, this.#parts.heat, order, conflict, lost)
    const ticketKeys = ticketKeysOf(lost, conflict?.session)
    return { kind: 'conflict', error, ticketKeys, attemptMs }
  }

  /** The cookie, and who wanted to hear of it. */
  #afterCommit(
    order: AttemptOrder,
    attempt: JointAttempt,
    tookMs: number,
    lateErrors: readonly unknown[],
  ): void {
    const { hooks } = this.#parts
    const { transaction, usedSession } = attempt
    this.#told.committing()
    try {
      this.#request.committed(attempt)
    } catch (error) {
      hooks.failed(transaction, this.#request, 'install', error)
    }
    noteWon(this.#request, this.#parts.heat, order)
    const commitMs = transaction.isEmpty ? undefined : tookMs
    this.#told.committed(order.attempt, commitMs, usedSession?.resource.resolved ?? NONE)
    for (const error of lateErrors) hooks.failed(transaction, this.#request, 'install', error)
    const hooksEnd = hooks.afterCommit(transaction, this.#request)
    if (hooksEnd !== undefined) this.#request.hooksBegun?.(hooksEnd)
  }

  // ── what is told ───────────────────────────────────────────────────────────────────────────────────────────────

  onConflict(
    error: SessionTxError,
    { attempt }: AttemptOrder,
    attemptMs: number,
    refusal: SessionTxError | undefined,
  ): void {
    this.#told.conflict(attempt, error, attemptMs, refusal)
  }

  onRerun(attempt: number, waitMs: number, waitedFor: EventPayloads['rerun']['waitedFor']): void {
    this.#told.rerun(attempt, waitMs, waitedFor)
  }

  escaped(attempt: number, reason: EscapeReason, table: string | undefined): void {
    this.#told.escaped(attempt, reason, table)
  }

  /** The deadline is a refusal, told as such when the request ends. */
  #tellRollback({ attempt }: AttemptOrder, failure: Failure | undefined, reason: RollbackReason): void {
    const { reason: deadline } = this.interrupt
    if (deadline !== undefined && failure?.error === deadline) return
    this.#told.rolledBack(attempt, reason)
  }

  refused(error: unknown): void {
    if (this.#told.ending !== undefined || !isSessionTxError(error)) return
    const cannot = error.code === 'NOT_RERUNNABLE' || error.code === 'RESPONSE_STARTED'
    this.#told.refused(this.#lastOrder?.attempt ?? 1, error, cannot ? this.notRerunnable() : undefined)
  }

  traced(): void {
    this.#trace?.end(this.#told.ending, this.#request.route(), this.#lastOrder?.attempt ?? 0)
  }
}
