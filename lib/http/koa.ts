/**
 * Koa's side of a request: where we stand in its stack, what runs below us, and how a later attempt gets the same
 * context again. Koa is typed structurally and never imported. Knows no SQL.
 *
 * `next()` works once per request, so the first attempt uses it and later ones run the part of `app.middleware` below
 * us, composed once per application. Where that part cannot be found (mounted by a router, inside a compose, wrapped by
 * somebody) there is one attempt only, and a warning that names the remedy.
 */
import { SessionTxError } from '../errors.js'
import type { NotRerunnableReason } from '../events.js'
import type { Tx } from '../joint/tx.js'
import type { SessionObject } from '../session/session-object.js'
import { keyRingOf } from './configured-keys.js'
import { Downstream } from './downstream.js'
import { HttpRequest, REQUEST } from './http-request.js'
import type { HttpSetup, RouteOptions } from './http-setup.js'
import { keepParsed, type KeptContents, keepPlaces } from './kept-contents.js'
import type { KoaContext, KoaMiddleware, KoaNext } from './koa-context.js'
import type { Looks } from './pristine.js'
import { warnOfLateOptions } from './late-options.js'
import { discardStream, holdErrors } from './stream-body.js'

type KoaSetup = HttpSetup<[ctx: KoaContext]>

/** What Koa itself assigns to a new context, request and response, and what we do. */
const KOA_PROPERTIES: ReadonlySet<PropertyKey> = new Set([
  ...['app', 'ctx', 'req', 'res', 'request', 'response', 'originalUrl', 'state'],
  REQUEST,
])

/** Uploads, as @koa/multer leaves them on context and request: too much to be copied. */
const UPLOADED = ['file', 'files']

interface Carrier {
  [REQUEST]?: KoaRequest
}

/** The middleware for `app.use(…)`: everything below it is one joint transaction per request, run again on conflict. */
export function koaMiddleware(setup: KoaSetup): KoaMiddleware {
  const downstream = new Downstream()
  function sessionTx(ctx: KoaContext, next: KoaNext): Promise<unknown> {
    if (isInside(ctx) || setup.skip?.(ctx) === true) return next()
    const retries = setup.retries(ctx)
    const stack = retries === 0 ? undefined : downstream.of(ctx)
    const runs: Runs = {
      first: next,
      again: stack?.below,
      cannot: stack && stack.below === undefined ? NOWHERE : HERE,
    }
    return new KoaRequest(ctx, setup, { retries }, runs).live(stack?.looks)
  }
  return downstream.mark(sessionTx)
}

/** One handler as one joint transaction: for a route, or where `app.use` cannot find what stands below it. */
export function koaTransactional(
  setup: KoaSetup,
  handler: KoaMiddleware,
  options: RouteOptions,
): KoaMiddleware {
  const warn = warnOfLateOptions(options, 'ctx')
  return function transactional(ctx, next) {
    if (isInside(ctx)) {
      warn()
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

/** Mounted twice, the inner one is a no-op. */
function isInside(ctx: KoaContext): boolean {
  return (ctx as Carrier)[REQUEST] !== undefined
}

const NOWHERE = (): NotRerunnableReason => 'position'
const HERE = (): undefined => undefined

interface Runs {
  readonly first: () => Promise<unknown>
  /** Undefined: the request cannot run again. */
  readonly again: ((ctx: KoaContext) => Promise<unknown>) | undefined
  readonly cannot: () => NotRerunnableReason | undefined
}

/** One request of Koa's. */
class KoaRequest extends HttpRequest<[ctx: KoaContext]> {
  readonly #ctx: KoaContext
  readonly #runs: Runs
  readonly #storesErrors: boolean
  #letErrorsGo: (() => void) | undefined

  constructor(ctx: KoaContext, setup: KoaSetup, options: RouteOptions, runs: Runs) {
    const { req, res, app } = ctx
    const keys = keyRingOf(setup.keys ?? app.keys)
    super({ req, res, args: [ctx], keys, canRunAgain: runs.again !== undefined }, setup, options)
    this.#ctx = ctx
    this.#runs = runs
    this.#storesErrors = setup.commitOnError !== undefined
    installAccessors(ctx)
    ;(ctx as Carrier)[REQUEST] = this
  }

  /** @param looks of a request that Koa made, and nobody has touched since */
  live(looks?: Looks): Promise<unknown> {
    const { request, response } = this.#ctx
    if (this.mayRunAgain) {
      const contents = looks === undefined ? contentsAbove : contentsOfKoa
      this.remember([this.#ctx, request, response], KOA_PROPERTIES, () => contents(this.#ctx), looks)
    }
    const lived = this.livesLater(this.#runs.first) ?? this.livesOn()
    if (!this.#storesErrors) return lived
    return lived.catch((error: unknown) => {
      this.#keepCookie(error)
      throw error
    })
  }

  /** Stored though it threw: Koa's error page removes all headers but those of the error. */
  #keepCookie(error: unknown): void {
    const cookie = this.#ctx.res.getHeader('Set-Cookie')
    if (!this.cookieSent || cookie === undefined || !(error instanceof Error)) return
    const carrier = error as Error & { headers?: object }
    if (Object.isFrozen(carrier)) return
    carrier.headers = { ...carrier.headers, 'Set-Cookie': cookie }
  }

  route(): string {
    const { _matchedRoute: matched } = this.#ctx as { _matchedRoute?: string | RegExp | null }
    return matched === undefined || matched === null ? '(unmatched)' : String(matched)
  }

  async work(): Promise<unknown> {
    const { first, again } = this.#runs
    try {
      if (this.latest?.tx.attempt !== 1 && again !== undefined) return await again(this.#ctx)
      return await (this.running ?? first())
    } finally {
      this.#letErrorsGo = holdErrors(this.#ctx.body)
    }
  }

  override ended(): void {
    super.ended()
    this.#letErrorsGo?.()
  }

  protected override restore(): void {
    discardStream(this.#ctx.body)
    super.restore()
  }

  protected whyStarted(): NotRerunnableReason | undefined {
    const { res, respond } = this.#ctx
    return res.headersSent || (respond === false && res.writableEnded) ? 'responseStarted' : undefined
  }
  protected whyNotAgain(): NotRerunnableReason | undefined {
    return this.#runs.cannot()
  }
  protected isSecure(): boolean {
    return this.#ctx.secure
  }
  protected writeCookie(write: () => void): void {
    write()
  }

  report(error: unknown): void {
    this.#ctx.app.emit('error', error, this.#ctx)
  }
}

function contentsOfKoa(ctx: KoaContext): (KeptContents | undefined)[] {
  return [keepPlaces(ctx, 'state')]
}

/** Also what parsers above us may have left. */
function contentsAbove(ctx: KoaContext): (KeptContents | undefined)[] {
  const { request } = ctx
  const contents = [keepPlaces(ctx, 'state'), keepParsed(request, 'body')]
  for (const name of UPLOADED) contents.push(keepPlaces(request, name), keepPlaces(ctx, name))
  return contents
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
      get(this: Carrier): SessionObject | null | undefined {
        return this[REQUEST]?.attempt?.visibleSession
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
