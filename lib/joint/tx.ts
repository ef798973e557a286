/**
 * `ctx.tx`: what the application does with the transaction of the attempt that is running. A facade; it decides
 * nothing. Knows sessions and MySQL; knows no HTTP.
 */
import { conflictError, SessionTxError } from '../errors.js'
import type { ConnectionHandle } from '../mysql/handle/connection-handle.js'
import type { FieldPacket, StatementOptions } from '../mysql/driver.js'
import type { MysqlResource } from '../mysql/resource.js'
import type { AttemptOrder } from '../transaction/retry.js'
import type { Interrupt } from '../transaction/interrupt.js'
import type { MaybePromise, Resource } from '../transaction/resource.js'
import type { Hook, Transaction } from '../transaction/transaction.js'
import type { WorkingCopy } from '../session/working-copy.js'

interface TxSetup {
  readonly transaction: Transaction
  readonly order: AttemptOrder
  readonly interrupt: Interrupt
  readonly retries: number
  /** Undefined: no pool was configured. */
  readonly mysql: () => MysqlResource | undefined
  readonly workingCopy: () => WorkingCopy
  /** Undefined: no pool was configured. */
  readonly connection: () => ConnectionHandle | undefined
}

/**
 * @example
 * app.use(async ctx => {
 *   const [rows] = await ctx.tx.query<RowDataPacket[]>('SELECT n FROM stock WHERE id = ?', [ctx.query.id])
 *   ctx.tx.afterCommit(() => audit('looked', ctx.query.id))
 *   ctx.body = rows
 * })
 */
export class Tx {
  readonly #setup: TxSetup

  constructor(setup: TxSetup) {
    this.#setup = setup
  }

  /** The same for all attempts of a request; what COMMIT_UNKNOWN and the events name. */
  get id(): string {
    return this.#setup.transaction.id
  }
  /** Which run of the handler this is, counted from 1. */
  get attempt(): number {
    return this.#setup.order.attempt
  }
  /** How many times the handler may run again. */
  get retries(): number {
    return this.#setup.retries
  }
  /** A lost race in this attempt ends the request with an error. */
  get isLastAttempt(): boolean {
    return this.#setup.order.isLast
  }
  /** Why the attempt before was rolled back; undefined in the first. */
  get lastError(): SessionTxError | undefined {
    return this.#setup.order.lastError
  }
  /** Aborts at the deadline and when the client goes away. */
  get signal(): AbortSignal {
    return this.#setup.interrupt.signal
  }

  /**
   * Runs a statement on the transaction's connection, which is taken at the first one.
   * @returns `[rows, fields]`, as mysql2/promise
   * @throws TRANSACTION_CLOSED when the attempt has ended or lost a race
   * @throws STORE_UNAVAILABLE when there is no connection to be had within `acquireMs`
   * @throws MISCONFIGURED without a `pool`
   * @throws the driver's own errors; a lost race among them leads to another run even if it is caught
   */
  query<T = unknown>(statement: string | StatementOptions, values?: unknown): Promise<[T, FieldPacket[]]> {
    return this.#mysql.run('query', statement, values, this.query) as Promise<[T, FieldPacket[]]>
  }

  /** The same as a prepared statement. */
  execute<T = unknown>(statement: string | StatementOptions, values?: unknown): Promise<[T, FieldPacket[]]> {
    return this.#mysql.run('execute', statement, values, this.execute) as Promise<[T, FieldPacket[]]>
  }

  /**
   * What looks like a mysql2 connection, in the callback flavour with `promise()` (its queries can be awaited, too), and
   * is this attempt's: for query builders that take a connection. Its transactions become savepoints over both sides, its `release()` and `end()` do
   * nothing. Each call gives another handle; two with a transaction each run one after the other.
   * @typeParam C mysql2's `PoolConnection`, for those who want its type
   * @throws MISCONFIGURED without a `pool`
   *
   * @example
   * router.post('/buy', async ctx => {
   *   const db = drizzle(ctx.tx.connection<PoolConnection>())
   *   await db.update(stock).set({ n: sql`n - 1` })
   * })
   */
  connection<C = ConnectionHandle>(): C {
    return (this.#setup.connection() ?? noDatabase()) as C
  }

  get #mysql(): MysqlResource {
    return this.#setup.mysql() ?? noDatabase()
  }

  /** Runs before the verdict is carried out, still inside: it may query and write. A throw rolls everything back. */
  beforeCommit(hook: Hook): void {
    this.#setup.transaction.beforeCommit(hook)
  }

  /**
   * Runs once, after both sides are committed and the response has finished or closed: for mail, payment, webhooks. Not
   * inside the transaction. Lost if the process dies; what must happen exactly once needs an outbox row.
   */
  afterCommit(hook: Hook): void {
    this.#setup.transaction.afterCommit(hook)
  }

  /** Runs when this attempt has been rolled back, before the next one starts. */
  afterRollback(hook: Hook): void {
    this.#setup.transaction.afterRollback(hook)
  }

  /** If `part` throws, session and rows go back to where they are now, and the error goes on. Nests. */
  savepoint<T>(part: () => MaybePromise<T>): Promise<T> {
    // The session takes part from the start: one that joined inside the part would be forgotten with it.
    this.#setup.workingCopy()
    return this.#setup.transaction.savepoint(part)
  }

  /** Answer as usual, but store nothing and do not run again. */
  doom(reason = 'the application asked for it'): void {
    this.#setup.transaction.doom(reason)
  }

  /**
   * Throws: rolls this attempt back and runs the handler again, within `retry.retries`.
   * @throws CONFLICT always
   */
  conflict(reason = 'the application asked for another run'): never {
    this.#setup.transaction.assertUsable()
    const conflict = conflictError(reason, { kind: 'requested', store: 'application' })
    this.#setup.transaction.lose(conflict)
    throw conflict
  }

  /** This session variable must still be as read here when the transaction commits, even if it is not written. */
  readCurrent(variable: string): void {
    this.#setup.workingCopy().keepCurrent(variable)
  }

  /** Takes a participant of your own into the attempt; the contract is the type {@link Resource}. */
  enlist(resource: Resource): void {
    assertResource(resource)
    this.#setup.transaction.enlist(resource)
  }
}

function noDatabase(): never {
  throw new SessionTxError('MISCONFIGURED', 'there is no database here: give sessionTx() a `pool`')
}

function assertResource(resource: Resource): void {
  const { phases, name } = resource
  const needed =
    phases === 2 ? (['prepare', 'commit', 'rollback'] as const) : (['commit', 'rollback'] as const)
  const missing = needed.filter(
    method => typeof (resource as Record<typeof method, unknown>)[method] !== 'function',
  )
  if ((phases === 1 || phases === 2) && missing.length === 0 && typeof name === 'string') return
  throw new TypeError(`tx.enlist(resource) needs { name, phases: 1 or 2, ${needed.join(', ')} }`)
}
