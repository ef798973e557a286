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
import { AttemptErrors } from './attempt-errors.js'
import { type Decision, decisionOn } from './commit-record/decision.js'
import { dispatch, type StatementMethod } from './statement/dispatch.js'
import type { FieldPacket, OkPacket, StatementOptions } from './driver.js'
import { endStatements, inTime } from './ending.js'
import { isFatal } from './errors.js'
import { AttemptLease } from './lease/attempt-lease.js'
import type { Lease } from './lease/lease.js'
import { LockedTables } from './statement/locked-tables.js'
import { NestedTransactions } from './handle/nested-transactions.js'
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
  readonly #held: AttemptLease
  readonly #errors: AttemptErrors
  #leasing: Promise<Lease> | undefined
  /** Set only when nothing of ours has to be sent before the handler's statements. */
  #ready: Lease | undefined
  #safeguard: Safeguard | undefined
  readonly #order = new SendingOrder()
  #sent = 0
  /** Something was sent that may have changed a row. */
  #writes = false
  #decision: Decision | undefined
  #savepoints = 0
  readonly #locked = new LockedTables()
  readonly statements = new RunningStatements<Answer>()
  #nested: NestedTransactions | undefined

  constructor(setup: MysqlResourceSetup) {
    this.#setup = setup
    this.#held = new AttemptLease({ ...setup, closedError: () => setup.transaction.closedError() })
    this.#errors = new AttemptErrors(setup, this.#held)
  }

  get #lease(): Lease | undefined {
    return this.#held.current
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
  /** Names of the tables in which it has locked rows, or was about to, as far as the texts say. */
  get lockedTables(): readonly string[] {
    return this.#locked.names
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
    if (this.#held.isOver || transaction.conflict !== undefined) throw transaction.closedError()
  }

  #takeLease(observed = true): Promise<Lease> {
    this.#leasing ??= this.#lend(observed)
    return this.#leasing
  }

  async #lend(observed: boolean): Promise<Lease> {
    const { observer, readOnly } = this.#setup
    const lease = await this.#acquire()
    this.#safeguard = this.#guarded(lease)
    const opening = observed ? observer.opening(this, lease) : undefined
    if (opening !== undefined) await opening
    else if (readOnly && observed) await this.control('START TRANSACTION READ ONLY')
    this.#ready = lease
    return lease
  }

  #acquire(): Promise<Lease> {
    const { transaction } = this.#setup
    if (!transaction.has(this)) transaction.enlist(this)
    return this.#held.acquire()
  }

  /**
   * Takes the connection now, and waits on it for the turn among losers of all processes (mysql/lease/turn.ts), before there is a
   * view that could grow old meanwhile.
   */
  async takeTurn(tables: readonly string[]): Promise<void> {
    const lease = await this.#acquire()
    const turn = this.#held.turnOn(tables, lease)
    try {
      await this.statements.run(() => this.#sendOwn(lease, turn), this.takeTurn)
    } catch (error) {
      const { isSpoilt, isOver } = this.#held
      if (isSpoilt || isOver || this.#setup.transaction.conflict !== undefined) throw error
    }
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
    this.#errors.answered()
    this.#safeguard?.controlled(ok)
    return ok
  }

  /** Statements have been sent, or are about to be. */
  get isUsed(): boolean {
    return this.#leasing !== undefined
  }
  /** For a session store that keeps its rows here: statements of its own in this transaction. */
  async own(): Promise<StoreStatements> {
    const lease = (this.isUsed ? this.#lease : undefined) ?? (await this.#takeLease(false))
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
    this.#errors.answered()
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
    if (facts.dirties) this.#held.soil()
    if (!facts.readsOnly) this.#writes = true
    this.#locked.sending(facts)
    observer.sending(facts)
    this.#sent += 1
    return new Promise((resolve, reject) => {
      const onAnswer = (error: Error | null, rows?: unknown, fields?: unknown): void => {
        try {
          if (error === null) {
            this.#errors.answered()
            const escaped = this.#safeguard?.answered(facts, rows, fields)
            if (escaped !== undefined) this.#held.soil()
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
    const over = this.#held.isSpoilt || this.#setup.transaction.conflict !== undefined
    return over ? noted : (this.#safeguard?.failed(noted) ?? noted)
  }

  #noted(error: unknown, nowait: boolean): unknown {
    return this.#errors.noted(error, nowait, this.#safeguard)
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
    if (this.#lease === undefined || !this.decides()) return undefined
    return (this.#decision ??= decisionOn(this.#lease, this.#setup)).announce()
  }

  async commit(): Promise<void> {
    const lease = this.#lease
    this.#held.end()
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
        this.#held.spoil() // its transaction is open, for all we know, and holds nothing but a view
      }
      this.#letGo()
    })
  }

  async #decide(lease: Lease): Promise<void> {
    const decision = (this.#decision ??= decisionOn(lease, this.#setup))
    try {
      await decision.carryOut()
    } catch (error) {
      if (isFatal(error) || isFatal((error as Error).cause)) this.#held.spoil()
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
    this.#held.end()
    this.#held.spoil()
    this.#letGo()
  }

  async rollback(): Promise<void> {
    this.#held.end()
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
      if (!ended || this.#held.isSpoilt) return this.abandon()
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
    this.#leasing = undefined
    this.#ready = undefined
    this.#safeguard = undefined
    this.#sent = 0
    this.#writes = false
    this.#errors.ended()
    this.#setup.observer.ended()
    if (this.#lease !== undefined) this.#decision?.end(this.#held.isSpoilt)
    this.#held.letGo()
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
