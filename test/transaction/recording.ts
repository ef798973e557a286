/**
 * Resources that write down every call and can be told to fail, and a transaction on a clock that stands still. What is
 * asserted is always the whole log.
 */
import { Interrupt } from '../../lib/transaction/interrupt.js'
import type {
  Found,
  MaybePromise,
  OnePhaseResource,
  TwoPhaseResource,
} from '../../lib/transaction/resource.js'
import { Transaction } from '../../lib/transaction/transaction.js'
import { deferred } from '../support/barrier.js'
import { FakeClock } from '../support/clock.js'

export type Phase =
  | 'settle'
  | 'prepare'
  | 'commit'
  | 'release'
  | 'rollback'
  | 'abandon'
  | 'findOut'
  | 'doubt'
  | 'savepoint'
  | 'back'
/** Throwing at once, rejecting later and never answering are three ways to fail. */
export type Fault = 'throws' | 'rejects' | 'hangs'

export class Recording {
  readonly log: string[] = []
  readonly #faults = new Map<string, Fault>()
  readonly #hanging = deferred()

  /** `at` is a line of the log: `prepare session`. */
  fail(at: string, fault: Fault): void {
    this.#faults.set(at, fault)
  }

  /** Resolves when a call hangs. */
  get hanging(): Promise<void> {
    return this.#hanging.promise
  }

  two(name: string): TwoPhaseResource {
    const call = (phase: Phase) => (): MaybePromise<void> => this.#call(`${phase} ${name}`)
    return {
      name,
      phases: 2,
      settle: call('settle'),
      prepare: call('prepare'),
      commit: call('commit'),
      release: () => void this.#call(`release ${name}`),
      doubt: () => void this.#call(`doubt ${name}`),
      rollback: call('rollback'),
      savepoint: this.#savepoint(name),
    }
  }

  /** @param found what becomes of a decision in doubt; left out, there is no way to find out */
  one(name: string, found?: () => MaybePromise<Found> | undefined): OnePhaseResource {
    const call = (phase: Phase) => (): MaybePromise<void> => this.#call(`${phase} ${name}`)
    return {
      name,
      phases: 1,
      settle: call('settle'),
      commit: call('commit'),
      rollback: call('rollback'),
      abandon: () => void this.#call(`abandon ${name}`),
      ...(found !== undefined && {
        findOut: () => {
          void this.#call(`findOut ${name}`)
          return found()
        },
      }),
      savepoint: this.#savepoint(name),
    }
  }

  #savepoint(name: string): () => Promise<() => MaybePromise<void>> {
    return async () => {
      await this.#call(`savepoint ${name}`)
      return () => this.#call(`back ${name}`)
    }
  }

  #call(line: string): MaybePromise<void> {
    this.log.push(line)
    const fault = this.#faults.get(line)
    if (fault === undefined) return line.length % 2 === 0 ? undefined : Promise.resolve()
    if (fault === 'throws') throw new Error(line)
    if (fault === 'rejects') return Promise.reject(new Error(line))
    this.#hanging.resolve()
    return new Promise<void>(() => {})
  }
}

export const DEADLINE_MS = 10_000

export interface Stage {
  readonly clock: FakeClock
  readonly interrupt: Interrupt
  readonly transaction: Transaction
}

/** A transaction named `tx-1` of a request that has just begun. */
export function stage(clock = new FakeClock()): Stage {
  const id = (): string => 'tx-1'
  const interrupt = new Interrupt({ clock, deadlineMs: DEADLINE_MS, transactionId: id })
  return { clock, interrupt, transaction: new Transaction({ id, clock, interrupt }) }
}
