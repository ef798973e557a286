/**
 * The connection of one attempt: when it is lent, whether it may be used again, and what has to be given back with it.
 * Knows nothing of what is sent on it.
 */
import type { Clock } from '../../transaction/clock.js'
import { inTime } from '../ending.js'
import { answered } from '../round-trip.js'
import type { Lease, LeaseBroker } from './lease.js'
import { Turn } from './turn.js'

interface AttemptLeaseSetup {
  readonly broker: LeaseBroker
  readonly acquireMs: number
  readonly clock: Clock
  /** What is said to those who ask when the transaction has ended. */
  closedError(): Error
  /** Closing waits for it. */
  later(work: () => Promise<void>): void
}

export class AttemptLease {
  readonly #setup: AttemptLeaseSetup
  #lease: Lease | undefined
  /** Which asking is the present one. */
  #request: object | undefined
  #turn: Turn | undefined
  #over = false
  #spoilt = false
  #dirty = false

  constructor(setup: AttemptLeaseSetup) {
    this.#setup = setup
  }

  get current(): Lease | undefined {
    return this.#lease
  }

  /** @throws STORE_UNAVAILABLE TRANSACTION_CLOSED */
  async acquire(): Promise<Lease> {
    const { broker, acquireMs } = this.#setup
    if (this.#lease !== undefined) return this.#lease
    this.#over = false
    const request = {}
    this.#request = request
    const lease = await broker.acquire(acquireMs)
    // Rolled back meanwhile, perhaps to a savepoint, with another one asked for since.
    if (this.#over || this.#request !== request) {
      lease.release()
      throw this.#setup.closedError()
    }
    this.#lease = lease
    return lease
  }

  /** Nothing more is sent but the transaction's end. */
  end(): void {
    this.#over = true
  }
  get isOver(): boolean {
    return this.#over
  }

  /** It must not be used again, not even for ROLLBACK. */
  spoil(): void {
    this.#spoilt = true
  }
  get isSpoilt(): boolean {
    return this.#spoilt
  }

  /** Something may be left on it that ROLLBACK does not take back. */
  soil(): void {
    this.#dirty = true
  }

  /** What takes the turn on these tables; whether or not it is got, it is given back with the connection. */
  turnOn(tables: readonly string[], lease: Lease): string {
    this.#turn = new Turn(lease.schema, tables, this.#setup.broker.lockWaitMs)
    return this.#turn.take
  }

  /** COMMIT or ROLLBACK was answered, or never will be. */
  letGo(): void {
    const [lease, turn] = [this.#lease, this.#turn]
    this.#lease = undefined
    this.#turn = undefined
    if (lease === undefined) return
    if (this.#spoilt || this.#dirty) lease.destroy()
    else if (turn === undefined) lease.release()
    else this.#giveBack(turn, lease)
  }

  /** The connection waits for the answer, and nobody else does. */
  #giveBack({ giveBack }: Turn, lease: Lease): void {
    const { clock, later } = this.#setup
    const given = inTime(clock, answered(lease.connection, giveBack)).then(
      () => lease.release(),
      () => lease.destroy(),
    )
    later(() => given)
  }
}
