/**
 * Express's stacks as a joint transaction runs them: the same layers, but each handler runs inside of the attempt, and no
 * error middleware is called before it is certain that its error is the last. A view has its own stack and all else from
 * what it is a view of, so Express's own code walks it. Knows no transaction.
 */
import type { ExpressNext, ExpressRequest, ExpressResponse, Layer, Route, Router } from './express-context.js'
import { patternOf, routePattern } from './express-path.js'

/** What a request has to do with what runs below us. */
export interface Dispatch {
  /** Calls a handler inside of the attempt that it belongs to; one of an ended attempt is not called. */
  enter(call: () => unknown, next: ExpressNext, rejects: boolean): unknown
  /** An error has come as far as an error middleware; `resume` calls that. */
  reached(error: unknown, resume: (error: unknown) => void): void
  /** What follows stands below this pattern; returns how to leave it. */
  mounted(pattern: string): () => void
  routed(route: Route, pattern: string): void
}

type DispatchOf = (req: ExpressRequest) => Dispatch | undefined
type Handle = (req: ExpressRequest, res: ExpressResponse, next: ExpressNext) => unknown

export class Views {
  readonly #dispatchOf: DispatchOf
  readonly #routers = new WeakMap<Router, Router>()
  readonly #routes = new WeakMap<Route, Route>()
  readonly #stacks = new WeakMap<object, () => readonly Layer[]>()

  /** While a stack is lent, which ends within the call that lent it. */
  #giveBack: (() => void) | undefined

  constructor(dispatchOf: DispatchOf) {
    this.#dispatchOf = dispatchOf
  }

  /** What stands below the layer at `index` of a router, without its error middleware. */
  belowInRouter(router: Router, index: number): Router {
    return view(router, this.#below(router, index))
  }

  /**
   * The same for an OPTIONS request: Express answers those itself by the methods of all routes, and those above count.
   * They have no handler for OPTIONS, so none of them is run.
   */
  optionsInRouter(router: Router, index: number): Router {
    const below = this.#below(router, index)
    return view(router, () => [...router.stack.slice(0, index).filter(isSilentOnOptions), ...below()])
  }

  belowInRoute(route: Route, index: number): Route {
    return routeView(route, this.#below(route, index))
  }

  #below(owner: Router | Route, index: number): () => readonly Layer[] {
    const whole = this.#stackOf(owner)
    let of: readonly Layer[] | undefined
    let below: readonly Layer[] = []
    return () => {
      const now = whole()
      if (now !== of) below = now.slice(index + 1).filter(({ handle }) => handle.length !== 4)
      of = now
      return below
    }
  }

  /** The layers of a stack, wrapped; again when it has grown. */
  #stackOf(owner: Router | Route): () => readonly Layer[] {
    const known = this.#stacks.get(owner)
    if (known !== undefined) return known
    const isInRoute = 'dispatch' in owner
    let last: Layer | undefined
    let wrapped: readonly Layer[] = []
    const stack = (): readonly Layer[] => {
      const now = owner.stack
      if (wrapped.length !== now.length || last !== now.at(-1))
        wrapped = now.map(layer => this.#wrap(layer, isInRoute ? undefined : (owner as Router)))
      last = now.at(-1)
      return wrapped
    }
    this.#stacks.set(owner, stack)
    return stack
  }

  #wrap(layer: Layer, owner: Router | undefined): Layer {
    const wrapped = Object.create(layer) as Layer
    if (layer.route !== undefined) {
      const { route } = layer
      const seen = this.#routeView(route)
      wrapped.route = seen
      wrapped.handle = this.#routing(layer, route, seen)
    } else if (layer.handle.length === 4) wrapped.handle = this.#catching(layer)
    else wrapped.handle = this.#handling(layer, owner)
    return wrapped
  }

  #routing(layer: Layer, route: Route, seen: Route): Handle {
    const pattern = routePattern(route)
    return (req, res, next) => {
      this.#takeBack()
      const dispatch = this.#dispatchOf(req)
      if (dispatch === undefined) return (layer.handle as Handle)(req, res, next)
      if (isInstrumented(layer.handle)) {
        dispatch.routed(route, pattern)
        return this.#lending(route, this.#stackOf(route), () => (layer.handle as Handle)(req, res, next))
      }
      dispatch.routed(seen, pattern)
      return seen.dispatch(req, res, next)
    }
  }

  #catching(layer: Layer): (error: unknown, ...args: Parameters<Handle>) => unknown {
    return (error, req, res, next) => {
      // Express's own method: it hands on what the error middleware itself throws.
      const resume = (last: unknown): void => {
        if (layer.handleError !== undefined) layer.handleError(last, req, res, next)
        else layer.handle_error?.(last, req, res, next)
      }
      this.#takeBack()
      const dispatch = this.#dispatchOf(req)
      if (dispatch === undefined) resume(error)
      else dispatch.reached(error, resume)
    }
  }

  #handling(layer: Layer, owner: Router | undefined): Handle {
    const pattern = owner === undefined ? '' : patternOf(layer)
    const inner = owner === undefined ? asRouter(layer.handle) : routerIn(layer.handle, owner)
    // Express 4 does not look at what a handler returns: without us its rejection would reach nobody.
    const rejects = layer.handle_request !== undefined
    const handle: Handle = (req, res, next) => {
      const call = (): unknown => (layer.handle as Handle)(req, res, next)
      if (inner === undefined) return call()
      if (!isInstrumented(layer.handle)) return this.#routerView(inner).handle(req, res, next)
      const router = uninstrumented(inner)
      return this.#lending(router, this.#stackOf(router), call)
    }
    return (req, res, next) => {
      this.#takeBack()
      const dispatch = this.#dispatchOf(req)
      if (dispatch === undefined) return (layer.handle as Handle)(req, res, next)
      if (pattern === '') return dispatch.enter(() => handle(req, res, next), next, rejects)
      const leave = dispatch.mounted(pattern)
      const leaving: ExpressNext = error => {
        leave()
        next(error)
      }
      return dispatch.enter(() => handle(req, res, leaving), leaving, rejects)
    }
  }

  /** Calls what will walk through `owner`'s own stack, and has it find ours there until it has come to a layer. */
  #lending(owner: Router | Route, stack: () => readonly Layer[], call: () => unknown): unknown {
    this.#takeBack()
    const own = owner.stack
    const put = (value: readonly Layer[]): void => {
      Object.defineProperty(owner, 'stack', { value, configurable: true, enumerable: true, writable: true })
    }
    put(stack())
    const giveBack = (): void => put(own)
    this.#giveBack = giveBack
    try {
      return call()
    } finally {
      if (this.#giveBack === giveBack) this.#takeBack()
    }
  }

  #takeBack(): void {
    this.#giveBack?.()
    this.#giveBack = undefined
  }

  #routerView(router: Router): Router {
    const known = this.#routers.get(router) ?? view(router, this.#stackOf(router))
    this.#routers.set(router, known)
    return known
  }

  #routeView(route: Route): Route {
    const known = this.#routes.get(route) ?? routeView(route, this.#stackOf(route))
    this.#routes.set(route, known)
    return known
  }
}

export function isRouter(handle: unknown): handle is Router {
  const { stack, handle: run } = handle as { readonly stack?: unknown; readonly handle?: unknown }
  return Array.isArray(stack) && typeof run === 'function'
}

function asRouter(handle: unknown): Router | undefined {
  return isRouter(handle) ? handle : undefined
}

const unwrapped = new WeakMap<object, Router>()

/**
 * The router that a layer calls. express-async-errors puts a function before it that has the router's own properties, and
 * not what it inherits: that is as in any other router of the application.
 */
export function routerIn(handle: unknown, like: Router): Router | undefined {
  if (isRouter(handle)) return handle
  // Of the same kind: `like` is Express 4's, and the `router` package has others.
  if (typeof handle !== 'function' || !Object.keys(like).every(name => Object.hasOwn(handle, name)))
    return undefined
  const known = unwrapped.get(handle)
  if (known !== undefined) return known
  const own = Object.getOwnPropertyDescriptors(handle)
  const router = Object.create(Object.getPrototypeOf(like) as object, own) as Router
  unwrapped.set(handle, router)
  return router
}

function view(router: Router, stack: () => readonly Layer[]): Router {
  return Object.create(router, { stack: { get: stack, enumerable: true } }) as Router
}

/** With all own properties: it becomes `req.route`, which handlers look at. */
function routeView(route: Route, stack: () => readonly Layer[]): Route {
  const own = Object.getOwnPropertyDescriptors(route)
  const properties = { ...own, stack: { get: stack, enumerable: true } }
  return Object.create(Object.getPrototypeOf(route) as object, properties) as Route
}

interface Instrumented {
  readonly __original?: unknown
}

/** Wrapped as `shimmer` does it, and with it OpenTelemetry: what is in the wrapper must not be gone around. */
function isInstrumented(handle: unknown): boolean {
  return (handle as Instrumented).__original !== undefined
}

function uninstrumented(handle: Router): Router {
  const { __original: original } = handle as Router & Instrumented
  return typeof original === 'function' && isRouter(original) ? uninstrumented(original) : handle
}

function isSilentOnOptions({ route }: Layer): boolean {
  if (route === undefined) return false
  return !(route._handlesMethod?.('OPTIONS') ?? route._handles_method?.('options') ?? true)
}
