/**
 * The options of `sessionTx()`: their types, the one table of defaults, and how what was given becomes a
 * complete set. What a single value may be is in option-rules.ts; here is what must hold between values.
 * Knows nothing of what an option does.
 */
import { SessionTxError } from './errors.js'
import { checkOptions } from './option-rules.js'
import { type CookieAttributes, objectionTo } from './session/cookie-attributes.js'
import type { Resolver } from './session/resolvers.js'
import type { SessionStore } from './session/store.js'
import type { BudgetOptions } from './transaction/budget.js'

/** A mysql2 pool, promise or callback flavour; checked by shape, never imported. */
type PoolLike = object

/** A method's type, so that a callback may say that it gets the framework's own, wider types. */
type Asked<Args extends unknown[], Answer> = { method(...args: Args): Answer }['method']

/** The part of keygrip that signs a cookie. */
interface KeygripLike {
  sign(data: string): string
  verify(data: string, digest: string): boolean
}

type IsolationLevel = 'read committed' | 'repeatable read' | 'snapshot' | 'serializable'

interface TicketOptions {
  /** How many requests may wait for one key; more are refused with `QUEUE_FULL`. */
  readonly waitingMax: number
}

interface RetryOptions<Args extends unknown[]> {
  /**
   * How many times the handler may run again; 0 = never. What a function returns goes through {@link
   * checkRetries}.
   */
  readonly retries: number | Asked<Args, number>
  /** All attempts together, on the monotonic clock. */
  readonly deadlineMs: number
  /** Full jitter: `random() × min(backoffBaseMs × 2^k, backoffMaxMs)`. */
  readonly backoffBaseMs: number
  readonly backoffMaxMs: number
  /** Tokens for re-runs that sleep; those that queue are not charged. `false`: no limit over all requests. */
  readonly budget: BudgetOptions | false
  /** `false`: losers sleep, nobody queues. */
  readonly tickets: TicketOptions | false
  /** Whether this error is a lost race; undefined = our table decides. */
  readonly isRetryable: ((error: unknown) => boolean | undefined) | undefined
  /** 1062 re-runs once. */
  readonly duplicateIsConflict: boolean
  /** For development and tests: every handler runs twice. */
  readonly rehearse: boolean
}

interface CookieOptions extends CookieAttributes {
  /** `'host'` puts `__Host-` before the name. */
  readonly prefix: 'host' | undefined
}

interface SessionOptions {
  /** Name of the cookie, without the prefix. */
  readonly name: string
  readonly idleMs: number | false
  readonly absoluteMs: number | false
  readonly cookie: CookieOptions
  /** Idle time is written at most this often. */
  readonly touchGranularityMs: number
  /** Encoded size; more is `SESSION_TOO_LARGE`. */
  readonly sizeBytesMax: number
  /** Names the user: makes `destroySessionsOf(user)` possible. */
  readonly userVariable: string | undefined
}

interface HoldOptions {
  /** A larger request body is not kept: served once, marked not re-runnable. 0: none is kept. */
  readonly requestBytesMax: number
  /**
   * A larger answer is not held until the commit: what there is of it is committed and sent, the rest passes through.
   * Only where handlers write to the response themselves, as in Express.
   */
  readonly responseBytesMax: number
}

/** The options that have no group. `Args` is what callbacks get: Koa's context, or Express's request and response. */
interface PlainOptions<Args extends unknown[]> {
  readonly pool: PoolLike | undefined
  readonly store: SessionStore | undefined
  readonly keys: readonly string[] | KeygripLike | undefined
  /** No transaction for this request: `ctx.tx` and `ctx.session` are absent. */
  readonly skip: Asked<Args, boolean> | undefined
  readonly isolation: IsolationLevel
  /** What happens when the client went away before the commit. */
  readonly clientGone: 'finish' | 'rollback'
  /**
   * True rolls back though the handler returned; undefined: status 500 and above, which only a framework can
   * tell.
   */
  readonly veto: Asked<Args, boolean> | undefined
  /** True commits though the handler threw; never asked about a conflict. */
  readonly commitOnError: Asked<[error: unknown, ...args: Args], boolean> | undefined
  /** True: writing is an error. */
  readonly readOnly: Asked<Args, boolean> | undefined
  /** Settling a COMMIT that was not answered; `'auto'`: where the store needs it. Needs a table: `session-tx migrate`. */
  readonly commitRecord: 'auto' | 'always' | 'off'
  /** What is done about a statement that writes to a table whose engine cannot roll back. */
  readonly nonTransactionalTables: 'refuse' | 'warn'
  readonly strayQueries: 'warn' | 'refuse' | 'ignore'
  /** Row and metadata lock wait of our connections, rounded up to whole seconds. */
  readonly lockWaitMs: number
  /** Longest wait for a connection. */
  readonly acquireMs: number
}

/** What may be given of a group: any part of it; undefined means the default. */
type Given<Group> = { readonly [Name in keyof Group]?: Group[Name] | undefined }

/** What `sessionTx()` takes, whatever its callbacks get. */
export interface OptionsFor<Args extends unknown[]> extends Given<PlainOptions<Args>> {
  readonly retry?:
    | (Given<Omit<RetryOptions<Args>, 'tickets' | 'budget'>> & {
        readonly budget?: Given<BudgetOptions> | false | undefined
        readonly tickets?: Given<TicketOptions> | false | undefined
      })
    | undefined
  readonly session?:
    | (Given<Omit<SessionOptions, 'cookie'>> & { readonly cookie?: Given<CookieOptions> | undefined })
    | undefined
  readonly resolve?: Readonly<Record<string, Resolver>> | undefined
  readonly hold?: Given<HoldOptions> | undefined
}

/** What `sessionTx()` takes where a request has one context. */
export type SessionTxOptions<C = unknown> = OptionsFor<[ctx: C]>

/** Every option with a value, frozen. */
export interface ResolvedOptions<Args extends unknown[]> extends PlainOptions<Args> {
  readonly retry: RetryOptions<Args>
  /** `cookieName` is `name` with the prefix. */
  readonly session: SessionOptions & { readonly cookieName: string }
  /** By variable. A Map: a variable named `toString` has no resolver unless it was given one. */
  readonly resolve: ReadonlyMap<string, Resolver>
  readonly hold: HoldOptions
}

const DAY_MS = 86_400_000
const MIB = 1_048_576
const NO_RESOLVERS: Readonly<Record<string, Resolver>> = Object.freeze({})

/** The defaults, all of them; undefined: none, or known only to the framework's adapter. */
export const DEFAULTS = Object.freeze({
  pool: undefined,
  store: undefined,
  retry: Object.freeze({
    retries: 3,
    deadlineMs: 10_000,
    backoffBaseMs: 5,
    backoffMaxMs: 250,
    budget: Object.freeze({ capacity: 100, ratio: 0.2, perSecond: 10 }),
    tickets: Object.freeze({ waitingMax: 64 }),
    isRetryable: undefined,
    duplicateIsConflict: false,
    rehearse: false,
  }),
  session: Object.freeze({
    name: 'sid',
    idleMs: DAY_MS,
    absoluteMs: false,
    cookie: Object.freeze({
      path: '/',
      domain: undefined,
      httpOnly: true,
      sameSite: 'lax',
      secure: 'auto',
      maxAge: undefined,
      partitioned: false,
      priority: undefined,
      prefix: undefined,
    }),
    touchGranularityMs: 30_000,
    sizeBytesMax: MIB,
    userVariable: undefined,
  }),
  keys: undefined,
  resolve: NO_RESOLVERS,
  skip: undefined,
  isolation: 'snapshot',
  clientGone: 'finish',
  veto: undefined,
  commitOnError: undefined,
  readOnly: undefined,
  commitRecord: 'auto',
  nonTransactionalTables: 'refuse',
  strayQueries: 'warn',
  lockWaitMs: 2_000,
  acquireMs: 2_000,
  hold: Object.freeze({ requestBytesMax: MIB, responseBytesMax: MIB }),
}) satisfies OptionsFor<unknown[]>

/**
 * Checks what was given and fills in the rest. What it returns shares nothing with the argument but the
 * values that are functions and objects of others (pool, store, keys).
 *
 * @throws MISCONFIGURED unknown or bad option at any depth, with a sentence that names it and what it must be
 * @example
 * app.use(sessionTx({ pool, retry: { retries: 5 } })) // everything else as in DEFAULTS
 */
export function resolveOptions<Args extends unknown[] = [ctx: unknown]>(
  options: OptionsFor<NoInfer<Args>> = {},
): ResolvedOptions<Args> {
  checkOptions(options)
  const { retry, session, resolve, hold, ...plain } = options
  if (plain.commitRecord === 'always' && plain.pool === undefined)
    throw misconfigured(
      "`commitRecord: 'always'` needs `pool`: without a database nothing is committed there",
    )
  const { retry: _retry, session: _session, resolve: _resolve, hold: _hold, ...plainDefaults } = DEFAULTS
  return Object.freeze({
    ...filled<PlainOptions<Args>>(plainDefaults, plain),
    retry: resolveRetry(retry),
    session: resolveSession(session),
    resolve: new Map(
      Object.entries(resolve ?? DEFAULTS.resolve).filter(([, resolver]) => resolver !== undefined),
    ),
    hold: filled<HoldOptions>(DEFAULTS.hold, hold),
  })
}

function resolveRetry<Args extends unknown[]>(given: OptionsFor<Args>['retry']): RetryOptions<Args> {
  const { tickets, budget, ...rest } = given ?? {}
  const { tickets: ticketDefaults, budget: budgetDefaults, ...defaults } = DEFAULTS.retry
  const retry = {
    ...filled<Omit<RetryOptions<Args>, 'tickets' | 'budget'>>(defaults, rest),
    budget: budget === false ? (false as const) : filled<BudgetOptions>(budgetDefaults, budget),
    tickets: tickets === false ? (false as const) : filled<TicketOptions>(ticketDefaults, tickets),
  }
  const { backoffBaseMs: base, backoffMaxMs: max } = retry
  if (max < base) {
    throw misconfigured(
      `\`retry.backoffMaxMs\` must be at least \`retry.backoffBaseMs\` (${base}), got ${max}`,
    )
  }
  return Object.freeze(retry)
}

function resolveSession(given: SessionTxOptions['session']): ResolvedOptions<unknown[]>['session'] {
  const { cookie: givenCookie, ...rest } = given ?? {}
  const { cookie: cookieDefaults, ...defaults } = DEFAULTS.session
  const session = filled<Omit<SessionOptions, 'cookie'>>(defaults, rest)
  const cookie = filled<CookieOptions>(cookieDefaults, givenCookie)
  const prefix = cookie.prefix === 'host' && !/^__host-/i.test(session.name) ? '__Host-' : ''
  const cookieName = prefix + session.name
  const objection = objectionTo({ ...cookie, name: cookieName }, attribute => `session.cookie.${attribute}`)
  if (objection !== undefined) throw misconfigured(objection)
  return Object.freeze({ ...session, cookie, cookieName })
}

/**
 * The defaults with what was given over them. Undefined means the default; nothing else does, 0 and false
 * included.
 */
function filled<Group extends object>(defaults: Group, given: Given<Group> | undefined): Group {
  const result = { ...defaults } as Record<string, unknown>
  const source = (given ?? {}) as Readonly<Record<string, unknown>>
  for (const name of Object.keys(defaults)) result[name] = source[name] ?? result[name]
  return Object.freeze(result) as Group
}

function misconfigured(sentence: string): SessionTxError {
  return new SessionTxError('MISCONFIGURED', sentence)
}
