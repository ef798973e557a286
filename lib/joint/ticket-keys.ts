/**
 * What losers of a race queue for (transaction/ticket.ts keeps the queues): variables of a session, and tables. Knows
 * names only.
 */
import { type ConflictDetails, conflictError, type SessionTxError } from '../errors.js'
import type { TicketOffice } from '../transaction/ticket.js'

const TABLE = '#table/'

/** Sorts before every session's, so that no session is reserved by one who waits here. */
function tableTicketKey(table: string): string {
  return TABLE + table
}

export function ticketKey(session: string, variable: string): string {
  return session + variablePart(variable)
}

/** The tables among them. */
export function tablesOf(keys: readonly string[]): readonly string[] {
  return keys.filter(key => key.startsWith(TABLE)).map(key => key.slice(TABLE.length))
}

/**
 * The parts that were lost, whatever session they are of.
 * @param lockedTables in which the loser had locks, as far as is known
 */
export function lostParts(
  conflict: ConflictDetails | undefined,
  lockedTables: readonly string[],
): readonly string[] {
  if (conflict === undefined) return []
  const { session, lost = [], kind, table } = conflict
  const parts = session !== undefined && kind !== 'session' ? lost.map(variablePart) : []
  // Losers of a row run one after the other, too: all at once, each waits for the row's lock with a view that is old by
  // the time it gets it, and loses again. This orders losers among themselves; first attempts do not give way to it.
  if (kind === 'row' && table !== undefined) parts.push(tableTicketKey(table))
  // The error of a deadlock names no table; it was one of those in which this attempt had locks.
  if (kind === 'deadlock') parts.push(...lockedTables.map(tableTicketKey))
  return parts
}

/** Begins as no table's does. */
function variablePart(variable: string): string {
  return `/${variable}`
}

/** @param session whose variables they are; undefined: of none yet, so nobody else has them */
export function ticketKeysOf(parts: readonly string[], session: string | undefined): readonly string[] {
  return parts.flatMap(part => (part.startsWith(TABLE) ? part : session === undefined ? [] : session + part))
}

/** The race that is lost to somebody at its last attempt, who has lost rows of one of these tables before. */
export function givenWay(
  tickets: TicketOffice,
  lockedTables: readonly string[],
  own: readonly string[],
): SessionTxError | undefined {
  const table = lockedTables.find(name => {
    const key = tableTicketKey(name)
    return tickets.isInsistedOn(key) && !own.includes(key)
  })
  if (table === undefined) return undefined
  const message = `gave way in table '${table}' to a request at its last attempt`
  return conflictError(message, { kind: 'row', store: 'mysql', table })
}
