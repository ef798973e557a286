/**
 * What a statement does to the transaction that it runs in, by its first words. Sources: the pages on implicit commits
 * in the manuals of MariaDB 10.11 and MySQL 8, and what MariaDB 10.11 did with each (test/mysql/implicit-commit.test.ts).
 * Where the two servers differ, what commits on either counts as committing. Knows nothing of tables.
 *
 *   effect     meaning
 *   none       runs inside the transaction
 *   commits    commits it first, or may: the row locks and the way back are gone
 *   controls   is an order to it: BEGIN, COMMIT, ROLLBACK, SAVEPOINT, XA …
 *   hidden     runs code that its text does not show: CALL, EXECUTE, a compound statement
 */
import type { TokenCursor } from './token-cursor.js'

export type TransactionEffect = 'none' | 'commits' | 'controls' | 'hidden'

const COMMITS = new Set([
  ...[
    'alter',
    'rename',
    'truncate',
    'grant',
    'revoke',
    'optimize',
    'repair',
    'check',
    'flush',
    'reset',
    'install',
  ],
  ...['uninstall', 'lock', 'backup', 'shutdown'],
  // By the manual of MySQL 8; MariaDB 10.11 was seen to leave the transaction open.
  ...['cache', 'change', 'stop', 'unlock', 'restart', 'clone', 'import'],
])
const CONTROLS = new Set(['begin', 'commit', 'rollback', 'savepoint', 'release'])
const OF_ANALYZE = new Set(['table', 'tables', 'local', 'no_write_to_binlog'])
const SCOPES = new Set(['session', 'local', 'global', 'persist', 'persist_only'])
const OWN_SCOPES = new Set(['session', 'local'])
const OFF = new Set(['0', 'off', 'false'])

/** @param cursor at the verb of a statement that is no part of a compound one */
export function transactionEffect(cursor: TokenCursor): TransactionEffect {
  const { word } = cursor
  const second = cursor.wordAt(1)
  if (COMMITS.has(word)) return 'commits'
  if (CONTROLS.has(word)) return 'controls'
  switch (word) {
    case 'create':
      return isTemporaryTable(cursor) ? 'none' : 'commits'
    case 'drop':
      return second === 'temporary' || second === 'prepare' ? 'none' : 'commits'
    case 'analyze':
      return OF_ANALYZE.has(second) ? 'commits' : 'none'
    case 'load':
      return second === 'index' ? 'commits' : 'none'
    case 'start':
      return second === 'transaction' ? 'controls' : 'commits'
    case 'xa':
      return second === 'recover' ? 'none' : 'controls'
    case 'set':
      return effectOfSet(cursor)
    case 'call':
    case 'execute':
      return 'hidden'
    default:
      return 'none'
  }
}

/** `CREATE [OR REPLACE] TEMPORARY TABLE`. A temporary sequence commits. */
export function isTemporaryTable(cursor: TokenCursor): boolean {
  const at = cursor.wordAt(1) === 'or' && cursor.wordAt(2) === 'replace' ? 3 : 1
  return cursor.wordAt(at) === 'temporary' && cursor.wordAt(at + 1) === 'table'
}

/** At SET, which can assign several things at once; a scope word holds for the assignments after it. */
function effectOfSet(cursor: TokenCursor): TransactionEffect {
  const start = cursor.at
  try {
    cursor.at += 1
    if (cursor.word === 'password') return 'commits'
    if (cursor.word === 'default' && cursor.wordAt(1) === 'role') return 'commits'
    // Without a scope it is for the transaction that is open or comes next: ours.
    if (cursor.word === 'transaction') return 'controls'
    let scope = 'session'
    while (!cursor.done) {
      if (SCOPES.has(cursor.word) && !cursor.isMark('=', 1) && !cursor.isMark(':', 1)) {
        scope = cursor.word
        cursor.at += 1
      }
      if (assignsAutocommit(cursor, scope)) return 'commits'
      while (!cursor.done && !cursor.isMark(',')) {
        if (cursor.isMark('(')) cursor.skipBrackets()
        else cursor.at += 1
      }
      cursor.at += 1
    }
    return 'none'
  } finally {
    cursor.at = start
  }
}

/** `autocommit = …`, `@@autocommit = …`, `@@session.autocommit = …`, to anything that is not plainly off. */
function assignsAutocommit(cursor: TokenCursor, scope: string): boolean {
  let own = OWN_SCOPES.has(scope)
  if (cursor.skipMark('@')) {
    if (!cursor.skipMark('@')) return false
    own = true
    if (SCOPES.has(cursor.word) && cursor.isMark('.', 1)) {
      own = OWN_SCOPES.has(cursor.word)
      cursor.at += 2
    }
  }
  if (!own || cursor.token.kind === 'string' || cursor.token.text.toLowerCase() !== 'autocommit') return false
  cursor.at += 1
  cursor.skipMark(':')
  if (!cursor.skipMark('=')) return false
  const plain = cursor.peek(1).text === '' || cursor.isMark(',', 1)
  return !(plain && OFF.has(cursor.token.text.toLowerCase()))
}
