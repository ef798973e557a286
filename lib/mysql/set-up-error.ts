/**
 * What the database says of a table of ours that is not as it must be, as a sentence with the remedy. Knows nothing of what
 * the tables are for.
 */
import { SessionTxError } from '../errors.js'
import { findDatabaseError } from './errors.js'

const NO_TABLE: ReadonlySet<unknown> = new Set([1046, 1054, 1146])
const DENIED: ReadonlySet<unknown> = new Set([1142, 1143])

interface Needs {
  /** Who needs them: `the commit record`. */
  readonly who: string
  readonly tables: readonly string[]
  /** How to make them. */
  readonly remedy: string
}

/** Undefined for every other error. */
export function setUpError(error: unknown, { who, tables, remedy }: Needs): SessionTxError | undefined {
  const found = findDatabaseError(error)
  if (found === undefined) return undefined
  const names = tables.join(' and ')
  const said = found.sqlMessage ?? found.message
  if (NO_TABLE.has(found.errno))
    return misconfigured(
      `${who} needs the table${tables.length === 1 ? '' : 's'} ${names}: ${remedy} (${said})`,
      error,
    )
  if (!DENIED.has(found.errno)) return undefined
  return misconfigured(`${who} needs SELECT, INSERT, UPDATE and DELETE on ${names} (${said})`, error)
}

function misconfigured(message: string, cause: unknown): SessionTxError {
  return new SessionTxError('MISCONFIGURED', message, { cause })
}
