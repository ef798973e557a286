/**
 * Spans of OpenTelemetry: one for each transaction, in it one for each attempt, on that an event if it lost a race. Through
 * `@opentelemetry/api` only, and only if the application has it: without an SDK behind it nothing is recorded. Names and
 * versions, never a value or an id. Knows nothing of what a transaction does.
 */
import type { ConflictDetails } from '../errors.js'
import type { Ending, Trace, Tracing } from '../joint/tracing.js'
import type { AttemptEnd } from '../transaction/retry.js'
import { boundedName } from './counts.js'
import { beside } from './here.js'

/** What we use of `@opentelemetry/api`, so that nobody needs it for our types. */
type Attributes = Record<string, string | number>
type Context = object
interface Span {
  isRecording(): boolean
  setAttributes(attributes: Attributes): unknown
  addEvent(name: string, attributes: Attributes): unknown
  setStatus(status: { code: number }): unknown
  end(): void
}
interface Tracer {
  startSpan(name: string, options: { attributes?: Attributes }, context: Context): Span
}
interface Api {
  readonly trace: {
    getTracer(name: string): Tracer
    setSpan(context: Context, span: Span): Context
    getTracerProvider(): TracerProvider
  }
  readonly ProxyTracerProvider?: new () => TracerProvider
  readonly context: { active(): Context; with<T>(context: Context, run: () => T): T }
}

interface TracerProvider {
  /** Of the API's own provider: the one that was registered, or one that does nothing. */
  getDelegate?(): object
}

/** `SpanStatusCode.ERROR`. */
const ERROR = 2

/** undefined: the application does not have it. */
export function openTelemetry(): Tracing | undefined {
  const api = load()
  if (api === undefined) return undefined
  // Asked for each time: a provider may be registered, or replaced by a test, later than we are made.
  const nobody = api.ProxyTracerProvider && new api.ProxyTracerProvider().getDelegate?.()
  return {
    get isIdle() {
      return nobody !== undefined && api.trace.getTracerProvider().getDelegate?.() === nobody
    },
    begin: () => begin(api, api.trace.getTracer('session-tx')),
  }
}

function load(): Api | undefined {
  try {
    return beside('@opentelemetry/api') as Api
  } catch {
    return undefined // not installed, which is what most applications want
  }
}

function begin(api: Api, tracer: Tracer): Trace | undefined {
  const outside = api.context.active()
  const span = tracer.startSpan('session-tx transaction', {}, outside)
  if (!span.isRecording()) return undefined
  const inside = api.trace.setSpan(outside, span)

  async function attempt<T>(number: number, run: () => Promise<AttemptEnd<T>>): Promise<AttemptEnd<T>> {
    const attributes = { 'session_tx.attempt': number }
    const child = tracer.startSpan('session-tx attempt', { attributes }, inside)
    let end: AttemptEnd<T> | undefined
    try {
      end = await api.context.with(api.trace.setSpan(inside, child), run)
      return end
    } finally {
      if (end?.kind === 'conflict') child.addEvent('session_tx.conflict', attributesOf(end.error.conflict))
      if (end?.kind !== 'done') child.setStatus({ code: ERROR })
      child.end()
    }
  }

  return {
    attempt,
    end(ending, route, attempts) {
      span.setAttributes({
        'session_tx.route': boundedName(route),
        'session_tx.attempts': attempts,
        ...(ending === undefined ? {} : { 'session_tx.outcome': OUTCOMES[ending] }),
      })
      if (ending !== 'committed' && ending !== 'rolledBack') span.setStatus({ code: ERROR })
      span.end()
    },
  }
}

/** As OpenTelemetry writes the values of attributes. */
const OUTCOMES: Readonly<Record<Ending, string>> = {
  committed: 'committed',
  rolledBack: 'rolled_back',
  refused: 'refused',
  unknown: 'unknown',
}

function attributesOf(conflict: ConflictDetails | undefined): Attributes {
  const { kind = 'requested', store = 'application', variable, table } = conflict ?? {}
  const { baseVersion, foundVersion, winner } = conflict ?? {}
  return {
    'session_tx.conflict.kind': kind,
    'session_tx.conflict.store': boundedName(store),
    ...(variable !== undefined && { 'session_tx.conflict.variable': boundedName(variable) }),
    ...(table !== undefined && { 'session_tx.conflict.table': boundedName(table) }),
    ...(baseVersion !== undefined && { 'session_tx.conflict.base_version': baseVersion }),
    ...(foundVersion !== undefined && { 'session_tx.conflict.found_version': foundVersion }),
    ...(winner !== undefined && { 'session_tx.conflict.winner': boundedName(winner) }),
  }
}
