/**
 * The one error class of session-tx, its closed table of codes, and what a conflict says about itself.
 * Knows nothing of HTTP frameworks, databases or sessions; codes are API, messages are not.
 */

/** What went wrong, as a closed list. `status` is the HTTP status that a framework should answer with. */
export const ERROR_CODES = Object.freeze({
  CONFLICT: { status: 503, meaning: 'another transaction committed first' },
  RETRIES_EXHAUSTED: { status: 503, meaning: 'every allowed re-run lost a race, too' },
  BUDGET_EXHAUSTED: { status: 503, meaning: 'the process re-ran too much lately' },
  QUEUE_FULL: { status: 503, meaning: 'too many requests wait for the same session variable or table' },
  DEADLINE: { status: 503, meaning: 'all attempts together took longer than retry.deadlineMs' },
  COMMIT_UNKNOWN: { status: 503, meaning: 'COMMIT was sent and its answer was lost' },
  TRANSACTION_CLOSED: { status: 500, meaning: 'used after its attempt ended' },
  DOOMED: { status: 500, meaning: 'a doomed transaction was asked to commit' },
  NO_TRANSACTION: { status: 500, meaning: 'there is no transaction here' },
  NOT_TRANSACTIONAL: {
    status: 500,
    meaning: 'a table whose engine cannot roll back would have been written',
  },
  IMPLICIT_COMMIT: { status: 500, meaning: 'the statement would have committed implicitly' },
  TRANSACTION_CONTROL: {
    status: 500,
    meaning: 'the handler sent BEGIN, COMMIT, ROLLBACK or SAVEPOINT itself',
  },
  RESPONSE_STARTED: { status: 503, meaning: 'a conflict, but bytes had already left for the client' },
  NOT_RERUNNABLE: { status: 503, meaning: 'a conflict, but this request cannot run again' },
  SESSION_VALUE: { status: 500, meaning: 'a session variable holds something that cannot be stored' },
  SESSION_TOO_LARGE: { status: 500, meaning: 'the session is larger than session.sizeBytesMax' },
  SESSION_DESTROYED: { status: 500, meaning: 'the session was destroyed by this request' },
  READ_ONLY: { status: 500, meaning: 'a read-only transaction wrote' },
  STRAY_QUERY: { status: 500, meaning: 'the configured pool was used directly inside a request' },
  STORE_UNAVAILABLE: { status: 503, meaning: 'the database or the session store does not answer' },
  MISCONFIGURED: { status: 500, meaning: 'an option is missing or wrong' },
} as const)

export type SessionTxErrorCode = keyof typeof ERROR_CODES

/** Why two transactions could not both commit; the names appear in metrics. */
export type ConflictKind =
  | 'variable' // somebody else committed the session variable that this attempt writes
  | 'read' // a variable that had to stay current (readCurrent, serializable) changed
  | 'names' // the set of variable names was read and changed
  | 'session' // the session was replaced, destroyed or regenerated meanwhile
  | 'snapshot' // session and rows were seen at different moments
  | 'stale' // a cached session turned out to be old
  | 'row' // first committer of a row won (MariaDB 1020)
  | 'deadlock'
  | 'lockWait'
  | 'certification' // Galera, Group Replication, XA: the cluster refused the commit
  | 'write' // TiDB write conflict
  | 'definition' // a table changed its definition under the transaction
  | 'duplicate' // 1062 with retry.duplicateIsConflict
  | 'connection' // lost, and it is certain that nothing was committed; or it leads to a server that is read-only now
  | 'unavailable' // there was no connection to be had: no transaction existed
  | 'requested' // the application asked for it: tx.conflict(), retry.isRetryable
  | 'rehearsal' // nobody won: retry.rehearse runs every handler twice

/** What a conflict says: where, which versions, who won. Never a value, never a raw session id. */
export interface ConflictDetails {
  readonly kind: ConflictKind
  /** `memory`, `mysql`, or the name of your own resource or store. */
  readonly store: string
  /** First 12 characters of the hash under which the session is stored. */
  readonly session?: string
  readonly variable?: string
  /** Every session variable that was lost, `variable` being the first. */
  readonly lost?: readonly string[]
  readonly table?: string
  /**
   * Version the attempt started from, and the one found at commit; 0 means absent. Without `foundVersion` nobody had
   * committed yet: it gave way to a request that had lost before, which is `winner` then.
   */
  readonly baseVersion?: number
  readonly foundVersion?: number
  /** Route of the transaction that committed first, or has its turn, where it is known. */
  readonly winner?: string
  /** How often one request may re-run for this kind, where that is less than `retry.retries`. */
  readonly rerunsMax?: number
  /** A re-run for it is not charged to `retry.retries`, once per request and kind. */
  readonly free?: true
}

interface SessionTxErrorOptions {
  readonly cause?: unknown
  readonly transactionId?: string | undefined
  readonly conflict?: ConflictDetails | undefined
  readonly headers?: Readonly<Record<string, string>>
}

const BRAND = Symbol.for('session-tx.error')

/**
 * Every error that session-tx itself raises. Frameworks read `status`, `expose` and `headers`; programs read `code`.
 * Told apart by {@link isSessionTxError} and `code`, not `instanceof`: the ESM and CJS builds can both be loaded.
 *
 * @example
 * app.use(async (ctx, next) => {
 *   try { await next() } catch (error) {
 *     if (error.code !== 'RETRIES_EXHAUSTED') throw error
 *     ctx.set(error.headers).status = 503
 *     ctx.body = 'Busy, please try again.'
 *   }
 * })
 */
export class SessionTxError extends Error {
  readonly code: SessionTxErrorCode
  readonly status: number
  readonly expose = false
  readonly headers: Readonly<Record<string, string>> | undefined
  readonly transactionId: string | undefined
  readonly conflict: ConflictDetails | undefined
  /** Errors that happened while this one was being dealt with (a failed rollback, say); the first one stays the error. */
  readonly errors: unknown[] = []

  constructor(code: SessionTxErrorCode, message: string, options: SessionTxErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'SessionTxError'
    this.code = code
    this.status = ERROR_CODES[code].status
    this.headers = options.headers ?? (this.status === 503 ? RETRY_SOON : undefined)
    this.transactionId = options.transactionId
    this.conflict = options.conflict
    Object.defineProperty(this, BRAND, { value: true })
  }
}

const RETRY_SOON = Object.freeze({ 'Retry-After': '1' })

/** True for an error of either build of session-tx. */
export function isSessionTxError(error: unknown): error is SessionTxError {
  return typeof error === 'object' && error !== null && (error as Record<symbol, unknown>)[BRAND] === true
}

/** A lost race, ready to be thrown. */
export function conflictError(message: string, details: ConflictDetails, cause?: unknown): SessionTxError {
  return new SessionTxError('CONFLICT', message, { conflict: details, cause })
}

/** Keeps a later error with the first one, which stays the error that is reported. */
export function attachError(first: unknown, later: unknown): void {
  if (first === later || typeof first !== 'object' || first === null) return
  const carrier = first as { errors?: unknown }
  if (Array.isArray(carrier.errors)) carrier.errors.push(later)
  else if (Object.isExtensible(first))
    Object.defineProperty(first, 'errors', { value: [later], configurable: true })
}
