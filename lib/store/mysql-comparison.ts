/** Rows of sessions as a comparison wants them, and which rows it wants. Knows nothing of statements or transactions. */
import { NAMES, type TextRows } from '../session/store.js'
import { type Found, type FoundState, namesAmong, type Part } from './comparison.js'
import { EXISTENCE } from './mysql-tables.js'
import { columnName, variableOf } from './variable-name.js'

/** Rows of `SessionStatements.stamps`. */
export function foundIn(rows: TextRows): Found {
  const states = new Map<string, FoundState>()
  let exists = false
  for (const [column, version, stamp, by] of rows) {
    if (column === EXISTENCE) exists = true
    else states.set(variableOf(column ?? ''), { version: Number(version), stamp: stamp ?? '0', by: by ?? '' })
  }
  return { exists, states }
}

/** Columns whose rows say whether these parts hold, the session's own row among them. */
export function columnsOf(parts: Iterable<Part>): readonly string[] | 'all' {
  const all = [...parts]
  return all.includes(NAMES) ? 'all' : [EXISTENCE, ...namesAmong(all).map(columnName)]
}
