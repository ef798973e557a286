/**
 * The commit records of this process: which slots it has and which of them are free. One transaction through a slot is
 * decision.ts, the table commit-table.ts. Knows nothing of requests.
 *
 *   a slot is   meaning                                                leaves for
 *   attached    a leased connection's                                  deciding, free
 *   deciding    off its connection: its transaction's step was sent    attached (COMMIT was answered), settling
 *   settling    nobody's, until its row tells what became of that      free, gone (the row does not tell)
 *   free        the next connection's                                  attached, gone (its row has gone; close)
 *   announced   named by intents of a session store: what its row      free
 *               says of its last transaction is still asked for
 *
 * A connection gets its slot when it is set up, not when it first needs it, and nothing but its own transactions touches
 * the row meanwhile, not even to say that the process is alive: under snapshot isolation a row that somebody else has
 * changed since a transaction's read view answers its UPDATE with 1020.
 */
import { randomBytes } from 'node:crypto'
import type { SessionTxError } from '../../errors.js'
import type { EventHub } from '../../events.js'
import type { Environment } from '../../transaction/clock.js'
import {
  COMMIT_TABLE,
  dropForsaken,
  dropSlot,
  FORSAKEN_AFTER_MS,
  forsakenSlots,
  insertSlot,
  refreshSlot,
  slotId,
} from './commit-table.js'
import type { CoreConnection, CorePool } from '../driver.js'
import { classify } from '../errors.js'
import { okOf, rowsOf } from '../round-trip.js'
import { setUpError } from '../set-up-error.js'
import { type Fate, Lookup } from './lookup.js'
import type { Claimed, Victim } from './settle.js'
import { Settler, type Unsettled } from './settler.js'
import { sideConnector } from '../side-connection.js'

export interface Slot {
  readonly id: string
  /** Number of the last transaction decided through it, as far as we know. */
  seq: number
  /** When its row last said that it is somebody's. */
  seenAt: number
  /** Intents name its last transaction, or its next one. */
  isAnnounced: boolean
  /** Nothing that went through it is open; it becomes free when it is announced no longer. */
  isIdle: boolean
}

/** The transaction after the last one of a slot that we know of. */
interface Doubt extends Pick<Unsettled, 'txid' | 'sent' | 'victim'> {
  readonly slot: Slot
}

interface CommitRecordSetup {
  readonly pool: CorePool
  readonly environment: Environment
  readonly events: EventHub
  /** Every transaction is recorded, not only those that are announced. */
  readonly always: boolean
  /** Other processes ask for transactions, by intents in the store of sessions. */
  readonly isAsked: boolean
  /** Lends a connection and takes it back: then it is known how to connect. */
  readonly lend: () => Promise<void>
}

/** Longest that close() waits for what is in doubt. */
const CLOSE_MS_MAX = 5_000

export class CommitRecord {
  readonly #setup: CommitRecordSetup
  readonly #settler: Settler
  readonly #process = randomBytes(12).toString('hex')
  #made = 0
  #announced = 0
  #free: Slot[] = []
  #connect: (() => CoreConnection) | undefined
  #sweeping: Promise<void> | undefined
  readonly #lookup = new Lookup(async () => (await this.#connector())())

  constructor(setup: CommitRecordSetup) {
    this.#setup = setup
    this.#settler = new Settler(setup.environment)
  }

  get always(): boolean {
    return this.#setup.always
  }

  /** How many transactions' COMMIT was sent and not answered, without it being known yet what became of them. */
  get inDoubt(): number {
    return this.#settler.inDoubt.length
  }

  /**
   * A slot for a connection that is in our settings and has nothing open; leaves nothing open.
   * @throws MISCONFIGURED if the table is not there, or may not be used
   */
  async slotFor(connection: CoreConnection): Promise<Slot> {
    this.#connect ??= sideConnector(this.#setup.pool, connection)
    try {
      for (let slot = this.#free.pop(); slot !== undefined; slot = this.#free.pop()) {
        if (this.isFresh(slot) || (await this.#refresh(connection, slot))) return slot
      }
      this.#made += 1
      const id = slotId(this.#process, this.#made, this.#setup.isAsked)
      const slot = { id, seq: 0, seenAt: this.#now, isAnnounced: false, isIdle: false }
      await okOf(connection, insertSlot(slot.id))
      await okOf(connection, 'COMMIT')
      this.#sweeping ??= this.#aside(connection => dropAllForsaken(connection, false))
      return slot
    } catch (error) {
      throw misconfigured(error) ?? error
    }
  }

  /** A free slot that needs no looking after; undefined: there is none. */
  spare(): Slot | undefined {
    const place = this.#free.findLastIndex(slot => this.isFresh(slot))
    return place === -1 ? undefined : this.#free.splice(place, 1)[0]
  }

  /** However long a transaction through it takes, its row will not be taken for that of a dead process. */
  isFresh({ seenAt }: Slot): boolean {
    return this.#now - seenAt < FORSAKEN_AFTER_MS / 2
  }

  async #refresh(connection: CoreConnection, slot: Slot): Promise<boolean> {
    const askedAt = this.#now
    try {
      const { affectedRows } = await okOf(connection, refreshSlot(slot.id, slot.seq))
      await okOf(connection, 'COMMIT')
      slot.seenAt = askedAt
      return affectedRows === 1
    } catch (error) {
      this.free(slot) // the connection's fault: another one will look after it
      throw error
    }
  }

  get #now(): number {
    return this.#setup.environment.clock.now()
  }

  /** Another transaction has gone through it, whatever became of it. */
  decided(slot: Slot): void {
    slot.seq += 1
    slot.seenAt = this.#now
  }

  /** Nothing that went through it is open. */
  free(slot: Slot): void {
    slot.isIdle = slot.isAnnounced
    if (!slot.isAnnounced) this.#free.push(slot)
  }

  /** @returns what tells this announcement from every other one of this process */
  announce(slot: Slot): string {
    slot.isAnnounced = true
    this.#announced += 1
    return this.#announced.toString(36)
  }
  /** Nobody asks for its last transaction any more. */
  forget(slot: Slot): void {
    slot.isAnnounced = false
    if (slot.isIdle) this.#free.push(slot)
    slot.isIdle = false
  }

  /**
   * What has become of a transaction of any process by now.
   * @throws STORE_UNAVAILABLE
   */
  fateOf(claimed: Claimed): Promise<Fate> {
    return this.#lookup.fateOf(claimed)
  }

  /** Of any process: by force, where it is open. Resolves when that is known, however long the database is away. */
  async settleForeign(claimed: Claimed, victim: Victim): Promise<'committed' | 'rolledBack'> {
    const { slot, seq, txid } = claimed
    const verdict = await this.#settler.settle(
      { slot, seq, txid, sent: false, victim },
      await this.#connector(),
    )
    // Its number was another's, or its row has been dropped: then nobody asks for one that has committed.
    return verdict.outcome === 'committed' ? 'committed' : 'rolledBack'
  }

  async #connector(): Promise<() => CoreConnection> {
    if (this.#connect === undefined) await this.#setup.lend()
    if (this.#connect === undefined) throw new TypeError('a connection was lent without a slot')
    return this.#connect
  }

  /** All intents have been looked at: what forsaken rows say nobody asks for. */
  swept(): void {
    this.#sweeping = Promise.resolve(this.#sweeping).then(() =>
      this.#aside(connection => dropAllForsaken(connection, true)),
    )
  }

  /**
   * Finds out what became of a transaction, by force where it is open. Resolves when that is known, however long the
   * database is away; the slot is free again then.
   * @throws Error if its row does not tell, or close() gave up
   */
  async settle({ slot, txid, sent, victim }: Doubt): Promise<'committed' | 'rolledBack'> {
    const connect = this.#connect
    if (connect === undefined) throw new TypeError('a slot that this record has not given out')
    const seq = slot.seq + 1
    const verdict = await this.#settler.settle({ slot: slot.id, seq, txid, sent, victim }, connect)
    if (verdict.outcome !== 'unknown') {
      this.decided(slot)
      this.free(slot)
      return verdict.outcome
    }
    const { seq: found } = verdict
    if (found !== undefined && found < seq) this.#commitsLost(seq - 1 - found)
    const row = found === undefined ? 'is not there any more' : `is at ${found}`
    const why = `transaction ${txid} is number ${seq} of its row in ${COMMIT_TABLE}, which ${row}`
    if (sent) process.emitWarning(`whether it committed will never be known: ${why}`, 'SessionTxWarning')
    throw new Error(why)
  }

  /** After a failover to a server that had not got everything, or a restore. */
  #commitsLost(transactions: number): void {
    this.#setup.events.emit('commitsLost', { transactions })
    const message =
      `the database has lost at least ${transactions} committed transaction(s) of one connection: ${COMMIT_TABLE} is ` +
      'behind what was answered to us. Was it restored, or is it another server after a failover?'
    process.emitWarning(message, 'SessionTxWarning')
  }

  /** Waits a while for what is unsettled, then gives it up; drops the rows of free slots. Give back leases first. */
  async close(): Promise<void> {
    const left = await this.#settler.close(CLOSE_MS_MAX)
    if (left.length > 0) {
      const message = `close() gave up on ${left.length} transaction(s) whose COMMIT was not answered: ${left.join(', ')}`
      process.emitWarning(`${message}. The session keeps its old values.`, 'SessionTxWarning')
    }
    await this.#sweeping
    this.#lookup.close()
    const slots = this.#free.splice(0)
    if (slots.length === 0) return
    await this.#aside(async connection => {
      for (const { id, seq } of slots) await okOf(connection, dropSlot(id, seq))
    })
  }

  /** What nobody waits for: what it does not get done, a later process does. */
  async #aside(work: (connection: CoreConnection) => Promise<void>): Promise<void> {
    const connection = this.#connect?.()
    if (connection === undefined) return
    try {
      await okOf(connection, 'SET SESSION autocommit = 1, innodb_lock_wait_timeout = 1')
      await work(connection)
    } catch {
      // An hour from now they are forsaken like any other.
    } finally {
      connection.destroy()
    }
  }
}

/**
 * Slots of processes that ended without close(). Dropping a row is as good a fence as changing it: what may still be on
 * its way matches nothing from then on, and ids do not come again.
 */
async function dropAllForsaken(connection: CoreConnection, areAnnounced: boolean): Promise<void> {
  for (const [slot, seq] of await rowsOf(connection, forsakenSlots(areAnnounced))) {
    // One that is locked belongs to a transaction in flight: it is waited for, and no longer than a second.
    await okOf(connection, dropForsaken(String(slot), Number(seq))).catch((error: unknown) => {
      if (classify(error, 'mariadb')?.kind !== 'lockWait') throw error
    })
  }
}

/** What the database says of a table that is not as it must be; undefined for every other error. */
export function misconfigured(error: unknown): SessionTxError | undefined {
  const remedy = 'make it with `npx session-tx migrate --url mysql://… --apply`'
  return setUpError(error, { who: 'the commit record', tables: [COMMIT_TABLE], remedy })
}
