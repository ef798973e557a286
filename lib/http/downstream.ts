/**
 * Where we stand in a Koa application's stack, and what runs below us there, composed into one function that can be
 * called again: `next()` works once per request. Knows nothing of transactions.
 */
import compose from 'koa-compose'
import type { KoaContext, KoaMiddleware } from './koa-context.js'
import { type Looks, usualLooks } from './pristine.js'

/** Survives wrappers that copy properties, where identity does not. */
const MARK: unique symbol = Symbol.for('session-tx.middleware')

/** How @opentelemetry/instrumentation-koa calls its own mark; the symbol itself is private to it. */
const WRAPPED_BY_OPENTELEMETRY = 'koa-layer-patched'

interface Marked {
  [MARK]?: symbol
  readonly __original?: unknown
}

/** One application's, as it is seen from where we stand. */
interface Stack {
  readonly length: number
  /** What runs below us, as one function; undefined if it is not to be found. */
  readonly below: ((ctx: KoaContext) => Promise<unknown>) | undefined
  /** Nobody stands above us: requests come as Koa made them. */
  readonly looks: Looks | undefined
}

/** Context, request and response. */
const FRAMES = 3

/** Finds and composes what stands below us, once per application and again when its stack has grown. */
export class Downstream {
  readonly #identity = Symbol('session-tx')
  readonly #known = new WeakMap<object, Stack>()
  #warned = false

  /** So that it finds itself among the application's middleware. */
  mark(middleware: KoaMiddleware): KoaMiddleware {
    Object.defineProperty(middleware, MARK, { value: this.#identity, enumerable: true })
    // OpenTelemetry wraps every middleware in a function that says nothing of it, except those that it has wrapped
    // already. What stands above and below is wrapped as ever; a transaction gets no span for it.
    return new Proxy(middleware, {
      get: (target, name) =>
        typeof name === 'symbol' && name.description === WRAPPED_BY_OPENTELEMETRY
          ? true
          : (Reflect.get(target, name) as unknown),
    })
  }

  of({ app }: KoaContext): Stack {
    const { middleware } = app
    let known = this.#known.get(app)
    if (known === undefined || known.length !== middleware.length) {
      const place = middleware.findIndex(other => this.#isUs(other))
      const below =
        place < 0 ? undefined : compose(middleware.slice(place + 1) as compose.Middleware<KoaContext>[])
      known = {
        length: middleware.length,
        below: below as Stack['below'],
        looks: place === 0 ? usualLooks(FRAMES) : undefined,
      }
      this.#known.set(app, known)
      if (place < 0) this.#warn()
    }
    return known
  }

  #isUs(other: unknown): boolean {
    const marked = other as Marked
    if (marked[MARK] === this.#identity) return true
    return (marked.__original as Marked | undefined)?.[MARK] === this.#identity
  }

  #warn(): void {
    if (this.#warned) return
    this.#warned = true
    process.emitWarning(
      'session-tx cannot find what stands below it, so requests run once and a lost race is answered with 503. ' +
        'It is probably mounted by a router, inside compose([...]) or in a mounted app: mount it with app.use(…) of the ' +
        'outermost application, or wrap handlers: router.post(path, tx.transactional(handler)).',
      'SessionTxWarning',
    )
  }
}
