/**
 * A request whose body can be read once per attempt: keeps the bytes as they arrive, up to a limit, and gives a later
 * attempt the same ones. Knows Node's streams; knows no framework.
 *
 * The bytes are kept where Node's parser hands them over (`req.push`), so it does not matter who reads them how. For the
 * next attempt the request gets a fresh reading state and the kept chunks again. `Readable.ReadableState` is exported
 * but undocumented; test/koa/body.test.ts fails where a Node version changes what this relies on.
 */
import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'

type ReadableStateClass = new (
  options: { highWaterMark: number },
  stream: Readable,
  isDuplex: boolean,
) => unknown

const { ReadableState } = Readable as unknown as { ReadableState: ReadableStateClass }

interface Internals {
  _readableState: unknown
  push: (chunk: unknown, encoding?: BufferEncoding) => boolean
}

type Http2Like = IncomingMessage & { readonly stream: { readonly endAfterHeaders: boolean } }

/** True if a body was announced; requests without one need nothing of this. */
export function hasBody(req: IncomingMessage): boolean {
  // HTTP/2 needs no header to announce one: the stream says whether the headers were the end.
  if (req.httpVersionMajor >= 2) return !(req as Http2Like).stream.endAfterHeaders
  const { 'content-length': length, 'transfer-encoding': encoding } = req.headers
  return encoding !== undefined || (length !== undefined && length !== '0')
}

/**
 * The same for a request without a body, where nothing is kept: one that was read to its end can be read to it again,
 * else a parser waits for ever, or says that the request is closed.
 */
export function rewindEmpty(req: IncomingMessage): void {
  if (req.readableFlowing === null && !req.readableEnded && !req.destroyed) return
  refill(req as IncomingMessage & Internals, [])
}

function refill(req: IncomingMessage & Internals, chunks: readonly unknown[], push = req.push): void {
  req._readableState = new ReadableState({ highWaterMark: req.readableHighWaterMark }, req, false)
  for (const chunk of chunks) push.call(req, chunk)
  push.call(req, null)
}

export class ReplayableRequest {
  readonly #req: IncomingMessage & Internals
  readonly #bytesMax: number
  readonly #push: Internals['push']
  #chunks: unknown[] = []
  #bytes = 0
  #ended = false
  #overLimit = false
  #onEnd: (() => void) | undefined

  /** Call it before anybody reads; what had arrived by then is kept, too. */
  constructor(req: IncomingMessage, bytesMax: number) {
    this.#req = req as IncomingMessage & Internals
    this.#bytesMax = bytesMax
    this.#push = this.#req.push
    if (req.readableEnded) {
      // Read to its end above us: nothing is left to keep, however much it was.
      this.#ended = true
      return
    }
    const announced = Number(req.headers['content-length'] ?? 0)
    if (announced > bytesMax) {
      this.#overLimit = true
      return
    }
    if (req.readableLength > 0) {
      const arrived: unknown = req.read()
      this.#keep(arrived)
      if (arrived !== null) req.unshift(arrived)
    }
    if (req.complete) this.#ended = true
    this.#req.push = (chunk, encoding) => {
      if (chunk === null) this.#end()
      else this.#keep(typeof chunk === 'string' ? Buffer.from(chunk, encoding) : chunk)
      return this.#push.call(req, chunk, encoding)
    }
  }

  /** The body was larger than what is kept: it cannot be read again. */
  get overLimit(): boolean {
    return this.#overLimit
  }

  #keep(chunk: unknown): void {
    if (this.#overLimit || !(chunk instanceof Uint8Array)) return
    this.#bytes += chunk.byteLength
    if (this.#bytes > this.#bytesMax) {
      this.#overLimit = true
      this.#chunks = []
    } else {
      this.#chunks.push(chunk)
    }
  }

  #end(): void {
    this.#ended = true
    this.#onEnd?.()
  }

  /**
   * Makes the whole body readable again, waiting for the part that has not arrived. Listeners of the attempt before must
   * be gone by now. False if the body turned out to be too large, or the client went away before it was complete.
   */
  async rewind(): Promise<boolean> {
    const req = this.#req
    if (!this.#ended && !this.#overLimit) await this.#drain()
    if (this.#overLimit || !this.#ended) return false
    refill(req, this.#chunks, this.#push)
    return true
  }

  #drain(): Promise<void> {
    const req = this.#req
    return new Promise(resolve => {
      const done = (): void => {
        req.removeListener('close', done)
        this.#onEnd = undefined
        resolve()
      }
      this.#onEnd = done
      req.once('close', done)
      req.resume()
      if (req.destroyed) done()
    })
  }
}
