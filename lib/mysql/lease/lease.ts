/**
 * Connections of the application's pool that we keep between requests in our own settings, and who gets the
 * next one. Knows nothing of statements or transactions: whoever holds a lease leaves nothing open when it is
 * released.
 *
 * Why keep them: `autocommit=0` saves every transaction the round trip of BEGIN, but in the application's
 * hands it would lose the application's writes, and changing it back and forth costs more than BEGIN. So the
 * settings are put back just before a connection returns to the pool, and it returns when somebody else waits
 * for one, after a second of idleness, at close(), and at once if the application chose not to wait for
 * connections.
 */
import { isSessionTxError, SessionTxError } from '../../errors.js'
import type { Clock } from '../../transaction/clock.js'
import type { CommitRecord, Slot } from '../commit-record/commit-record.js'
import {
  detectServer,
  readIdentity,
  type Isolation,
  type ServerFacts,
  type ServerProfile,
} from './connection-settings.js'
import type { CoreConnection, CorePool } from '../driver.js'
import { Engines } from '../guard/engines.js'
import { classify, isAccessDenied } from '../errors.js'
import { IdleLeases } from './idle-leases.js'
import { LeasedConnection, type LeaseState } from './leased-connection.js'
import { PoolQueue } from './pool-queue.js'
import type { PreparedStatements } from './prepared-statements.js'
import { killQuery } from '../side-connection.js'
import { WaitingLine } from './waiting-line.js'

export interface LeaseBrokerOptions {
  readonly isolation: Isolation
  readonly lockWaitMs: number
  readonly clock: Clock
  /** Undefined: no commit record is kept. */
  readonly record?: CommitRecord | undefined
}

/** A connection in one request's hands. Ends once: whatever is called second does nothing. */
export class Lease {
  readonly connection: CoreConnection
  readonly prepared: PreparedStatements
  readonly server: ServerFacts
  /** The database that the connection is in; '' if in none. */
  readonly schema: string
  readonly #end: (leased: LeasedConnection, clean: boolean) => void
  readonly #distrust: (serverIdentity: string) => void
  #leased: LeasedConnection | undefined

  constructor(
    leased: LeasedConnection,
    server: ServerFacts,
    end: (leased: LeasedConnection, clean: boolean) => void,
    distrust: (serverIdentity: string) => void,
  ) {
    this.connection = leased.connection
    this.prepared = leased.prepared
    this.server = server
    this.schema = leased.schema
    this.#leased = leased
    this.#end = end
    this.#distrust = distrust
  }

  /** COMMIT or ROLLBACK was answered and nothing else is left on it: the next request gets it as it is. */
  release(): void {
    const leased = this.#leased
    this.#leased = undefined
    if (leased !== undefined) this.#end(leased, true)
  }

  /** Dirty or in doubt: nobody gets it any more. */
  destroy(): void {
    const leased = this.#leased
    this.#leased = undefined
    if (leased !== undefined) this.#end(leased, false)
  }

  /**
   * Nobody gets a connection to its server any more that was made before now: after a failover they lead to the
   * old primary, and after a restart to nobody. Destroy it afterwards.
   */
  distrustServer(): void {
    if (this.#leased !== undefined) this.#distrust(this.#leased.serverIdentity)
  }

  /** Its socket has ended; only destroy() is left to do. */
  get lost(): boolean {
    return this.#leased?.state === 'lost'
  }

  /** The slot for this transaction's commit record; nobody else gets it until it is put back. */
  takeSlot(): Slot | undefined {
    const slot = this.#leased?.slot
    if (this.#leased !== undefined) this.#leased.slot = undefined
    return slot
  }
  putBack(slot: Slot): void {
    if (this.#leased !== undefined) this.#leased.slot = slot
  }

  /** When it was known to be alive, on the broker's clock. */
  get since(): number {
    return this.#leased?.since ?? 0
  }

  /** Empty once the lease has ended. */
  get serverIdentity(): string {
    return this.#leased?.serverIdentity ?? ''
  }
}

export class LeaseBroker {
  readonly engines: Engines
  readonly #pool: CorePool
  readonly #options: LeaseBrokerOptions
  readonly #queue: PoolQueue
  readonly #idle: IdleLeases
  readonly #waiters: WaitingLine<Lease>
  readonly #counts: Record<LeaseState, number> = {
    preparing: 0,
    idle: 0,
    used: 0,
    lost: 0,
    restoring: 0,
    gone: 0,
  }
  /**
   * Calls of pool.getConnection that are not answered yet. They belong to nobody: an answer goes to the first
   * waiter.
   */
  #asked = 0
  /**
   * Servers whose older connections are not trusted. A new connection that reaches such a server ends that: the
   * address still leads there, so the older ones are as good as that one.
   */
  readonly #distrusted = new Set<string>()
  #detecting: Promise<ServerProfile> | undefined
  #server: ServerFacts | undefined
  #closed = false
  #onQuiet: (() => void)[] = []

  constructor(pool: CorePool, options: LeaseBrokerOptions) {
    this.#pool = pool
    this.#options = options
    this.engines = new Engines(options.clock)
    this.#waiters = new WaitingLine(options.clock)
    this.#idle = new IdleLeases(options.clock, leased => void this.#giveBack(leased))
    this.#queue = new PoolQueue(pool, () => {
      const idle = this.#idle.takeOldest()
      if (idle !== undefined) void this.#giveBack(idle)
    })
  }

  get record(): CommitRecord | undefined {
    return this.#options.record
  }

  get lockWaitMs(): number {
    return this.#options.lockWaitMs
  }

  /** What is known of the server; undefined before the first lease. */
  get server(): ServerFacts | undefined {
    return this.#server
  }

  /**
   * A connection in our settings with nothing open on it.
   *
   * @throws STORE_UNAVAILABLE after `waitMs`, or when the database does not answer; the driver's own error
   * for wrong credentials or an unknown database; `signal.reason`
   */
  acquire(waitMs: number, signal?: AbortSignal): Promise<Lease> {
    if (signal?.aborted === true) return Promise.reject(signal.reason)
    const idle = this.#idle.takeNewest()
    if (idle !== undefined) return Promise.resolve(this.#lend(idle))
    if (this.#closed) return Promise.reject(unavailable('connections are no longer lent: close() was called'))
    const lease = this.#waiters.join(waitMs, signal, () => this.#tooLong(waitMs))
    this.#queue.attach()
    this.#ask()
    return lease
  }

  /**
   * Ends the statement that runs on a lease, on the server that runs it. Call it while the statement is known
   * to be unanswered, and destroy the lease afterwards: KILL may arrive late and would hit the next
   * statement.
   *
   * @returns false if there was no such thread any more, or if a new connection reaches another server (a
   * load balancer)
   */
  async killQuery(lease: Lease): Promise<boolean> {
    const identity = lease.serverIdentity
    const profile = await this.#detecting
    if (identity === '' || profile === undefined) return false
    return killQuery(this.#pool, lease.connection, connection => readIdentity(connection, profile), identity)
  }

  /**
   * Gives back what is idle, and from now on whatever is released. Resolves when the pool has got the idle
   * ones.
   */
  async close(): Promise<void> {
    this.#closed = true
    this.#queue.detach()
    this.#waiters.refuseAll(unavailable('close() was called while waiting for a connection'))
    for (const leased of this.#idle.takeAll()) void this.#giveBack(leased)
    if (this.#counts.preparing + this.#counts.restoring > 0)
      await new Promise<void>(resolve => this.#onQuiet.push(resolve))
  }

  #lend(leased: LeasedConnection): Lease {
    leased.enter('used')
    return new Lease(leased, this.#server as ServerFacts, this.#end, this.#distrust)
  }

  readonly #end = (leased: LeasedConnection, clean: boolean): void => {
    if (!clean || leased.state === 'lost' || this.#distrusted.has(leased.serverIdentity)) leased.destroy()
    else if (this.engines.outdated && !this.#closed) void this.#renewList(leased)
    else this.#place(leased)
  }

  /** Under load connections go from hand to hand, and none is prepared anew: then one of them asks in between. */
  async #renewList(leased: LeasedConnection): Promise<void> {
    try {
      await this.engines.load(leased.connection)
    } catch {
      return leased.destroy()
    }
    this.#place(leased)
  }

  readonly #distrust = (serverIdentity: string): void => {
    this.#distrusted.add(serverIdentity)
    for (const leased of this.#idle.takeAll()) {
      if (leased.serverIdentity === serverIdentity) leased.destroy()
      else this.#idle.push(leased)
    }
  }

  /** Where a connection goes that nobody holds: a fresh one, or one that was released. */
  #place(leased: LeasedConnection): void {
    const forTheApplication = this.#queue.foreignWaits(this.#counts.restoring)
    if (
      this.#closed ||
      !this.#pool.config.waitForConnections ||
      forTheApplication ||
      !this.#records(leased)
    ) {
      // A fresh one goes to the request it was fetched for, all the same.
      if (leased.state === 'used' || this.#waiters.size === 0) return void this.#giveBack(leased)
    }
    if (this.#waiters.serveFirst(() => this.#lend(leased))) return
    leased.enter('idle')
    this.#idle.push(leased)
  }

  /**
   * False: its slot is being settled, or asked for, and there is no other, or has rested for so long that its row has to be
   * looked after: set up anew.
   */
  #records(leased: LeasedConnection): boolean {
    const { record } = this.#options
    if (record === undefined) return true
    leased.slot ??= record.spare()
    return leased.slot !== undefined && record.isFresh(leased.slot)
  }

  /**
   * Restores the settings, then lets the pool have it. A connection that fails at that is destroyed: nobody
   * is told.
   */
  async #giveBack(leased: LeasedConnection): Promise<void> {
    try {
      await leased.restore()
    } catch {
      return leased.destroy()
    }
    leased.letGo()
    this.#queue.give(leased.connection)
  }

  readonly #moved = (leased: LeasedConnection, from: LeaseState, to: LeaseState): void => {
    this.#counts[from] -= 1
    this.#counts[to] += 1
    if (to !== 'gone') return
    if (from === 'idle') this.#idle.remove(leased)
    if (leased.slot !== undefined) this.#options.record?.free(leased.slot)
    // Whoever calls gives it to the pool, or destroys it, before a microtask can run; then its place there is
    // free.
    queueMicrotask(() => this.#ask())
    if (this.#counts.preparing + this.#counts.restoring === 0)
      for (const quiet of this.#onQuiet.splice(0)) queueMicrotask(quiet)
  }

  /**
   * Asks the pool for as many connections as there are waiters without one on its way, but for no more than
   * it could give: all others are ours, and are handed on directly. So under our own load its queue stays
   * empty, and whoever queues there is the application.
   */
  #ask(): void {
    const { connectionLimit, waitForConnections } = this.#pool.config
    const ours =
      this.#counts.preparing +
      this.#counts.idle +
      this.#counts.used +
      this.#counts.lost +
      this.#counts.restoring
    const places =
      connectionLimit === 0 || !waitForConnections ? Number.POSITIVE_INFINITY : connectionLimit - ours
    while (this.#asked < Math.min(this.#waiters.size - this.#counts.preparing, places)) {
      this.#asked += 1
      this.#queue.ask((error, connection, fresh) => this.#answered(error, connection, fresh))
    }
  }

  #answered(error: Error | null, connection: CoreConnection | undefined, fresh: boolean): void {
    this.#asked -= 1
    if (connection === undefined) {
      this.#waiters.refuseYoungest(refusal(error))
      this.#ask()
    } else if (this.#waiters.size <= this.#counts.preparing) {
      this.#queue.give(connection) // whoever wanted it has one, or has gone; nothing was changed on it
    } else {
      void this.#prepare(connection, fresh)
    }
  }

  async #prepare(connection: CoreConnection, fresh: boolean): Promise<void> {
    this.#counts.preparing += 1
    const leased = new LeasedConnection(connection, this.#moved)
    try {
      const profile = await this.#profile(connection)
      await leased.setUp(profile)
      leased.since = this.#options.clock.now()
      if (fresh) this.#distrusted.delete(leased.serverIdentity)
      else if (this.#distrusted.has(leased.serverIdentity)) return leased.destroy() // the next one is asked for
      if (this.engines.outdated) await this.engines.load(connection)
      if (this.#options.record !== undefined) leased.slot = await this.#options.record.slotFor(connection)
      leased.assertAlive()
      this.#server = profile.facts
    } catch (error) {
      leased.destroy()
      // An old connection may have died in the pool unnoticed; the pool drops it, so this happens once per
      // connection.
      const died = classify(error, 'mysql')?.kind === 'connection'
      if (fresh || !died) this.#waiters.refuseYoungest(refusal(error))
      return
    }
    this.#place(leased)
  }

  /**
   * Asked once per pool; those that come meanwhile wait for that answer, and ask themselves if there is none.
   */
  async #profile(connection: CoreConnection): Promise<ServerProfile> {
    while (this.#detecting !== undefined) {
      const profile = await this.#detecting.catch(() => undefined)
      if (profile !== undefined) return profile
    }
    const detecting = detectServer(connection, this.#options.isolation, this.#options.lockWaitMs)
    this.#detecting = detecting
    detecting.catch(() => {
      this.#detecting = undefined
    })
    return detecting
  }

  #tooLong(waitMs: number): SessionTxError {
    const { connectionLimit } = this.#pool.config
    const held = this.#counts.used + this.#counts.lost
    const limit = connectionLimit === 0 ? 'no limit' : `connectionLimit ${connectionLimit}`
    return unavailable(
      `no connection within ${waitMs} ms: the pool has ${limit}, ` +
        `${held} of its connections are held by requests, and ${this.#waiters.size} more wait`,
    )
  }
}

function refusal(cause: unknown): unknown {
  if (isAccessDenied(cause) || (isSessionTxError(cause) && cause.code === 'MISCONFIGURED')) return cause
  const { message, code } = cause as { message?: string; code?: string }
  // An AggregateError has no message.
  return unavailable(`no connection to the database: ${message || code}`, cause)
}

function unavailable(message: string, cause?: unknown): SessionTxError {
  return new SessionTxError('STORE_UNAVAILABLE', message, { cause })
}
