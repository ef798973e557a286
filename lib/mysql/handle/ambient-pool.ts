/**
 * `ambientPool(pool)`: looks like the mysql2 pool. Inside a request its statements are the request's, on the handles of
 * its transaction; elsewhere they are the pool's. Knows attempts only by what it asks of them, since the other build of
 * this package may have made them.
 */
import { current, runAs } from '../../transaction/current.js'
import type { ConnectionHandle } from './connection-handle.js'
import {
  BEHIND_AMBIENT,
  type ConnectionCallback,
  type CorePool,
  corePoolOf,
  type StatementOptions,
} from '../driver.js'
import type { PromiseHandle } from './promise-handle.js'

/** What is current inside a request. */
interface AmbientAttempt {
  /** A handle of its own for everybody who asks; undefined if the attempt's transaction is on another pool. */
  connectionTo(pool: CorePool): ConnectionHandle | undefined
}

export type AmbientPool<P> = P & {
  /**
   * Runs `work` outside of the transaction: there, both this pool and the one behind it are just the pool. For what must
   * survive a rollback, and for work that goes on after the request. It happens once per attempt, and takes a second
   * connection while the request may hold one: the pool must have room for both.
   */
  outside<T>(work: () => T): T
}

const made = new WeakMap<object, AmbientPool<object>>()

/**
 * For query builders: give them this pool, and their queries join the transaction of the request that they are called
 * in; their own transactions become savepoints over both sides.
 *
 * @param pool mysql2's, in either flavour; the result has the same
 * @throws MISCONFIGURED for anything else
 *
 * @example
 * app.use(sessionTx({ pool }))
 * const db = new Kysely<Database>({ dialect: new MysqlDialect({ pool: ambientPool(pool) }) })
 */
export function ambientPool<P extends object>(pool: P): AmbientPool<P> {
  const core = corePoolOf(pool)
  if (isAmbient(pool)) return pool
  const known = made.get(pool)
  if (known !== undefined) return known as AmbientPool<P>
  const isCore = (pool as object) === core
  const members = isCore ? coreMembers(core) : promiseMembers(pool as unknown as PromisePool, core)
  const ambient = lookalike(pool, members)
  made.set(pool, ambient)
  return ambient as AmbientPool<P>
}

function isAmbient<P extends object>(pool: P): pool is AmbientPool<P> {
  return BEHIND_AMBIENT in pool
}

function here(pool: CorePool): ConnectionHandle | undefined {
  return (current() as AmbientAttempt | undefined)?.connectionTo(pool)
}

type Members = Readonly<Record<PropertyKey, unknown>>

interface Releasable {
  release(): void
}

/** Not the pool's own: it would put a handle among its free connections. */
const releaseConnection = (connection: Releasable): void => connection.release()

function coreMembers(pool: CorePool): Members {
  let promised: object | undefined
  return {
    getConnection: (callback: ConnectionCallback) => {
      const handle = here(pool)
      if (handle === undefined) pool.getConnection(callback)
      else process.nextTick(callback, null, handle)
    },
    query: (...args: unknown[]) => (here(pool) ?? pool).query(...args),
    execute: (...args: unknown[]) => (here(pool) ?? pool).execute(...args),
    promise: () => (promised ??= ambientPool(pool.promise())),
    releaseConnection,
  }
}

const WRONG_FLAVOUR =
  'this is a promise pool, and a callback was given: whoever wants callbacks (Kysely, TypeORM, Sequelize) gets ' +
  'ambientPool(pool).pool, or a pool of the callback flavour'

/** mysql2/promise's pool. */
interface PromisePool {
  getConnection(): Promise<unknown>
  query(statement: string | StatementOptions, values?: unknown): Promise<unknown>
  execute(statement: string | StatementOptions, values?: unknown): Promise<unknown>
}

function promiseMembers(pool: PromisePool, core: CorePool): Members {
  const target = (): PromisePool | PromiseHandle => here(core)?.promise() ?? pool
  return {
    pool: ambientPool(core),
    getConnection: (callback?: unknown) => {
      // It would never be called, and its caller wait for ever.
      if (typeof callback === 'function') throw new TypeError(WRONG_FLAVOUR)
      const handle = here(core)?.promise()
      return handle === undefined ? pool.getConnection() : Promise.resolve(handle)
    },
    query: (...args: Parameters<PromisePool['query']>) => target().query(...args),
    execute: (...args: Parameters<PromisePool['execute']>) => target().execute(...args),
    releaseConnection,
  }
}

/** Classes, which are handed out as they are. */
const CLASSES: ReadonlySet<PropertyKey> = new Set(['constructor', 'Promise'])

/** Everything else is the pool's, and runs on the pool itself: its methods keep their state on `this`. */
function lookalike(pool: object, members: Members): AmbientPool<object> {
  const own: Members = {
    ...members,
    outside: <T>(work: () => T): T => runAs(undefined, work),
    [BEHIND_AMBIENT]: pool,
  }
  const bound = new WeakMap<object, unknown>()
  const ambient: object = new Proxy(pool, {
    has: (target, key) => Object.hasOwn(own, key) || key in target,
    get: (target, key) => {
      if (Object.hasOwn(own, key)) return own[key]
      const value: unknown = Reflect.get(target, key, target)
      if (typeof value !== 'function' || CLASSES.has(key)) return value
      const method = bound.get(value) ?? onTarget(value as Method, target, () => ambient)
      bound.set(value, method)
      return method
    },
  })
  return ambient as AmbientPool<object>
}

type Method = (...args: unknown[]) => unknown

/** `pool.on(…)` gives the pool back, to be called again: that must be the ambient one. */
function onTarget(method: Method, target: object, ambient: () => object): Method {
  return (...args) => {
    const result = method.apply(target, args)
    return result === target ? ambient() : result
  }
}
