/**
 * InnoDB as a participant of a transaction (the contract is transaction/resource.ts): the one-phase resource that
 * decides. Takes a leased connection at the first statement of an attempt and never before. Knows no session and no
 * HTTP; who must know when statements are sent and answered is told through a {@link StatementObserver}.
 *
 * A connection goes back for reuse only after COMMIT or ROLLBACK was answered. One that may still be inside a
 * transaction, or that a statement left something on, is destroyed.
 */
import { conflictError, SessionTxError } from '../errors.js'
import type { Clock } from '../transaction/clock.js'
import type { Interrupt } from '../transaction/interrupt.js'
import type { OnePhaseResource } from '../transaction/resource.js'
import type { Transaction } from '../transaction/transaction.js'
import type { FieldPacket, StatementOptions } from './driver.js'
import { atCommit, findDatabaseError, type Flavour, type Sticky } from './errors.js'
import type { Lease, LeaseBroker } from './lease.js'
import { Statement } from './running-statement.js'
import { type StatementFacts, statementFacts } from './statement.js'

/** Hears of every statement of an attempt; may throw a conflict from any of its methods. */
export interface StatementObserver {
  /** Right before the first statement, with the connection at hand. */
  opening(resource: MysqlResource, lease: Lease): Promise<void> | undefined
  sending(facts: StatementFacts): void
  answered(facts: StatementFacts, rows: unknown, fields: readonly FieldPacket[] | undefined): void
  failed(): void
  /** The database's transaction is over; the next statement opens another one. */
  ended(): void
  /** Marks the present state; the function is called when the database went back to it. */
  savepoint(): () => void
}

/** Where in an attempt an error came; `first`: the server had answered nothing of it before. */
export type Moment = 'first' | 'later' | 'commit'

export interface Recognised {
  readonly conflict: SessionTxError
  readonly sticky: Sticky
  readonly unfit: 'nothing' | 'connection' | 'server'
}

interface MysqlResourceSetup {
  readonly broker: LeaseBroker
  readonly acquireMs: number
  readonly clock: Clock
  readonly transaction: Transaction
  readonly interrupt: Interrupt
  readonly observer: StatementObserver
  readonly readOnly: boolean
  /** The one question of retryability (joint/conflicts.ts). */
  recognise(error: unknown, flavour: Flavour, moment: Moment): Recognised | undefined
}

type StatementMethod = 'query' | 'execute'

/** How long a rollback waits for statements still running before it gives the connection up. */
const RUNNING_MS_MAX = 2_500
/** And for the answer to ROLLBACK. */
const ROLLBACK_MS_MAX = 2_500

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
  /** The connection must not be used again. */
  #spoilt = false
  #sent = 0
  /** The server has answered something of this attempt, well or not. */
  #heard = false
  #savepoints = 0
  readonly #running = new Set<Statement<unknown>>()
  readonly #failed: Statement<unknown>[] = []

  constructor(setup: MysqlResourceSetup) {
    this.#setup = setup
  }

  /** Runs one statement of the attempt: `[rows, fields]`, as mysql2/promise. `caller`: see {@link Statement}. */
  run(
    method: StatementMethod,
    sql: string | StatementOptions,
    values: unknown,
    caller: (...args: never[]) => unknown,
  ): Promise<[unknown, FieldPacket[] | undefined]> {
    const start = () => this.#start(method, sql, values)
    const statement = new Statement<[unknown, FieldPacket[] | undefined]>(start, caller)
    this.#running.add(statement)
    statement.settled(failed => {
      this.#running.delete(statement)
      if (failed) this.#failed.push(statement)
    })
    return statement
  }

  async #start(
    method: StatementMethod,
    sql: string | StatementOptions,
    values: unknown,
  ): Promise<[unknown, FieldPacket[] | undefined]> {
    const { transaction, observer } = this.#setup
    transaction.assertUsable()
    const lease = this.#ready ?? (await this.#takeLease())
    // Asked for in time: the handler may have returned while the connection came, and settle() waits for us.
    if (this.#over || transaction.conflict !== undefined) throw transaction.closedError()
    const facts = statementFacts(typeof sql === 'string' ? sql : sql.sql)
    if (facts.dirties) this.#spoilt = true
    observer.sending(facts)
    return this.#send(lease, method, sql, values, facts)
  }

  #takeLease(): Promise<Lease> {
    this.#leasing ??= this.#lend()
    return this.#leasing
  }

  async #lend(): Promise<Lease> {
    const { broker, acquireMs, transaction, observer, readOnly } = this.#setup
    transaction.enlist(this)
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
    const opening = observer.opening(this, lease)
    if (opening !== undefined) await opening
    else if (readOnly) await this.control('START TRANSACTION READ ONLY')
    this.#ready = lease
    return lease
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
  control(sql: string): Promise<void> {
    const lease = this.#lease
    if (lease === undefined) throw new TypeError('there is no connection yet')
    this.#sent += 1
    return answered(lease, sql).then(
      () => {
        this.#heard = true
      },
      (error: unknown) => {
        throw this.#noted(error, false)
      },
    )
  }

  #send(
    lease: Lease,
    method: StatementMethod,
    sql: string | StatementOptions,
    values: unknown,
    facts: StatementFacts,
  ): Promise<[unknown, FieldPacket[] | undefined]> {
    const { observer } = this.#setup
    this.#sent += 1
    return new Promise((resolve, reject) => {
      const onAnswer = (error: Error | null, rows?: unknown, fields?: unknown): void => {
        try {
          if (error === null) {
            this.#heard = true
            observer.answered(facts, rows, fields as FieldPacket[] | undefined)
            resolve([rows, fields as FieldPacket[] | undefined])
          } else {
            observer.failed()
            reject(this.#noted(error, facts.nowait))
          }
        } catch (conflict) {
          reject(conflict)
        }
      }
      const { connection } = lease
      try {
        if (values === undefined) connection[method](sql, onAnswer)
        else connection[method](sql, values, onAnswer)
      } catch (error) {
        // mysql2 throws at once for a value that it cannot bind; nothing was sent.
        observer.failed()
        reject(error)
      }
    })
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
    const { conflict, sticky, unfit } = recognised
    if (unfit !== 'nothing') this.#spoilt = true
    // A connection that was dead when it was first used is seldom the only one: the others wait as long as it did.
    if (unfit === 'server' || (unfit === 'connection' && moment === 'first')) lease?.distrustServer()
    if (sticky === 'always' || (sticky === 'unlessNowait' && !nowait)) this.#setup.transaction.lose(conflict)
    return error
  }

  /** Waits for statements in flight; a race that one of them lost, or a failure that was never awaited, fails the commit. */
  async settle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all([...this.#running].map(statement => statement.end))
    const { conflict } = this.#setup.transaction
    // Lost only now, in a statement whose failure the handler did hear: what COMMIT would store is not the whole.
    if (conflict !== undefined) throw conflict
    const unheard = this.#failed.find(statement => !statement.awaited)
    if (unheard !== undefined) throw unheard.error
  }

  async commit(): Promise<void> {
    const lease = this.#lease
    this.#over = true
    if (lease === undefined) return
    try {
      if (this.#sent > 0) await answered(lease, 'COMMIT')
    } catch (error) {
      throw this.#commitFailed(lease, error)
    }
    this.#letGo()
  }

  #commitFailed(lease: Lease, error: unknown): unknown {
    if (isFatal(error)) this.#spoilt = true
    const verdict = atCommit(error, lease.server.flavour)
    if (verdict !== 'unknown') {
      const recognised = this.#setup.recognise(error, lease.server.flavour, 'commit')
      if (recognised !== undefined) return recognised.conflict
      const details = { kind: 'connection', store: this.name } as const
      return verdict === 'neverSent'
        ? conflictError('the connection was lost before COMMIT', details, error)
        : error
    }
    this.abandon()
    const message = 'COMMIT was sent and not answered: whether the database committed is unknown'
    const transactionId = this.#setup.transaction.id
    return new SessionTxError('COMMIT_UNKNOWN', `${message} (transaction ${transactionId})`, {
      cause: error,
      transactionId,
    })
  }

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
    if (!(await this.#runningEnd())) return this.#cutOff(lease)
    if (this.#spoilt) return this.abandon()
    if (this.#sent === 0) return this.#letGo()
    try {
      await this.#inTime(answered(lease, 'ROLLBACK'))
    } catch (error) {
      // Still inside a transaction, for all we know: the server ends it when the socket closes.
      this.abandon()
      throw error
    }
    this.#letGo()
  }

  /** Ends what is still running, on the server too, so that its locks do not outlive us; then the connection goes. */
  async #cutOff(lease: Lease): Promise<void> {
    try {
      await this.#setup.broker.killQuery(lease)
    } finally {
      this.abandon()
    }
  }

  /** False if statements are still running after a while, or at the deadline: only losing the connection ends them. */
  async #runningEnd(): Promise<boolean> {
    if (this.#running.size === 0) return true
    if (this.#setup.interrupt.reason !== undefined) return false
    const ends = Promise.all([...this.#running].map(statement => statement.end)).then(() => true)
    let giveUp = (): void => {}
    const late = new Promise<false>(resolve => {
      giveUp = () => resolve(false)
    })
    const timer = this.#setup.clock.after(RUNNING_MS_MAX, () => giveUp())
    const ended = await Promise.race([ends, late])
    timer.cancel()
    return ended
  }

  /** A server that does not answer keeps neither the request nor the connection's place in the pool. */
  #inTime(work: Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      const late = (): void => reject(new Error(`ROLLBACK was not answered within ${ROLLBACK_MS_MAX} ms`))
      const timer = this.#setup.clock.after(ROLLBACK_MS_MAX, late)
      void work.then(resolve, reject).finally(() => timer.cancel())
    })
  }

  #letGo(): void {
    const lease = this.#lease
    this.#lease = undefined
    this.#leasing = undefined
    this.#ready = undefined
    this.#sent = 0
    this.#heard = false
    this.#setup.observer.ended()
    if (lease === undefined) return
    if (this.#spoilt) lease.destroy()
    else lease.release()
  }

  async savepoint(): Promise<() => Promise<void>> {
    this.#savepoints += 1
    const name = `sessiontx_${this.#savepoints}`
    await this.#takeLease()
    const restore = this.#setup.observer.savepoint()
    await this.control(`SAVEPOINT ${name}`)
    return async () => {
      await Promise.all([...this.#running].map(statement => statement.end))
      await this.control(`ROLLBACK TO SAVEPOINT ${name}`)
      restore()
    }
  }
}

/** 1792: our own START TRANSACTION READ ONLY refused the statement. */
const CANNOT_WRITE = 1792

function readOnlyError(error: unknown, transactionId: string): unknown {
  if (findDatabaseError(error)?.errno !== CANNOT_WRITE) return error
  const message = 'a read-only transaction cannot write to the database'
  return new SessionTxError('READ_ONLY', message, { cause: error, transactionId })
}

/** One statement without a result, unjudged. */
function answered(lease: Lease, sql: string): Promise<void> {
  return new Promise((resolve, reject) => {
    lease.connection.query(sql, error => (error === null ? resolve() : reject(error)))
  })
}

function isFatal(error: unknown): boolean {
  if (typeof error !== 'object' || error === null) return false
  const { fatal, message } = error as { fatal?: unknown; message?: unknown }
  return fatal === true || (typeof message === 'string' && message.includes('closed state'))
}
