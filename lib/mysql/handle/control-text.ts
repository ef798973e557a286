/**
 * What a statement says of transactions: query builders send BEGIN, SAVEPOINT and their like as text. Reads only the
 * statements that a connection handle turns into savepoints of the request's transaction; all others (COMMIT AND CHAIN,
 * SET autocommit, XA …) go on as they are and meet the guards there. Knows nothing of connections.
 */

export type Control =
  | { readonly kind: 'begin' }
  | { readonly kind: 'commit' }
  | { readonly kind: 'rollback' }
  | { readonly kind: 'savepoint'; readonly name: string }
  | { readonly kind: 'release'; readonly name: string }
  | { readonly kind: 'rollbackTo'; readonly name: string }
  /** SET TRANSACTION; without a level it was about READ ONLY or READ WRITE. */
  | { readonly kind: 'level'; readonly level: IsolationLevel | undefined }

export type IsolationLevel = 'read uncommitted' | 'read committed' | 'repeatable read' | 'serializable'

/** Longer ones are data. Comments that tracers add count. */
const LENGTH_MAX = 2_000

// `/*! … */` is code.
const COMMENT = /\/\*(?!M?!)[\s\S]*?\*\/|(?:--(?=\s|$)|#)[^\n]*/g
const MAY_BE_CONTROL =
  /^(?:\s|\/\*(?!M?!)[\s\S]*?\*\/|(?:--\s|#)[^\n]*\n)*(?:begin|start|commit|rollback|savepoint|release|set)\b/i

const NAME = '(`(?:[^`]|``)+`|"[^"]+"|[\\w$\\u0080-\\uffff]+)'
const CHARACTERISTIC = '(?:with consistent snapshot|read only|read write)'
const BEGIN = new RegExp(
  `^(?:begin(?: work)?|start transaction(?: ${CHARACTERISTIC}(?:,${CHARACTERISTIC})*)?)$`,
  'i',
)
const COMMIT = /^commit(?: work)?$/i
const ROLLBACK = /^rollback(?: work)?$/i
const SAVEPOINT = new RegExp(`^savepoint ${NAME}$`, 'i')
const RELEASE = new RegExp(`^release savepoint ${NAME}$`, 'i')
const ROLLBACK_TO = new RegExp(`^rollback(?: work)? to(?: savepoint)? ${NAME}$`, 'i')
const SET_TRANSACTION = /^set (?:session |local )?transaction (.+)$/i
const LEVEL = /^isolation level (read uncommitted|read committed|repeatable read|serializable)$/i
const ACCESS = /^read (?:only|write)$/i

/** Undefined: a statement like any other. */
export function controlOf(sql: string): Control | undefined {
  if (sql.length > LENGTH_MAX || !MAY_BE_CONTROL.test(sql)) return undefined
  const text = sql
    .replace(COMMENT, ' ')
    .replace(/[\s;]+$/, '')
    .replace(/\s+/g, ' ')
    .replace(/ ?, ?/g, ',')
    .trim()
  if (BEGIN.test(text)) return { kind: 'begin' }
  if (COMMIT.test(text)) return { kind: 'commit' }
  if (ROLLBACK.test(text)) return { kind: 'rollback' }
  return (
    named('savepoint', SAVEPOINT, text) ??
    named('release', RELEASE, text) ??
    named('rollbackTo', ROLLBACK_TO, text) ??
    levelOf(text)
  )
}

function named(
  kind: 'savepoint' | 'release' | 'rollbackTo',
  form: RegExp,
  text: string,
): Control | undefined {
  const name = form.exec(text)?.[1]
  if (name === undefined) return undefined
  // Savepoints are named without regard to case, as the server does it.
  return { kind, name: name.replace(/^(["`])(.*)\1$/, '$2').toLowerCase() }
}

function levelOf(text: string): Control | undefined {
  const characteristics = SET_TRANSACTION.exec(text)?.[1]?.split(',')
  if (characteristics === undefined) return undefined
  let level: string | undefined
  for (const one of characteristics) {
    const asked = LEVEL.exec(one)?.[1]
    if (asked === undefined && !ACCESS.test(one)) return undefined
    level ??= asked?.toLowerCase()
  }
  return { kind: 'level', level: level as IsolationLevel | undefined }
}
