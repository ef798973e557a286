/**
 * One connection for as long as we keep it from its pool, and the one state it is in. Knows nothing of who
 * waits for it or where it goes next.
 *
 *   state       meaning                                 leaves for
 *   preparing   taken from the pool, being set up       idle, used, restoring, gone
 *   idle        set up, nobody's                        used, restoring, gone (died, unnoticed by anybody)
 *   used        a request's                             idle, used (the next request's), restoring, lost, gone
 *   lost        a request's, and its socket has ended   gone
 *   restoring   getting the application's settings back gone
 *   gone        the pool's again, or destroyed          –
 */
import type { Slot } from '../commit-record/commit-record.js'
import { giveOver, takeOver, type ServerProfile, type TakenOver } from './connection-settings.js'
import type { CoreConnection } from '../driver.js'
import { PreparedStatements } from './prepared-statements.js'

export type LeaseState = 'preparing' | 'idle' | 'used' | 'lost' | 'restoring' | 'gone'

const MOVES: Readonly<Record<LeaseState, readonly LeaseState[]>> = Object.freeze({
  preparing: ['idle', 'used', 'restoring', 'gone'],
  idle: ['used', 'restoring', 'gone'],
  used: ['idle', 'used', 'restoring', 'lost', 'gone'],
  lost: ['gone'],
  restoring: ['gone'],
  gone: [],
})

/** As mysql2 says it. */
const LOST = { code: 'PROTOCOL_CONNECTION_LOST', fatal: true }

export class LeasedConnection {
  readonly connection: CoreConnection
  readonly prepared: PreparedStatements
  /** When it last became idle, on the clock of its broker. */
  idleSince = 0
  /** When its set-up was answered, on the same clock. */
  since = 0
  /** Where its transactions are recorded; undefined: nowhere, or in use. */
  slot: Slot | undefined
  readonly #onMove: (leased: LeasedConnection, from: LeaseState, to: LeaseState) => void
  #state: LeaseState = 'preparing'
  #taken: TakenOver | undefined
  #diedEarly = false

  constructor(
    connection: CoreConnection,
    onMove: (leased: LeasedConnection, from: LeaseState, to: LeaseState) => void,
  ) {
    this.connection = connection
    this.prepared = new PreparedStatements(connection)
    this.#onMove = onMove
    connection.on('error', this.#died)
    connection.on('end', this.#died)
  }

  get state(): LeaseState {
    return this.#state
  }

  /** Tells one server from another behind the same address; empty before the set-up. */
  get serverIdentity(): string {
    return this.#taken?.serverIdentity ?? ''
  }

  /** The database that it is in; '' if in none. */
  get schema(): string {
    return this.#taken?.schema ?? ''
  }

  /** The only place where the state changes. */
  enter(next: LeaseState): void {
    const from = this.#state
    if (!MOVES[from].includes(next)) throw new Error(`a leased connection cannot go from ${from} to ${next}`)
    this.#state = next
    this.#onMove(this, from, next)
  }

  async setUp(profile: ServerProfile): Promise<void> {
    this.#taken = await takeOver(this.connection, profile)
  }

  /** @throws if its socket ended since it was taken from the pool */
  assertAlive(): void {
    if (this.#diedEarly) throw Object.assign(new Error('the connection ended while it was set up'), LOST)
  }

  /** Puts the application's settings back. @throws what the server said; the caller destroys it then */
  async restore(): Promise<void> {
    this.enter('restoring')
    if (this.#taken !== undefined) await giveOver(this.connection, this.#taken)
  }

  /** To `gone`, alive: the caller gives it to the pool in the same tick. */
  letGo(): void {
    this.connection.removeListener('error', this.#died)
    this.connection.removeListener('end', this.#died)
    this.enter('gone')
  }

  /**
   * To `gone`, without a word to the server. Keeps its listeners: an `error` without one would end the
   * process.
   */
  destroy(): void {
    this.enter('gone')
    this.connection.destroy()
  }

  readonly #died = (): void => {
    if (this.#state === 'idle') this.enter('gone')
    else if (this.#state === 'used') this.enter('lost')
    else if (this.#state === 'preparing') this.#diedEarly = true
    // While restoring, our statement under way fails and says so.
  }
}
