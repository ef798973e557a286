/**
 * Reads a session from its rows: what changed since an entry last heard of it, and how old it is. Two statements at most,
 * one if the entry is empty or up to date. Knows nothing of caches or claims.
 */
import type { StoreTransaction, TextRows } from '../session/store.js'
import type { Found } from './comparison.js'
import { EXISTENCE, type SessionStatements } from './mysql-tables.js'
import { type RememberedSession, RememberedVariable } from './remembered-session.js'
import { variableOf } from './variable-name.js'

/** Milliseconds on the database's clock, so that no two servers' clocks have to agree. */
interface Fetched {
  /** The entry is what was stored at one moment; false: newer things were heard of meanwhile. */
  readonly isComplete: boolean
  readonly createdMs: number
  readonly touchedMs: number
}

/** Columns of `SessionStatements.fetch` and `look`. */
interface FetchedRow {
  readonly variable: string
  readonly version: number
  readonly stamp: string
  readonly by: string
}

function fetchedRow([variable, version, stamp, by]: TextRows[number]): FetchedRow {
  return {
    variable: variable ?? '',
    version: Number(version),
    stamp: stamp ?? '0',
    by: by ?? '',
  }
}

/** Of the row after the columns that {@link fetchedRow} reads. */
const AGE = 4
const TEXT = 6

/**
 * Brings the entry up to date.
 * @returns undefined if there is no such session
 */
export async function fetchInto(
  entry: RememberedSession,
  key: string,
  statements: SessionStatements,
  transaction: StoreTransaction,
): Promise<Fetched | undefined> {
  const isEmpty = entry.isBlank
  const askedAt = entry.ask()
  const found = await transaction.select(statements.fetch(key, isEmpty))
  const own = found.find(([variable]) => variable === EXISTENCE)
  if (own === undefined) return undefined
  const look = (outdated: readonly string[]): Promise<TextRows> =>
    transaction.select(statements.look(key, outdated, ''))
  const isComplete = await absorb(
    entry,
    found,
    isEmpty ? texts => texts.slice(TEXT) : undefined,
    look,
    askedAt,
  )
  return { isComplete, createdMs: Number(own[AGE] ?? 0) / 1000, touchedMs: Number(own[AGE + 1] ?? 0) / 1000 }
}

/**
 * The same, and the session stands still until the transaction ends: everybody who writes to it locks its own row first.
 * Opens no read view.
 * @returns undefined if there is no such session
 */
export async function holdInto(
  entry: RememberedSession,
  key: string,
  statements: SessionStatements,
  transaction: StoreTransaction,
): Promise<Pick<Fetched, 'isComplete'> | undefined> {
  const askedAt = entry.ask()
  const found = await transaction.selectLocked(statements.stamps(key, 'all', ' FOR UPDATE'))
  if (!found.some(([variable]) => variable === EXISTENCE)) return undefined
  const look = (outdated: readonly string[]): Promise<TextRows> =>
    transaction.selectLocked(statements.look(key, outdated, ' FOR UPDATE'))
  return { isComplete: await absorb(entry, found, undefined, look, askedAt) }
}

/** @param textIn where format and value stand in a row, if they do; else those that differ are looked for */
async function absorb(
  entry: RememberedSession,
  found: TextRows,
  textIn: ((texts: TextRows[number]) => TextRows[number]) | undefined,
  look: (outdated: readonly string[]) => Promise<TextRows>,
  askedAt: number,
): Promise<boolean> {
  const names = new Set<string>()
  const changed = new Map<string, RememberedVariable>()
  const outdated: string[] = []
  for (const texts of found) {
    const row = fetchedRow(texts)
    if (row.variable === EXISTENCE) continue
    const name = variableOf(row.variable)
    names.add(name)
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
  return entry.absorb(names, changed, askedAt)
}

/** Newest committed states of these variables, locked until the transaction ends. */
export async function lockFound(
  key: string,
  columns: readonly string[] | 'all',
  statements: SessionStatements,
  transaction: StoreTransaction,
): Promise<Found<RememberedVariable>> {
  const states = new Map<string, RememberedVariable>()
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
): RememberedVariable {
  return RememberedVariable.stored(variableOf(variable), version, stamp, by, text ?? '', Number(format))
}
