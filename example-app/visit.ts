/**
 * What a handler of the shop gets, whatever the framework: the session, the transaction and what the visitor sent. Knows
 * neither Koa nor Express, and not what handlers do.
 */
import createError from 'http-errors'
import type { SessionTxContext } from 'session-tx'

export interface Visit {
  readonly session: SessionTxContext['session']
  readonly tx: Pick<SessionTxContext['tx'], 'query' | 'afterCommit'>
  /** Fields of the form or of the JSON that was sent, and of the path. */
  readonly sent: Readonly<Record<string, unknown>>
  /** A receipt goes out: for after-commit hooks. */
  readonly receipt: (order: number) => unknown
}

/** @returns what is answered, as JSON or on a page */
export type Handler = (visit: Visit) => Promise<unknown>

/** Ends the request: nothing is stored. */
export function insist(fact: unknown, status: number, message: string): asserts fact {
  if (!fact) throw createError(status, message)
}
