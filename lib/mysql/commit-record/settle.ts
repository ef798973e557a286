/**
 * Forces the outcome of one transaction whose COMMIT was not answered, on a connection of its own. Knows nothing of
 * pools, nor of when to try again.
 *
 * A plain SELECT of the record proves nothing: the server may still be carrying the COMMIT out. So the row is locked,
 * which waits for a transaction in flight, and if the step to `seq` has not been made it is made here: the compare-and-
 * set of the transaction can then match nothing for ever. Source: the idea is that of Oracle's Transaction Guard.
 */
import { detectServer, takeOver } from '../lease/connection-settings.js'
import { COMMIT_TABLE, confirmSlot, decideSlot, lockSlot } from './commit-table.js'
import type { CoreConnection } from '../driver.js'
import { classify } from '../errors.js'
import { okOf, rowsOf } from '../round-trip.js'
import { kill } from '../side-connection.js'

/** Transaction number `seq` of a slot. */
export interface Claimed {
  readonly slot: string
  readonly seq: number
  readonly txid: string
}

/** A connection that is destroyed; its thread may hold the row's lock until the server notices. */
export interface Victim {
  readonly threadId: number | null
  readonly serverIdentity: string
  /** When it was known to be alive, on the clock of `now`. */
  readonly since: number
}

/** `row`: what was found of the slot where that tells nothing; undefined: no row. */
export type Verdict =
  | { readonly outcome: 'committed' | 'rolledBack' }
  | { readonly outcome: 'unknown'; readonly seq: number | undefined }

/** Whole seconds are all that servers offer. */
const LOCK_WAIT_MS = 1_000

/**
 * One try.
 * @param victims the connection that it was sent on, if destroyed, and those of earlier tries; this one is added
 * @throws the server's or driver's error: nothing is known then, try again
 */
export async function settleOn(
  connection: CoreConnection,
  claimed: Claimed,
  victims: Victim[],
  now: () => number,
): Promise<Verdict> {
  const profile = await detectServer(connection, 'read committed', LOCK_WAIT_MS)
  const { serverIdentity } = await takeOver(connection, profile)
  const earlier = victims.filter(victim => victim.serverIdentity === serverIdentity)
  victims.push({ threadId: connection.threadId, serverIdentity, since: now() })
  try {
    return await force(connection, claimed)
  } catch (error) {
    if (classify(error, profile.facts.flavour)?.kind !== 'lockWait') throw error
    // A thread has not heard that its connection is gone. If it is in COMMIT it will finish that all the same.
    if (!(await endThreads(connection, earlier, now))) throw error
    await okOf(connection, 'ROLLBACK')
    return force(connection, claimed)
  }
}

async function force(connection: CoreConnection, { slot, seq, txid }: Claimed): Promise<Verdict> {
  const [row] = await rowsOf(connection, lockSlot(slot))
  const found = row === undefined ? undefined : Number(row[0])
  if (found !== seq && found !== seq - 1) {
    await okOf(connection, 'ROLLBACK')
    return { outcome: 'unknown', seq: found }
  }
  const open = found === seq - 1
  // A write in either case. InnoDB frees a lock before it has flushed the commit that held it, so what the row shows can
  // still be lost in a crash; our own COMMIT is answered after everything before it was flushed. And a Galera node learns
  // only from a write that another one was faster.
  const write = open ? decideSlot(slot, seq, txid, 'A') : confirmSlot(slot, seq)
  const { affectedRows } = await okOf(connection, write)
  if (affectedRows !== 1) throw new Error(`${COMMIT_TABLE}: a locked row has changed`)
  await okOf(connection, 'COMMIT')
  const committed = !open && row?.[1] === txid && row[2] === 'C'
  return { outcome: committed ? 'committed' : 'rolledBack' }
}

/**
 * Thread numbers begin anew when a server starts: one that has run for less time than the thread is another one's.
 * @returns whether there was any
 */
async function endThreads(
  connection: CoreConnection,
  victims: readonly Victim[],
  now: () => number,
): Promise<boolean> {
  if (victims.length === 0) return false
  const [row] = await rowsOf(connection, "SHOW GLOBAL STATUS LIKE 'Uptime'")
  // Counted from the full second before it started: up to one too many.
  const uptimeMs = (Number(row?.[1]) - 1) * 1000
  let ended = false
  for (const { threadId, since } of victims) {
    if (threadId !== null && uptimeMs > now() - since)
      ended = (await kill(connection, 'CONNECTION', threadId)) || ended
  }
  return ended
}
