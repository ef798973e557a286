/**
 * Koa's side of a request: where we stand in its stack, what runs below us, and how a later attempt gets the same
 * context again. Koa is typed structurally and never imported. Knows no SQL.
 *
 * `next()` works once per request, so the first attempt uses it and later ones run the part of `app.middleware` below
 * us, composed once per application. Where that part cannot be found (mounted by a router, inside a compose, wrapped by
 * somebody) there is one attempt only, and a warning that names the remedy.
 */
import onFinished from 'on-finished'
import { SessionTxError } from '../errors.js'
import type { NotRerunnableReason } from '../events.js'
import { live } from '../joint/life.js'
import type { Isolation, JointParts, JointRequest, RunningAttempt } from '../joint/request.js'
import type { Tx } from '../joint/tx.js'
import type { SessionObject } from '../session/session-object.js'
import { current } from '../transaction/current.js'
import { Downstream } from './downstream.js'
import type { KoaContext, KoaMiddleware, KoaNext } from './koa-context.js'
import { type FoundCookie, type KeyRing, keygripOf, type SessionCookie, type Signer } from './cookie.js'
import { Pristine } from './pristine.js'
import { hasBody, ReplayableRequest, rewindEmpty } from './replayable-request.js'

/** What one route may set for itself. */
export interface RouteOptions {
  readonly retries?: number | undefined
  readonly isolation?: Isolation | undefined
  readonly readOnly?: boolean | undefined
}

export interface KoaSetup {
  readonly parts: JointParts
  readonly cookie: SessionCookie
  /** Undefined: `app.keys` of the application that the request belongs to. */
  readonly keys: readonly string[] | Signer | undefined
  readonly requestBytesMax: number
  readonly isolation: Isolation
  readonly retries: (ctx: KoaContext) => number
  readonly readOnly: ((ctx: KoaContext) => boolean) | undefined
  readonly skip: ((ctx: KoaContext) => boolean) | undefined
  readonly veto: ((ctx: KoaContext) => boolean) | undefined
  readonly commitOnError: ((error: unknown, ctx: KoaContext) => boolean) | undefined
}

const REQUEST: unique symbol = Symbol('session-tx.request')
/** What Koa itself assigns to a new context, request and response, and what we do. */
const KOA_PROPERTIES: ReadonlySet<PropertyKey> = new Set([
  ...['app', 'ctx', 'req', 'res', 'request', 'response', 'originalUrl', 'state'],
  REQUEST,
])
const SERVER_ERROR_STATUS_MIN = 500

interface Carrier {
  [REQUEST]?: KoaRequest
}

/** The middleware for `app.use(…)`: everything below it is one joint transaction per request, run again on conflict. */
export function koaMiddleware(setup: KoaSetup): KoaMiddleware {
  const downstream = new Downstream()
  function sessionTx(ctx: KoaContext, next: KoaNext): Promise<unknown> {
    if (isInside(ctx) || setup.skip?.(ctx) === true) return next()
    const retries = setup.retries(ctx)
    const below = retries === 0 ? undefined : downstream.of(ctx)
    const first = (): Promise<unknown> => next()
    const position = retries > 0 && below === undefined ? 'position' : undefined
    const runs = { first, again: below && (() => below(ctx)), cannot: () => position } as const
    const request = new KoaRequest(ctx, setup, { retries }, runs)
    return request.live()
  }
  return downstream.mark(sessionTx)
}

/** One handler as one joint transaction: for a route, or where `app.use` cannot find what stands below it. */
export function koaTransactional(
  setup: KoaSetup,
  handler: KoaMiddleware,
  options: RouteOptions,
): KoaMiddleware {
  const given = Object.entries(options).flatMap(([name, value]) => (value === undefined ? [] : [name]))
  let warned = given.length === 0
  return function transactional(ctx, next) {
    if (isInside(ctx)) {
      if (!warned) warnOfLateOptions(given)
      warned = true
      return handler(ctx, next)
    }
    let nextCalled = false
    const once = (): Promise<unknown> => {
      nextCalled = true
      return next()
    }
    const run = async (): Promise<unknown> => handler(ctx, once)
    const cannot = (): NotRerunnableReason | undefined => (nextCalled ? 'nextCalled' : undefined)
    return new KoaRequest(ctx, setup, options, { first: run, again: run, cannot }).live()
  }
}

function warnOfLateOptions(names: readonly string[]): void {
  process.emitWarning(
    `the options of tx.transactional() (${names.join(', ')}) have no effect below app.use(tx), where the transaction has ` +
      'begun already: set them there, as functions of ctx, or leave this route out by its `skip`',
    'SessionTxWarning',
  )
}

/** Mounted twice, the inner one is a no-op. */
function isInside(ctx: KoaContext): boolean {
  return (ctx as Carrier)[REQUEST] !== undefined
}

interface Runs {
  readonly first: () => Promise<unknown>
  /** Undefined: the request cannot run again. */
  readonly again: (() => Promise<unknown>) | undefined
  readonly cannot: () => NotRerunnableReason | undefined
}

/** One request of Koa's, as joint/life.ts wants it. */
class KoaRequest implements JointRequest<unknown> {
  readonly retries: number
  readonly isolation: Isolation
  readonly readOnly: boolean
  readonly #ctx: KoaContext
  readonly #setup: KoaSetup
  readonly #runs: Runs
  readonly #keys: KeyRing | undefined
  readonly #body: ReplayableRequest | undefined
  #pristine: Pristine | undefined
  #state: object | undefined
  #parsed: Parsed | undefined
  #attempt: RunningAttempt | undefined
  #found: FoundCookie | undefined
  #unreplayable = false
  #cookieSent = false

  constructor(ctx: KoaContext, setup: KoaSetup, options: RouteOptions, runs: Runs) {
    this.#ctx = ctx
    this.#setup = setup
    this.#runs = runs
    this.retries = options.retries ?? setup.retries(ctx)
    this.isolation = options.isolation ?? setup.isolation
    this.readOnly = options.readOnly ?? setup.readOnly?.(ctx) ?? false
    this.#keys = keysOf(setup, ctx)
    installAccessors(ctx)
    ;(ctx as Carrier)[REQUEST] = this
    this.#body =
      this.#mayRunAgain && hasBody(ctx.req)
        ? new ReplayableRequest(ctx.req, setup.requestBytesMax)
        : undefined
  }

  get #mayRunAgain(): boolean {
    return this.retries > 0 && this.#runs.again !== undefined
  }

  live(): Promise<unknown> {
    if (this.#mayRunAgain) this.#remember()
    const lived = live(this, this.#setup.parts)
    if (this.#setup.commitOnError === undefined) return lived
    return lived.catch((error: unknown) => {
      this.#keepCookie(error)
      throw error
    })
  }

  /** Stored though it threw: Koa's error page removes all headers but those of the error. */
  #keepCookie(error: unknown): void {
    const cookie = this.#ctx.res.getHeader('Set-Cookie')
    if (!this.#cookieSent || cookie === undefined || !(error instanceof Error)) return
    const carrier = error as Error & { headers?: object }
    if (Object.isFrozen(carrier)) return
    carrier.headers = { ...carrier.headers, 'Set-Cookie': cookie }
  }

  ended(): void {
    const reason = this.retries > 0 ? this.notRerunnable() : undefined
    if (reason !== undefined) this.#setup.parts.events.emit('notRerunnable', { route: this.route(), reason })
  }

  #remember(): void {
    const { req, res, request, response, state } = this.#ctx
    this.#pristine = new Pristine(req, res, [this.#ctx, request, response], KOA_PROPERTIES)
    this.#state = { ...state }
    try {
      this.#parsed = parsedAbove(request)
    } catch {
      this.#unreplayable = true // it holds something that cannot be copied: served once, as without us
    }
  }

  /** The attempt that the code calling us belongs to: work of an ended one must not reach the next. */
  get attempt(): RunningAttempt | undefined {
    const running = current() as RunningAttempt | undefined
    return running !== undefined && running.request === this ? running : this.#attempt
  }

  readonly route = (): string => {
    const { _matchedRoute: matched } = this.#ctx as { _matchedRoute?: string | RegExp | null }
    return matched === undefined || matched === null ? '(unmatched)' : String(matched)
  }

  readonly sessionId = (): string | undefined => {
    const { req, res } = this.#ctx
    this.#found ??= this.#setup.cookie.read(req, res, this.#keys)
    return this.#found.id
  }

  begun(attempt: RunningAttempt): void {
    this.#attempt = attempt
  }

  work(): Promise<unknown> {
    const { first, again } = this.#runs
    return this.#attempt?.tx.attempt === 1 || again === undefined ? first() : again()
  }

  /** Everything of the failed attempt is gone, and the body can be read again. */
  async reset(): Promise<void> {
    discardStream(this.#ctx.body)
    this.#pristine?.restore()
    this.#ctx.state = { ...this.#state }
    this.#parsed?.restore()
    if (this.#body === undefined) rewindEmpty(this.#ctx.req)
    else if (!(await this.#body.rewind())) {
      this.#unreplayable = true
      const message =
        'the request body could not be read again: it is larger than hold.requestBytesMax, or broke off'
      throw new SessionTxError('NOT_RERUNNABLE', message)
    }
  }

  notRerunnable(): NotRerunnableReason | undefined {
    const { res, respond } = this.#ctx
    if (res.headersSent || (respond === false && res.writableEnded)) return 'responseStarted'
    if (this.#unreplayable || this.#body?.overLimit === true) return 'body'
    return this.#runs.cannot()
  }

  vetoes(): boolean {
    const { veto } = this.#setup
    return veto === undefined ? this.#ctx.res.statusCode >= SERVER_ERROR_STATUS_MIN : veto(this.#ctx)
  }

  commitsOnError(error: unknown): boolean {
    return this.#setup.commitOnError?.(error, this.#ctx) ?? false
  }

  readonly watchClient = (gone: () => void): (() => void) => {
    const { res } = this.#ctx
    if (res.closed && !res.writableFinished) gone()
    const onClose = (): void => {
      if (!res.writableFinished) gone()
    }
    res.once('close', onClose)
    this.#pristine?.keep(onClose)
    return () => res.removeListener('close', onClose)
  }

  committed(attempt: RunningAttempt): void {
    const { req, res } = this.#ctx
    if (res.headersSent) return
    const { cookie } = this.#setup
    const change = attempt.cookieChange
    const isOld = change.kind === 'kept' && this.#found?.signedByOldKey === true
    if (change.kind === 'set' || isOld) cookie.write(req, res, this.#keys, this.#ctx.secure, change)
    else if (change.kind === 'clear') cookie.clear(req, res, this.#keys, this.#ctx.secure, change)
    else return
    this.#cookieSent = true
  }

  afterResponse(start: () => void): void {
    onFinished(this.#ctx.res, () => start())
  }

  report(error: unknown): void {
    this.#ctx.app.emit('error', error, this.#ctx)
  }
}

/** A body that something above us has parsed: each attempt gets a copy, since handlers change it. */
interface Parsed {
  restore(): void
}

function parsedAbove(request: object): Parsed | undefined {
  const { body } = request as { body?: unknown }
  if (typeof body !== 'object' || body === null) return undefined
  const kept: unknown = structuredClone(body)
  return {
    restore: () => {
      ;(request as { body?: unknown }).body = structuredClone(kept)
    },
  }
}

/**
 * A stream that nobody will read. A late error must neither end the process nor, through the listener that Koa 2 gives
 * each body, answer the next attempt with a 500: so ours replaces all others before it is destroyed.
 */
function discardStream(body: unknown): void {
  if (typeof body !== 'object' || body === null) return
  const { on, removeAllListeners, destroy } = body as Record<'on' | 'removeAllListeners' | 'destroy', unknown>
  if (typeof on !== 'function' || typeof destroy !== 'function') return
  if (typeof removeAllListeners === 'function') removeAllListeners.call(body, 'error')
  on.call(body, 'error', () => {})
  destroy.call(body)
}

const keysOfApps = new WeakMap<object, KeyRing>()

function keysOf({ keys }: KoaSetup, { app }: KoaContext): KeyRing | undefined {
  const configured = (keys ?? app.keys) as readonly string[] | Signer | undefined
  if (configured === undefined || typeof configured !== 'object') return undefined
  const known = keysOfApps.get(configured)
  if (known !== undefined) return known
  const made = keygripOf(configured)
  if (made !== undefined) keysOfApps.set(configured, made)
  return made
}

/** `ctx.tx` and `ctx.session` on the application's context prototype: per request there is nothing to define. */
function installAccessors(ctx: KoaContext): void {
  const prototype: unknown = Object.getPrototypeOf(ctx)
  if (typeof prototype !== 'object' || prototype === null || Object.hasOwn(prototype, REQUEST)) return
  Object.defineProperties(prototype, {
    [REQUEST]: { value: undefined, writable: true, configurable: true },
    tx: {
      configurable: true,
      get(this: Carrier): Tx | undefined {
        return this[REQUEST]?.attempt?.tx
      },
    },
    session: {
      configurable: true,
      get(this: Carrier): SessionObject | undefined {
        return this[REQUEST]?.attempt?.session
      },
      set(this: Carrier, value: unknown) {
        const attempt = this[REQUEST]?.attempt
        if (attempt === undefined)
          throw new SessionTxError('NO_TRANSACTION', 'ctx.session was set outside of session-tx')
        attempt.session = value
      },
    },
  })
}
