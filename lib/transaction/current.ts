/**
 * Which transaction is running here: one AsyncLocalStorage per process. It hangs on globalThis under `Symbol.for`,
 * because an ESM application with a CommonJS repository loads both builds of this package and both must see the same
 * transaction. Knows nothing of what a transaction is.
 */
import { AsyncLocalStorage } from 'node:async_hooks'

const STORAGE = Symbol.for('session-tx.current')

interface Holder {
  [STORAGE]?: AsyncLocalStorage<object | undefined>
}

/** By its registered name, as both builds must know each other's. */
const BEGIN = Symbol.for('session-tx.begin')

/** Stands for a transaction that has not begun; it does when somebody asks for the current one. */
export abstract class Latecomer {
  abstract begin(): object
  [BEGIN](): object {
    return this.begin()
  }
}

const holder = globalThis as Holder
holder[STORAGE] ??= new AsyncLocalStorage<object | undefined>()
const storage = holder[STORAGE]

/** Runs `work` with `transaction` as the current one, also across everything it awaits. */
export function runAs<T>(transaction: object | undefined, work: () => T): T {
  return storage.run(transaction, work)
}

/** What {@link runAs} was given here; nothing begins because of the question. */
export function here(): object | undefined {
  return storage.getStore()
}

/** The innermost transaction whose handler we are below, or undefined. */
export function current(): object | undefined {
  const found = storage.getStore() as { [BEGIN]?(): object } | undefined
  return found?.[BEGIN] === undefined ? found : found[BEGIN]()
}
