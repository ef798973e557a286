/**
 * What `tx.stats()` returns: types only. Times are milliseconds, counts start with the process and only grow,
 * what can fall is marked "now". Knows nothing of who counts or who reads.
 */
import type { ConflictKind, SessionTxErrorCode } from '../errors.js'
import type { ConflictDecision, EscapeReason, NotRerunnableReason } from '../events.js'
import type { Counts } from './counts.js'

/** How a request's transaction ended; each request ends in exactly one. */
export type RequestOutcome = 'committed' | 'rolledBack' | 'refused' | 'unknown'

/** What became of a COMMIT that was not answered; `unknown`: nobody will ever know. */
export type SettledOutcome = 'committed' | 'rolledBack' | 'unknown'

/**
 * Requests by the number of their attempts; sums to the requests that ended. Above 1000 attempts counts as
 * 1000.
 */
export type AttemptCounts = Readonly<Record<number, number>>

/** One lost race. Holds names and version numbers, never a value; `session` is the start of a hash. */
export interface RecentConflict {
  /** ISO 8601, UTC. */
  readonly time: string
  readonly route: string
  readonly attempt: number
  readonly kind: ConflictKind
  readonly store: string
  /** First 12 characters of the hash under which the session is stored. */
  readonly session?: string
  readonly variable?: string
  readonly table?: string
  readonly baseVersion?: number
  readonly foundVersion?: number
  /** Route of the transaction that committed first, where it is known. */
  readonly winner?: string
  readonly decision: ConflictDecision
  /** How long the request waited before it ran again; absent until then. */
  readonly waitMs?: number
}

/** Time from the verdict to the decision of every resource, in milliseconds; all 0 while `count` is 0. */
export interface CommitTimes {
  readonly p50: number
  readonly p90: number
  readonly p95: number
  readonly p99: number
  readonly max: number
  readonly count: number
}

/** The queue for what was lost, now. */
export interface TicketStats {
  /** Requests that wait, over all keys. */
  readonly waiting: number
  /** Keys that are queued for or held. */
  readonly keys: number
}

/** The allowance for re-runs that sleep, now. */
export interface BudgetStats {
  readonly tokens: number
  readonly capacity: number
}

export interface StoreStats {
  readonly name: string
  readonly guarantee: 'transactional' | 'best effort'
}

export interface Stats {
  readonly requests: Readonly<Record<RequestOutcome, number>>
  readonly attempts: AttemptCounts
  readonly conflicts: {
    readonly total: number
    readonly byKind: Counts<ConflictKind>
    /** By session variable, table and route; 200 names each, the rest under `(other)`. */
    readonly byVariable: Counts
    readonly byTable: Counts
    readonly byRoute: Counts
  }
  /** Conflicts that a resolver merged, by variable: they cost no re-run and are not in `conflicts`. */
  readonly resolved: Counts
  /** Times that a handler ran again. */
  readonly retried: number
  /** Requests refused because every allowed re-run lost, too (`RETRIES_EXHAUSTED`); also in `refused`. */
  readonly exhausted: number
  /** Requests that a conflict ended, by the code of their error. */
  readonly refused: Counts<SessionTxErrorCode>
  /** Requests that could not have run again, whether or not they had to. */
  readonly notRerunnable: Counts<NotRerunnableReason>
  /** Uses of the configured pool inside a request, outside its transaction. */
  readonly stray: { readonly total: number; readonly byRoute: Counts }
  /** Attempts with an effect that could not be rolled back; more than 0 wants looking into. */
  readonly escaped: {
    readonly total: number
    readonly byReason: Counts<EscapeReason>
    readonly byRoute: Counts
  }
  readonly hooksFailed: number
  /** Transactions whose COMMIT was not answered and that are being settled, now; null: no commit record is kept. */
  readonly inDoubt: number | null
  /** What became of those, found out in time or later. */
  readonly settled: Readonly<Record<SettledOutcome, number>>
  /** Transactions whose COMMIT was answered and that the database does not know of any more, as far as we noticed. */
  readonly commitsLost: number
  /** Work of attempts that lost a race. */
  readonly wastedMs: number
  readonly commitMs: CommitTimes
  /** null: there is none. */
  readonly budget: BudgetStats | null
  /** null: there is none. */
  readonly tickets: TicketStats | null
  readonly sessions: {
    /** Sessions kept now; null where the store does not know. */
    readonly live: number | null
    readonly evicted: number
    readonly expired: number
    readonly missed: number
    readonly destroyed: number
  }
  /** Where sessions are. `best effort`: a store without versions, see legacyStore. null: unknown. */
  readonly store: StoreStats | null
  /** The last 200 conflicts, oldest first. */
  readonly recent: readonly RecentConflict[]
}
