/** What we use of Koa, as structural types: it is never imported at run time. Types only. */
import type { IncomingMessage, ServerResponse } from 'node:http'

/** What we use of Koa's context, and a little more for callbacks; annotate theirs with Koa's own `Context` for the rest. */
export interface KoaContext {
  readonly app: {
    readonly middleware: readonly KoaMiddleware[]
    readonly keys?: unknown
    emit(event: string, ...args: unknown[]): unknown
  }
  readonly req: IncomingMessage
  readonly res: ServerResponse
  readonly request: object
  readonly response: object
  readonly secure: boolean
  readonly method: string
  readonly path: string
  status: number
  state: Record<PropertyKey, unknown>
  body: unknown
  /** A request header; empty if there is none. */
  get(field: string): string
  respond?: boolean | undefined
}

export type KoaNext = () => Promise<unknown>
/** A method, so that Koa's own, wider middleware types fit in both directions. */
export type KoaMiddleware = { bivariant(ctx: KoaContext, next: KoaNext): unknown }['bivariant']
