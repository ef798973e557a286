/**
 * Which statements open no read view by themselves: those that look only at rows which they lock. UPDATE, DELETE and
 * INSERT of one table and SELECT … FOR UPDATE are such, as long as nothing in them reads otherwise: a subquery, a
 * stored function. (What a trigger of the table does is not in the text.) Every doubt is answered with "it may".
 */
import type { Token } from './lexer.js'
import { callsUnknown } from './telltales.js'
import { type TableName, TokenCursor } from './token-cursor.js'

/** One of these anywhere reads more than the table, or reads it in another way. */
const READS_OTHERWISE = new Set([
  ...['with', 'union', 'intersect', 'except', 'join', 'straight_join', 'table', 'of', 'into', 'load'],
  ...['procedure', 'returning', 'explain', 'analyze', 'history', 'portion'],
])
const MODIFIERS = new Set(['low_priority', 'high_priority', 'ignore', 'quick'])

/**
 * The one table that the statement locks rows of, if it opens no view.
 * @param tokens of a text with nothing but this statement
 */
export function lockingOnly(tokens: readonly Token[]): TableName | undefined {
  const cursor = new TokenCursor(tokens)
  const verb = cursor.word
  cursor.at += 1
  switch (verb) {
    case 'update':
      return locked(tokens, cursor, 'set')
    case 'delete':
      cursor.skipWords(MODIFIERS)
      return cursor.skipWord('from') ? locked(tokens, cursor, 'where') : undefined
    case 'insert':
    case 'replace':
      return inserted(tokens, cursor)
    case 'select':
      return selected(tokens, cursor)
    default:
      return undefined
  }
}

/** A table, perhaps with an alias, right before `next` or the end. */
function locked(tokens: readonly Token[], cursor: TokenCursor, next: string): TableName | undefined {
  cursor.skipWords(MODIFIERS)
  const table = cursor.tableName()
  if (!cursor.done && cursor.word !== next) {
    cursor.skipWord('as')
    cursor.at += 1
  }
  return (cursor.done || cursor.word === next) && !readsOtherwise(tokens, cursor.at) ? table : undefined
}

/** Its columns are in brackets, and what follows are values: INSERT … SELECT reads. */
function inserted(tokens: readonly Token[], cursor: TokenCursor): TableName | undefined {
  cursor.skipWords(MODIFIERS)
  cursor.skipWord('into')
  const table = cursor.tableName()
  if (cursor.isMark('(')) cursor.skipBrackets()
  const hasValues = ['values', 'value', 'set'].includes(cursor.word)
  return hasValues && !readsOtherwise(tokens, cursor.at + 1) ? table : undefined
}

/** All of it locks, if the text ends with FOR UPDATE, FOR SHARE or LOCK IN SHARE MODE. */
function selected(tokens: readonly Token[], cursor: TokenCursor): TableName | undefined {
  const words = tokens.slice(-6).map(({ kind, text }) => (kind === 'word' ? text : '?'))
  const end = words.join(' ')
  if (!/ (for (update|share)|lock in share mode)( nowait| skip locked| wait \d+)?$/.test(end))
    return undefined
  if (readsOtherwise(tokens, 1)) return undefined
  cursor.skipTo(new Set(['from']))
  cursor.at += 1
  const table = cursor.tableName()
  // FROM a, b locks both, but only one is told.
  for (; !cursor.done && cursor.word !== 'where' && cursor.word !== 'for'; cursor.at++)
    if (cursor.isMark(',') || cursor.isMark('(')) return undefined
  return table
}

function readsOtherwise(tokens: readonly Token[], from: number): boolean {
  const isRead = ({ kind, text }: Token): boolean =>
    kind === 'word' && (text === 'select' || READS_OTHERWISE.has(text))
  return tokens.slice(from).some(isRead) || callsUnknown(tokens, from)
}
