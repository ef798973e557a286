/**
 * Transactions within the transaction of an attempt: what query builders begin, commit and roll back on its connection
 * handles becomes a savepoint over both sides. Knows nothing of connections or of SQL.
 *
 * There is one connection, so savepoints are a stack, and only one handle at a time may have a transaction open: the
 * others wait for their turn, first come, first served. Two of them interleaved would take each other's work back.
 * Nobody can tell "at the same time" from "inside of it, on another handle", which would wait for ever; so whoever waits
 * while the open one does nothing for `waitMs` is refused.
 */
import { SessionTxError } from '../../errors.js'
import type { Clock, Timer } from '../../transaction/clock.js'
import type { Savepoint, Transaction } from '../../transaction/transaction.js'
import type { Control } from './control-text.js'

/** A connection handle, as far as others wait for it. */
export interface Party {
  /** Sent and not answered. */
  readonly inFlight: number
  /** When it last sent something or got an answer, on the clock of the attempt. */
  readonly activeAt: number
}

export type Step = Exclude<Control, { readonly kind: 'level' }>

type Rollback = Extract<Step, { readonly kind: 'rollback' } | { readonly kind: 'rollbackTo' }>

/** A level whose mark is on its way: what is sent now comes after it. */
interface Marking {
  readonly owner: Party
  /** Another handle wrote since; going back takes that back, too. */
  foreign: boolean
}

interface Level extends Marking {
  readonly kind: 'begin' | 'savepoint'
  /** Of a savepoint; BEGIN has none. */
  readonly name: string
  readonly savepoint: Savepoint
}

interface Waiter {
  readonly owner: Party
  readonly goOn: () => void
}

interface NestedSetup {
  readonly transaction: Transaction
  readonly clock: Clock
  readonly waitMs: number
  /** Marks the present state of both sides. */
  mark(): Promise<Savepoint>
}

export class NestedTransactions {
  readonly #setup: NestedSetup
  readonly #levels: Level[] = []
  #marking: Marking | undefined
  /** Whose turn it is; undefined while nobody has a transaction open. */
  #holder: Party | undefined
  readonly #line = new Set<Waiter>()
  readonly #began = new WeakSet<Party>()

  constructor(setup: NestedSetup) {
    this.#setup = setup
  }

  /** It has asked for a transaction of its own. */
  began(owner: Party): void {
    this.#began.add(owner)
  }

  /** BEGIN came while something of the same handle was on its way: not inside its open transaction, but beside it. */
  mustFollow(owner: Party, step: Step, overlaps: boolean): boolean {
    return step.kind === 'begin' && overlaps && this.#isOpen(owner)
  }

  /**
   * Resolves when it is `owner`'s turn, which ends with {@link carryOut}.
   * @throws TRANSACTION_CONTROL when the one whose turn it is does nothing for `waitMs`; TRANSACTION_CLOSED
   */
  turn(owner: Party, step: Step, follows: boolean): Promise<void> | undefined {
    const ends = step.kind === 'commit' || step.kind === 'rollback'
    if (!follows && (ends || this.#holder === owner)) return undefined
    if (this.#holder === undefined) {
      this.#holder = owner
      return undefined
    }
    return this.#wait(owner)
  }

  #wait(owner: Party): Promise<void> {
    const { clock, waitMs, transaction } = this.#setup
    return new Promise((resolve, reject) => {
      let timer: Timer | undefined
      const waiter: Waiter = {
        owner,
        goOn: () => {
          timer?.cancel()
          resolve()
        },
      }
      const refuse = (error: unknown): void => {
        this.#line.delete(waiter)
        reject(error)
      }
      const watch = (): void => {
        try {
          transaction.assertUsable()
        } catch (closed) {
          refuse(closed)
          return
        }
        const idleMs = clock.now() - (this.#holder?.activeAt ?? clock.now())
        const busy = (this.#holder?.inFlight ?? 0) > 0
        if (!busy && idleMs >= waitMs) refuse(this.#stalled())
        else timer = clock.after(busy ? waitMs : waitMs - idleMs, watch)
      }
      timer = clock.after(waitMs, watch)
      this.#line.add(waiter)
    })
  }

  #stalled(): SessionTxError {
    return this.#refusal(
      `a transaction was begun while another one of this request is open, and that one has done nothing for ` +
        `${this.#setup.waitMs} ms. Was it begun inside of the other? All of a request is on one connection: begin a ` +
        "nested transaction through the outer one's own object (trx.transaction(…), tx.transaction(…), { transaction })",
    )
  }

  /** Does what the statement says. For waiting see {@link turn}. */
  async carryOut(owner: Party, step: Step): Promise<void> {
    try {
      if (step.kind === 'rollback' || step.kind === 'rollbackTo') {
        if (!this.#isLost) await this.#rollBack(owner, step)
        else if (step.kind === 'rollback') this.#forget(owner)
        return
      }
      this.#setup.transaction.assertUsable()
      if (step.kind === 'begin') {
        await this.#push('begin', owner, '')
      } else if (step.kind === 'commit') this.#forget(owner)
      else if (step.kind === 'release') this.#levels.splice(this.#placeOf(owner, step.name))
      else await this.#push('savepoint', owner, step.name)
    } finally {
      this.#giveTurn(owner)
    }
  }

  /** The whole attempt goes back, or has gone: so has this part of it. */
  get #isLost(): boolean {
    const { conflict, state } = this.#setup.transaction
    return state === 'rolledBack' || (conflict !== undefined && state !== 'committed')
  }

  async #push(kind: Level['kind'], owner: Party, name: string): Promise<void> {
    const marking: Marking = { owner, foreign: false }
    this.#marking = marking
    try {
      const savepoint = await this.#setup.mark()
      this.#levels.push({ kind, owner, name, savepoint, foreign: marking.foreign })
    } finally {
      this.#marking = undefined
    }
  }

  #forget(owner: Party): void {
    const place = this.#lastBegin(owner)
    if (place >= 0) this.#levels.splice(place)
  }

  async #rollBack(owner: Party, step: Rollback): Promise<void> {
    this.#setup.transaction.assertUsable()
    const isNamed = step.kind === 'rollbackTo'
    const place = isNamed ? this.#placeOf(owner, step.name) : this.#lastBegin(owner)
    if (place < 0) {
      // After its own COMMIT, ROLLBACK or refused BEGIN it says nothing; else somebody means the request's transaction.
      if (this.#began.has(owner)) return
      throw this.#refusal(
        'ROLLBACK without BEGIN would mean the transaction of the whole request: throw, or call ctx.tx.doom()',
      )
    }
    const undone = this.#levels.splice(place)
    const [first] = undone
    if (first === undefined) return
    await this.#goBack(first.savepoint)
    if (undone.some(({ foreign }) => foreign)) this.#setup.transaction.fail(this.#tookMore())
    if (!isNamed || this.#setup.transaction.state !== 'active') return
    // The savepoint stays, and a mark is used once.
    await this.#push(first.kind, owner, first.name)
  }

  async #goBack(savepoint: Savepoint): Promise<void> {
    const { transaction } = this.#setup
    const reason = new Error('a transaction within the transaction of the request could not be rolled back')
    await savepoint.goBack(reason)
    if (transaction.failure === reason) throw reason
  }

  #tookMore(): SessionTxError {
    return this.#refusal(
      'a transaction within the request was rolled back, and with it a statement that was sent through another ' +
        "connection while it was open: send it through the transaction's own object, or before or after it",
    )
  }

  /** A statement that may write is sent: whoever goes back behind this moment takes it back. */
  wrote(by: Party): void {
    if (this.#marking !== undefined && this.#marking.owner !== by) this.#marking.foreign = true
    for (const level of this.#levels) if (level.owner !== by) level.foreign = true
  }
  get isEmpty(): boolean {
    return this.#levels.length === 0 && this.#marking === undefined
  }

  /** @throws TRANSACTION_CONTROL if a transaction was begun and neither committed nor rolled back */
  assertEnded(): void {
    if (!this.#levels.some(({ kind }) => kind === 'begin')) return
    throw this.#refusal(
      'a transaction was begun within the request and neither committed nor rolled back when the handler ended. ' +
        'Is an await missing?',
    )
  }

  #giveTurn(owner: Party): void {
    if (this.#holder !== owner || this.#isOpen(owner)) return
    const [next] = this.#line
    this.#holder = next?.owner
    if (next === undefined) return
    this.#line.delete(next)
    next.goOn()
  }

  #isOpen(owner: Party): boolean {
    return this.#lastBegin(owner) >= 0
  }
  #lastBegin(owner: Party): number {
    return this.#levels.findLastIndex(level => level.owner === owner && level.kind === 'begin')
  }
  #placeOf(owner: Party, name: string): number {
    const place = this.#levels.findLastIndex(level => level.owner === owner && level.name === name)
    if (place >= 0 && place > this.#lastBegin(owner)) return place
    throw Object.assign(new Error(`SAVEPOINT ${name} does not exist`), {
      code: 'ER_SP_DOES_NOT_EXIST',
      errno: 1305,
      sqlState: '42000',
      sqlMessage: `SAVEPOINT ${name} does not exist`,
    })
  }

  #refusal(message: string): SessionTxError {
    return new SessionTxError('TRANSACTION_CONTROL', message, { transactionId: this.#setup.transaction.id })
  }
}
