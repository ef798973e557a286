/**
 * What the text of a statement gives away: whether it is a plain read, whether it refuses to wait, whether it may
 * leave something on the connection that neither COMMIT nor ROLLBACK takes back, and of each statement in it what it
 * does to the transaction and which tables it writes. Every doubt is answered on the safe side. Knows nothing of
 * connections, and no more of SQL's grammar than these questions need.
 */
import { LRUCache } from 'lru-cache'
import { type Dialect, lex, type Token } from './lexer.js'
import { lockingOnly } from './locking-statement.js'
import { type TableName, TokenCursor } from './token-cursor.js'
import { telltales } from './telltales.js'
import { isTemporaryTable, type TransactionEffect, transactionEffect } from './transaction-effect.js'
import { writtenTables } from './written-tables.js'

/** CALL and compound statements can do all of these where we do not see it. */
const DIRTY_VERBS = new Set([
  ...['set', 'use', 'lock', 'backup', 'handler', 'flush', 'prepare', 'deallocate', 'execute', 'call', 'xa'],
])

/** One of the statements of a text. */
export interface StatementPart {
  /** For messages: `TRUNCATE TABLE`, `SET autocommit`. */
  readonly verb: string
  readonly effect: TransactionEffect
  readonly writes: readonly TableName[]
  /** Temporary tables exist in one connection only, and hide tables of the same name. */
  readonly makesTemporary: TableName | undefined
  readonly dropsTemporary: readonly TableName[]
  /** USE: the schema of unqualified names from here on. */
  readonly uses: string | undefined
}

export interface StatementFacts {
  /**
   * One SELECT that locks nothing, stores nothing, and whose columns name their base tables (so no derived
   * table: MariaDB merges it and reports the alias as the table). Only such a statement can prove that the
   * read view is open.
   */
  readonly plainSelect: boolean
  /** Certain to change no row: a plain SELECT that calls nothing but functions of the server's own. */
  readonly readsOnly: boolean
  /** It looks only at rows of this table, and locks them: so by itself it opens no read view. */
  readonly lockingOnly: TableName | undefined
  /** NOWAIT, WAIT n or SKIP LOCKED: the application expects not to get the lock. */
  readonly nowait: boolean
  /** It may leave a lock, a setting, a user variable, a temporary table or a prepared statement behind. */
  readonly dirties: boolean
  /** It runs code that its text does not show. */
  readonly hidden: boolean
  /** Only those that have something to say: of most texts, none or one. */
  readonly parts: readonly StatementPart[]
}

const STATEMENTS_MAX = 1000
/** Longer texts have values in them and do not come again. */
const CACHED_LENGTH_MAX = 10_000

interface Known {
  readonly facts: StatementFacts
  readonly dialect: Dialect
}

/** Of a compound text no more are looked at: reading each takes up to the length of the whole. */
const PARTS_MAX = 200

const known = new LRUCache<string, Known>({ max: STATEMENTS_MAX })

/** @param dialect of the server that reads it */
export function statementFacts(sql: string, dialect: Dialect): StatementFacts {
  const cached = known.get(sql)
  if (cached !== undefined && isSame(cached.dialect, dialect)) return cached.facts
  const facts = examine(lex(sql, dialect), dialect)
  if (sql.length <= CACHED_LENGTH_MAX) known.set(sql, { facts, dialect })
  return facts
}

/** Each isolation level has a description of its own of the same server. */
function isSame(one: Dialect, other: Dialect): boolean {
  return (
    one === other ||
    (one.mariadb === other.mariadb &&
      one.version === other.version &&
      one.ansiQuotes === other.ansiQuotes &&
      one.backslashEscapes === other.backslashEscapes)
  )
}

function examine(tokens: readonly Token[], dialect: Dialect): StatementFacts {
  const statements = split(tokens)
  const marks = telltales(tokens)
  const parts: StatementPart[] = []
  let dirties = marks.dirties
  let compound = false
  for (const cursor of statements) {
    if (DIRTY_VERBS.has(cursor.word) || makesTemporary(cursor)) dirties = true
    const start = cursor.at
    compound ||= isCompound(cursor)
    if (compound) {
      dirties = true
      for (const inner of innerStarts(cursor)) {
        if (parts.length >= PARTS_MAX) break
        cursor.at = inner
        addPart(parts, cursor, dialect)
      }
    } else {
      addPart(parts, cursor, dialect)
    }
    cursor.at = start
  }
  const [only] = statements
  const plainSelect = statements.length === 1 && isSelect(only) && !marks.notPlain
  return Object.freeze({
    plainSelect,
    readsOnly: plainSelect && !marks.callsUnknown,
    lockingOnly: statements.length === 1 && !plainSelect ? lockingOnly(tokens) : undefined,
    nowait: marks.nowait,
    dirties,
    hidden: compound || parts.some(({ effect }) => effect === 'hidden'),
    parts: Object.freeze(parts),
  })
}

/** At the first token of each statement; what is between two semicolons. */
function split(tokens: readonly Token[]): TokenCursor[] {
  const statements: TokenCursor[] = []
  let start = 0
  for (let at = 0; at <= tokens.length; at++) {
    const token = tokens[at]
    if (token !== undefined && (token.kind !== 'mark' || token.text !== ';')) continue
    if (at > start) statements.push(new TokenCursor(tokens, start, at))
    start = at + 1
  }
  return statements
}

function isSelect(cursor: TokenCursor | undefined): boolean {
  if (cursor === undefined) return false
  let ahead = 0
  while (cursor.isMark('(', ahead)) ahead += 1
  return cursor.wordAt(ahead) === 'select'
}

// ── one statement ──────────────────────────────────────────────────────────────────────────────────────────────

const DML = new Set(['select', 'insert', 'replace', 'update', 'delete', 'values', 'table'])
const ANALYZED = new Set(['select', 'insert', 'replace', 'update', 'delete', 'with'])
const AFTER_SETTINGS = new Set(['for'])
const NO_TABLES: readonly TableName[] = Object.freeze([])

function addPart(parts: StatementPart[], cursor: TokenCursor, dialect: Dialect): void {
  toVerb(cursor)
  const { word } = cursor
  // A function of the same name, in what is no statement: REPLACE(a, b, c) behind THEN.
  if (word === '' || word === 'select' || (cursor.isMark('(', 1) && word !== 'update')) return
  if (word === 'execute' && cursor.wordAt(1) === 'immediate') return addImmediate(parts, cursor, dialect)
  const effect = transactionEffect(cursor)
  const verb = verbOf(cursor, effect)
  const temporary = makesTemporary(cursor)
  const drops = word === 'drop' && cursor.wordAt(1) === 'temporary'
  const uses = word === 'use' ? cursor.peek(1).raw : undefined
  cursor.at += 1
  const writes = effect === 'none' ? writtenTables(word, cursor) : NO_TABLES
  if (effect === 'none' && writes.length === 0 && !temporary && !drops && uses === undefined) return
  parts.push({
    verb,
    effect,
    writes,
    makesTemporary: temporary ? afterTable(cursor)[0] : undefined,
    dropsTemporary: drops ? afterTable(cursor) : NO_TABLES,
    uses,
  })
}

/** Past what stands before the statement that is run: ANALYZE, WITH, SET STATEMENT … FOR. Not past EXPLAIN. */
function toVerb(cursor: TokenCursor): void {
  for (;;) {
    const { word } = cursor
    if (word === 'set' && cursor.wordAt(1) === 'statement') {
      cursor.skipTo(AFTER_SETTINGS)
      cursor.at += 1
    } else if (word === 'analyze' && ANALYZED.has(cursor.wordAt(1))) {
      cursor.at += 1
    } else if (word === 'analyze' && cursor.wordAt(1) === 'format' && cursor.isMark('=', 2)) {
      cursor.at += 4
    } else if (word === 'with') {
      cursor.skipTo(DML)
      return
    } else {
      return
    }
  }
}

/** What is executed is a text itself, if it is given as one. */
function addImmediate(parts: StatementPart[], cursor: TokenCursor, dialect: Dialect): void {
  parts.push({ ...NOTHING, verb: 'EXECUTE IMMEDIATE', effect: 'hidden' })
  cursor.at += 2
  let text = ''
  while (cursor.token.kind === 'string') {
    text += cursor.token.text
    cursor.at += 1
  }
  // The server refuses EXECUTE IMMEDIATE inside EXECUTE IMMEDIATE, so this goes no deeper.
  const [inner] = split(lex(text, dialect))
  if (inner !== undefined && inner.word !== 'execute') addPart(parts, inner, dialect)
}

const NOTHING = Object.freeze({
  writes: NO_TABLES,
  makesTemporary: undefined,
  dropsTemporary: NO_TABLES,
  uses: undefined,
})

const ONE_WORD = new Set(['truncate', 'flush', 'grant', 'revoke', 'savepoint', 'commit', 'begin'])

function verbOf(cursor: TokenCursor, effect: TransactionEffect): string {
  const first = cursor.word
  if (first === 'set' && effect === 'commits')
    return ['password', 'default'].includes(cursor.wordAt(1)) ? shown(cursor, 2) : 'SET autocommit'
  return shown(cursor, effect === 'none' || ONE_WORD.has(first) ? 1 : 2)
}

function shown(cursor: TokenCursor, words: number): string {
  return [cursor.word, words > 1 ? cursor.wordAt(1) : ''].filter(Boolean).join(' ').toUpperCase()
}

function makesTemporary(cursor: TokenCursor): boolean {
  return cursor.word === 'create' && isTemporaryTable(cursor)
}

const BEFORE_NAMES = new Set(['if', 'not', 'exists'])
const TABLE = new Set(['table', 'tables'])

/** The names behind the word TABLE. */
function afterTable(cursor: TokenCursor): TableName[] {
  cursor.skipTo(TABLE)
  cursor.at += 1
  cursor.skipWords(BEFORE_NAMES)
  const names: TableName[] = []
  do {
    const name = cursor.tableName()
    if (name !== undefined) names.push(name)
  } while (cursor.skipMark(','))
  return names
}

// ── compound statements: BEGIN NOT ATOMIC … END, IF, CASE, LOOP, WHILE, REPEAT, FOR ────────────────────────────

const COMPOUND = new Set(['if', 'case', 'loop', 'while', 'repeat', 'for', 'declare'])
/** Behind these, or as the first of a part, a statement of a compound one begins. */
const BEFORE_STATEMENT = new Set(['then', 'else', 'do', 'loop', 'repeat', 'begin', 'atomic'])

function isCompound(cursor: TokenCursor): boolean {
  return COMPOUND.has(cursor.word) || (cursor.word === 'begin' && cursor.wordAt(1) === 'not')
}

function* innerStarts(cursor: TokenCursor): Generator<number> {
  const start = cursor.at
  // Inside, BEGIN opens a block.
  if (cursor.word !== 'begin') yield start
  let at = start
  for (;;) {
    cursor.at = at
    while (!cursor.done && !BEFORE_STATEMENT.has(cursor.word)) cursor.at += 1
    if (cursor.done) return
    at = cursor.at + 1
    cursor.at = at
    if (!BEFORE_STATEMENT.has(cursor.word)) yield at
  }
}
