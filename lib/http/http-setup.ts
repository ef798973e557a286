/**
 * What all requests of one `sessionTx()` have in common at the door of a framework, and what one route may set for
 * itself. Types only. `Args` is what the application's callbacks get: Koa's context, or Express's request and response.
 */
import type { Isolation, JointParts } from '../joint/request.js'
import type { SessionCookie, Signer } from './cookie.js'

/** What one route may set for itself. */
export interface RouteOptions {
  readonly retries?: number | undefined
  readonly isolation?: Isolation | undefined
  readonly readOnly?: boolean | undefined
}

export interface HttpSetup<Args extends unknown[]> {
  readonly parts: JointParts
  readonly cookie: SessionCookie
  /** Undefined: those of the framework's application, where it has some. */
  readonly keys: readonly string[] | Signer | undefined
  readonly requestBytesMax: number
  readonly responseBytesMax: number
  readonly isolation: Isolation
  readonly retries: (...args: Args) => number
  readonly readOnly: ((...args: Args) => boolean) | undefined
  readonly skip: ((...args: Args) => boolean) | undefined
  readonly veto: ((...args: Args) => boolean) | undefined
  readonly commitOnError: ((error: unknown, ...args: Args) => boolean) | undefined
}
