/**
 * Reads a session from its rows: what changed since an entry last heard of it, and how old it is. Two statements at most,
 * one if the entry is empty or up to date. Knows nothing of caches or claims.
 */
import type { StoreTransaction, TextRows } from '../session/store.js'
import type { Found } from './mysql-comparison.js'
import { type FetchedRow, fetchedRow, type MysqlEntry, MysqlVariable } from './mysql-entry.js'
import { EXISTENCE, type SessionStatements } from './mysql-tables.js'
import { variableOf } from './variable-name.js'

/** Milliseconds on the database's clock, so that no two servers' clocks have to agree. */
export interface Ages {
  readonly createdMs: number
  readonly touchedMs: number
}

/** Of the row after the columns that {@link fetchedRow} reads. */
const AGE = 4
const TEXT = 6

/**
 * Brings the entry up to date.
 * @returns undefined if there is no such session
 */
export async function fetchInto(
  entry: MysqlEntry,
  key: string,
  statements: SessionStatements,
  transaction: StoreTransaction,
): Promise<Ages | undefined> {
  const isEmpty = entry.variables.latest.version === 0
  const found = await transaction.select(statements.fetch(key, isEmpty))
  const own = found.find(([variable]) => variable === EXISTENCE)
  if (own === undefined) return undefined
  const look = (outdated: readonly string[]): Promise<TextRows> =>
    transaction.select(statements.look(key, outdated, ''))
  await absorb(entry, found, isEmpty ? texts => texts.slice(TEXT) : undefined, look)
  return { createdMs: Number(own[AGE] ?? 0) / 1000, touchedMs: Number(own[AGE + 1] ?? 0) / 1000 }
}

/**
 * The same, and the session stands still until the transaction ends: everybody who writes to it locks its own row first.
 * Opens no read view.
 * @returns false if there is no such session
 */
export async function holdInto(
  entry: MysqlEntry,
  key: string,
  statements: SessionStatements,
  transaction: StoreTransaction,
): Promise<boolean> {
  const found = await transaction.selectLocked(statements.stamps(key, 'all', ' FOR UPDATE'))
  if (!found.some(([variable]) => variable === EXISTENCE)) return false
  const look = (outdated: readonly string[]): Promise<TextRows> =>
    transaction.selectLocked(statements.look(key, outdated, ' FOR UPDATE'))
  await absorb(entry, found, undefined, look)
  return true
}

/** @param textIn where format and value stand in a row, if they do; else those that differ are looked for */
async function absorb(
  entry: MysqlEntry,
  found: TextRows,
  textIn: ((texts: TextRows[number]) => TextRows[number]) | undefined,
  look: (outdated: readonly string[]) => Promise<TextRows>,
): Promise<void> {
  const rows: FetchedRow[] = []
  const changed = new Map<string, MysqlVariable>()
  const outdated: string[] = []
  for (const texts of found) {
    const row = fetchedRow(texts)
    if (row.variable === EXISTENCE) continue
    rows.push(row)
    const name = variableOf(row.variable)
    if (entry.stampOf(name) === row.stamp) continue
    if (textIn === undefined) outdated.push(row.variable)
    else changed.set(name, variableIn(row, textIn(texts)))
  }
  if (outdated.length > 0) {
    for (const texts of await look(outdated)) {
      const row = fetchedRow(texts)
      changed.set(variableOf(row.variable), variableIn(row, texts.slice(AGE)))
    }
  }
  entry.absorb(rows, changed)
}

/** Newest committed states of these variables, locked until the transaction ends. */
export async function lockFound(
  key: string,
  columns: readonly string[] | 'all',
  statements: SessionStatements,
  transaction: StoreTransaction,
): Promise<Found<MysqlVariable>> {
  const states = new Map<string, MysqlVariable>()
  let exists = false
  for (const texts of await transaction.selectLocked(statements.look(key, columns, ' FOR UPDATE'))) {
    const row = fetchedRow(texts)
    if (row.variable === EXISTENCE) exists = true
    else states.set(variableOf(row.variable), variableIn(row, texts.slice(AGE)))
  }
  return { exists, states }
}

function variableIn(
  { variable, version, stamp, by }: FetchedRow,
  [format, text]: TextRows[number],
): MysqlVariable {
  return MysqlVariable.stored(variableOf(variable), version, stamp, by, text ?? '', Number(format))
}
