/**
 * Answers who asks for metrics, or says that the request is not for us. Framework-neutral: a request comes in
 * as plain fields, an answer goes out as plain fields. Opens no transaction and reads no session, so looking
 * works while everything else conflicts. Knows nothing of Koa, Express or sockets.
 */
import type { Readable } from 'node:stream'
import { closest } from 'fastest-levenshtein'
import { SessionTxError } from '../errors.js'
import type { Clock } from '../transaction/clock.js'
import type { Board } from './board/board.js'
import { type Headers, isLocalRequest } from './local-only.js'
import { ASSET_NAMES, asset } from './page/assets.js'
import { LiveStreams } from './page/live-streams.js'
import { Page, viewOf } from './page/page.js'
import { createPrometheus } from './prometheus.js'
import type { Recorder } from './recorder.js'

export interface MetricsOptions<Context = unknown> {
  /** Where the addresses begin; default `'/_tx'`. */
  readonly path?: string | undefined
  /**
   * Who may look. Without it: only who is certainly on this machine ({@link isLocalRequest}). With it:
   * nothing else is looked at. Throwing or rejecting means no.
   */
  readonly allow?: { method(context: Context): boolean | Promise<boolean> }['method'] | undefined
}

export interface EndpointRequest<Context> {
  readonly method: string
  /** Path of the URL, undecoded, without the query. */
  readonly path: string
  /** What follows the question mark in the URL; empty without one. */
  readonly query: string
  /** Address of the socket itself, whatever a proxy says; undefined for a unix socket. */
  readonly remoteAddress: string | undefined
  /** Names in lower case, as Node gives them. */
  readonly headers: Headers
  /** False when the server has stopped listening: nothing is kept open then. */
  readonly isServing: () => boolean
  /** Handed to `allow`. */
  readonly context: Context
}

export interface EndpointResponse {
  readonly status: 200 | 404 | 405 | 503
  /** For `Content-Type`. */
  readonly type: string
  /** Headers besides `Content-Type`. */
  readonly headers: Readonly<Record<string, string>>
  /** The same for HEAD as for GET; the server leaves it out. */
  readonly body: string
  /** In the place of `body`: an answer that goes on. Never for HEAD. */
  readonly stream?: Readable | undefined
}

/** What is looked at. */
export interface MetricsSources {
  readonly recorder: Recorder
  readonly board: Board
  readonly clock: Clock
}

/** undefined, at once and never as a promise: the request is not for us. */
type Endpoint<Context> = (request: EndpointRequest<Context>) => Promise<EndpointResponse> | undefined

const DEFAULT_PATH = '/_tx'
const OPTION_NAMES = ['path', 'allow']
const TEXT = 'text/plain; charset=utf-8'
const HEADERS = Object.freeze({ 'Cache-Control': 'no-store', 'X-Content-Type-Options': 'nosniff' })

/**
 * The addresses `path`, `path/stats.json`, `path/metrics`, and what the page loads, for GET and HEAD (405 otherwise). Who
 * may not look gets the 404 of an address that does not exist, whatever the method: a 403 would tell a stranger what runs
 * here.
 *
 * @param nodeEnv the value of NODE_ENV
 * @throws MISCONFIGURED unknown or bad option; no `allow` although NODE_ENV is `production`
 * @example
 * app.use(tx.metrics({ allow: ctx => ctx.get('X-Operator-Key') === process.env.OPERATOR_KEY }))
 */
export function createEndpoint<Context>(
  options: MetricsOptions<Context>,
  { recorder, board, clock }: MetricsSources,
  nodeEnv: string | undefined,
): Endpoint<Context> {
  checkMetricsOptions(options, nodeEnv)
  const { path = DEFAULT_PATH } = options
  const mayLook = gatekeeper(options.allow)
  const prometheus = createPrometheus(recorder)
  const page = new Page(recorder, board)
  const streams = new LiveStreams(clock)

  const document: Address = ({ path: asked, query }) => {
    // Relative, because a mount path or a proxy may stand before what we see.
    const base = asked.endsWith('/') ? '' : `${path.slice(path.lastIndexOf('/') + 1)}/`
    return ok('text/html; charset=utf-8', page.document(viewOf(query), base), PAGE_HEADERS)
  }
  const live: Address = ({ method, query, isServing, headers }) => {
    const answer = ok('text/event-stream; charset=utf-8', '', streamHeaders(headers))
    if (method === 'HEAD') return answer
    const view = viewOf(query)
    const stream = streams.open(() => page.live(view), isServing)
    return stream === undefined ? BUSY : { ...answer, stream }
  }
  const addresses = new Map<string, Address>([
    [path, document],
    [`${path}/`, document],
    [`${path}/live`, live],
    [`${path}/stats.json`, () => ok('application/json; charset=utf-8', JSON.stringify(recorder.stats()))],
    [`${path}/metrics`, async () => ok(prometheus.contentType, await prometheus.text())],
    ...ASSET_NAMES.map((name): [string, Address] => [
      `${path}/${name}`,
      () => {
        const { type, body } = asset(name)
        return ok(type, body)
      },
    ]),
  ])

  return request => {
    const answer = addresses.get(request.path)
    return answer === undefined ? undefined : respond(request, mayLook, answer)
  }
}

type Address = (request: EndpointRequest<unknown>) => EndpointResponse | Promise<EndpointResponse>
type MayLook<Context> = (request: EndpointRequest<Context>) => boolean | Promise<boolean>

async function respond<Context>(
  request: EndpointRequest<Context>,
  mayLook: MayLook<Context>,
  answer: Address,
): Promise<EndpointResponse> {
  // Access before method: a 405 would reveal the address as well as a 403.
  if (!(await mayLook(request))) return { status: 404, type: TEXT, headers: HEADERS, body: 'Not Found' }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return {
      status: 405,
      type: TEXT,
      headers: { ...HEADERS, Allow: 'GET, HEAD' },
      body: 'Method Not Allowed',
    }
  }
  return answer(request)
}

/** The page loads what is served here and nothing else, and nobody may frame it. */
const PAGE_HEADERS = Object.freeze({
  ...HEADERS,
  'Content-Security-Policy':
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
  'Referrer-Policy': 'no-referrer',
})

const BUSY: EndpointResponse = Object.freeze({
  status: 503,
  type: TEXT,
  headers: { ...HEADERS, 'Retry-After': '5' },
  body: 'Too many pages are live; this one reloads',
})

/** No compression and no proxy may hold an event back. HTTP/2 knows no `Connection`. */
function streamHeaders(asked: Headers): Readonly<Record<string, string>> {
  const headers = { ...HEADERS, 'Cache-Control': 'no-store, no-transform', 'X-Accel-Buffering': 'no' }
  return asked[':authority'] === undefined ? { ...headers, Connection: 'close' } : headers
}

function gatekeeper<Context>(allow: MetricsOptions<Context>['allow']): MayLook<Context> {
  if (allow === undefined) return request => isLocalRequest(request.remoteAddress, request.headers)
  let warned = false
  return async request => {
    try {
      return Boolean(await allow(request.context))
    } catch (error) {
      // Once: strangers could otherwise fill the log. The name only: the message may hold what a log should
      // not.
      if (!warned)
        process.emitWarning(`metrics({ allow }) threw ${nameOf(error)}; refused`, 'SessionTxWarning')
      warned = true
      return false
    }
  }
}

function checkMetricsOptions(options: unknown, nodeEnv: string | undefined): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw misconfigured('the options of metrics() must be an object: metrics({ path, allow })')
  }
  for (const name of Object.keys(options)) {
    if (OPTION_NAMES.includes(name)) continue
    throw misconfigured(
      `unknown option \`${name}\` of metrics(); did you mean \`${closest(name, OPTION_NAMES)}\`?`,
    )
  }
  const { path = DEFAULT_PATH, allow } = options as { path?: unknown; allow?: unknown }
  if (typeof path !== 'string' || !/^(?:\/[\w.~!$&'()*+,;=:@%-]+)+$/.test(path)) {
    throw misconfigured(
      "`path` of metrics() must begin with a slash, end without one and be a URL path, like '/_tx'",
    )
  }
  if (allow !== undefined && typeof allow !== 'function') {
    throw misconfigured('`allow` of metrics() must be a function that gets the context and returns a boolean')
  }
  if (nodeEnv === 'production' && allow === undefined) {
    throw misconfigured(
      'under NODE_ENV=production metrics() needs `allow`, a function that says who may look: ' +
        'metrics({ allow: ctx => … })',
    )
  }
}

function ok(
  type: string,
  body: string,
  headers: Readonly<Record<string, string>> = HEADERS,
): EndpointResponse {
  return { status: 200, type, headers, body }
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : `a ${typeof error}`
}

function misconfigured(sentence: string): SessionTxError {
  return new SessionTxError('MISCONFIGURED', sentence)
}
