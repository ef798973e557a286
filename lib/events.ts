/**
 * The things that happen, as a table of payload types, and the hub that tells listeners. Layers emit, metrics and
 * applications listen; nobody decides anything here. Knows nothing of what the events mean to whoever hears them.
 */
import { channel } from 'node:diagnostics_channel'
import type { ConflictDetails, SessionTxErrorCode } from './errors.js'

/** Common to every event of a transaction. `route` is a router pattern or `(unmatched)`, never a URL. */
export interface TransactionFacts {
  /** The transaction's id, the same for all its attempts. */
  readonly id: string
  readonly route: string
  /** Which run of the handler, counted from 1. */
  readonly attempt: number
}

/** What was decided after a conflict. */
export type ConflictDecision = 'rerun' | SessionTxErrorCode

/**
 * How an effect got outside of its transaction: into a table that cannot roll back, or by a statement that committed
 * half of the attempt.
 */
export type EscapeReason = 'nonTransactional' | 'implicitCommit'

/** Why a request could not be run again. */
export type NotRerunnableReason =
  | 'body' // too large to be kept, or it broke off
  | 'position' // what stands below us could not be found
  | 'mountPath' // mounted under a path: Express has trimmed the URL
  | 'nextCalled' // a handler under transactional() called next()
  | 'responseStarted' // bytes have left, or must leave now
  | 'responseBytes' // more of an answer than is held
  | 'eventStream' // an answer without an end
  | 'upgrade' // another protocol: the handler has the socket
  | EscapeReason

export interface EventPayloads {
  begin: TransactionFacts
  /** An attempt lost a race. `attemptMs` is the work thrown away. */
  conflict: TransactionFacts & {
    readonly conflict: ConflictDetails
    readonly attemptMs: number
    readonly decision: ConflictDecision
  }
  /** The handler is about to run again, as number `attempt`, having waited `waitMs`. */
  rerun: TransactionFacts & { readonly waitMs: number; readonly waitedFor: 'ticket' | 'backoff' | 'nothing' }
  /** Both sides are stored. `resolved` names variables that a resolver merged. */
  commit: TransactionFacts & {
    readonly durationMs: number
    /** From the verdict to the decision of every resource; undefined when there was nothing to commit. */
    readonly commitMs: number | undefined
    readonly resolved: readonly string[]
  }
  /** Neither side is stored, for another reason than a conflict. */
  rollback: TransactionFacts & {
    readonly durationMs: number
    readonly reason: 'error' | 'doom' | 'veto' | 'clientGone'
  }
  /** A conflict ended the request: no further attempt was allowed. */
  refused: TransactionFacts & {
    readonly durationMs: number
    readonly code: SessionTxErrorCode
    readonly notRerunnable?: NotRerunnableReason
  }
  /** COMMIT was sent and not answered, and what became of it could not be found out while the request could wait. */
  unknown: TransactionFacts & { readonly durationMs: number }
  /**
   * What became of a COMMIT that was not answered, `doubtMs` later: found out, by force where it was open. `unknown`:
   * nobody will ever know. `late`: the request had been answered by then, after the event `unknown`.
   */
  settled: TransactionFacts & {
    readonly outcome: 'committed' | 'rolledBack' | 'unknown'
    readonly doubtMs: number
    readonly late: boolean
  }
  /** The database does not know of transactions whose COMMIT it had answered: it was restored, or failed over. */
  commitsLost: { readonly transactions: number }
  /** This request cannot run again, whether or not it will have to. */
  notRerunnable: { readonly route: string; readonly reason: NotRerunnableReason }
  /** The configured pool was used directly inside a request. */
  stray: { readonly route: string; readonly method: 'query' | 'execute' | 'getConnection' }
  /**
   * An effect of the attempt cannot be rolled back, so the request is not run again. `table`: where it is known. Once
   * per attempt and reason.
   */
  escaped: TransactionFacts & { readonly reason: EscapeReason; readonly table?: string }
  /** Something failed after the outcome was decided; outcome and answer stand. */
  hookFailed: {
    readonly id: string
    readonly route: string
    readonly hook: 'afterCommit' | 'afterRollback' | 'install'
    readonly error: unknown
  }
  /** A well-formed cookie named a session that the store does not have. */
  'session:missed': { readonly session: string }
  'session:expired': { readonly session: string; readonly reason: 'idle' | 'absolute' }
  'session:destroyed': { readonly session: string }
  /** A live session was thrown out to stay within memoryStore's bounds. */
  'session:evicted': { readonly session: string }
}

export type EventName = keyof EventPayloads

/** By name of the event: what anybody in the process can subscribe to, without having the middleware. */
const CHANNELS = {
  begin: channel('session-tx:begin'),
  conflict: channel('session-tx:conflict'),
  rerun: channel('session-tx:rerun'),
  commit: channel('session-tx:commit'),
  rollback: channel('session-tx:rollback'),
  refused: channel('session-tx:refused'),
  unknown: channel('session-tx:unknown'),
  settled: channel('session-tx:settled'),
  commitsLost: channel('session-tx:commitsLost'),
  notRerunnable: channel('session-tx:notRerunnable'),
  stray: channel('session-tx:stray'),
  escaped: channel('session-tx:escaped'),
  hookFailed: channel('session-tx:hookFailed'),
  'session:missed': channel('session-tx:session:missed'),
  'session:expired': channel('session-tx:session:expired'),
  'session:destroyed': channel('session-tx:session:destroyed'),
  'session:evicted': channel('session-tx:session:evicted'),
} satisfies Record<EventName, unknown>

export const EVENT_NAMES = Object.keys(CHANNELS) as readonly EventName[]
export type Listener<Name extends EventName> = (payload: EventPayloads[Name]) => void

/** Tells the channel, then listeners in the order they came. A listener that throws is reported and never disturbs a request. */
export class EventHub {
  readonly #listeners = new Map<EventName, Listener<never>[]>()

  on<Name extends EventName>(name: Name, listener: Listener<Name>): () => void {
    const present = this.#listeners.get(name) ?? []
    this.#listeners.set(name, [...present, listener as Listener<never>])
    return () => {
      const now = this.#listeners.get(name) ?? []
      this.#listeners.set(
        name,
        now.filter(other => other !== listener),
      )
    }
  }

  /** For payloads that would be made on every request. */
  hears(name: EventName): boolean {
    return (this.#listeners.get(name)?.length ?? 0) > 0 || CHANNELS[name].hasSubscribers
  }

  emit<Name extends EventName>(name: Name, payload: EventPayloads[Name]): void {
    if (CHANNELS[name].hasSubscribers) CHANNELS[name].publish(payload)
    const listeners = this.#listeners.get(name)
    if (listeners === undefined) return
    for (const listener of listeners as Listener<Name>[]) {
      try {
        listener(payload)
      } catch (error) {
        process.emitWarning(`a listener of '${name}' threw: ${String(error)}`, 'SessionTxWarning')
      }
    }
  }
}
