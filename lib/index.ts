/**
 * The public entry for Koa: every export listed by name. Express has its own. Nothing is decided here.
 */
import { assemble, type Carried } from './assembly.js'
import type { RouteOptions } from './http/http-setup.js'
import { koaMiddleware, koaTransactional } from './http/koa.js'
import type { RunOptions } from './run.js'
import type { KoaContext, KoaMiddleware } from './http/koa-context.js'
import { koaEndpoint } from './http/koa-endpoint.js'
import type { RunningAttempt } from './joint/request.js'
import type { Tx } from './joint/tx.js'
import { createEndpoint, type MetricsOptions } from './metrics/endpoint.js'
import { checkRoute } from './option-rules.js'
import type { SessionTxOptions } from './options.js'
import type { SessionMembers } from './session/session-members.js'
import type { Environment } from './transaction/clock.js'
import { current } from './transaction/current.js'

/** Declare your variables here: `declare module 'session-tx' { interface SessionData { cart?: string[] } }`. */
// oxlint-disable-next-line no-empty-object-type -- open to declaration merging
export interface SessionData {}

/** `ctx.session`: the declared variables, any others, and the members beside them. */
export type Session = SessionData & SessionMembers & { [variable: string]: unknown }

/** For `new Koa<DefaultState, SessionTxContext>()`. */
export interface SessionTxContext {
  get session(): Session
  /** Null ends the session, an object replaces it. */
  set session(value: (SessionData & { readonly [variable: string]: unknown }) | null)
  readonly tx: Tx
}

/** What an Express request gets: `declare global { namespace Express { interface Request extends SessionTxRequest {} } }`. */
export interface SessionTxRequest extends SessionTxContext {
  /** The id in the cookie, or the one that it will carry. Never log it. */
  readonly sessionID: string
}

/** `ctx.session` and `ctx.tx` of Koa's and @koa/router's own context; an application with a context of its own adds `SessionTxContext`. */
declare module 'koa' {
  interface DefaultContext extends SessionTxContext {}
}

export interface SessionTx extends KoaMiddleware {}
export interface SessionTx extends Omit<Carried, 'run'> {
  run<T>(work: (tx: Tx, session: Session) => Promise<T> | T, options?: RunOptions): Promise<T>
  /**
   * One handler as one joint transaction, where `app.use(tx)` is too much or cannot see what stands below it.
   *
   * @example
   * router.post('/buy', tx.transactional(buy, { retries: 5 }))
   */
  transactional(handler: KoaMiddleware, options?: RouteOptions): KoaMiddleware
  /**
   * Answers `/_tx`, a page for people, `/_tx/stats.json` and `/_tx/metrics` (Prometheus). Mount it above the rest.
   * @throws MISCONFIGURED under NODE_ENV=production without `allow`
   */
  metrics(options?: MetricsOptions<KoaContext>): KoaMiddleware
}

/**
 * Koa middleware: every request below it is one joint transaction over its session and InnoDB, run again when another
 * request won the race.
 *
 * @param environment clock and randomness, for tests
 * @throws MISCONFIGURED for an unknown or bad option, with a sentence that names it
 *
 * @example
 * app.use(sessionTx({ pool: mysql.createPool({ uri }) }))
 */
export function sessionTx(options: SessionTxOptions<KoaContext> = {}, environment?: Environment): SessionTx {
  const { setup, metrics, carried } = assemble<[ctx: KoaContext]>(options, environment)
  return Object.assign(koaMiddleware(setup), carried, {
    transactional: (handler: KoaMiddleware, route: RouteOptions = {}) => {
      checkRoute(handler, route)
      return koaTransactional(setup, handler, route)
    },
    metrics: (metricsOptions: MetricsOptions<KoaContext> = {}) =>
      koaEndpoint(createEndpoint(metricsOptions, metrics, process.env['NODE_ENV'])),
  }) as SessionTx
}

/** The transaction of the attempt that is running here, or undefined. */
export function currentTx(): Tx | undefined {
  return (current() as RunningAttempt | undefined)?.tx
}

export { ambientPool, type AmbientPool } from './mysql/handle/ambient-pool.js'
export type { ConnectionHandle } from './mysql/handle/connection-handle.js'
export { isConflict } from './joint/conflicts.js'
export {
  type ConflictDetails,
  type ConflictKind,
  SessionTxError,
  type SessionTxErrorCode,
} from './errors.js'
export type {
  ConflictDecision,
  EventName,
  EventPayloads,
  Listener,
  NotRerunnableReason,
  TransactionFacts,
} from './events.js'
export type { SessionTxOptions } from './options.js'
export { legacyStore } from './store/legacy.js'
export { memoryStore, type MemoryStoreOptions } from './store/memory.js'
export { mysqlStore, type MysqlStoreOptions } from './store/mysql.js'
export { redisStore, type RedisStoreOptions } from './store/redis.js'
export type { IoredisClient, NodeRedisClient, RedisClient } from './store/redis-client.js'
export type { SessionCacheOptions } from './store/session-cache.js'
export { type Resolver, resolvers } from './session/resolvers.js'
export type { SessionCookieMembers } from './session/cookie-settings.js'
export type { RegenerateOptions, SessionCallback, SessionMembers } from './session/session-members.js'
export type { SessionValue } from './session/value.js'
export { CODEC_FORMAT, decodeValue, encodeValue } from './store/codec.js'
export type { LocalChange } from './store/local-claim.js'
export { LocalSession, type LocalSessionOwner, type LocalTimes } from './store/local-session.js'
export {
  type AttemptTransaction,
  type Claim,
  type Disturbance,
  type LostPart,
  NAMES,
  type OpenSession,
  type OwnTransaction,
  type SessionPart,
  type SessionSnapshot,
  type SessionStore,
  type SessionWrite,
  type Settled,
  type StoreCounts,
  type StoredVariable,
  type StoreDatabase,
  type StoreSettings,
  type StoreTransaction,
  WHOLE,
} from './session/store.js'
export type { MaybePromise, OnePhaseResource, Resource, TwoPhaseResource } from './transaction/resource.js'
export type { MetricsOptions } from './metrics/endpoint.js'
export type { Stats } from './metrics/stats.js'
export type { RouteOptions } from './http/http-setup.js'
export type { KoaContext, KoaMiddleware, KoaNext } from './http/koa-context.js'
export type { RunOptions } from './run.js'
export type { Clock, Environment, Timer } from './transaction/clock.js'
export type { Tx }
