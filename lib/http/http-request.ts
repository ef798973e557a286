/**
 * A request of any framework, as joint/life.ts wants it: which attempt it is in, its session's cookie, and how a later
 * attempt gets the same request and the same empty response again. What frameworks do differently (how the handler is
 * called, when bytes leave) is left to koa.ts and express.ts. Knows Node's HTTP objects; knows no framework, no SQL.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import onFinished from 'on-finished'
import { SessionTxError } from '../errors.js'
import type { NotRerunnableReason } from '../events.js'
import { LateLife, mayBeginLate } from '../joint/late-life.js'
import { live } from '../joint/life.js'
import type { Isolation, JointRequest, RunningAttempt } from '../joint/request.js'
import { sessionKey } from '../session/identity.js'
import { current } from '../transaction/current.js'
import type { FoundCookie, KeyRing } from './cookie.js'
import type { HttpSetup, RouteOptions } from './http-setup.js'
import type { KeptContents } from './kept-contents.js'
import { type Looks, Pristine } from './pristine.js'
import { hasBody, ReplayableRequest, rewindEmpty } from './replayable-request.js'

/** The attribute under which a framework's request (or context) carries ours. */
export const REQUEST: unique symbol = Symbol('session-tx.request')

const SERVER_ERROR_STATUS_MIN = 500

interface Exchange<Args extends unknown[]> {
  readonly req: IncomingMessage
  readonly res: ServerResponse
  /** What callbacks get. */
  readonly args: Args
  readonly keys: KeyRing | undefined
  /** Where the handler stands is known, so it can be called again. */
  readonly canRunAgain: boolean
}

export abstract class HttpRequest<Args extends unknown[]> implements JointRequest<unknown> {
  readonly retries: number
  readonly isolation: Isolation
  readonly readOnly: boolean
  protected readonly mayRunAgain: boolean
  protected pristine: Pristine | undefined
  protected cookieSent = false
  readonly #exchange: Exchange<Args>
  readonly #setup: HttpSetup<Args>
  readonly #body: ReplayableRequest | undefined
  #contents: readonly KeptContents[] = []
  #attempt: RunningAttempt | undefined
  #late: LateLife<unknown> | undefined
  #found: FoundCookie | undefined
  #key: string | undefined
  #unreplayable = false

  constructor(exchange: Exchange<Args>, setup: HttpSetup<Args>, options: RouteOptions) {
    const { req, args } = exchange
    this.#exchange = exchange
    this.#setup = setup
    this.retries = options.retries ?? setup.retries(...args)
    this.isolation = options.isolation ?? setup.isolation
    this.readOnly = options.readOnly ?? setup.readOnly?.(...args) ?? false
    this.mayRunAgain = this.retries > 0 && exchange.canRunAgain
    const keeps = this.mayRunAgain && hasBody(req)
    this.#body = keeps ? new ReplayableRequest(req, setup.requestBytesMax) : undefined
  }

  /** A router pattern or `(unmatched)`. */
  abstract route(): string
  abstract work(): Promise<unknown>
  abstract report(error: unknown): void
  /** Bytes have left for the client, or can no longer be held back. */
  protected abstract whyStarted(): NotRerunnableReason | undefined
  /** Why the handler cannot be called again. */
  protected abstract whyNotAgain(): NotRerunnableReason | undefined
  /** The client's connection, as the framework sees it behind its proxies. */
  protected abstract isSecure(): boolean
  /** Sets headers where the answer may be held back already. */
  protected abstract writeCookie(write: () => void): void

  protected livesOn(): Promise<unknown> {
    return live(this, this.#setup.parts)
  }

  /** The same, beginning when the handler asks for something; undefined: it has to begin now. */
  protected livesLater(handler: () => Promise<unknown>): Promise<unknown> | undefined {
    const { parts } = this.#setup
    if (this.#body !== undefined || !mayBeginLate(parts)) return undefined
    this.#late = new LateLife(this, parts)
    return this.#late.run(handler)
  }

  /** The first run of the handler, if it was begun before the attempt. */
  protected get running(): Promise<unknown> | undefined {
    return this.#late?.running
  }

  get isPlainSuccess(): boolean {
    return this.#setup.veto === undefined && !this.vetoes()
  }

  /**
   * What the request looks like before the first attempt.
   * @param frames the framework's objects whose own properties belong to the attempt
   * @param plain properties of theirs that the framework itself assigns
   * @param contents objects that are changed in place; throwing means that something in them cannot be copied
   * @param looks of requests that nobody has touched before us
   */
  protected remember(
    frames: readonly object[],
    plain: ReadonlySet<PropertyKey>,
    contents: () => readonly (KeptContents | undefined)[],
    looks?: Looks,
  ): void {
    const { req, res } = this.#exchange
    this.pristine = new Pristine(req, res, frames, plain, looks)
    try {
      this.#contents = contents().filter(one => one !== undefined)
    } catch {
      this.#unreplayable = true // served once, as without us
    }
  }

  /** The attempt that the code calling us belongs to: work of an ended one must not reach the next. */
  get attempt(): RunningAttempt | undefined {
    const running = current() as RunningAttempt | undefined
    return running !== undefined && running.request === this
      ? running
      : (this.#attempt ?? this.#late?.begin())
  }
  /** The newest, whoever asks. */
  get latest(): RunningAttempt | undefined {
    return this.#attempt
  }

  address(): string {
    const { req } = this.#exchange
    const { originalUrl = req.url ?? '' } = req as { originalUrl?: string }
    return `${req.method} ${originalUrl.split('?', 1)[0]}`
  }

  sessionId(): string | undefined {
    const { req, res, keys } = this.#exchange
    this.#found ??= this.#setup.cookie.read(req, res, keys)
    return this.#found.id
  }

  /** Asked for several times, and a hash. */
  get sessionKey(): string | undefined {
    const id = this.sessionId()
    if (id === undefined) return undefined
    this.#key ??= sessionKey(id)
    return this.#key
  }

  begun(attempt: RunningAttempt): void {
    this.#attempt = attempt
  }

  /** Everything of the failed attempt is gone, and the body can be read again. */
  async reset(): Promise<void> {
    this.restore()
    if (this.#body === undefined) rewindEmpty(this.#exchange.req)
    else if (!(await this.#body.rewind())) {
      this.#unreplayable = true
      const message =
        'the request body could not be read again: it is larger than hold.requestBytesMax, or broke off'
      throw new SessionTxError('NOT_RERUNNABLE', message)
    }
  }

  /** As before the first attempt, but for the body. */
  protected restore(): void {
    this.pristine?.restore()
    for (const one of this.#contents) one.restore()
  }

  notRerunnable(): NotRerunnableReason | undefined {
    const started = this.whyStarted()
    if (started !== undefined) return started
    if (this.#unreplayable || this.#body?.overLimit === true) return 'body'
    return this.whyNotAgain()
  }

  /** The last attempt is over, however it ended. */
  ended(): void {
    const reason = this.retries > 0 ? this.notRerunnable() : undefined
    if (reason !== undefined) this.#setup.parts.events.emit('notRerunnable', { route: this.route(), reason })
  }

  vetoes(): boolean {
    const { veto } = this.#setup
    const { res, args } = this.#exchange
    return veto === undefined ? res.statusCode >= SERVER_ERROR_STATUS_MIN : veto(...args)
  }

  commitsOnError(error: unknown): boolean {
    return this.#setup.commitOnError?.(error, ...this.#exchange.args) ?? false
  }

  watchClient(gone: () => void): () => void {
    const { res } = this.#exchange
    if (res.closed && !res.writableFinished) gone()
    const onClose = (): void => {
      if (!res.writableFinished) gone()
    }
    res.once('close', onClose)
    this.pristine?.keep(onClose)
    return () => res.removeListener('close', onClose)
  }

  committed(attempt: RunningAttempt): void {
    this.writeCookie(() => this.#tellCookie(attempt))
  }

  #tellCookie(attempt: RunningAttempt): void {
    const { req, res, keys } = this.#exchange
    const { cookie } = this.#setup
    if (res.headersSent) return
    const change = attempt.cookieChange
    const isOld = change.kind === 'kept' && this.#found?.signedByOldKey === true
    if (change.kind === 'set' || isOld) cookie.write(req, res, keys, this.isSecure(), change)
    else if (change.kind === 'clear') cookie.clear(req, res, keys, this.isSecure(), change)
    else return
    this.cookieSent = true
  }

  afterResponse(start: () => void): void {
    onFinished(this.#exchange.res, () => start())
  }
}
