/**
 * Which database errors mean a lost race, what the server has already undone by then, and what each says
 * about a COMMIT it answers: one table, one question. Sources: the error lists of MariaDB, MySQL, Galera and
 * TiDB. Knows nothing of connections or of what is done about an error.
 *
 * `errno`, not `code`, decides: mysql2's `code` comes from a MySQL 8 list and is wrong or missing elsewhere.
 * And the flavour decides with it: what TiDB calls 9007, ProxySQL numbers its own troubles with.
 */
import type { ConflictKind, SessionTxError } from '../errors.js'

export const FLAVOURS = Object.freeze(['mariadb', 'mysql', 'tidb', 'galera'] as const)
/** `galera` is MariaDB or MySQL with wsrep on. */
export type Flavour = (typeof FLAVOURS)[number]

/** Whether a handler that caught the error and went on has lost the race all the same. */
type Sticky = 'always' | 'unlessNowait' | 'ifUncaught'

/** Where in an attempt an error came; `first`: the server had answered nothing of it before. */
export type Moment = 'first' | 'later' | 'commit'

/** A lost race, as an attempt needs to know it. */
export interface Recognised {
  readonly conflict: SessionTxError
  readonly sticky: Sticky
  readonly unfit: 'nothing' | 'connection' | 'server'
}

interface Classified {
  readonly kind: ConflictKind
  /** What it is called when COMMIT itself got this answer. */
  readonly kindAtCommit: ConflictKind
  readonly errno: number | undefined
  /** What the server has undone by now. ROLLBACK is due unless it says `transaction`, and never wrong. */
  readonly rolledBack: 'transaction' | 'statement' | 'nothing'
  /** As the answer to COMMIT: certainly not committed, or not to be known. */
  readonly atCommit: 'aborted' | 'unknown'
  /**
   * `always`; `unlessNowait`: not for a statement that said NOWAIT or WAIT n; `ifUncaught`: never when
   * caught.
   */
  readonly sticky: Sticky
  /** How often one request may re-run for it, where that is less than `retry.retries`. */
  readonly rerunsMax: number | undefined
  /**
   * What must not be used again: `connection`, this one; `server`, every connection to the server that it leads
   * to, since a failover has left them behind.
   */
  readonly unfit: 'nothing' | 'connection' | 'server'
  /** The table's name, where the message has it (1020). */
  readonly table: string | undefined
}

type Row = Omit<Classified, 'errno' | 'table' | 'kindAtCommit'> & {
  readonly flavours: readonly Flavour[]
  /** Only if the server's text says so, too. */
  readonly message?: RegExp
  /** Only if the application asked for it: `retry.duplicateIsConflict`. */
  readonly optional?: true
}

const MARIADB = ['mariadb', 'galera'] as const
const whole = {
  rolledBack: 'transaction',
  atCommit: 'aborted',
  sticky: 'always',
  rerunsMax: undefined,
  unfit: 'nothing',
} as const
const statement = { ...whole, rolledBack: 'statement', atCommit: 'unknown' } as const
/** The server rolls back as soon as it notices; we are never told. */
const lost = {
  ...whole,
  kind: 'connection',
  atCommit: 'unknown',
  unfit: 'connection',
  flavours: FLAVOURS,
} as const
/** It answers, but is no place to write to: after a failover, or outside of its cluster. */
const demoted = { ...statement, kind: 'connection', unfit: 'server' } as const
const certification = { ...whole, kind: 'certification' } as const

const TABLE: Readonly<Record<number, Row>> = Object.freeze({
  1213: { ...whole, kind: 'deadlock', flavours: FLAVOURS }, // Galera answers COMMIT with it, too: kindAtCommit
  1020: { ...whole, kind: 'row', flavours: MARIADB }, // in MySQL it belongs to MyISAM
  1205: { ...statement, kind: 'lockWait', sticky: 'unlessNowait', rerunsMax: 2, flavours: FLAVOURS },
  3572: { ...statement, kind: 'lockWait', sticky: 'ifUncaught', flavours: ['mysql', 'tidb', 'galera'] },
  3101: { ...certification, flavours: ['mysql'] }, // Group Replication
  1614: { ...certification, flavours: FLAVOURS }, // XA: rolled back for a deadlock
  1613: { ...certification, flavours: FLAVOURS }, // XA: took too long
  1402: { ...certification, flavours: FLAVOURS }, // XA: rolled back
  9007: { ...whole, kind: 'write', flavours: ['tidb'] },
  8002: { ...whole, kind: 'write', flavours: ['tidb'] },
  8022: { ...whole, kind: 'write', flavours: ['tidb'] },
  8028: { ...whole, kind: 'definition', flavours: ['tidb'] },
  8147: { ...whole, kind: 'write', flavours: ['tidb'] },
  1412: { ...statement, kind: 'definition', flavours: FLAVOURS },
  1615: { ...statement, kind: 'definition', flavours: FLAVOURS },
  1062: { ...statement, kind: 'duplicate', rerunsMax: 1, flavours: FLAVOURS, optional: true },
  1047: { ...demoted, rolledBack: 'nothing', flavours: ['galera'] },
  // After a failover the old primary is read-only. 1290 also says --secure-file-priv and others, which no
  // re-run cures.
  1290: { ...demoted, flavours: FLAVOURS, message: /read.?only/i },
  1836: { ...demoted, flavours: FLAVOURS },
  1053: lost, // shutdown
  1927: lost, // killed
  2006: lost,
  2013: lost,
} satisfies Record<number, Row>)

/**
 * mysql2's own words for a connection that is gone, without a number. It sets `fatal`; a failed fetch() does
 * not.
 */
const LOST_CODES: ReadonlySet<unknown> = new Set([
  ...[
    'PROTOCOL_CONNECTION_LOST',
    'ECONNRESET',
    'EPIPE',
    'ERR_STREAM_DESTROYED',
    'ERR_STREAM_WRITE_AFTER_END',
  ],
  ...['ECONNABORTED', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH'], // of a read, not of connecting
])
const CLOSED_STATE = /^Can't add new command when connection is in closed state/

const UNAVAILABLE_NUMBERS: ReadonlySet<unknown> = new Set([1040, 1203, 1226])
const UNAVAILABLE_CODES: ReadonlySet<unknown> = new Set(
  'ECONNREFUSED ENOTFOUND EAI_AGAIN ETIMEDOUT EHOSTUNREACH ENETUNREACH ENOENT'.split(' '),
)
/** Not `Pool is closed.`: no pool is opened again. */
const POOL_MESSAGES = /^(No connections available\.|Queue limit reached\.)$/
/**
 * Wrong user, password, database or authentication: waiting never helps, so the driver's own error says it
 * best.
 */
const ACCESS_NUMBERS: ReadonlySet<unknown> = new Set([1044, 1045, 1049, 1130, 1251, 1698, 3159])

/** What mysql2 puts on its errors. */
interface DatabaseError extends Error {
  readonly errno?: number
  readonly code?: string
  readonly sqlState?: string
  readonly sqlMessage?: string
  readonly fatal?: boolean
  readonly syscall?: string
}

/**
 * The one question: did this error lose a race, and what does that mean? Undefined: it did not, or nobody
 * knows.
 *
 * @param error as thrown, also wrapped by query builders
 * @param duplicateIsConflict the option of that name
 */
export function classify(
  error: unknown,
  flavour: Flavour,
  duplicateIsConflict = false,
): Classified | undefined {
  const found = findDatabaseError(error)
  if (found === undefined) return undefined
  const errno = isServerNumber(found.errno) ? found.errno : undefined
  const row: Row | undefined =
    errno === undefined ? lost : Object.hasOwn(TABLE, errno) ? TABLE[errno] : undefined
  if (row === undefined || !row.flavours.includes(flavour)) return undefined
  if (row.optional === true && !duplicateIsConflict) return undefined
  const message = found.sqlMessage ?? found.message
  if (row.message !== undefined && !row.message.test(message)) return undefined
  const certified = errno === 1213 && flavour === 'galera'
  return {
    kind: row.kind,
    kindAtCommit: certified ? 'certification' : row.kind,
    errno,
    rolledBack: row.rolledBack,
    atCommit: row.atCommit,
    sticky: row.sticky,
    rerunsMax: row.rerunsMax,
    unfit: row.unfit,
    // Translated servers keep the quotes, so look for nothing else.
    table: errno === 1020 ? /'([^']+)'/.exec(message)?.[1] : undefined,
  }
}

/**
 * What an error says that came instead of COMMIT's OK packet. mysql2 sends one command at a time, so "never
 * sent" is known for certain; whatever the table does not call aborted is unknown and must be settled, never
 * re-run.
 */
export function atCommit(error: unknown, flavour: Flavour): 'aborted' | 'neverSent' | 'unknown' {
  const found = findDatabaseError(error)
  if (found !== undefined && !isServerNumber(found.errno) && CLOSED_STATE.test(found.message))
    return 'neverSent'
  return classify(found, flavour)?.atCommit ?? 'unknown'
}

/** No transaction existed: the server takes no more connections or does not answer, or the pool is full. */
export function isUnavailable(error: unknown): boolean {
  const matches = (one: DatabaseError) =>
    UNAVAILABLE_NUMBERS.has(one.errno) ||
    (UNAVAILABLE_CODES.has(one.code) && !isLost(one)) ||
    POOL_MESSAGES.test(one.message)
  return innermost(error, matches) !== undefined
}

/** Wrong credentials or an unknown database. */
export function isAccessDenied(error: unknown): boolean {
  return ACCESS_NUMBERS.has(findDatabaseError(error)?.errno)
}

/** The connection is gone. */
export function isFatal(error: unknown): boolean {
  if (typeof error !== 'object' || error === null) return false
  const { fatal, message } = error as { fatal?: unknown; message?: unknown }
  return fatal === true || (typeof message === 'string' && message.includes('closed state'))
}

/** The server's or driver's own error inside whatever query builders wrapped around it. */
export function findDatabaseError(error: unknown): DatabaseError | undefined {
  return innermost(error, one => isServerNumber(one.errno) || isLost(one))
}

/** Server numbers; libuv's own (-104 for ECONNRESET) are negative. */
function isServerNumber(errno: unknown): errno is number {
  return typeof errno === 'number' && Number.isInteger(errno) && errno >= 1000
}

function isLost(error: DatabaseError): boolean {
  if (error.fatal !== true || error.syscall === 'connect') return false
  return LOST_CODES.has(error.code) || CLOSED_STATE.test(error.message)
}

const WRAPPING = ['cause', 'original', 'parent', 'driverError'] as const
const DEPTH_MAX = 16
const MEMBERS_MAX = 64

/**
 * Depth first, and what is wrapped before what wraps it: wrappers copy `errno` but not always the rest.
 * `errors` of a match is not entered: those came later, while it was being dealt with (1305 from a savepoint
 * that a deadlock took).
 */
function innermost(
  error: unknown,
  matches: (one: DatabaseError) => boolean,
  seen: Set<object> = new Set(),
  depth = 0,
): DatabaseError | undefined {
  if (typeof error !== 'object' || error === null || depth > DEPTH_MAX || seen.has(error)) return undefined
  seen.add(error)
  const one = error as DatabaseError & Record<string, unknown>
  for (const key of WRAPPING) {
    const found = innermost(one[key], matches, seen, depth + 1)
    if (found !== undefined) return found
  }
  if (matches(one)) return one
  if (!Array.isArray(one['errors'])) return undefined
  for (const member of one['errors'].slice(0, MEMBERS_MAX)) {
    const found = innermost(member, matches, seen, depth + 1)
    if (found !== undefined) return found
  }
  return undefined
}
