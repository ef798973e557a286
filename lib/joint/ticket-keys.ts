/**
 * What losers of a race queue for (transaction/ticket.ts keeps the queues): variables of a session, and tables. Knows
 * names only.
 */
import type { ConflictDetails } from '../errors.js'
import type { TicketOffice } from '../transaction/ticket.js'

const TABLE = '#table/'

/** Sorts before every session's, so that no session is reserved by one who waits here. */
function tableTicketKey(table: string): string {
  return TABLE + table
}

export function ticketKey(session: string, variable: string): string {
  return `${session}/${variable}`
}

/** The tables among them. */
export function tablesOf(keys: readonly string[]): readonly string[] {
  return keys.filter(key => key.startsWith(TABLE)).map(key => key.slice(TABLE.length))
}

/** @param lockedTables in which the loser had locks, as far as is known */
export function ticketKeysOf(
  { session, lost = [], kind, table }: Partial<ConflictDetails>,
  lockedTables: readonly string[],
): readonly string[] {
  const queues = session !== undefined && kind !== 'session'
  const keys = queues ? lost.map(variable => ticketKey(session, variable)) : []
  // Losers of a row run one after the other, too: all at once, each waits for the row's lock with a view that is old by
  // the time it gets it, and loses again. This orders losers among themselves; first attempts do not give way to it.
  if (kind === 'row' && table !== undefined) keys.push(tableTicketKey(table))
  // The error of a deadlock names no table; it was one of those in which this attempt had locks.
  if (kind === 'deadlock') keys.push(...lockedTables.map(tableTicketKey))
  return keys
}

/** One of these tables, if somebody else who lost it before is at its last attempt. */
export function insistedOn(
  tickets: TicketOffice,
  lockedTables: readonly string[],
  own: readonly string[],
): string | undefined {
  return lockedTables.find(name => {
    const key = tableTicketKey(name)
    return tickets.isInsistedOn(key) && !own.includes(key)
  })
}
