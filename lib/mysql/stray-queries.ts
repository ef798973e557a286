/**
 * Notices the application's direct use of a pool, and can refuse it. Knows nothing of requests: whoever
 * watches decides.
 *
 * The pool's three methods are replaced on the object itself, once however many watch, and put back exactly
 * as they were when the last one stops.
 */
import type { ConnectionCallback, CorePool } from './driver.js'

type PoolMethod = 'getConnection' | 'query' | 'execute'

/**
 * Called once per use, before it. An Error makes the use fail with it, as a failed connection attempt would.
 */
type OnUse = (method: PoolMethod) => 'allow' | Error

// On the function and under Symbol.for: both builds of this package can watch one pool.
const OWN_USE = Symbol.for('session-tx.ownUse')

/** Marks a callback for `getConnection` as ours, so that no watcher hears of the call. */
export function markOwnUse(callback: ConnectionCallback): ConnectionCallback {
  Object.defineProperty(callback, OWN_USE, { value: true })
  return callback
}

interface Watch {
  readonly watchers: Set<OnUse>
  readonly restore: () => void
}

const watches = new WeakMap<CorePool, Watch>()

/** @returns how to stop watching */
export function watchPool(pool: CorePool, onUse: OnUse): () => void {
  const watch = watches.get(pool) ?? install(pool)
  watches.set(pool, watch)
  const watcher: OnUse = method => onUse(method) // its own identity: one function may watch twice
  watch.watchers.add(watcher)
  return () => {
    if (!watch.watchers.delete(watcher) || watch.watchers.size > 0) return
    watches.delete(pool)
    watch.restore()
  }
}

function install(pool: CorePool): Watch {
  const watchers = new Set<OnUse>()
  const original = { getConnection: pool.getConnection, query: pool.query, execute: pool.execute }
  /**
   * Callbacks already judged: the pool calls getConnection again with one whose connection died in the queue.
   */
  const judged = new WeakSet<ConnectionCallback>()
  /** While `query` or `execute` runs: the answer for the getConnection that it calls, synchronously. */
  let verdict: 'allow' | Error | undefined

  const judge = (method: PoolMethod): 'allow' | Error => {
    let answer: 'allow' | Error = 'allow'
    for (const watcher of watchers) {
      const one = watcher(method)
      if (answer === 'allow') answer = one
    }
    return answer
  }

  const getConnection = (callback: ConnectionCallback): void => {
    if (typeof callback === 'function' && !(OWN_USE in callback) && !judged.has(callback)) {
      const answer = verdict ?? judge('getConnection')
      if (answer !== 'allow') return process.nextTick(callback, answer)
      judged.add(callback)
    }
    return original.getConnection.call(pool, callback)
  }

  /** The original makes the command and fails it itself, in the way that its callers know. */
  const within = <T>(answer: 'allow' | Error, call: () => T): T => {
    const outer = verdict
    verdict = answer
    try {
      return call()
    } finally {
      verdict = outer
    }
  }

  const query = (...args: unknown[]) => within(judge('query'), () => original.query.apply(pool, args))
  const execute = (...args: unknown[]) => {
    const answer = judge('execute')
    // mysql2's execute has no other way to fail than its callback.
    if (answer !== 'allow' && !args.some(one => typeof one === 'function')) throw answer
    return within(answer, () => original.execute.apply(pool, args))
  }

  const undo = [
    replace(pool, 'getConnection', getConnection),
    replace(pool, 'query', query),
    replace(pool, 'execute', execute),
  ]
  return { watchers, restore: () => undo.forEach(one => one()) }
}

/**
 * @returns how to put back what was there; where somebody else has replaced it since, ours stays below and
 * lets all pass
 */
function replace(pool: CorePool, name: PoolMethod, value: unknown): () => void {
  const before = Object.getOwnPropertyDescriptor(pool, name)
  Object.defineProperty(pool, name, {
    value,
    configurable: true,
    writable: true,
    enumerable: before?.enumerable ?? false,
  })
  return () => {
    if (pool[name] !== value) return
    if (before === undefined) Reflect.deleteProperty(pool, name)
    else Object.defineProperty(pool, name, before)
  }
}
