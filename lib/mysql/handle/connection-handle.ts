/**
 * `ctx.tx.connection()`: what looks like a mysql2 connection and is the transaction of an attempt. Query builders send
 * their statements here; their BEGIN, COMMIT, ROLLBACK and SAVEPOINT, as methods or as text, become savepoints over both
 * sides (nested-transactions.ts). The real connection stays out of reach: whatever comes when the attempt has ended is
 * refused, and nothing here can end it.
 *
 * A handle answers in the order in which it was asked, as a connection does.
 */
import { EventEmitter } from 'node:events'
import { SessionTxError } from '../../errors.js'
import type { Isolation } from '../lease/connection-settings.js'
import { controlOf, type Control, type IsolationLevel } from './control-text.js'
import type { CorePool, StatementOptions } from '../driver.js'
import { type AnswerCallback, HandleCommand } from './handle-command.js'
import type { Party, Step } from './nested-transactions.js'
import { PromiseHandle } from './promise-handle.js'
import type { StatementMethod } from '../statement/dispatch.js'
import type { Answer, MysqlResource } from '../resource.js'
import type { Statement } from '../statement/running-statement.js'

interface HandleSetup {
  readonly mysql: MysqlResource
  readonly pool: CorePool
  readonly isolation: Isolation
  assertUsable(): void
}

type Callback = (error: Error | null, ...rest: unknown[]) => void

/** As mysql2 answers a statement without rows. */
const DONE = Object.freeze({
  fieldCount: 0,
  affectedRows: 0,
  insertId: 0,
  info: '',
  serverStatus: 3,
  warningStatus: 0,
  changedRows: 0,
})

const STRENGTH: Readonly<Record<IsolationLevel | 'snapshot', number>> = Object.freeze({
  'read uncommitted': 0,
  'read committed': 1,
  'repeatable read': 2,
  snapshot: 2,
  serializable: 3,
})

const READS = /^[\s(]*(?:select|show|desc|describe|explain|values)\b/i

export class ConnectionHandle extends EventEmitter implements Party {
  readonly #setup: HandleSetup
  inFlight = 0
  activeAt: number
  /** What the next statement has to wait for before it is sent: the connection keeps the order of those it was sent. */
  #before: Promise<void> | undefined
  /** What the next BEGIN, COMMIT … has to wait for: everything before it has been answered. */
  #answered: Promise<unknown> = Promise.resolve()
  #config: object | undefined
  #promised: PromiseHandle | undefined

  constructor(setup: HandleSetup) {
    super()
    this.#setup = setup
    this.activeAt = setup.mysql.now()
  }

  /** As mysql2: `(sql, values?, callback?)`, or with an object of options in place of the text. */
  query(...args: unknown[]): HandleCommand {
    return this.#command('query', args, this.query)
  }
  execute(...args: unknown[]): HandleCommand {
    return this.#command('execute', args, this.execute)
  }

  #command(method: StatementMethod, args: unknown[], caller: (...args: never[]) => unknown): HandleCommand {
    const callback = args.find(one => typeof one === 'function') as AnswerCallback | undefined
    const [statement, values] = args.filter(one => one !== callback) as [string | StatementOptions, unknown]
    const command = new HandleCommand(textOf(statement))
    const held = callback === undefined ? command.ready() : undefined
    const sent = this.send(method, statement, values, caller, held)
    command.follow(sent, callback, () => !this.#setup.mysql.statements.settling)
    return command
  }

  /** Both flavours come here. `held`: sent when it resolves, and not at all if it rejects. */
  send(
    method: StatementMethod,
    statement: string | StatementOptions,
    values: unknown,
    caller: (...args: never[]) => unknown,
    held?: Promise<void>,
  ): Statement<Answer> {
    const text = textOf(statement)
    const control = controlOf(text)
    const answer =
      control === undefined
        ? this.#statement(method, statement, values, caller, held)
        : this.#control(control, caller, held)
    this.#active(1)
    answer.observe(
      () => this.#active(-1),
      () => this.#active(-1),
    )
    return answer
  }

  #active(change: number): void {
    this.inFlight += change
    this.activeAt = this.#setup.mysql.now()
  }

  #statement(
    method: StatementMethod,
    statement: string | StatementOptions,
    values: unknown,
    caller: (...args: never[]) => unknown,
    held: Promise<void> | undefined,
  ): Statement<Answer> {
    const { mysql } = this.#setup
    if (!mysql.nested.isEmpty && !READS.test(textOf(statement))) mysql.nested.wrote(this)
    let before = this.#before
    if (held !== undefined) {
      before = before === undefined ? held : Promise.all([before, held]).then(() => {})
      this.#queue(before)
    }
    const answer = mysql.run(method, statement, values, caller, before)
    this.#answered = answer.end
    return answer
  }

  /** Whatever is asked next is sent when `turn` has settled, well or not. */
  #queue(turn: Promise<void>): void {
    const settled = turn.catch(() => {})
    this.#before = settled
    void settled.then(() => {
      if (this.#before === settled) this.#before = undefined
    })
  }

  #control(
    control: Control,
    caller: (...args: never[]) => unknown,
    held: Promise<void> | undefined,
  ): Statement<Answer> {
    const { mysql } = this.#setup
    held?.catch(() => {}) // nothing of it is a stream
    if (control.kind === 'begin' || control.kind === 'level') mysql.nested.began(this)
    const overlaps = this.inFlight > 0
    const before = overlaps ? this.#answered : undefined
    let goOn = (): void => {}
    // Those that come next may pass one that has to wait for them.
    const passable = new Promise<void>(resolve => {
      goOn = resolve
    })
    const work = async (): Promise<Answer> => {
      if (before !== undefined) await before
      if (control.kind === 'level') this.#assertLevel(control.level)
      else await this.#step(control, overlaps, goOn)
      return [{ ...DONE }, undefined]
    }
    const answer = mysql.statements.beside(work, caller)
    const passed = Promise.race([answer.end, passable])
    this.#answered = passed
    this.#queue(passed)
    return answer
  }

  async #step(step: Step, overlaps: boolean, goOn: () => void): Promise<void> {
    const { nested } = this.#setup.mysql
    const follows = nested.mustFollow(this, step, overlaps)
    if (follows) goOn()
    const turn = nested.turn(this, step, follows)
    if (turn !== undefined) await this.#waiting(turn)
    await nested.carryOut(this, step)
  }

  /** Whoever waits for a turn does nothing: others may be waiting for this handle. */
  async #waiting(turn: Promise<void>): Promise<void> {
    this.inFlight -= 1
    try {
      await turn
    } finally {
      this.inFlight += 1
    }
  }

  /** A level that is no stronger than ours is what it gets anyway. */
  #assertLevel(asked: IsolationLevel | undefined): void {
    const { isolation, assertUsable } = this.#setup
    assertUsable()
    if (asked === undefined || STRENGTH[asked] <= STRENGTH[isolation]) return
    throw new SessionTxError(
      'TRANSACTION_CONTROL',
      `${asked.toUpperCase()} was asked for inside a request that runs under '${isolation}': the level is the whole ` +
        "request's, so ask for it there: sessionTx({ isolation }), tx.transactional(handler, { isolation })",
    )
  }

  beginTransaction(callback?: Callback): HandleCommand {
    return this.query('BEGIN', callback)
  }
  commit(callback?: Callback): HandleCommand {
    return this.query('COMMIT', callback)
  }
  rollback(callback?: Callback): HandleCommand {
    return this.query('ROLLBACK', callback)
  }

  /** The same handle in the shape of mysql2/promise. */
  promise(): PromiseHandle {
    this.#promised ??= new PromiseHandle(this)
    return this.#promised
  }

  /** The connection is the attempt's: it ends with it. */
  release(): void {}
  destroy(): void {}
  close(): void {}
  unprepare(): void {}
  end(callback?: Callback): void {
    if (callback !== undefined) process.nextTick(callback, null)
  }
  [Symbol.dispose](): void {}

  connect(callback?: Callback): void {
    this.#answerUsable(callback)
  }
  ping(callback?: Callback): void {
    this.#answerUsable(callback)
  }
  prepare(): never {
    return this.refuse('prepare')
  }
  changeUser(): never {
    return this.refuse('changeUser')
  }
  reset(): never {
    return this.refuse('reset')
  }

  /** @throws TypeError always */
  refuse(method: string): never {
    const instead = method === 'prepare' ? 'execute() prepares by itself' : 'the connection is the request’s'
    throw new TypeError(`connection.${method}() is not to be had inside a request: ${instead}`)
  }

  #answerUsable(callback: Callback | undefined): void {
    let error: unknown = null
    try {
      this.assertUsable()
    } catch (closed) {
      error = closed
    }
    if (callback !== undefined) process.nextTick(callback, error)
  }
  /** @throws TRANSACTION_CLOSED */
  assertUsable(): void {
    this.#setup.assertUsable()
  }

  /** A copy: query builders write to it. */
  get config(): object {
    this.#config ??= { ...this.#setup.pool.config.connectionConfig }
    return this.#config
  }
  /** Null before the first statement of the attempt. */
  get threadId(): number | null {
    return this.#setup.mysql.threadId
  }
  escape(value: unknown): string {
    return this.#setup.pool.escape(value)
  }
  escapeId(value: unknown): string {
    return this.#setup.pool.escapeId(value)
  }
  format(sql: string, values?: unknown): string {
    return this.#setup.pool.format(sql, values)
  }
}

function textOf(statement: string | StatementOptions): string {
  return typeof statement === 'string' ? statement : String(statement?.sql)
}
