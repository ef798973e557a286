/**
 * The transaction of one attempt: its state, its resources, its hooks, its savepoints, and the conflict that dooms it
 * to be run again. It decides nothing: whether it commits or rolls back is the caller's business (see joint/life.ts).
 * Knows no HTTP, no SQL, no session.
 *
 *   state         next states                        entered by
 *   active        ending                             (birth)
 *   ending        committed rolledBack unknown       commit(), rollback()
 *   committed     –                                  commit()
 *   rolledBack    –                                  commit(), rollback()
 *   unknown       committed rolledBack               commit(), and later, when it was found out after all
 */
import { attachError, SessionTxError } from '../errors.js'
import type { Clock } from './clock.js'
import type { Interrupt } from './interrupt.js'
import { isPending, type MaybePromise, type Resource } from './resource.js'
import {
  type CommitLimits,
  type Outcome,
  rollbackAll,
  type Settled,
  twoPhaseCommit,
} from './two-phase-commit.js'

export type TransactionState = 'active' | 'ending' | 'committed' | 'rolledBack' | 'unknown'
export type Hook = () => unknown

const NEXT: Readonly<Record<TransactionState, readonly TransactionState[]>> = Object.freeze({
  active: ['ending'],
  ending: ['committed', 'rolledBack', 'unknown'],
  committed: [],
  rolledBack: [],
  unknown: ['committed', 'rolledBack'],
})

/** A state that every resource can be put back into. Asked at most once; what succeeds just forgets it. */
export interface Savepoint {
  /**
   * Puts every resource back. Does nothing once the attempt has ended or lost a race: the whole of it is gone, and
   * saying so twice hides the conflict (MariaDB answers 1305 to ROLLBACK TO SAVEPOINT after a deadlock). Never throws:
   * where it fails, the attempt can only be rolled back, with `reason` as its error.
   */
  goBack(reason: unknown): Promise<void>
}

interface TransactionSetup {
  readonly id: () => string
  readonly clock: Clock
  readonly interrupt: Interrupt
}

export class Transaction {
  readonly #setup: TransactionSetup
  #state: TransactionState = 'active'
  #resources: Resource[] = []
  #before: Hook[] | undefined
  #afterCommit: Hook[] | undefined
  #afterRollback: Hook[] | undefined
  #conflict: SessionTxError | undefined
  #firstError: unknown
  #doomReason: string | undefined
  #goingBack: Promise<void> | undefined

  constructor(setup: TransactionSetup) {
    this.#setup = setup
  }

  get id(): string {
    return this.#setup.id()
  }
  get state(): TransactionState {
    return this.#state
  }
  /** The first conflict seen, even if the handler caught it: such an attempt is rolled back and run again. */
  get conflict(): SessionTxError | undefined {
    return this.#conflict
  }
  get doomed(): boolean {
    return this.#doomReason !== undefined
  }

  /** @throws TRANSACTION_CLOSED once the attempt has ended or lost a race, with the first error as cause */
  assertUsable(): void {
    if (this.#state === 'active' && this.#conflict === undefined) return
    throw this.closedError()
  }

  /** What every use after the end is refused with. */
  closedError(): SessionTxError {
    const why =
      this.#state === 'active'
        ? 'this attempt lost a race and will be rolled back; it cannot go on'
        : `this attempt has ended (${this.#state}); is something still running that nobody awaited? An await is missing, or a middleware calls next() without returning it`
    return new SessionTxError('TRANSACTION_CLOSED', why, {
      cause: this.#conflict ?? this.#firstError,
      transactionId: this.id,
    })
  }

  /**
   * Takes a participant into the attempt.
   * @throws MISCONFIGURED for a second one-phase resource: two decision points cannot be atomic
   */
  enlist(resource: Resource): void {
    this.assertUsable()
    const decider = this.#resources.find(other => other.phases === 1)
    if (resource.phases === 1 && decider !== undefined) {
      const message = `'${resource.name}' cannot join: '${decider.name}' is already the one-phase resource`
      throw new SessionTxError('MISCONFIGURED', `${message}, and only one can decide; make it two-phase`)
    }
    if (!this.has(resource)) this.#resources.push(resource)
  }

  has(resource: Resource): boolean {
    return this.#resources.includes(resource)
  }

  /** Remembers the first lost race; from here on the attempt can only be rolled back. */
  lose(conflict: SessionTxError): void {
    if (this.#conflict === undefined) this.#conflict = conflict
    else attachError(this.#conflict, conflict)
  }

  doom(reason: string): void {
    this.assertUsable()
    this.#doomReason ??= reason
  }

  beforeCommit(hook: Hook): void {
    this.assertUsable()
    this.#before = addHook(this.#before, hook, 'beforeCommit')
  }
  afterCommit(hook: Hook): void {
    this.assertUsable()
    this.#afterCommit = addHook(this.#afterCommit, hook, 'afterCommit')
  }
  afterRollback(hook: Hook): void {
    this.assertUsable()
    this.#afterRollback = addHook(this.#afterRollback, hook, 'afterRollback')
  }
  get hasBeforeCommit(): boolean {
    return this.#before !== undefined
  }
  /** True if nobody takes part: there is nothing to commit. */
  get isEmpty(): boolean {
    return this.#resources.length === 0
  }
  /** Hooks to run now that the outcome is known, outside the transaction. */
  get hooksAfter(): readonly Hook[] {
    if (this.#state === 'committed') return this.#afterCommit ?? []
    return this.#state === 'rolledBack' ? (this.#afterRollback ?? []) : []
  }

  /**
   * Runs the hooks that still belong to the transaction, also those added by hooks. Runs them before the verdict is
   * carried out, while queries and session writes are possible.
   */
  async runBeforeCommit(): Promise<void> {
    if (this.#before === undefined) return
    for (let place = 0; place < this.#before.length; place++) {
      const hook = this.#before[place]
      if (hook !== undefined) await hook()
    }
  }

  /** Runs `part`; if it throws, every resource goes back to how it was, and the error goes on to the caller. */
  async savepoint<T>(part: () => MaybePromise<T>): Promise<T> {
    const savepoint = await this.mark()
    try {
      return await part()
    } catch (error) {
      await savepoint.goBack(error)
      throw error
    }
  }

  /**
   * Marks the present state of every resource.
   * @throws TRANSACTION_CLOSED; MISCONFIGURED for a resource that has no savepoints
   */
  async mark(): Promise<Savepoint> {
    this.assertUsable()
    const present = [...this.#resources]
    const back: (() => MaybePromise<void>)[] = []
    for (const resource of present) {
      if (resource.savepoint === undefined) {
        const message = `'${resource.name}' has no savepoint(); tx.savepoint() needs one of every enlisted resource`
        throw new SessionTxError('MISCONFIGURED', message)
      }
      const mark = resource.savepoint()
      back.push(isPending(mark) ? await mark : mark)
    }
    return {
      goBack: async reason => {
        if (this.#state !== 'active' || this.#conflict !== undefined) return
        const before = this.#goingBack
        const going = this.#goBack(present, back, reason)
        this.#goingBack = before === undefined ? going : Promise.all([before, going]).then(() => {})
        await going
      },
    }
  }

  async #goBack(present: Resource[], back: (() => MaybePromise<void>)[], reason: unknown): Promise<void> {
    const later = this.#resources.filter(resource => !present.includes(resource))
    this.#resources = this.#resources.filter(resource => present.includes(resource))
    if (!(await rollbackAll(later, reason, this.#limits))) {
      this.fail(reason)
      return
    }
    for (const goBack of back.toReversed()) {
      try {
        await goBack()
      } catch (error) {
        // Half of the resources went back: this attempt must not commit any more.
        attachError(reason, error)
        this.fail(reason)
        return
      }
    }
  }

  /** From here on the attempt can only be rolled back, though it is no conflict. */
  fail(error: unknown): void {
    this.#firstError ??= error
  }
  get failure(): unknown {
    return this.#firstError
  }

  /** Carries out the verdict "commit". Never throws: the outcome says what happened. */
  async commit(): Promise<Outcome> {
    this.#enter('ending')
    // One that nobody awaited: until it has ended, some resources are back and some are not.
    if (this.#goingBack !== undefined) await this.#setup.interrupt.race(this.#goingBack).catch(() => {})
    const outcome =
      this.#firstError === undefined
        ? await twoPhaseCommit(this.#resources, this.#limits)
        : await this.#refuse(this.#firstError)
    if (outcome.kind !== 'committed') this.fail(outcome.error)
    this.#enter(outcome.kind)
    if (outcome.kind !== 'unknown' || outcome.settling === undefined) return outcome
    return { ...outcome, settling: outcome.settling.then(settled => this.#foundOut(settled)) }
  }

  #foundOut(settled: Settled): Settled {
    if (settled.kind !== 'unknown') this.#enter(settled.kind)
    return settled
  }

  async #refuse(error: unknown): Promise<Outcome> {
    await rollbackAll(this.#resources, error, this.#limits)
    return { kind: 'rolledBack', error }
  }

  /** Nobody took part, and nobody was there when it would have been committed. */
  commitNothing(): void {
    this.#enter('ending')
    this.#enter('committed')
  }

  /** Carries out the verdict "roll back". Never throws; what goes wrong is attached to `reason`. */
  async rollback(reason: unknown): Promise<void> {
    if (reason !== undefined) this.fail(reason)
    this.#enter('ending')
    if (this.#resources.length > 0) await rollbackAll(this.#resources, reason, this.#limits)
    this.#enter('rolledBack')
  }

  get #limits(): CommitLimits {
    const { clock, interrupt } = this.#setup
    return {
      interrupt,
      transactionId: () => this.id,
      now: () => clock.now(),
      within: (work, limitMs, timeout) => within(clock, work, limitMs, timeout),
    }
  }

  #enter(state: TransactionState): void {
    if (!NEXT[this.#state].includes(state)) {
      throw new TypeError(`a transaction that is ${this.#state} cannot become ${state}`)
    }
    this.#state = state
  }
}

function addHook(hooks: Hook[] | undefined, hook: Hook, name: string): Hook[] {
  if (typeof hook !== 'function') throw new TypeError(`tx.${name}(fn) needs a function, got ${typeof hook}`)
  if (hooks === undefined) return [hook]
  hooks.push(hook)
  return hooks
}

function within<T>(clock: Clock, work: Promise<T>, limitMs: number, timeout: () => Error): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = clock.after(limitMs, () => reject(timeout()))
    work.then(
      value => {
        timer.cancel()
        resolve(value)
      },
      (error: unknown) => {
        timer.cancel()
        reject(error)
      },
    )
  })
}
