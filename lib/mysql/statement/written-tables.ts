/**
 * Which tables an INSERT, REPLACE, UPDATE, DELETE or LOAD DATA writes, in every form that MariaDB and MySQL have for
 * them. A table that is only read, or named in a string or as an alias, is none of them. Where the text does not tell
 * (an unqualified column in a multi-table UPDATE), every table that it may be is named: safe, and said in the refusal.
 */
import type { TableName, TokenCursor } from './token-cursor.js'

/** A table in a FROM clause, under the name that the rest of the statement has for it. */
interface TableReference {
  readonly alias: string
  readonly table: TableName
}

const NONE: readonly TableName[] = Object.freeze([])

/** @param cursor behind the verb */
export function writtenTables(verb: string, cursor: TokenCursor): readonly TableName[] {
  switch (verb) {
    case 'insert':
    case 'replace':
      cursor.skipWords(BEFORE_INTO)
      return named(cursor)
    case 'load':
      return loaded(cursor)
    case 'update':
      return updated(cursor)
    case 'delete':
      return deleted(cursor)
    default:
      return NONE
  }
}

const BEFORE_INTO = new Set(['low_priority', 'high_priority', 'delayed', 'ignore', 'into'])
const BEFORE_TABLES = new Set(['low_priority', 'ignore', 'quick'])
const SET = new Set(['set'])
const FROM = new Set(['from', 'using'])
/** Whatever comes after the tables. */
const AFTER_TABLES = new Set(['set', 'where', 'order', 'limit', 'returning'])
const AFTER_ASSIGNMENTS = new Set(['where', 'order', 'limit', 'returning'])
const JOINS = new Set(['join', 'straight_join'])
/** Words that can follow a table and are no alias of it. */
const NO_ALIAS = new Set([
  ...['on', 'using', 'inner', 'cross', 'left', 'right', 'full', 'natural', 'use', 'force', 'ignore', 'for'],
  ...['partition', 'from', 'tablesample', ...JOINS, ...AFTER_TABLES],
])
const SUBQUERY = new Set(['select', 'with', 'values', 'table'])

function named(cursor: TokenCursor): readonly TableName[] {
  const table = cursor.tableName()
  return table === undefined ? NONE : [table]
}

function loaded(cursor: TokenCursor): readonly TableName[] {
  while (!cursor.done && !(cursor.word === 'into' && cursor.wordAt(1) === 'table')) cursor.at += 1
  cursor.at += 2
  return named(cursor)
}

function updated(cursor: TokenCursor): readonly TableName[] {
  cursor.skipWords(BEFORE_TABLES)
  const references = tableReferences(cursor)
  const [only] = references
  if (references.length === 1 && only !== undefined) return [only.table]
  cursor.skipTo(SET)
  cursor.at += 1
  const written = new Set<TableName>()
  while (!cursor.done && !AFTER_ASSIGNMENTS.has(cursor.word)) {
    // Of `column`, `table.column` and `schema.table.column`, what stands before the column.
    const parts: string[] = []
    while (!cursor.done && !cursor.isMark('=') && !cursor.isMark(':')) {
      if (!cursor.isMark('.')) parts.push(cursor.token.text)
      cursor.at += 1
    }
    for (const table of qualified(references, parts.at(-2), parts.at(-3))) written.add(table)
    while (!cursor.done && !cursor.isMark(',') && !AFTER_ASSIGNMENTS.has(cursor.word)) {
      if (cursor.isMark('(')) cursor.skipBrackets()
      else cursor.at += 1
    }
    cursor.skipMark(',')
  }
  return [...written]
}

/** `DELETE FROM a`, `DELETE a, b FROM …`, `DELETE FROM a, b USING …`, `DELETE HISTORY FROM a`. */
function deleted(cursor: TokenCursor): readonly TableName[] {
  cursor.skipWords(BEFORE_TABLES)
  if (cursor.word === 'history' && cursor.wordAt(1) === 'from') cursor.at += 1
  const fromFirst = cursor.skipWord('from')
  const targets: TableName[] = []
  do {
    const target = cursor.tableName()
    if (target !== undefined) targets.push(target)
    if (cursor.skipMark('.')) cursor.skipMark('*')
  } while (cursor.skipMark(','))
  const several = fromFirst ? cursor.word === 'using' : cursor.word === 'from'
  if (!several) return targets
  cursor.skipTo(FROM)
  cursor.at += 1
  const references = tableReferences(cursor)
  return targets.flatMap(({ schema, name }) => qualified(references, name, schema))
}

/** The tables that a qualifier may mean; without one, or for one that is none of them, all. */
function qualified(
  references: readonly TableReference[],
  name: string | undefined,
  schema: string | undefined,
): readonly TableName[] {
  const meant = references.filter(
    ({ alias, table }) =>
      alias === name?.toLowerCase() && (schema === undefined || same(table.schema, schema)),
  )
  return (meant.length > 0 ? meant : references).map(({ table }) => table)
}

/** A reference without a schema may be in the one that the qualifier names. */
function same(schema: string | undefined, other: string): boolean {
  return schema === undefined || schema.toLowerCase() === other.toLowerCase()
}

/** The base tables of a list with joins; those in subqueries are only read, and so left out. */
function tableReferences(cursor: TokenCursor): TableReference[] {
  const references: TableReference[] = []
  let expected = true
  let depth = 0
  while (!cursor.done) {
    const { word } = cursor
    if (expected && (cursor.isMark('(') || cursor.isMark('{'))) {
      if (SUBQUERY.has(cursor.wordAt(1))) {
        cursor.skipBrackets()
        expected = false
      } else {
        depth += cursor.isMark('(') ? 1 : 0
        cursor.at += 1
        cursor.skipWord('oj') // { OJ a LEFT JOIN b ON … }
      }
    } else if (expected) {
      expected = false
      const table = cursor.tableName()
      if (table === undefined) cursor.at += 1
      else references.push({ table, alias: aliasOf(cursor, table).toLowerCase() })
    } else if (cursor.isMark('(')) {
      cursor.skipBrackets()
    } else if (depth === 0 && AFTER_TABLES.has(word)) {
      break
    } else {
      if (cursor.isMark(')')) depth -= 1
      // USE INDEX FOR JOIN (…) joins nothing.
      const forJoin = word === 'for' && cursor.wordAt(1) === 'join'
      expected = cursor.isMark(',') || JOINS.has(word)
      cursor.at += forJoin ? 2 : 1
    }
  }
  return references
}

function aliasOf(cursor: TokenCursor, table: TableName): string {
  if (cursor.word === 'partition' && cursor.isMark('(', 1)) {
    cursor.at += 1
    cursor.skipBrackets()
  }
  cursor.skipWord('as')
  const { token } = cursor
  if (token.kind !== 'name' && (token.kind !== 'word' || NO_ALIAS.has(token.text))) return table.name
  cursor.at += 1
  return token.text
}
