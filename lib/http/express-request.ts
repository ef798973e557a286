/**
 * One request of Express's: how its handlers are run as an attempt, how their answer is held until the commit and let go
 * after it, and to whom an error goes in the end. Knows no stacks (express-position.ts) and no SQL.
 */
import onFinished from 'on-finished'
import { isSessionTxError, SessionTxError } from '../errors.js'
import type { NotRerunnableReason } from '../events.js'
import type { RunningAttempt } from '../joint/request.js'
import type { Tx } from '../joint/tx.js'
import type { SessionObject } from '../session/session-object.js'
import { current, runAs } from '../transaction/current.js'
import { keyRingOf } from './configured-keys.js'
import type { ExpressNext, ExpressRequest, ExpressResponse, Route, Routed } from './express-context.js'
import { routePattern } from './express-path.js'
import type { Dispatch } from './express-view.js'
import { ConnectionBroken, HandlerRun } from './handler-run.js'
import { HeldResponse } from './held-response.js'
import { HttpRequest, REQUEST } from './http-request.js'
import type { HttpSetup, RouteOptions } from './http-setup.js'
import { keepParsed, keepPlaces } from './kept-contents.js'

export type ExpressSetup = HttpSetup<[req: ExpressRequest, res: ExpressResponse]>

/** What an attempt runs. */
export interface Work {
  /** `done` is called when the request is passed on, or with what went wrong. */
  readonly call: (done: ExpressNext) => unknown
  /** What the original `next` is told when the request was passed on; undefined: it has been called already. */
  readonly leave: string | undefined
  /** The pattern of what we are mounted in. */
  readonly pattern: string
  readonly canRunAgain: boolean
  readonly cannot: () => NotRerunnableReason | undefined
}

interface Carrier {
  [REQUEST]?: ExpressTransaction
}

/** What parsers leave on a request of Express's. */
const PARSED = ['body', 'query', 'params', 'cookies', 'signedCookies']
/** Uploads: too much to be copied. */
const UPLOADED = ['file', 'files']
const NONE: ReadonlySet<PropertyKey> = new Set()

/** The transaction of a request, from the middleware on until its outcome is known. */
export function transactionOf(req: object): ExpressTransaction | undefined {
  const found = (req as Carrier)[REQUEST]
  return found === undefined || found.isOver ? undefined : found
}

export class ExpressTransaction extends HttpRequest<[ExpressRequest, ExpressResponse]> implements Dispatch {
  readonly #req: ExpressRequest
  readonly #res: ExpressResponse
  readonly #work: Work
  readonly #next: ExpressNext
  readonly #responseBytesMax: number
  readonly #prototypes: readonly (readonly [object, object | null])[]
  readonly #bytesWritten: number | undefined
  #held: HeldResponse | undefined
  #run: HandlerRun | undefined
  #outcome: 'delivered' | 'failed' | undefined
  #handedOn = false
  /** The `next` of the handler that was called last. */
  #entered: ExpressNext | undefined
  #mount: string
  #routed: { readonly route: Route; readonly pattern: string } | undefined

  constructor(
    req: ExpressRequest,
    res: ExpressResponse,
    next: ExpressNext,
    setup: ExpressSetup,
    options: RouteOptions,
    work: Work,
  ) {
    const { canRunAgain } = work
    super({ req, res, args: [req, res], keys: keyRingOf(setup.keys), canRunAgain }, setup, options)
    this.#req = req
    this.#res = res
    this.#next = next
    this.#work = work
    this.#mount = work.pattern
    this.#responseBytesMax = setup.responseBytesMax
    this.#prototypes = [req, res].map(one => [one, Object.getPrototypeOf(one) as object | null])
    this.#bytesWritten = res.socket?.bytesWritten
    Object.defineProperties(req, ACCESSORS)
    Object.defineProperty(req, REQUEST, { value: this, configurable: true })
  }

  get isOver(): boolean {
    return this.#outcome !== undefined
  }

  /** Never rejects: what goes wrong goes to `next`. */
  async serve(): Promise<void> {
    try {
      assertResponse(this.#res)
      // As Koa does: so that its listeners are there before the first attempt, and only its callbacks are the attempt's.
      onFinished(this.#res, () => {})
      this.remember([], NONE, () =>
        this.mayRunAgain
          ? [
              ...PARSED.map(name => keepParsed(this.#req, name)),
              ...UPLOADED.map(name => keepPlaces(this.#req, name)),
              keepPlaces(this.#res, 'locals'),
            ]
          : [],
      )
      await this.livesOn()
    } catch (error) {
      this.#fail(error)
      return
    }
    this.#deliver()
  }

  work(): Promise<void> {
    const run = new HandlerRun(() => this.#isStale())
    this.#run = run
    this.#entered = undefined
    this.#held = new HeldResponse(this.#res, this.#responseBytesMax, run)
    if (this.#req.upgrade) startsWithSocket(this.#req, run)
    try {
      const result = this.#work.call(error => this.#done(run, error))
      if (isThenable(result)) {
        run.awaits(result)
        result.then(undefined, (error: unknown) => run.fails(error))
      }
    } catch (error) {
      run.fails(error)
    }
    return run.over
  }

  /** The handlers have passed the request on, or failed. */
  #done(run: HandlerRun, error: unknown): void {
    if (run !== this.#run || (this.#outcome === 'failed' && this.#isOurs())) return
    const isError = Boolean(error) && error !== 'route' && error !== 'router'
    if (this.isOver) this.#handOn(isError ? error : this.#work.leave)
    else if (run.isSettled)
      run.over.then(
        () => this.#later(error),
        () => {},
      )
    else if (isError) run.fails(error)
    else run.leaves(error || this.#work.leave)
  }

  /** An answer that was being committed already: what came after that is told when it has left. */
  #later(error: unknown): void {
    if (this.isOver) this.#handOn(error || this.#work.leave)
    else setImmediate(() => this.#later(error))
  }

  #handOn(token: unknown): void {
    if (this.#handedOn || token === undefined) return
    this.#handedOn = true
    this.#next(token)
  }

  /** Committed, or rolled back with an answer: it leaves now. */
  #deliver(): void {
    this.#outcome = 'delivered'
    try {
      this.#held?.release()
    } catch (error) {
      this.#handOn(error)
      return
    }
    if (this.#run?.left !== undefined) this.#handOn(this.#run.left.with)
  }

  #fail(error: unknown): void {
    this.#outcome = 'failed'
    const run = this.#run
    const held = this.#held
    if (error instanceof ConnectionBroken) return
    const { failure } = run ?? {}
    const isOwn = failure !== undefined && failure.error === error && !isSessionTxError(error)
    // As it left it, so that error middleware finds what it finds without us; but nothing of a half-written answer.
    if (isOwn && held?.hasStarted === false) held.release()
    else {
      held?.drop()
      this.pristine?.restoreResponse()
      if (run?.isSettled === false) new HeldResponse(this.#res, Infinity, run).fence()
    }
    if (failure !== undefined) (failure.resume ?? (last => this.#handOn(last)))(error)
    // Answered, or still running: the error goes where that handler's own would have gone.
    else if (this.#entered !== undefined && run?.left === undefined) this.#entered(error)
    else this.#handOn(error)
  }

  // ── what runs below us ─────────────────────────────────────────────────────────────────────────────────────────

  enter(call: () => unknown, goOn: ExpressNext, rejects: boolean): unknown {
    const { latest } = this
    if (this.#isStale()) return undefined
    const run = this.#run
    if (!this.isOver) this.#entered = goOn
    let result: unknown
    try {
      // A parser that was fed by the socket goes on outside of the attempt.
      const isOutside = latest !== undefined && latest.state === 'active' && !this.#isOurs()
      result = isOutside ? runAs(latest, call) : call()
    } catch (error) {
      run?.threw(error)
      throw error
    }
    if (!isThenable(result)) return result
    run?.awaits(result)
    if (!rejects) return result
    result.then(undefined, (error: unknown) => goOn(error || new Error('Rejected promise')))
    return undefined
  }

  reached(error: unknown, resume: (error: unknown) => void): void {
    if (this.#isStale()) return
    const run = this.#run
    if (run === undefined || this.isOver) resume(error)
    else if (run.isSettled)
      run.over.then(
        () => this.#resumeLater(error, resume),
        () => {},
      )
    else run.fails(error, resume)
  }

  #resumeLater(error: unknown, resume: (error: unknown) => void): void {
    if (this.isOver) resume(error)
    else setImmediate(() => this.#resumeLater(error, resume))
  }

  mounted(pattern: string): () => void {
    const outer = this.#mount
    this.#mount = outer + pattern
    return () => {
      this.#mount = outer
    }
  }

  routed(route: Route, pattern: string): void {
    this.#routed = { route, pattern: this.#mount + pattern }
  }

  /** Called by the code of an attempt of ours. */
  #isOurs(): boolean {
    return (current() as RunningAttempt | undefined)?.request === this
  }
  /** Called by the code of an attempt that has been thrown away. */
  #isStale(): boolean {
    return this.#isOurs() && (current() !== this.latest || this.#outcome === 'failed')
  }

  // ── what joint/life.ts asks ────────────────────────────────────────────────────────────────────────────────────

  route(): string {
    const { route } = this.#req as Routed
    if (route === undefined) return '(unmatched)'
    if (route === this.#routed?.route) return this.#routed.pattern
    return this.#mount + routePattern(route)
  }

  protected override restore(): void {
    this.#held?.drop()
    super.restore()
    this.#mount = this.#work.pattern
    // A mounted application puts its own in their place.
    for (const [one, prototype] of this.#prototypes) {
      if (Object.getPrototypeOf(one) !== prototype) Object.setPrototypeOf(one, prototype)
    }
  }

  protected whyStarted(): NotRerunnableReason | undefined {
    const { socket } = this.#res
    const hasLeft =
      this.#bytesWritten !== undefined && socket !== null && socket.bytesWritten !== this.#bytesWritten
    return this.#req.upgrade ? 'upgrade' : hasLeft ? 'responseStarted' : this.#held?.reason
  }
  protected whyNotAgain(): NotRerunnableReason | undefined {
    return this.#work.cannot()
  }
  protected isSecure(): boolean {
    const { secure, socket } = this.#req as Partial<Pick<ExpressRequest, 'secure'>> & {
      socket: { encrypted?: boolean }
    }
    return secure ?? socket.encrypted === true
  }

  override vetoes(): boolean {
    this.#held?.settleStatus()
    return super.vetoes()
  }

  protected writeCookie(write: () => void): void {
    if (this.#held === undefined) write()
    else this.#held.unlocked(write)
  }

  override afterResponse(start: () => void): void {
    this.writeCookie(() => super.afterResponse(start))
  }

  report(error: unknown): void {
    process.emitWarning(
      `a hook of a transaction failed (route ${this.route()}): ${String(error)}`,
      'SessionTxWarning',
    )
  }
}

/** Not enumerable, and the same for every request. */
const ACCESSORS: PropertyDescriptorMap & ThisType<Carrier> = {
  tx: {
    configurable: true,
    get(): Tx | undefined {
      return this[REQUEST]?.attempt?.tx
    },
  },
  sessionID: {
    configurable: true,
    get(): string | undefined {
      return this[REQUEST]?.attempt?.visibleSession?.id
    },
  },
  session: {
    configurable: true,
    get(): SessionObject | undefined {
      return this[REQUEST]?.attempt?.visibleSession ?? undefined // as express-session has it
    },
    set(value: unknown) {
      const attempt = this[REQUEST]?.attempt
      if (attempt === undefined)
        throw new SessionTxError('NO_TRANSACTION', 'req.session was set outside of session-tx')
      attempt.session = value
    },
  },
}

/** socket.io gives what stands in front of its WebSockets something that only looks like a response, and never ends. */
function assertResponse(res: Partial<ExpressResponse>): void {
  if (typeof res.getHeaderNames === 'function') return
  const message =
    "session-tx was called with a response that is none of Node's, as for a WebSocket of socket.io: " +
    'use tx.run(work, { sessionId }) in its listeners'
  throw new SessionTxError('MISCONFIGURED', message)
}

/** Another protocol: the handler has the socket, and what it writes there cannot wait. */
function startsWithSocket({ socket }: ExpressRequest, run: HandlerRun): void {
  for (const name of ['write', 'end', 'destroy'] as const) {
    const own = Object.getOwnPropertyDescriptor(socket, name)
    const prior = socket[name] as (...args: unknown[]) => unknown
    const noticing = (...args: unknown[]): unknown => {
      if (own === undefined) Reflect.deleteProperty(socket, name)
      else Object.defineProperty(socket, name, own)
      run.mustStart()
      return prior.apply(socket, args)
    }
    Object.defineProperty(socket, name, { value: noticing, writable: true, configurable: true })
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as { then?: unknown } | null | undefined)?.then === 'function'
}
