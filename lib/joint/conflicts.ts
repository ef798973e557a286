/**
 * The one question of retryability: is this error a lost race? Asked where an error is thrown and again when a handler
 * ends with one. The application's own `retry.isRetryable` is heard first, then our own conflicts, then the table of
 * database errors (mysql/errors.ts). Knows nothing of what follows from the answer.
 */
import { attachError, conflictError, isSessionTxError, SessionTxError } from '../errors.js'
import { classify, type Flavour, type Sticky } from '../mysql/errors.js'

export interface ConflictOptions {
  /** true: run again; false: do not; undefined: our table decides. */
  readonly isRetryable: ((error: unknown) => boolean | undefined) | undefined
  readonly duplicateIsConflict: boolean
}

interface Recognised {
  readonly conflict: SessionTxError
  readonly sticky: Sticky
}

const WRAPPERS = ['cause', 'original', 'parent', 'driverError'] as const
const WRAPPERS_MAX = 64

/** `atCommit`: it is COMMIT's answer. */
export function recognise(
  error: unknown,
  flavour: Flavour,
  options: ConflictOptions,
  atCommit = false,
): Recognised | undefined {
  const asked = ask(options.isRetryable, error)
  if (asked === false) return undefined
  const own = ownConflict(error, new Set())
  if (own !== undefined) return { conflict: own, sticky: 'always' }
  // Our other errors (an unknown COMMIT, say) carry a database error as their cause and are no lost race for that.
  if (isSessionTxError(error) && asked !== true) return undefined
  const found = classify(error, flavour, options.duplicateIsConflict)
  if (found === undefined) {
    if (asked !== true) return undefined
    const message = 'retry.isRetryable asked for another run'
    return {
      conflict: conflictError(message, { kind: 'requested', store: 'application' }, error),
      sticky: 'ifUncaught',
    }
  }
  const { table, rerunsMax, sticky, errno } = found
  const kind = atCommit ? found.kindAtCommit : found.kind
  const details = {
    kind,
    store: 'mysql',
    ...(table === undefined ? {} : { table }),
    ...(rerunsMax === undefined ? {} : { rerunsMax }),
  }
  const number = errno === undefined ? 'connection lost' : `error ${errno}`
  const where = table === undefined ? '' : ` on table '${table}'`
  return {
    conflict: conflictError(`the database reports a lost race (${kind}, ${number})${where}`, details, error),
    sticky,
  }
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
  return recognise(error, 'mariadb', { isRetryable: undefined, duplicateIsConflict: false }) !== undefined
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

function ownConflict(error: unknown, seen: Set<object>): SessionTxError | undefined {
  if (typeof error !== 'object' || error === null || seen.has(error) || seen.size > WRAPPERS_MAX)
    return undefined
  seen.add(error)
  if (isSessionTxError(error)) return error.code === 'CONFLICT' ? error : undefined
  const wrapper = error as Record<string, unknown>
  const wrapped = WRAPPERS.map(key => wrapper[key])
  for (const inner of Array.isArray(wrapper['errors']) ? [...wrapped, ...wrapper['errors']] : wrapped) {
    const found = ownConflict(inner, seen)
    if (found !== undefined) return found
  }
  return undefined
}
