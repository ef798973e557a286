/**
 * The table of commit records: its definition and every statement that is sent to it, as text. What they are for is in
 * commit-record.ts and settle.ts. Knows nothing of connections.
 *
 * A row is a slot: it belongs to one process and counts the transactions that were committed through it. It is made
 * outside of transactions, used by one connection at a time, and dropped when its process closes or has not used it for
 * an hour. `seq` only grows, by compare-and-set; whoever makes the step to `k` has decided transaction `k` for ever.
 */

export const COMMIT_TABLE = 'sessiontx_commits'

/** Unqualified: it is looked for in the database that the pool's connections have selected. */
export const COMMIT_TABLE_DDL = `CREATE TABLE IF NOT EXISTS ${COMMIT_TABLE} (
  slot    VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'belongs to one process',
  seq     BIGINT UNSIGNED NOT NULL COMMENT 'transactions decided through this slot',
  txid    VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'the last of them',
  state   CHAR(1) CHARACTER SET ascii COLLATE ascii_bin NOT NULL COMMENT 'C: it has committed, A: it never will',
  seen_at DATETIME NOT NULL COMMENT 'UTC',
  PRIMARY KEY (slot)
) ENGINE = InnoDB`

/** Columns that a table of this name must have. */
export const COMMIT_TABLE_COLUMNS: readonly string[] = Object.freeze([
  'slot',
  'seq',
  'txid',
  'state',
  'seen_at',
])

/** A slot that nobody has used for this long has no process any more. */
export const FORSAKEN_AFTER_MS = 3_600_000
const FORSAKEN = `seen_at < UTC_TIMESTAMP() - INTERVAL ${FORSAKEN_AFTER_MS / 1000} SECOND`

export function insertSlot(slot: string): string {
  return `INSERT INTO ${COMMIT_TABLE} (slot, seq, txid, state, seen_at) VALUES (${text(slot)}, 0, '', 'A', UTC_TIMESTAMP())`
}

/** The compare-and-set: matches one row, or somebody else has decided transaction `seq` of this slot. */
export function decideSlot(slot: string, seq: number, txid: string, state: 'C' | 'A'): string {
  const set = `seq = ${seq}, txid = ${text(txid)}, state = '${state}', seen_at = UTC_TIMESTAMP()`
  return `UPDATE ${COMMIT_TABLE} SET ${set} WHERE ${at(slot, seq - 1)}`
}

/** Says that the slot is still somebody's. */
export function refreshSlot(slot: string, seq: number): string {
  return `UPDATE ${COMMIT_TABLE} SET seen_at = UTC_TIMESTAMP() WHERE ${at(slot, seq)}`
}

/** Changes the row for certain, and nothing that it says. */
export function confirmSlot(slot: string, seq: number): string {
  const later = 'GREATEST(UTC_TIMESTAMP(), seen_at + INTERVAL 1 SECOND)'
  return `UPDATE ${COMMIT_TABLE} SET seen_at = ${later} WHERE ${at(slot, seq)}`
}

/** What is committed by now; waits for nobody. */
export function lookAtSlots(slots: readonly string[]): string {
  return `SELECT slot, seq, txid, state FROM ${COMMIT_TABLE} WHERE slot IN (${slots.map(text).join(', ')})`
}

/** Waits for a transaction that has changed the row and has not ended. */
export function lockSlot(slot: string): string {
  return `SELECT seq, txid, state FROM ${COMMIT_TABLE} WHERE slot = ${text(slot)} FOR UPDATE`
}

export function dropSlot(slot: string, seq: number): string {
  return `DELETE FROM ${COMMIT_TABLE} WHERE ${at(slot, seq)}`
}

/** Begins the ids of slots that others may ask for: dropped only after all who may have been looked for. */
const ANNOUNCED = 'announced-'

export function slotId(process: string, number: number, isAnnounced: boolean): string {
  return `${isAnnounced ? ANNOUNCED : ''}${process}-${number}`
}

export function forsakenSlots(areAnnounced: boolean): string {
  const kind = `slot ${areAnnounced ? '' : 'NOT '}LIKE '${ANNOUNCED}%'`
  return `SELECT slot, seq FROM ${COMMIT_TABLE} WHERE ${FORSAKEN} AND ${kind} LIMIT 1000`
}

/** Waits for a transaction that goes through it; afterwards none can. */
export function dropForsaken(slot: string, seq: number): string {
  return `${dropSlot(slot, seq)} AND ${FORSAKEN}`
}

function at(slot: string, seq: number): string {
  return `slot = ${text(slot)} AND seq = ${seq}`
}

/** Ids of slots and transactions are ours and never have a quote in them. */
function text(id: string): string {
  if (!/^[\w.-]*$/.test(id)) throw new TypeError(`not an id: ${id}`)
  return `'${id}'`
}
