/**
 * What the text of a statement gives away: whether it is a plain read, whether it refuses to wait, whether it
 * may leave something on the connection that neither COMMIT nor ROLLBACK takes back. Every doubt is answered
 * on the safe side. Knows nothing of connections, and does not parse SQL: it looks for words outside of
 * literals and comments.
 */
import { LRUCache } from 'lru-cache'

export interface StatementFacts {
  /**
   * One SELECT that locks nothing, stores nothing, and whose columns name their base tables (so no derived
   * table: MariaDB merges it and reports the alias as the table). Only such a statement can prove that the
   * read view is open.
   */
  readonly plainSelect: boolean
  /** Certain to change no row: a plain SELECT that calls nothing but functions of the server's own. */
  readonly readsOnly: boolean
  /** NOWAIT, WAIT n or SKIP LOCKED: the application expects not to get the lock. */
  readonly nowait: boolean
  /** It may leave a lock, a setting, a user variable, a temporary table or a prepared statement behind. */
  readonly dirties: boolean
}

const STATEMENTS_MAX = 1000
/** Longer texts have values in them and do not come again. */
const CACHED_LENGTH_MAX = 10_000

const known = new LRUCache<string, StatementFacts>({ max: STATEMENTS_MAX })

export function statementFacts(sql: string): StatementFacts {
  const cached = known.get(sql)
  if (cached !== undefined) return cached
  const facts = examine(sql)
  if (sql.length <= CACHED_LENGTH_MAX) known.set(sql, facts)
  return facts
}

function examine(sql: string): StatementFacts {
  const words = skeleton(sql)
  const plainSelect = STARTS_WITH_SELECT.test(words) && !NOT_PLAIN.test(words)
  return Object.freeze({
    plainSelect,
    readsOnly: plainSelect && !callsUnknown(words),
    nowait: /\b(nowait|skip\s+locked|wait\s+[\d?])/.test(words),
    dirties: DIRTIES.test(words),
  })
}

// Quoted texts, unrolled so that a literal of megabytes costs no recursion; then comments, but not /*! … */,
// which is code.
const QUOTED_OR_COMMENT =
  /'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'|"[^"\\]*(?:(?:\\.|"")[^"\\]*)*"|`[^`]*(?:``[^`]*)*`|(?:--(?=\s|$)|#)[^\n]*|\/\*(?!M?!)[\s\S]*?\*\//gs
const CODE_IN_COMMENT = /\/\*M?!\d*|\*\//g

/** The words in lower case; a literal or quoted name is one `_`, which no keyword is. */
function skeleton(sql: string): string {
  const bare = sql.replace(QUOTED_OR_COMMENT, found => (/^['"`]/.test(found) ? ' _ ' : ' '))
  return bare.replace(CODE_IN_COMMENT, ' ').trim().toLowerCase()
}

const STARTS_WITH_SELECT = /^[\s(]*select\b/
const NOT_PLAIN = new RegExp(
  [
    '\\bfor\\s+(?:update|share)\\b|\\block\\s+in\\s+share\\s+mode\\b',
    '\\binto\\b',
    ';\\s*\\S',
    '(?:\\bfrom|\\bjoin|,|\\blateral)[\\s(]*\\(\\s*(?:select|with|values)\\b',
  ].join('|'),
)

/** Words that come before a parenthesis without being somebody's stored function, which may write. The rest: who knows. */
const HARMLESS = new Set(
  (
    'select from where and or not in on as by having case when then else between like using join over values exists all any ' +
    'count sum min max avg coalesce ifnull nullif if concat concat_ws lower upper length char_length trim substring left right ' +
    'replace round floor ceil abs mod greatest least date year month day now utc_timestamp current_timestamp date_format ' +
    'timestampdiff date_add date_sub unix_timestamp from_unixtime cast convert json_extract json_value group_concat ' +
    'connection_id database last_insert_id distinct row_number rank'
  ).split(' '),
)

function callsUnknown(words: string): boolean {
  for (const [, dot, word = ''] of words.matchAll(/(\.\s*)?([\w$]+)\s*\(/g))
    if (dot !== undefined || !HARMLESS.has(word)) return true
  return false
}

const DIRTIES = new RegExp(
  [
    '\\bget_lock\\s*\\(|\\bservice_get_',
    ':=',
    '\\binto\\s+@',
    '\\bcreate\\b[^;]*\\btemporary\\b',
    // At the start of a statement. CALL and compound statements can do all of these where we do not see it.
    '(?:^|;)\\s*(?:set|use|lock|backup|handler|flush|prepare|deallocate|execute|call|begin\\s+not|xa)\\b',
  ].join('|'),
)
