/**
 * The end of one transaction on a leased connection: the step of its commit record, COMMIT, and how to find out what
 * became of it when COMMIT is not answered. Knows nothing of statements before it, nor of sessions.
 *
 * The record is the last statement of the transaction itself, `UPDATE … SET seq = k WHERE slot = ? AND seq = k - 1`, so
 * that it commits with the rest or not at all. COMMIT is sent only after it has matched: whoever has made the step to k
 * meanwhile has decided that this transaction never commits.
 */
import { conflictError, SessionTxError } from '../../errors.js'
import type { AnnouncedDecision } from '../../transaction/announced-decision.js'
import type { Found } from '../../transaction/resource.js'
import { type CommitRecord, misconfigured, type Slot } from './commit-record.js'
import { decideSlot } from './commit-table.js'
import { atCommit } from '../errors.js'
import type { Lease } from '../lease/lease.js'
import type { MysqlResourceSetup } from '../resource-setup.js'
import { answered, okOf } from '../round-trip.js'

interface DecisionSetup {
  readonly lease: Lease
  readonly transactionId: string
  /** Undefined: no commit record is kept. */
  readonly record: CommitRecord | undefined
  sendCommit(): Promise<void>
  /** The lost race that an answer to COMMIT means, if it means one. */
  recognise(error: unknown): SessionTxError | undefined
}

/** The end of the transaction that is open on this connection. */
export function decisionOn(
  lease: Lease,
  { transaction, broker, recognise }: Pick<MysqlResourceSetup, 'transaction' | 'broker' | 'recognise'>,
): Decision {
  return new Decision({
    lease,
    transactionId: transaction.id,
    record: broker.record,
    sendCommit: async () => {
      await answered(lease.connection, 'COMMIT')
    },
    recognise: error => recognise(error, lease.server.flavour, 'commit')?.conflict,
  })
}

export class Decision {
  readonly #setup: DecisionSetup
  /** In the row: of all attempts of a transaction, once it is announced of this one alone. */
  #txid: string
  #slot: Slot | undefined
  /** The step has been sent: whoever wants the row after us has to find out whether it was made. */
  #stepSent = false
  #sent = false
  #inDoubt = false
  #settling: Promise<Found> | undefined

  constructor(setup: DecisionSetup) {
    this.#setup = setup
    this.#txid = setup.transactionId
  }

  /** COMMIT was sent and not answered. */
  get inDoubt(): boolean {
    return this.#inDoubt
  }

  /**
   * Says by which row and step others will know what became of this transaction, before either is made.
   * @throws CONFLICT of kind `connection`
   */
  announce(): AnnouncedDecision {
    const { lease, record } = this.#setup
    const slot = lease.takeSlot()
    if (record === undefined || slot === undefined)
      throw conflict('the connection has no slot for its commit record')
    this.#slot = slot
    this.#txid += `.${record.announce(slot)}`
    const { connection, serverIdentity } = lease
    const { threadId } = connection
    const forget = (): void => record.forget(slot)
    return { slot: slot.id, seq: slot.seq + 1, txid: this.#txid, threadId, serverIdentity, forget }
  }

  /**
   * @throws CONFLICT of kind `connection` if the record could not be written, or COMMIT not be sent; what either is
   * answered with, if that says that nothing was committed; COMMIT_UNKNOWN
   */
  async carryOut(): Promise<void> {
    const { lease, record, sendCommit } = this.#setup
    if (record !== undefined && (record.always || this.#slot !== undefined)) {
      this.#slot ??= lease.takeSlot()
      await this.#step()
    }
    this.#sent = true
    try {
      await sendCommit()
    } catch (error) {
      throw this.#meaningOf(error)
    }
    if (this.#slot !== undefined) record?.decided(this.#slot)
    this.#putBack()
  }

  /** Of what came instead of COMMIT's OK packet. */
  #meaningOf(error: unknown): unknown {
    const { lease, transactionId, recognise } = this.#setup
    const verdict = atCommit(error, lease.server.flavour)
    if (verdict === 'unknown') {
      this.#inDoubt = true
      const message = 'COMMIT was sent and not answered: whether the database committed is unknown'
      const details = { cause: error, transactionId }
      return new SessionTxError('COMMIT_UNKNOWN', `${message} (transaction ${transactionId})`, details)
    }
    if (verdict === 'aborted') this.#putBack()
    const lost = recognise(error)
    if (lost !== undefined) return lost
    return verdict === 'neverSent' ? conflict('the connection was lost before COMMIT', error) : error
  }

  async #step(): Promise<void> {
    const slot = this.#slot
    if (slot === undefined) throw conflict('the connection has no slot for its commit record')
    this.#stepSent = true
    const { affectedRows } = await okOf(
      this.#setup.lease.connection,
      decideSlot(slot.id, slot.seq + 1, this.#txid, 'C'),
    ).catch((error: unknown) => {
      throw this.#notWritten(error)
    })
    if (affectedRows !== 1) throw conflict('the commit record has been moved on by somebody else')
  }

  #notWritten(error: unknown): unknown {
    const { lease, recognise } = this.#setup
    const lost = recognise(error)
    // The server has rolled everything back (a Galera node, for what another one has committed): nothing is to be settled.
    if (lost !== undefined && atCommit(error, lease.server.flavour) === 'aborted') {
      this.#putBack()
      return lost
    }
    return misconfigured(error) ?? conflict('the commit record could not be written', error)
  }

  #putBack(): void {
    const slot = this.#slot
    this.#slot = undefined
    if (slot === undefined) return
    if (slot.isAnnounced) this.#setup.record?.free(slot)
    else this.#setup.lease.putBack(slot)
  }

  /**
   * The connection is about to be let go. What became of the slot is found out, if that is not known.
   * @param destroyed without a word to the server, whose thread may still be at work
   */
  end(destroyed: boolean): void {
    const { lease, record } = this.#setup
    if (!this.#stepSent) return this.#putBack()
    const slot = this.#slot
    this.#slot = undefined
    if (slot === undefined || record === undefined) return
    const { connection, serverIdentity, since } = lease
    const victim = destroyed ? { threadId: connection.threadId, serverIdentity, since } : undefined
    this.#settling = record.settle({ slot, txid: this.#txid, sent: this.#sent, victim })
    this.#settling.catch(() => {}) // nobody asks, unless COMMIT was sent
  }

  /** As transaction/resource.ts says; after {@link end}. */
  findOut(): Found | Promise<Found> | undefined {
    return this.#sent ? this.#settling : 'rolledBack'
  }
}

function conflict(message: string, cause?: unknown): SessionTxError {
  return conflictError(message, { kind: 'connection', store: 'mysql' }, cause)
}
