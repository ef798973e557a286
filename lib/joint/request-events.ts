/**
 * What is told of one request, as events: each of its attempts, and once how it ended. Decides nothing. Who hears them
 * (metrics, the page, logs) cannot disturb the request.
 */
import type { SessionTxError } from '../errors.js'
import type {
  EscapeReason,
  EventHub,
  EventPayloads,
  NotRerunnableReason,
  TransactionFacts,
} from '../events.js'
import type { Clock } from '../transaction/clock.js'
import type { Outcome, Settled } from '../transaction/two-phase-commit.js'
import type { Ending } from './tracing.js'

export type RollbackReason = EventPayloads['rollback']['reason']

interface RequestEventsSetup {
  readonly events: EventHub
  readonly clock: Clock
  readonly id: () => string
  readonly route: () => string
  /** By the clock. */
  readonly startedAt: number
}

export class RequestEvents {
  readonly #setup: RequestEventsSetup
  readonly #startedAt: number
  #ending: Ending | undefined
  #escape: EscapeReason | undefined

  constructor(setup: RequestEventsSetup) {
    this.#setup = setup
    this.#startedAt = setup.startedAt
  }

  /** How the request ended, once that has been told. */
  get ending(): Ending | undefined {
    return this.#ending
  }
  /** An effect that cannot be rolled back: another attempt would have it twice. */
  get escape(): EscapeReason | undefined {
    return this.#escape
  }

  begin(attempt: number): void {
    const { events } = this.#setup
    if (events.hears('begin')) events.emit('begin', this.#facts(attempt))
  }

  conflict(
    attempt: number,
    error: SessionTxError,
    attemptMs: number,
    refusal: SessionTxError | undefined,
  ): void {
    const conflict = error.conflict ?? { kind: 'requested', store: 'application' }
    const decision = refusal?.code ?? 'rerun'
    this.#setup.events.emit('conflict', { ...this.#facts(attempt), conflict, attemptMs, decision })
  }

  rerun(attempt: number, waitMs: number, waitedFor: EventPayloads['rerun']['waitedFor']): void {
    this.#setup.events.emit('rerun', { ...this.#facts(attempt), waitMs, waitedFor })
  }

  settled(attempt: number, { kind: outcome, doubtMs }: Outcome | Settled, late: boolean): void {
    if (doubtMs === undefined) return
    this.#setup.events.emit('settled', { ...this.#facts(attempt), outcome, doubtMs, late })
  }

  /** Told once, though it shows several times: when it is written, and when it is not rolled back. */
  escaped(attempt: number, reason: EscapeReason, table: string | undefined): void {
    if (this.#escape === reason) return
    const { events, route } = this.#setup
    events.emit('escaped', { ...this.#facts(attempt), reason, ...(table === undefined ? {} : { table }) })
    if (this.#escape === undefined) events.emit('notRerunnable', { route: route(), reason })
    this.#escape = reason
  }

  unknown(attempt: number): void {
    this.#ending = 'unknown'
    this.#setup.events.emit('unknown', this.#lasted(attempt))
  }

  rolledBack(attempt: number, reason: RollbackReason): void {
    this.#ending = 'rolledBack'
    this.#setup.events.emit('rollback', { ...this.#lasted(attempt), reason })
  }

  /** Before anything of the application's can fail: from here on nothing else is told of the request. */
  committing(): void {
    this.#ending = 'committed'
  }
  committed(number: number, commitMs: number | undefined, resolved: readonly string[]): void {
    const { id, route, attempt, durationMs } = this.#lasted(number)
    // Spelled out: the same by `...` takes 3.6 µs, and this is told of every request.
    this.#setup.events.emit('commit', { id, route, attempt, durationMs, commitMs, resolved })
  }

  refused(attempt: number, { code }: SessionTxError, reason: NotRerunnableReason | undefined): void {
    this.#ending = 'refused'
    const notRerunnable = reason === undefined ? {} : { notRerunnable: reason }
    this.#setup.events.emit('refused', { ...this.#lasted(attempt), code, ...notRerunnable })
  }

  #facts(attempt: number): TransactionFacts {
    const { id, route } = this.#setup
    return { id: id(), route: route(), attempt }
  }
  #lasted(attempt: number): TransactionFacts & { readonly durationMs: number } {
    const { id, route, clock } = this.#setup
    return { id: id(), route: route(), attempt, durationMs: clock.now() - this.#startedAt }
  }
}
