/**
 * The one question of retryability: is this error a lost race? Asked where an error is thrown and again when a handler
 * ends with one. The application's own `retry.isRetryable` is heard first, then our own conflicts, then the table of
 * database errors (mysql/errors.ts). Knows nothing of what follows from the answer.
 */
import {
  attachError,
  conflictError,
  isSessionTxError,
  type SessionTxError,
  type SessionTxErrorCode,
} from '../errors.js'
import {
  classify,
  FLAVOURS,
  type Flavour,
  isUnavailable,
  type Moment,
  type Recognised,
} from '../mysql/errors.js'

export interface ConflictOptions {
  /** true: run again; false: do not; undefined: our table decides. */
  readonly isRetryable: ((error: unknown) => boolean | undefined) | undefined
  readonly duplicateIsConflict: boolean
}

const WRAPPERS = ['cause', 'original', 'parent', 'driverError'] as const
const WRAPPERS_MAX = 64

/** @param moment where the error came, as far as the caller knows */
export function recognise(
  error: unknown,
  flavour: Flavour,
  options: ConflictOptions,
  moment: Moment = 'later',
): Recognised | undefined {
  const asked = ask(options.isRetryable, error)
  if (asked === false) return undefined
  const own = ownError(error, 'CONFLICT')
  if (own !== undefined) return { conflict: own, sticky: 'always', unfit: 'nothing' }
  const refused = noConnection(error, flavour)
  if (refused !== undefined) return { conflict: refused, sticky: 'ifUncaught', unfit: 'nothing' }
  // Our other errors (an unknown COMMIT, say) carry a database error as their cause and are no lost race for that.
  if (isSessionTxError(error) && asked !== true) return undefined
  const found = classify(error, flavour, options.duplicateIsConflict)
  if (found === undefined) {
    if (asked !== true) return undefined
    const message = 'retry.isRetryable asked for another run'
    return {
      conflict: conflictError(message, { kind: 'requested', store: 'application' }, error),
      sticky: 'ifUncaught',
      unfit: 'nothing',
    }
  }
  const { table, rerunsMax, sticky, unfit, errno } = found
  const kind = moment === 'commit' ? found.kindAtCommit : found.kind
  const details = {
    kind,
    store: 'mysql',
    ...(table === undefined ? {} : { table }),
    ...(rerunsMax === undefined ? {} : { rerunsMax }),
    ...(unfit === 'connection' && moment === 'first' ? { free: true as const } : {}),
  }
  const number = errno === undefined ? 'connection lost' : `error ${errno}`
  const where = table === undefined ? '' : ` on table '${table}'`
  return {
    conflict: conflictError(`the database reports a lost race (${kind}, ${number})${where}`, details, error),
    sticky,
    unfit,
  }
}

/**
 * No connection was to be had, so there was no transaction, and nothing is undone by another run a moment later. Only
 * what our own lease broker says counts: a refused connection to another service is none of our business. Its own
 * limits (`acquireMs`, close()) have no cause, and are final.
 */
function noConnection(error: unknown, flavour: Flavour): SessionTxError | undefined {
  const refusal = ownError(error, 'STORE_UNAVAILABLE')
  if (refusal?.cause === undefined) return undefined
  if (!isUnavailable(refusal) && classify(refusal, flavour)?.kind !== 'connection') return undefined
  return conflictError(refusal.message, { kind: 'unavailable', store: 'mysql' }, refusal)
}

/**
 * True for an error that means a lost race: of session-tx, or of a database, also wrapped by query builders.
 *
 * @example
 * app.use(async (ctx, next) => {
 *   try { await next() } catch (error) { if (!isConflict(error)) report(error); throw error }
 * })
 */
export function isConflict(error: unknown): boolean {
  const options = { isRetryable: undefined, duplicateIsConflict: false }
  return FLAVOURS.some(flavour => recognise(error, flavour, options) !== undefined)
}

/** A callback that throws has no opinion: an attempt must end whatever happens in it. */
function ask(isRetryable: ConflictOptions['isRetryable'], error: unknown): boolean | undefined {
  try {
    return isRetryable?.(error)
  } catch (broken) {
    attachError(error, broken)
    return undefined
  }
}

/** The outermost of our own errors in whatever was wrapped around it, if it has this code. */
function ownError(
  error: unknown,
  code: SessionTxErrorCode,
  seen: Set<object> = new Set(),
): SessionTxError | undefined {
  if (typeof error !== 'object' || error === null || seen.has(error) || seen.size > WRAPPERS_MAX)
    return undefined
  seen.add(error)
  if (isSessionTxError(error)) return error.code === code ? error : undefined
  const wrapper = error as Record<string, unknown>
  const wrapped = WRAPPERS.map(key => wrapper[key])
  for (const inner of Array.isArray(wrapper['errors']) ? [...wrapped, ...wrapper['errors']] : wrapped) {
    const found = ownError(inner, code, seen)
    if (found !== undefined) return found
  }
  return undefined
}

/** For development: nobody has won. */
export function rehearsal(): SessionTxError {
  const message = 'retry.rehearse: the handler runs once more'
  return conflictError(message, { kind: 'rehearsal', store: 'application', free: true })
}
