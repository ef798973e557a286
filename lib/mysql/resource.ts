/**
 * InnoDB as a participant of a transaction (the contract is transaction/resource.ts): the one-phase resource that
 * decides. Takes a leased connection at the first statement of an attempt and never before. Knows no session and no
 * HTTP; who must know when statements are sent and answered is told through a {@link StatementObserver}.
 *
 * A connection goes back for reuse only after COMMIT or ROLLBACK was answered. One that may still be inside a
 * transaction, or that a statement left something on, is destroyed.
 */
import type { AnnouncedDecision } from '../transaction/announced-decision.js'
import type { Found, OnePhaseResource } from '../transaction/resource.js'
import type { Savepoint } from '../transaction/transaction.js'
import { Decision } from './commit-record/decision.js'
import { dispatch, type StatementMethod } from './statement/dispatch.js'
import type { FieldPacket, OkPacket, StatementOptions } from './driver.js'
import { endStatements, inTime } from './ending.js'
import { isFatal } from './errors.js'
import type { Lease } from './lease/lease.js'
import { NestedTransactions } from './handle/nested-transactions.js'
import { readOnlyError } from './read-only.js'
import type { MysqlResourceSetup } from './resource-setup.js'
import { answered, shielded } from './round-trip.js'
import type { Statement } from './statement/running-statement.js'
import { RunningStatements } from './statement/running-statements.js'
import { Safeguard } from './guard/safeguard.js'
import { SendingOrder } from './statement/sending-order.js'
import { sentText } from './statement/sent-text.js'
import { type StatementFacts, statementFacts } from './statement/facts.js'
import { StoreStatements } from './store-statements.js'

/** `[rows, fields]` */
export type Answer = [unknown, FieldPacket[] | undefined]

export class MysqlResource implements OnePhaseResource {
  readonly phases = 1
  readonly name = 'mysql'
  readonly #setup: MysqlResourceSetup
  #lease: Lease | undefined
  #leasing: Promise<Lease> | undefined
  /** Set only when nothing of ours has to be sent before the handler's statements. */
  #ready: Lease | undefined
  #turn: object | undefined
  #over = false
  #safeguard: Safeguard | undefined
  readonly #order = new SendingOrder()
  /** The connection must not be used again, not even for ROLLBACK. */
  #spoilt = false
  /** Something may be left on it that ROLLBACK does not take back. */
  #dirty = false
  #sent = 0
  /** Something was sent that may have changed a row. */
  #writes = false
  /** The server has answered something of this attempt, well or not. */
  #heard = false
  #decision: Decision | undefined
  #savepoints = 0
  readonly statements = new RunningStatements<Answer>()
  #nested: NestedTransactions | undefined

  constructor(setup: MysqlResourceSetup) {
    this.#setup = setup
  }

  /**
   * Runs one statement of the attempt: `[rows, fields]`, as mysql2/promise. `caller`: see {@link Statement}; `after`:
   * what must have ended before it is sent.
   */
  run(
    method: StatementMethod,
    sql: string | StatementOptions,
    values: unknown,
    caller: (...args: never[]) => unknown,
    after?: Promise<void>,
  ): Statement<Answer> {
    return this.statements.run(() => this.#start(method, sql, values), caller, after)
  }

  /** Transactions that query builders begin inside this one. */
  get nested(): NestedTransactions {
    const { transaction, clock, acquireMs } = this.#setup
    // Takes part from the first mark on, so that the commit asks for what was begun and not ended.
    const mark = (): Promise<Savepoint> => {
      if (!transaction.has(this)) transaction.enlist(this)
      return this.#setup.mark()
    }
    this.#nested ??= new NestedTransactions({ transaction, clock, waitMs: acquireMs, mark })
    return this.#nested
  }
  get threadId(): number | null {
    return this.#lease?.connection.threadId ?? null
  }
  now(): number {
    return this.#setup.clock.now()
  }

  async #start(method: StatementMethod, sql: string | StatementOptions, values: unknown): Promise<Answer> {
    this.#setup.transaction.assertUsable()
    const lease = this.#ready ?? (await this.#takeLease())
    while (this.#order.earlier !== undefined) await this.#order.earlier
    this.#assertGoing()
    const text = sentText(lease.connection, method, sql, values)
    const facts = statementFacts(text, lease.server.dialect)
    const send = (): Promise<Answer> => {
      this.#assertGoing()
      return this.#send(lease, method, sql, values, facts)
    }
    const looking = this.#safeguard?.vet(facts, this.#sent === 0, this.#savepoints > 0)
    return this.#order.send(looking, send, error => this.#noted(error, false))
  }

  /** Asked for in time: the handler may have returned while the connection came, and settle() waits for us. */
  #assertGoing(): void {
    const { transaction } = this.#setup
    if (this.#over || transaction.conflict !== undefined) throw transaction.closedError()
  }

  #takeLease(observed = true): Promise<Lease> {
    this.#leasing ??= this.#lend(observed)
    return this.#leasing
  }

  async #lend(observed: boolean): Promise<Lease> {
    const { broker, acquireMs, transaction, observer, readOnly } = this.#setup
    if (!transaction.has(this)) transaction.enlist(this)
    this.#over = false
    const turn = {}
    this.#turn = turn
    const lease = await broker.acquire(acquireMs)
    // Rolled back meanwhile, perhaps to a savepoint, with another one asked for since.
    if (this.#over || this.#turn !== turn) {
      lease.release()
      throw transaction.closedError()
    }
    this.#lease = lease
    this.#safeguard = this.#guarded(lease)
    const opening = observed ? observer.opening(this, lease) : undefined
    if (opening !== undefined) await opening
    else if (readOnly && observed) await this.control('START TRANSACTION READ ONLY')
    this.#ready = lease
    return lease
  }

  #guarded(lease: Lease): Safeguard {
    const { broker, transaction, nonTransactionalTables, escaped } = this.#setup
    return new Safeguard({
      policy: nonTransactionalTables,
      engines: broker.engines,
      escaped,
      lease,
      transactionId: () => transaction.id,
      control: sql => this.control(sql),
      fail: error => transaction.fail(error),
    })
  }

  /** Takes the connection now, without a statement. */
  async open(): Promise<void> {
    await this.#takeLease()
  }

  /** Opens the read view now; waits for no row lock. */
  async openView(): Promise<void> {
    await this.control(
      `START TRANSACTION WITH CONSISTENT SNAPSHOT${this.#setup.readOnly ? ', READ ONLY' : ''}`,
    )
  }

  /** A statement of our own, which nobody observes. */
  async control(sql: string): Promise<OkPacket> {
    const lease = this.#lease
    if (lease === undefined) throw new TypeError('there is no connection yet')
    this.#sent += 1
    const ok = await answered(lease.connection, sql).catch((error: unknown) => {
      throw this.#noted(error, false)
    })
    this.#heard = true
    this.#safeguard?.controlled(ok)
    return ok
  }

  /** Statements have been sent, or are about to be. */
  get isUsed(): boolean {
    return this.#leasing !== undefined
  }
  /** For a session store that keeps its rows here: statements of its own in this transaction. */
  async own(): Promise<StoreStatements> {
    const lease = this.#lease ?? (await this.#takeLease(false))
    const send = async (sql: string, writes: boolean): Promise<unknown> => {
      if (writes) this.#writes = true
      this.#sent += 1
      const [result] = await this.statements.run(() => this.#sendOwn(lease, sql), this.own)
      return result
    }
    return new StoreStatements({ server: lease.server, send })
  }

  async #sendOwn(lease: Lease, sql: string): Promise<Answer> {
    const result = await shielded(lease.connection, sql).catch((error: unknown) => {
      throw this.#noted(error, false)
    })
    this.#heard = true
    return [result, undefined]
  }

  #send(
    lease: Lease,
    method: StatementMethod,
    sql: string | StatementOptions,
    values: unknown,
    facts: StatementFacts,
  ): Promise<Answer> {
    const { observer } = this.#setup
    if (facts.dirties) this.#dirty = true
    if (!facts.readsOnly) this.#writes = true
    observer.sending(facts)
    this.#sent += 1
    return new Promise((resolve, reject) => {
      const onAnswer = (error: Error | null, rows?: unknown, fields?: unknown): void => {
        try {
          if (error === null) {
            this.#heard = true
            const escaped = this.#safeguard?.answered(facts, rows, fields)
            if (escaped !== undefined) this.#dirty = true
            const answer: Answer = [rows, fields as FieldPacket[] | undefined]
            const holding = observer.answered(facts, ...answer)
            if (escaped !== undefined) reject(escaped)
            else if (holding === undefined) resolve(answer)
            else holding.then(() => resolve(answer), reject)
          } else {
            observer.failed()
            const noted = this.#noted(error, facts.nowait)
            if (facts.hidden) this.#afterHidden(noted).then(reject, reject)
            else reject(noted)
          }
        } catch (conflict) {
          reject(conflict)
        }
      }
      try {
        dispatch(lease, method, sql, values, onAnswer)
      } catch (error) {
        // mysql2 throws at once for a value that it cannot bind; nothing was sent.
        observer.failed()
        reject(error)
      }
    })
  }

  /** What failed may have committed before it did. */
  async #afterHidden(noted: unknown): Promise<unknown> {
    const over = this.#spoilt || this.#setup.transaction.conflict !== undefined
    return over ? noted : (this.#safeguard?.failed(noted) ?? noted)
  }

  /**
   * Recognises a conflict where it is thrown, before any rollback: the attempt has lost even if the handler catches
   * this. A statement that says NOWAIT expects to fail: it counts only if nobody catches it.
   */
  #noted(error: unknown, nowait: boolean): unknown {
    const lease = this.#lease
    const moment = this.#heard ? 'later' : 'first'
    if (isFatal(error)) this.#spoilt = true
    else this.#heard = true
    const recognised = this.#setup.recognise(error, lease?.server.flavour ?? 'mariadb', moment)
    if (recognised === undefined)
      return this.#setup.readOnly ? readOnlyError(error, this.#setup.transaction.id) : error
    this.#safeguard?.lost()
    const { conflict, sticky, unfit } = recognised
    if (unfit !== 'nothing') this.#spoilt = true
    // A connection that was dead when it was first used is seldom the only one: the others wait as long as it did.
    if (unfit === 'server' || (unfit === 'connection' && moment === 'first')) lease?.distrustServer()
    if (sticky === 'always' || (sticky === 'unlessNowait' && !nowait)) this.#setup.transaction.lose(conflict)
    return error
  }

  /** Waits for statements in flight; a race that one of them lost, or a failure that was never awaited, fails the commit. */
  async settle(): Promise<void> {
    await this.statements.settle()
    const { conflict } = this.#setup.transaction
    // Lost only now, in a statement whose failure the handler did hear: what COMMIT would store is not the whole.
    if (conflict !== undefined) throw conflict
    const { unheard } = this.statements
    if (unheard !== undefined) throw unheard.error
    this.#nested?.assertEnded()
  }

  decides(): boolean {
    return this.#lease !== undefined && this.#sent > 0 && this.#writes && !this.#setup.readOnly
  }

  /** For a session store whose intents name what decides; undefined if nothing was changed here. */
  announce(): AnnouncedDecision | undefined {
    return this.#lease === undefined || !this.decides() ? undefined : this.#decisionOn(this.#lease).announce()
  }

  async commit(): Promise<void> {
    const lease = this.#lease
    this.#over = true
    if (lease === undefined) return
    if (this.decides()) await this.#decide(lease)
    else if (this.#sent > 0) return this.#endLater(lease)
    this.#letGo()
  }

  /** There is nothing to decide: what was read was read, whatever COMMIT is answered. So nobody waits for it. */
  #endLater(lease: Lease): void {
    const { clock, later } = this.#setup
    later(async () => {
      try {
        await inTime(clock, answered(lease.connection, 'COMMIT'))
      } catch {
        this.#spoilt = true // its transaction is open, for all we know, and holds nothing but a view
      }
      this.#letGo()
    })
  }

  #decisionOn(lease: Lease): Decision {
    const { transaction, broker, recognise } = this.#setup
    this.#decision ??= new Decision({
      lease,
      transactionId: transaction.id,
      record: broker.record,
      sendCommit: async () => {
        await answered(lease.connection, 'COMMIT')
      },
      recognise: error => recognise(error, lease.server.flavour, 'commit')?.conflict,
    })
    return this.#decision
  }

  async #decide(lease: Lease): Promise<void> {
    const decision = this.#decisionOn(lease)
    try {
      await decision.carryOut()
    } catch (error) {
      if (isFatal(error) || isFatal((error as Error).cause)) this.#spoilt = true
      if (decision.inDoubt) this.abandon()
      throw error
    }
  }

  /** What became of a COMMIT that was not answered. */
  findOut(): Found | Promise<Found> | undefined {
    return this.#decision?.findOut()
  }

  /** Nothing is sent on a destroyed connection, so a commit that is still at its record cannot go on. */
  abandon(): void {
    this.#over = true
    this.#spoilt = true
    this.#letGo()
  }

  async rollback(): Promise<void> {
    this.#over = true
    const lease = this.#lease
    if (lease === undefined) {
      this.#leasing = undefined
      return
    }
    try {
      const ended = await endStatements(this.statements, {
        clock: this.#setup.clock,
        isLate: () => this.#setup.interrupt.reason !== undefined,
        kill: () => this.#setup.broker.killQuery(lease),
      })
      if (!ended || this.#spoilt) return this.abandon()
      if (this.#sent > 0) await this.#undo(lease)
    } catch (error) {
      // Still inside a transaction, for all we know: the server ends it when the socket closes.
      this.abandon()
      throw error
    }
    this.#letGo()
  }

  async #undo(lease: Lease): Promise<void> {
    const { clock, transaction } = this.#setup
    const ok = await inTime(clock, answered(lease.connection, 'ROLLBACK'))
    const byServer = transaction.conflict?.conflict?.store === this.name
    if (this.#safeguard !== undefined) await inTime(clock, this.#safeguard.rolledBack(ok, byServer))
  }

  #letGo(): void {
    const lease = this.#lease
    this.#lease = undefined
    this.#leasing = undefined
    this.#ready = undefined
    this.#safeguard = undefined
    this.#sent = 0
    this.#writes = false
    this.#heard = false
    this.#setup.observer.ended()
    if (lease === undefined) return
    this.#decision?.end(this.#spoilt)
    if (this.#spoilt || this.#dirty) lease.destroy()
    else lease.release()
  }

  async savepoint(): Promise<() => Promise<void>> {
    // Enlisted by a query builder's BEGIN, and nothing was sent: going back is to roll back, and costs no SAVEPOINT.
    if (this.#leasing === undefined) return () => this.rollback()
    this.#savepoints += 1
    const name = `sessiontx_${this.#savepoints}`
    await this.#takeLease()
    const restore = this.#setup.observer.savepoint()
    await this.control(`SAVEPOINT ${name}`)
    return async () => {
      await this.statements.sentEnd()
      const ok = await this.control(`ROLLBACK TO SAVEPOINT ${name}`)
      await this.#safeguard?.wentBack(ok)
      restore()
    }
  }
}
