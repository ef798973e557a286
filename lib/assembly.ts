/**
 * Puts everything together from options: the parts that all requests share, and what the middleware carries beside
 * handling requests. The same for every framework; knows none.
 */
import { EventHub, type EventName, type Listener } from './events.js'
import { SessionCookie } from './http/cookie.js'
import type { HttpSetup } from './http/http-setup.js'
import { Activity } from './joint/activity.js'
import { HookRunner } from './joint/hook-runner.js'
import type { Isolation, JointParts, RunningAttempt } from './joint/request.js'
import { Tombstones } from './joint/tombstones.js'
import type { Tx } from './joint/tx.js'
import { Board } from './metrics/board/board.js'
import { debugLog } from './metrics/debug-log.js'
import { openTelemetry } from './metrics/open-telemetry.js'
import { Recorder } from './metrics/recorder.js'
import type { MetricsSources } from './metrics/endpoint.js'
import type { Stats } from './metrics/stats.js'
import { CommitRecord } from './mysql/commit-record/commit-record.js'
import { type CorePool, corePoolOf } from './mysql/driver.js'
import { LeaseBroker } from './mysql/lease/lease.js'
import { storeDatabase } from './mysql/store-database.js'
import { watchPool } from './mysql/stray-queries.js'
import { checkRetries } from './option-rules.js'
import { DEFAULTS, type OptionsFor, resolveOptions, type ResolvedOptions } from './options.js'
import { SessionTxError } from './errors.js'
import { newSessionId } from './session/identity.js'
import type { SessionObject } from './session/session-object.js'
import { destroySessionsOf, run, type RunOptions } from './run.js'
import { memoryStore } from './store/memory.js'
import { RetryBudget } from './transaction/budget.js'
import { Heat } from './transaction/heat.js'
import type { DecisionRecord } from './transaction/announced-decision.js'
import { type Clock, type Environment, systemEnvironment } from './transaction/clock.js'
import { current } from './transaction/current.js'
import { Deadlines } from './transaction/deadlines.js'
import { TicketOffice } from './transaction/ticket.js'

/** What the middleware function carries, whatever the framework. */
export interface Carried {
  /**
   * The same joint transaction outside a request. Resolves to the result of the attempt that committed, after its
   * after-commit hooks.
   * @throws as a request does: the work's own error, RETRIES_EXHAUSTED, COMMIT_UNKNOWN …
   */
  run<T>(work: (tx: Tx, session: SessionObject) => Promise<T> | T, options?: RunOptions): Promise<T>
  /**
   * Ends every session whose `session.userVariable` has this value now, each in a transaction of its own; a session of the
   * request that calls it ends with that request's. Resolves to how many there were.
   * @throws MISCONFIGURED without that option; STORE_UNAVAILABLE: some may be left, call it again
   */
  destroySessionsOf(user: unknown): Promise<number>
  /** What has happened since the start, as `/_tx/stats.json` gives it. */
  stats(): Stats
  /** Hears of events as they happen; returns how to stop. */
  on<Name extends EventName>(name: Name, listener: Listener<Name>): () => void
  /** Waits for what runs and for after-commit hooks, gives connections back, stops timers. Close the server first. */
  close(): Promise<void>
}

interface Assembly<Args extends unknown[]> {
  readonly setup: HttpSetup<Args>
  readonly metrics: MetricsSources
  readonly carried: Carried
}

/** @throws MISCONFIGURED for an unknown or bad option, with a sentence that names it */
export function assemble<Args extends unknown[]>(
  given: OptionsFor<Args>,
  environment: Environment = systemEnvironment,
): Assembly<Args> {
  const options = resolveOptions<Args>(given)
  const { clock } = environment
  const events = new EventHub()
  debugLog(events)
  const store = options.store ?? memoryStore()
  const { idleMs, absoluteMs, touchGranularityMs, sizeBytesMax, userVariable, cookie, cookieName } =
    options.session

  const isStaged = store.capability === 'staged'
  if (isStaged && options.commitRecord === 'off') {
    const message = `\`commitRecord: 'off'\`: the ${store.name} store needs the record; leave the option out`
    throw new SessionTxError('MISCONFIGURED', message)
  }
  const keepsRecord = options.commitRecord === 'always' || isStaged
  const database =
    options.pool === undefined
      ? undefined
      : openDatabase(options, environment, events, { keepsRecord, isStaged })
  const own = database && storeDatabase(database.broker(options.isolation), options.acquireMs)
  const decisions = isStaged ? database?.decisions : undefined
  store.start({
    ...{ clock, events, idleMs, absoluteMs, touchGranularityMs, userVariable, decisions },
    database: own,
  })
  warnOfMemory(store.name, events)
  warnOfEscapes(events)
  const tickets =
    options.retry.tickets === false ? undefined : new TicketOffice(options.retry.tickets.waitingMax)
  const budget =
    options.retry.budget === false ? undefined : new RetryBudget(options.retry.budget, () => clock.now())
  const activity = new Activity()
  const doubts = new Activity()
  const hooks = new HookRunner(events, activity)
  const { backoffBaseMs, backoffMaxMs, deadlineMs, isRetryable, duplicateIsConflict } = options.retry
  const parts: JointParts = {
    environment,
    events,
    store,
    broker: database?.broker,
    pool: database?.pool,
    tickets,
    budget,
    heat: new Heat(() => clock.now()),
    hooks,
    resolvers: options.resolve,
    conflicts: { isRetryable, duplicateIsConflict },
    sizeBytesMax,
    acquireMs: options.acquireMs,
    nonTransactionalTables: options.nonTransactionalTables,
    cookie: { ...cookie, name: cookieName },
    tombstones: new Tombstones(clock, deadlineMs),
    backoff: { backoffBaseMs, backoffMaxMs },
    rehearse: options.retry.rehearse,
    clientGone: options.clientGone,
    deadlineMs,
    deadlines: new Deadlines(clock, deadlineMs),
    nextId: idMaker(),
    activity,
    doubts,
    tracing: openTelemetry(),
  }
  const recorder = new Recorder(events, clock, {
    sessions: () => store.counts(),
    store: () => ({
      name: store.name,
      guarantee: store.capability === 'best-effort' ? 'best effort' : 'transactional',
    }),
    ...(tickets === undefined ? {} : { tickets: () => tickets.counts }),
    ...(budget === undefined ? {} : { budget: () => budget.counts }),
    ...(database?.record === undefined ? {} : { inDoubt: () => database.record?.inDoubt ?? 0 }),
  })
  const board = new Board(events, clock)
  const retries = typeof options.retry.retries === 'function' ? DEFAULTS.retry.retries : options.retry.retries
  let closing: Promise<void> | undefined

  async function close(): Promise<void> {
    await activity.idle()
    // While there are connections: a store may have something to write.
    await store.close()
    await database?.close()
    // Known by now, or given up: what follows from it, and then its hooks.
    await doubts.idle()
    await activity.idle()
    recorder.close()
    board.close()
  }
  return {
    setup: httpSetup(options, parts),
    metrics: { recorder, board, clock },
    carried: {
      run: (work, runOptions = {}) =>
        run(parts, work, { ...runOptions, retries, isolation: options.isolation }),
      destroySessionsOf: user =>
        destroySessionsOf(parts, user, { retries, isolation: options.isolation, userVariable }),
      stats: () => recorder.stats(),
      on: (name, listener) => events.on(name, listener),
      close: () => (closing ??= close()),
    },
  }
}

function httpSetup<Args extends unknown[]>(
  options: ResolvedOptions<Args>,
  parts: JointParts,
): HttpSetup<Args> {
  const { session, retry, hold, isolation, skip, veto, commitOnError, readOnly, keys } = options
  const { retries } = retry
  return {
    parts,
    cookie: new SessionCookie(session.cookieName),
    keys,
    requestBytesMax: hold.requestBytesMax,
    responseBytesMax: hold.responseBytesMax,
    isolation,
    retries: typeof retries === 'function' ? (...args) => checkRetries(retries(...args)) : () => retries,
    readOnly,
    skip,
    veto,
    commitOnError,
  }
}

/** Ids of transactions: unique over processes and restarts, cheap to make. */
function idMaker(): () => string {
  const process = newSessionId().slice(0, 10)
  let count = 0
  return () => `${process}-${(++count).toString(36)}`
}

interface Database {
  readonly pool: CorePool
  readonly broker: (isolation: Isolation) => LeaseBroker
  readonly record: CommitRecord | undefined
  readonly decisions: DecisionRecord | undefined
  close(): Promise<void>
}

function openDatabase<Args extends unknown[]>(
  options: ResolvedOptions<Args>,
  environment: Environment,
  events: EventHub,
  { keepsRecord, isStaged }: { readonly keepsRecord: boolean; readonly isStaged: boolean },
): Database {
  const pool = corePoolOf(options.pool)
  const { clock } = environment
  const lend = async (): Promise<void> =>
    (await broker(options.isolation).acquire(options.acquireMs)).release()
  const always = options.commitRecord === 'always'
  const record = keepsRecord
    ? new CommitRecord({ pool, environment, events, always, isAsked: isStaged, lend })
    : undefined
  const { lockWaitMs } = options
  const brokers = new Map<Isolation, LeaseBroker>()
  const broker = (isolation: Isolation): LeaseBroker => {
    const known = brokers.get(isolation) ?? new LeaseBroker(pool, { isolation, lockWaitMs, clock, record })
    brokers.set(isolation, known)
    return known
  }
  const unwatch =
    options.strayQueries === 'ignore' ? () => {} : watchPool(pool, strayJudge(options.strayQueries, events))
  return {
    pool,
    broker,
    record,
    decisions: record && decisionsOf(record, clock),
    close: async () => {
      unwatch()
      await Promise.all([...brokers.values()].map(one => one.close()))
      await record?.close()
    },
  }
}

/** For a session store that names decisions, its own and those of other processes. */
function decisionsOf(record: CommitRecord, clock: Clock): DecisionRecord {
  return {
    lookUp: decision => record.fateOf(decision),
    settle: (decision, ageMs) => {
      const { threadId, serverIdentity } = decision
      // It was alive when the decision was announced: a thread of that number on a younger server is another one.
      return record.settleForeign(decision, { threadId, serverIdentity, since: clock.now() - ageMs })
    },
    swept: () => record.swept(),
  }
}

/** The pool used directly inside a request: outside the transaction, and once per attempt. */
function strayJudge(
  policy: 'warn' | 'refuse',
  events: EventHub,
): (method: 'query' | 'execute' | 'getConnection') => 'allow' | Error {
  const warned = new Set<string>()
  return method => {
    const attempt = current() as RunningAttempt | undefined
    if (attempt === undefined || attempt.state !== 'active') return 'allow'
    const route = attempt.request.route()
    events.emit('stray', { route, method })
    const message =
      `pool.${method}() was called inside a request (route ${route}): it is outside of the transaction and repeated ` +
      'with every attempt. Use ctx.tx.query() or ctx.tx.execute(); give a query builder ambientPool(pool); if it is ' +
      'meant to be outside, ambientPool(pool).outside(() => …).'
    if (policy === 'refuse') return new SessionTxError('STRAY_QUERY', message)
    if (!warned.has(route) && warned.size < ROUTES_WARNED_MAX) {
      warned.add(route)
      process.emitWarning(message, 'SessionTxWarning')
    }
    return 'allow'
  }
}

const ROUTES_WARNED_MAX = 200

/** Once per route and reason: the next thousand say the same, and are counted. */
function warnOfEscapes(events: EventHub): void {
  const warned = new Set<string>()
  events.on('escaped', ({ route, reason, table }) => {
    const key = `${reason} ${route}`
    if (warned.has(key) || warned.size >= ROUTES_WARNED_MAX) return
    warned.add(key)
    const what =
      reason === 'implicitCommit'
        ? 'a statement committed half of a request'
        : `a request wrote to ${table === undefined ? 'a table' : `table '${table}'`} that cannot roll back`
    process.emitWarning(
      `${what} (route ${route}): that effect is outside of its transaction, and the request is not run again`,
      'SessionTxWarning',
    )
  })
}

function warnOfMemory(store: string, events: EventHub): void {
  if (store !== 'memory') return
  if (process.env['NODE_ENV'] === 'production') {
    process.emitWarning(
      'memoryStore forgets every session when the process ends, and is not shared by processes',
      'SessionTxWarning',
    )
  }
  const stop = events.on('session:evicted', () => {
    stop()
    process.emitWarning(
      'memoryStore is full: live sessions are thrown out (sessionsMax, bytesMax)',
      'SessionTxWarning',
    )
  })
}
