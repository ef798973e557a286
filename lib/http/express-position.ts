/**
 * Where we stand in an Express application's stacks: in its own router, in one below it, or in a route. The router that
 * calls us is not told to us, so it is searched for, once per application and again when its stacks have grown. In doubt
 * the answer is that we do not know. Knows no transaction.
 */
import type { NotRerunnableReason } from '../events.js'
import type {
  ExpressHandler,
  ExpressNext,
  ExpressRequest,
  ExpressResponse,
  Layer,
  Route,
  Routed,
  Router,
} from './express-context.js'
import { isAtRoot, patternOf } from './express-path.js'
import { isRouter, routerIn, type Views } from './express-view.js'

/** Survives wrappers that copy properties, where identity does not; some copy none with a symbol for its name. */
const MARK = 'isSessionTx'

interface Marked {
  readonly [MARK]?: symbol
}

/** What stands below us, as something that can be called again. */
export interface Below {
  run(req: ExpressRequest, res: ExpressResponse, done: ExpressNext): void
  /** What the original `next` must be told, since everything below has been run. */
  readonly leave: 'router' | 'route'
  /** The pattern of what we are mounted in. */
  readonly pattern: string
  readonly cannot: NotRerunnableReason | undefined
}

interface Place {
  readonly layer: Layer
  readonly index: number
  /** The layers of the routers that lead here. */
  readonly chain: readonly Layer[]
  /** Of each of them the index in its own stack, and ours. */
  readonly path: readonly number[]
  readonly route: Route | undefined
  readonly below: Below
}

interface Known {
  readonly places: readonly Place[]
  /** Each stack that was looked through, and how long it was. */
  readonly stacks: readonly (readonly [{ readonly stack: readonly unknown[] }, number])[]
}

export class ExpressPosition {
  readonly #identity = Symbol('session-tx')
  readonly #known = new WeakMap<object, Known>()
  readonly #views: Views

  constructor(views: Views) {
    this.#views = views
  }

  /** So that it finds itself in the stacks. */
  mark(middleware: ExpressHandler): ExpressHandler {
    return Object.defineProperty(middleware, MARK, { value: this.#identity, enumerable: true })
  }

  /** What runs below us; undefined if that is not to be found, or could be in several places. */
  of(req: ExpressRequest): Below | undefined {
    const root = rootOf(req)
    if (root === undefined) return undefined
    const places = this.#placesIn(root)
    const { route } = req as Routed
    const inRoute = route === undefined ? undefined : places.find(place => place.route === route)
    if (inRoute !== undefined) return inRoute.below
    const inRouters = places.filter(place => place.route === undefined)
    const first = inRouters.filter(place => !inRouters.some(other => comesBefore(other, place)))
    const here = first.length > 1 ? first.filter(place => leadsHere(place, req)) : first
    return here.length === 1 ? here[0]?.below : undefined
  }

  #placesIn(root: Router): readonly Place[] {
    const known = this.#known.get(root)
    if (known?.stacks.every(([{ stack }, length]) => stack.length === length)) return known.places
    const places: Place[] = []
    const stacks: [{ readonly stack: readonly unknown[] }, number][] = []
    const walk = (router: Router, chain: readonly Layer[], path: readonly number[]): void => {
      stacks.push([router, router.stack.length])
      for (const [index, layer] of router.stack.entries()) {
        const { handle, route } = layer
        if (route !== undefined) {
          stacks.push([route, route.stack.length])
          for (const [inner, own] of route.stack.entries())
            if (this.#isUs(own.handle)) places.push(this.#inRoute(own, route, inner, chain, [...path, index]))
        } else if (this.#isUs(handle)) places.push(this.#inRouter(layer, router, index, chain, path))
        else {
          const inner = routerIn(handle, router)
          if (inner !== undefined && !chain.some(above => above.handle === handle))
            walk(inner, [...chain, layer], [...path, index])
        }
      }
    }
    walk(root, [], [])
    this.#known.set(root, { places, stacks })
    return places
  }

  #isUs(handle: unknown): boolean {
    const { [MARK]: mark, __original: original } = handle as Marked & { readonly __original?: unknown }
    return mark === this.#identity || (original as Marked | undefined)?.[MARK] === this.#identity
  }

  #inRouter(
    layer: Layer,
    router: Router,
    index: number,
    chain: readonly Layer[],
    path: readonly number[],
  ): Place {
    const view = this.#views.belowInRouter(router, index)
    const options = this.#views.optionsInRouter(router, index)
    const runs: Below['run'] = (req, res, done) =>
      (req.method === 'OPTIONS' ? options : view).handle(req, res, done)
    const atRoot = isAtRoot(layer)
    const below: Below = {
      run: atRoot ? runs : untrimmed(runs),
      leave: 'router',
      pattern: chain.map(patternOf).join(''),
      cannot: atRoot ? undefined : 'mountPath',
    }
    return { layer, index, chain, path: [...path, index], route: undefined, below }
  }

  #inRoute(
    layer: Layer,
    route: Route,
    index: number,
    chain: readonly Layer[],
    path: readonly number[],
  ): Place {
    const view = this.#views.belowInRoute(route, index)
    const below: Below = {
      run: (req, res, done) => view.dispatch(req, res, done),
      leave: 'route',
      pattern: chain.map(patternOf).join(''),
      cannot: undefined,
    }
    return { layer, index, chain, path, route, below }
  }
}

function rootOf(req: ExpressRequest): Router | undefined {
  const { app } = req as Routed
  // Express 4 has a `router` that throws.
  const router = app?._router ?? (app !== undefined && '_router' in app ? undefined : app?.router)
  return router !== undefined && isRouter(router) ? router : undefined
}

/** Who stands at `place` has always passed `other` before, where the request was taken care of. */
function comesBefore(other: Place, place: Place): boolean {
  const depth = other.path.length - 1
  if (other === place || !isAtRoot(other.layer) || place.path.length <= depth) return false
  const isSameStack = other.path.slice(0, depth).every((index, level) => place.path[level] === index)
  return isSameStack && (place.path[depth] ?? 0) > (other.path[depth] ?? 0)
}

/** Whether the URL, as far as it has been trimmed, is what these layers have trimmed off. */
function leadsHere({ chain, layer }: Place, req: ExpressRequest): boolean {
  const { baseUrl, url } = req
  const mountBase = baseUrl
  const path = /^[^?]*/.exec(mountBase + (url.startsWith('/') ? url : `/${url}`))?.[0] ?? ''
  let rest = path
  for (const one of [...chain, layer]) {
    const matched = one.match(rest === '' ? '/' : rest)
    const { path: trimmed } = (typeof matched === 'object' ? matched : one) as { readonly path?: string }
    if (!matched || trimmed === undefined) return false
    rest = rest.slice(trimmed.replace(/\/$/, '').length)
  }
  return path.length - rest.length === mountBase.length
}

/** Express has trimmed the URL for us, and for us only: what stands below gets it whole. */
function untrimmed(run: Below['run']): Below['run'] {
  return (req, res, done) => {
    const { url, baseUrl } = req
    const whole = (req as Routed)._parsedUrl?._raw ?? url
    const rest = whole.endsWith(url) ? url : url.slice(1)
    const trimmed = whole.slice(0, whole.length - rest.length).replace(/\/$/, '')
    req.url = whole
    req.baseUrl = baseUrl.slice(0, baseUrl.length - trimmed.length)
    run(req, res, error => {
      // Express will put back what it has trimmed.
      req.url = url
      req.baseUrl = baseUrl
      done(error)
    })
  }
}
