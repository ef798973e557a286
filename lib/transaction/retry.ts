/**
 * The one loop that runs a request's attempts: again after a lost race, until one commits, fails for another reason,
 * or no further one is allowed. Knows nothing of what an attempt does; decides only whether, when and how often.
 * Source: pyramid_retry's tween for the shape; Zope for the default of three.
 */
import type { NotRerunnableReason } from '../events.js'
import { type ConflictKind, isSessionTxError, SessionTxError, type SessionTxErrorCode } from '../errors.js'
import { type BackoffOptions, backoffMs } from './backoff.js'
import type { RetryBudget } from './budget.js'
import type { Interrupt } from './interrupt.js'
import type { Ticket, TicketOffice } from './ticket.js'

/** How an attempt ended. Whatever it is, both sides are settled and its connection is back. */
export type AttemptEnd<T> =
  /** Nothing more to do: committed, or rolled back on purpose (doom, veto) with an answer to deliver. */
  | { readonly kind: 'done'; readonly value: T }
  /** The error is the request's answer; not a lost race. */
  | { readonly kind: 'failed'; readonly error: unknown }
  /** Another transaction won. `ticketKeys` name what to queue for; none: sleep instead. */
  | {
      readonly kind: 'conflict'
      readonly error: SessionTxError
      readonly ticketKeys: readonly string[]
      readonly attemptMs: number
    }

export interface AttemptOrder {
  /** Which run of the handler, counted from 1. */
  readonly attempt: number
  /** No conflict of this attempt can lead to another one. */
  readonly isLast: boolean
  /** Session and rows must be opened at one instant: the attempt before saw them at two. */
  readonly opensTogether: boolean
  readonly lastError: SessionTxError | undefined
  /** Keys that are reserved for this attempt. */
  readonly ticketKeys: readonly string[]
}

export interface RetryOptions extends BackoffOptions {
  /** How many times the handler may run again; 0 is 0. */
  readonly retries: number
}

export interface RetryRequest<T> {
  readonly id: string
  readonly interrupt: Interrupt
  /** What those are told who give way to it: its route. */
  readonly name: () => string
  attempt(order: AttemptOrder): Promise<AttemptEnd<T>>
  /** Keys to wait for before the first attempt. */
  expectedTicketKeys?(): readonly string[]
  /** Why this request cannot run again, asked after each conflict. */
  notRerunnable(): NotRerunnableReason | undefined
  /** Told after each conflict, with what was decided, before any waiting. */
  onConflict(
    error: SessionTxError,
    order: AttemptOrder,
    attemptMs: number,
    refusal: SessionTxError | undefined,
  ): void
  onRerun(attempt: number, waitMs: number, waitedFor: 'ticket' | 'backoff' | 'nothing'): void
}

const NONE: readonly string[] = Object.freeze([])

interface RetryTools {
  readonly now: () => number
  readonly random: () => number
  /** Undefined: losers sleep instead of queueing. */
  readonly tickets: TicketOffice | undefined
  /** What re-runs that sleep are paid with; undefined: they cost nothing. */
  readonly budget?: RetryBudget | undefined
}

/**
 * Runs attempts until one settles the request.
 * @throws RETRIES_EXHAUSTED BUDGET_EXHAUSTED NOT_RERUNNABLE RESPONSE_STARTED DEADLINE QUEUE_FULL with the last conflict as cause;
 * STORE_UNAVAILABLE when the last attempt found no database
 */
export async function withRetries<T>(
  request: RetryRequest<T>,
  options: RetryOptions,
  tools: RetryTools,
): Promise<T> {
  let ticket: Ticket | undefined
  let charged = 0
  tools.budget?.earn()
  const freeSpent = new Set<ConflictKind>()
  const seen = new Map<ConflictKind | undefined, number>()
  let lastConflict: SessionTxError | undefined
  try {
    const expected = tools.tickets === undefined ? undefined : request.expectedTicketKeys?.()
    if (tools.tickets !== undefined && expected !== undefined && expected.length > 0)
      ticket = await takeEarly(tools.tickets, expected, request)
    let order = firstOrder(options.retries, ticket?.keys ?? NONE)
    for (;;) {
      const end = await request.attempt(order)
      if (end.kind === 'done') return end.value
      if (end.kind === 'failed') throw end.error

      // What is nobody's lost race is free, once per request and kind, unless the handler may never run again: having
      // seen session and rows at two moments (the next attempt opens both at one instant), and a connection that turned
      // out to be dead at the first use.
      lastConflict = end.error
      const { kind, free: offered, rerunsMax = Infinity } = end.error.conflict ?? {}
      const free = offered === true && kind !== undefined && !freeSpent.has(kind) && options.retries > 0
      const ofThisKind = (seen.get(kind) ?? 0) + 1
      seen.set(kind, ofThisKind)
      const spent = !free && (charged >= options.retries || ofThisKind > rerunsMax)
      // What is free runs again at once. The second time it is a race like any other: with whoever holds a row's lock.
      const queues =
        tools.tickets !== undefined && end.ticketKeys.length > 0 && !(free && kind === 'snapshot')
      // Who lost again while it held the ticket competes with others that do not queue, so queueing alone is no way out.
      const pays = !free && (!queues || covers(ticket, end.ticketKeys))
      const refusal =
        refuse(request, end.error, spent ? 'retries' : undefined, order.attempt) ??
        (pays && tools.budget?.take() === false
          ? refuse(request, end.error, 'budget', order.attempt)
          : undefined)
      request.onConflict(end.error, order, end.attemptMs, refusal)
      if (refusal !== undefined) throw refusal

      if (free) freeSpent.add(kind)
      else charged += 1
      const waitStart = tools.now()
      let waitedFor: 'ticket' | 'backoff' | 'nothing' = 'nothing'
      if (queues && tools.tickets !== undefined) {
        waitedFor = 'ticket'
        ticket = await takeTicket(tools.tickets, ticket, end, request)
      } else if (!free) {
        waitedFor = 'backoff'
        await request.interrupt.sleep(backoffMs(charged, options, tools.random))
      }
      const ended = request.interrupt.waitingEnded
      if (ended !== undefined) throw ended
      order = {
        attempt: order.attempt + 1,
        isLast: charged >= options.retries,
        opensTogether: kind === 'snapshot' || kind === 'stale',
        lastError: lastConflict,
        ticketKeys: ticket?.keys ?? [],
      }
      if (order.isLast) ticket?.insist()
      request.onRerun(order.attempt, tools.now() - waitStart, waitedFor)
    }
  } catch (error) {
    throw withCause(error, lastConflict)
  } finally {
    ticket?.release()
  }
}

export function firstOrder(retries: number, ticketKeys: readonly string[]): AttemptOrder {
  return { attempt: 1, isLast: retries === 0, opensTogether: false, lastError: undefined, ticketKeys }
}

/** Nothing has been lost yet, so a queue that is full, or a client that went away, is no reason not to begin. */
async function takeEarly(
  office: TicketOffice,
  keys: readonly string[],
  { interrupt, name }: RetryRequest<unknown>,
): Promise<Ticket | undefined> {
  try {
    return await office.take(keys, interrupt, { early: true, name })
  } catch (error) {
    if (interrupt.reason !== undefined) throw error
    return undefined
  }
}

/** Keeps a ticket that covers what was lost; for a wider set gives it back first, so that nobody waits while holding. */
async function takeTicket(
  office: TicketOffice,
  held: Ticket | undefined,
  end: { readonly ticketKeys: readonly string[] },
  { interrupt, name }: RetryRequest<unknown>,
): Promise<Ticket> {
  if (held !== undefined && covers(held, end.ticketKeys)) return held
  held?.release()
  return office.take([...(held?.keys ?? []), ...end.ticketKeys], interrupt, { name })
}

function covers(ticket: Ticket | undefined, keys: readonly string[]): boolean {
  return ticket !== undefined && keys.every(key => ticket.keys.includes(key))
}

/** @param spent the limit that is reached, if one is */
function refuse(
  request: RetryRequest<unknown>,
  conflict: SessionTxError,
  spent: 'retries' | 'budget' | undefined,
  attempt: number,
): SessionTxError | undefined {
  const ended = request.interrupt.waitingEnded
  if (ended !== undefined) return refusal(ended.code, ended.message)
  const reason = request.notRerunnable()
  // The client learns what is wrong, not how often it was tried.
  const { cause } = conflict
  if (conflict.conflict?.kind === 'unavailable' && isSessionTxError(cause)) {
    return spent !== undefined || reason !== undefined ? cause : undefined
  }
  if (reason === 'responseStarted') {
    return refusal('RESPONSE_STARTED', 'the handler wrote to the response itself, so it cannot run again')
  }
  if (reason !== undefined) return refusal('NOT_RERUNNABLE', REASONS[reason])
  if (spent === 'budget')
    return refusal('BUDGET_EXHAUSTED', 'too many requests of this process run again at the moment')
  if (spent === 'retries')
    return refusal('RETRIES_EXHAUSTED', `gave up after ${attempt} attempt${attempt === 1 ? '' : 's'}`)
  return undefined

  function refusal(code: SessionTxErrorCode, message: string): SessionTxError {
    const details = { cause: conflict, conflict: conflict.conflict, transactionId: request.id }
    return new SessionTxError(code, `${message}: ${conflict.message}`, details)
  }
}

const REASONS: Readonly<Record<NotRerunnableReason, string>> = Object.freeze({
  body: 'the request body is larger than hold.requestBytesMax and was not kept',
  position:
    'session-tx could not find what stands below it (mount it with app.use, or use tx.transactional(handler))',
  mountPath:
    'session-tx is mounted under a path (mount it without one, on a router of that path, or use tx.transactional(handler))',
  responseStarted: 'the response had started',
  responseBytes: 'the answer is larger than hold.responseBytesMax and was not held',
  eventStream: 'it answers with an event stream',
  upgrade: 'the connection was upgraded to another protocol',
  nextCalled: 'the handler called next(), which works only once',
  nonTransactional: 'it wrote to a table that cannot roll back, and would write there again',
  implicitCommit: 'a statement committed half of it, and would do that again',
})

const ENDS_WAITING: ReadonlySet<SessionTxErrorCode> = new Set([
  'DEADLINE',
  'QUEUE_FULL',
  'CONFLICT',
  'NOT_RERUNNABLE',
])

/** A deadline or a full queue while waiting for a re-run says which conflict led there. */
function withCause(error: unknown, conflict: SessionTxError | undefined): unknown {
  if (conflict === undefined || !isSessionTxError(error) || error.cause !== undefined) return error
  if (!ENDS_WAITING.has(error.code)) return error
  return new SessionTxError(error.code, error.message, {
    cause: conflict,
    conflict: conflict.conflict,
    transactionId: error.transactionId,
  })
}
