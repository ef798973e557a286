/**
 * What traces a request, as an interface: one trace for each transaction, in it one for each attempt. Types only; who
 * implements it must not throw, and must not keep what it is given. Knows no OpenTelemetry.
 */
import type { AttemptEnd } from '../transaction/retry.js'

export type Ending = 'committed' | 'rolledBack' | 'refused' | 'unknown'

export interface Trace {
  /** Runs an attempt with its trace as the current one, also across everything it awaits; what `run` gives or throws. */
  attempt<T>(number: number, run: () => Promise<AttemptEnd<T>>): Promise<AttemptEnd<T>>
  /** @param ending undefined: it failed before it began, or outside of any transaction */
  end(ending: Ending | undefined, route: string, attempts: number): void
}

export interface Tracing {
  /** Nobody wants to see any request at the moment. */
  readonly isIdle: boolean
  /** Called once for each request, where it is served. Undefined: nobody wants to see this one. */
  begin(): Trace | undefined
}
