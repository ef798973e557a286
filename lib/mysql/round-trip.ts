/**
 * One statement of our own, sent and answered. Shielded from whatever the application configured for its own
 * statements (`typeCast`, `rowsAsArray`, `namedPlaceholders`, …). Knows nothing of what the statement is for.
 */
import { systemClock } from '../transaction/clock.js'
import type { CoreConnection, OkPacket } from './driver.js'

/**
 * Longest that a server may take for a statement of ours that touches no data; it is broken then. The caller
 * destroys the connection.
 */
const ANSWER_MS_MAX = 5_000

interface TextField {
  string(): string | null
  buffer(): Buffer | null
}

const SHIELD = Object.freeze({
  rowsAsArray: true,
  nestTables: false,
  namedPlaceholders: false,
  typeCast: (field: TextField) => field.string(),
})
/** Whatever the connection's character set: what has to survive it is selected as BINARY. */
const UTF8 = Object.freeze({
  ...SHIELD,
  typeCast: (field: TextField) => field.buffer()?.toString('utf8') ?? null,
})

/** Rows of texts. */
export async function rowsOf(
  connection: CoreConnection,
  sql: string,
): Promise<readonly (readonly (string | null)[])[]> {
  return (await answer(connection, sql)) as (string | null)[][]
}

/** For statements without a result. */
export async function okOf(connection: CoreConnection, sql: string): Promise<OkPacket> {
  return (await answer(connection, sql)) as OkPacket
}

/** For statements whose waiting somebody else limits. */
export function answered(connection: CoreConnection, sql: string): Promise<OkPacket> {
  return new Promise((resolve, reject) => {
    connection.query(sql, (error, ok) => (error === null ? resolve(ok as OkPacket) : reject(error)))
  })
}

/** Rows of texts, read as UTF-8, or an OK packet; for statements whose waiting somebody else limits. */
export function shielded(connection: CoreConnection, sql: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    connection.query({ ...UTF8, sql }, (error, result) => (error === null ? resolve(result) : reject(error)))
  })
}

/**
 * Not mysql2's `timeout`: its timer outlives a connection that is lost meanwhile, and keeps the process
 * alive.
 */
function answer(connection: CoreConnection, sql: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const timer = systemClock.after(ANSWER_MS_MAX, () => {
      reject(new Error(`the server did not answer within ${ANSWER_MS_MAX} ms: ${sql.slice(0, 40)}`))
    })
    connection.query({ ...SHIELD, sql }, (error, result) => {
      timer.cancel()
      if (error) reject(error)
      else resolve(result)
    })
  })
}
