/** What we use of Express, 4 and 5, as structural types: it is never imported at run time. Types only. */
import type { IncomingMessage, ServerResponse } from 'node:http'

/** What we use of Express's request, and a little more for callbacks; annotate theirs with Express's own `Request` for the rest. */
export interface ExpressRequest extends IncomingMessage {
  method: string
  url: string
  originalUrl: string
  baseUrl: string
  readonly path: string
  readonly secure: boolean
  /** True where the server hands on connections that are upgraded. */
  readonly upgrade?: boolean
  query: unknown
  params: object
  body?: unknown
  /** A request header. */
  get(name: string): unknown
}

export interface ExpressResponse extends ServerResponse {
  locals: object
}

/** `'route'` and `'router'` leave what we stand in; anything else that is true is an error. */
export type ExpressNext = (error?: unknown) => void

/** A method, so that Express's own, wider handler types fit in both directions. */
export type ExpressHandler = {
  bivariant(req: ExpressRequest, res: ExpressResponse, next: ExpressNext): unknown
}['bivariant']

type Call = (...args: never[]) => unknown

/** One entry of a stack: a middleware, a router, or a route. */
export interface Layer {
  handle: Call & { readonly stack?: unknown; readonly handle?: unknown; readonly __original?: unknown }
  route?: Route | undefined
  match(path: string): unknown
  /** Express 5: what it was mounted with; Express 4 keeps only the expression. */
  readonly rawPath?: unknown
  readonly slash?: boolean
  readonly regexp?: RegExp & { readonly fast_slash?: boolean; readonly fast_star?: boolean }
  readonly keys?: readonly { readonly name: string | number }[]
  readonly path?: string
  handleError?(error: unknown, req: ExpressRequest, res: ExpressResponse, next: ExpressNext): void
  handle_error?(error: unknown, req: ExpressRequest, res: ExpressResponse, next: ExpressNext): void
  /** Express 4 has this name for it. */
  handle_request?(...args: never[]): void
}

export interface Router {
  readonly stack: readonly Layer[]
  handle(req: ExpressRequest, res: ExpressResponse, done: ExpressNext): void
}

export interface Route {
  readonly path: unknown
  readonly stack: readonly Layer[]
  dispatch(req: ExpressRequest, res: ExpressResponse, done: ExpressNext): void
  _handlesMethod?(method: string): boolean
  _handles_method?(method: string): boolean
}

/** What Express hangs on a request. */
export interface Routed {
  readonly app?: { readonly _router?: Router; readonly router?: Router }
  readonly route?: Route
  readonly _parsedUrl?: { readonly _raw?: string }
}
