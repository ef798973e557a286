/**
 * A response that is held back until the commit: what a handler does to it is noted, and done when it is let go, call by
 * call, so that the bytes are those of a run without us. Knows Node's response; knows no framework and no transaction.
 *
 * Five methods are shadowed on the response itself. While the head is held, Node's own `_header` is set, so that whatever
 * looks (headersSent, setHeader, compression, finalhandler) finds what it would find, errors included. One object per
 * attempt: what a dropped one is still given by a stream or a timer of its attempt goes nowhere.
 */
import { ServerResponse } from 'node:http'
import type { Readable } from 'node:stream'
import type { NotRerunnableReason } from '../events.js'

export interface HoldingOwner {
  /** The handler has ended the response. */
  ended(): void
  /** What is held must be committed and sent now; the rest will pass through. */
  mustStart(reason: NotRerunnableReason): void
  /** The handler broke the connection. */
  destroyed(error: unknown): void
  /** Called by the code of an attempt that has been thrown away: nothing is done for it. */
  isStale(): boolean
}

type Callback = (error?: Error | null) => void
type Chunk = string | Uint8Array | null | undefined

interface Call {
  readonly kind: 'write' | 'end' | 'flushHeaders'
  readonly args: readonly unknown[]
}

const SHADOWED = ['write', 'end', 'writeHead', 'flushHeaders', 'destroy'] as const
type Shadowed = (typeof SHADOWED)[number]
type Method = (...args: readonly unknown[]) => unknown

/** Node's own fields that say how far a response is. */
interface Progress {
  _header: string | null
  finished: boolean
}

const HELD = 'held by session-tx until the commit'
const NODE = ServerResponse.prototype as unknown as Record<Shadowed | 'setHeader', Method>

export class HeldResponse {
  readonly #res: ServerResponse
  readonly #progress: Progress
  readonly #bytesMax: number
  readonly #owner: HoldingOwner
  readonly #before = new Map<Shadowed, PropertyDescriptor | undefined>()
  readonly #prior = {} as Record<Shadowed, Method>
  readonly #ours = {} as Record<Shadowed, Method>
  readonly #sources = new Set<Readable>()
  #state: 'holding' | 'through' | 'dropped' = 'holding'
  #calls: Call[] = []
  #bytes = 0
  /** Arguments of a `writeHead` that the handler, or somebody for it, called before the first byte. */
  #head: readonly unknown[] | undefined
  #headStatus: number | undefined
  #isImplicit = false
  #reason: NotRerunnableReason | undefined
  #awaitsDrain = false

  constructor(res: ServerResponse, bytesMax: number, owner: HoldingOwner) {
    this.#res = res
    this.#progress = res as unknown as Progress
    this.#bytesMax = bytesMax
    this.#owner = owner
    const shadows: Record<Shadowed, Method> = {
      write: (chunk, encoding, callback) => this.#write(chunk as Chunk, encoding, callback),
      end: (chunk, encoding, callback) => this.#end(chunk, encoding, callback),
      writeHead: (...args) => this.#writeHead(args),
      flushHeaders: () => this.#flushHeaders(),
      destroy: error => this.#destroy(error),
    }
    for (const name of SHADOWED) {
      this.#before.set(name, Object.getOwnPropertyDescriptor(res, name))
      this.#prior[name] = res[name] as unknown as Method
      this.#ours[name] = shadows[name]
      Object.defineProperty(res, name, {
        value: shadows[name],
        writable: true,
        enumerable: true,
        configurable: true,
      })
    }
    res.on('pipe', this.#track)
  }

  /** Why the answer cannot be thrown away any more. */
  get reason(): NotRerunnableReason | undefined {
    return this.#reason
  }
  /** The handler has written something, or has ended the response. */
  get hasStarted(): boolean {
    return this.#headStatus !== undefined
  }

  /** With the response as Node has it: nothing of it has left, so headers can be set. */
  unlocked<T>(work: () => T): T {
    const { _header: header, finished } = this.#progress
    if (this.#state !== 'holding') return work()
    this.#progress._header = null
    this.#progress.finished = false
    try {
      return work()
    } finally {
      this.#progress._header = header
      this.#progress.finished = finished
    }
  }

  /** What counts is the status at the time of the head, as on the wire. */
  settleStatus(): void {
    if (this.#headStatus !== undefined) this.#res.statusCode = this.#headStatus
  }

  /** Everything that was held is done now, in order; what comes later is done at once. */
  release(): void {
    if (this.#state !== 'holding') return
    this.settleStatus()
    this.#let('through')
    const res = this.#res
    let flows = true
    if (this.#head !== undefined) this.#prior.writeHead.apply(res, [...this.#head])
    for (const { kind, args } of this.#calls.splice(0)) {
      const answer = this.#prior[kind].apply(res, [...args])
      if (kind === 'write') flows = answer !== false
    }
    if (this.#awaitsDrain && flows) process.nextTick(() => res.emit('drain'))
  }

  /** Passes everything on, but for what a handler that is still running for nothing does. */
  fence(): void {
    const res = this.#res
    this.#state = 'through'
    res.removeListener('pipe', this.#track)
    for (const name of ['setHeader', 'appendHeader', 'removeHeader'] as const) {
      const prior = res[name] as unknown as Method
      const fenced: Method = (...args) => (this.#owner.isStale() ? res : prior.apply(res, [...args]))
      Object.defineProperty(res, name, { value: fenced, writable: true, configurable: true })
    }
  }

  /** Nothing of it is ever sent. The response is left as Node has it, without the wrappers that were put around ours. */
  drop(): void {
    if (this.#state !== 'holding') return
    this.#let('dropped')
    this.#calls = []
    for (const source of this.#sources) discard(source, this.#res)
  }

  #let(state: 'through' | 'dropped'): void {
    const res = this.#res
    this.#state = state
    this.#progress._header = null
    this.#progress.finished = false
    res.removeListener('pipe', this.#track)
    for (const name of SHADOWED) {
      // Somebody below has wrapped ours: it stays in the chain, and passes on.
      if (state === 'through' && (res[name] as unknown) !== this.#ours[name]) continue
      const before = this.#before.get(name)
      if (before === undefined) Reflect.deleteProperty(res, name)
      else Object.defineProperty(res, name, before)
    }
  }

  get #isDead(): boolean {
    return this.#state === 'dropped' || this.#owner.isStale()
  }

  readonly #track = (source: Readable): void => {
    this.#sources.add(source)
  }

  #write(chunk: Chunk, encoding: unknown, callback: unknown): unknown {
    const args = [chunk, encoding, callback]
    if (this.#isDead) return true
    if (this.#state === 'through') return this.#prior.write.apply(this.#res, args)
    // What Node refuses, it refuses in its own words, before it does anything.
    if (this.#progress.finished || !isChunk(chunk)) return NODE.write.apply(this.#res, args)
    const done = (typeof encoding === 'function' ? encoding : callback) as Callback | undefined
    this.#holdHead()
    // Who gave a callback may use the memory again after it.
    const kept = typeof done === 'function' && typeof chunk !== 'string' ? Buffer.from(chunk) : chunk
    this.#keep('write', kept, typeof encoding === 'string' ? encoding : undefined)
    if (typeof done === 'function') process.nextTick(done)
    if (this.#reason === undefined) return true
    this.#awaitsDrain = true
    return false
  }

  #end(first: unknown, encoding: unknown, callback: unknown): unknown {
    const args = [first, encoding, callback]
    const res = this.#res
    if (this.#isDead) return res
    if (this.#state === 'through') return this.#prior.end.apply(res, args)
    const chunk = (typeof first === 'function' ? undefined : first) as Chunk
    if (this.#progress.finished) return NODE.end.apply(res, args)
    if (isPresent(chunk) && !isChunk(chunk)) return NODE.write.apply(res, [chunk, encoding])
    this.#holdHead()
    this.#keep('end', ...args)
    this.#progress.finished = true
    this.#owner.ended()
    return res
  }

  #keep(kind: 'write' | 'end', ...args: readonly unknown[]): void {
    const [chunk, encoding] = args
    this.#calls.push({ kind, args })
    if (typeof chunk === 'string') this.#bytes += Buffer.byteLength(chunk, encoding as BufferEncoding)
    else if (chunk instanceof Uint8Array) this.#bytes += chunk.byteLength
    if (this.#bytes > this.#bytesMax) this.#start('responseBytes')
  }

  /** As Node does before the first byte, through whoever has wrapped `writeHead`. */
  #holdHead(): void {
    if (this.#progress._header !== null) return
    this.#isImplicit = true
    try {
      this.#res.writeHead(this.#res.statusCode)
    } finally {
      this.#isImplicit = false
    }
  }

  #writeHead(args: readonly unknown[]): unknown {
    const res = this.#res
    if (this.#isDead) return res
    if (this.#state === 'through') return this.#prior.writeHead.apply(res, [...args])
    if (this.#progress._header !== null) return NODE.writeHead.apply(res, [...args])
    refuseAsNode(res, args)
    const [status, message] = args
    const headers = typeof message === 'string' ? args[2] : (args[2] ?? message)
    const isRaw = res.getHeaderNames().length === 0 && !setsCookie(headers)
    if (!isRaw) setHeaders(res, headers)
    // Left to Node, which counts the bytes of an answer that is ended with its first chunk.
    const isExplicit = !this.#isImplicit || (isRaw && headers !== undefined)
    const plain = typeof message === 'string' ? [status, message] : [status]
    if (isExplicit) this.#head = isRaw ? args : plain
    res.statusCode = Number(status)
    if (typeof message === 'string') res.statusMessage = message
    this.#headStatus = res.statusCode
    this.#progress._header = HELD
    if (isEventStream(res, isRaw ? headers : undefined)) this.#start('eventStream')
    return res
  }

  #flushHeaders(): void {
    if (this.#isDead) return
    if (this.#state === 'through') {
      this.#prior.flushHeaders.call(this.#res)
      return
    }
    this.#holdHead()
    this.#calls.push({ kind: 'flushHeaders', args: [] })
    this.#start('responseStarted')
  }

  #destroy(error: unknown): unknown {
    if (this.#isDead) return this.#res
    if (this.#state === 'holding') {
      this.drop()
      this.#owner.destroyed(error)
    }
    return this.#prior.destroy.call(this.#res, error)
  }

  #start(reason: NotRerunnableReason): void {
    if (this.#reason !== undefined) return
    this.#reason = reason
    this.#owner.mustStart(reason)
  }
}

function isChunk(chunk: unknown): chunk is string | Uint8Array {
  return typeof chunk === 'string' || chunk instanceof Uint8Array
}

/** As Node asks in `end`. */
function isPresent(chunk: Chunk): boolean {
  return Boolean(chunk)
}

/** Status, message and headers are checked by Node itself, on a response that goes nowhere. */
function refuseAsNode(res: ServerResponse, args: readonly unknown[]): void {
  const isPlain = args.length === 1 && typeof args[0] === 'number' && args[0] >= 100 && args[0] <= 999
  if (isPlain && res.statusMessage === undefined) return
  const scratch = new ServerResponse(res.req)
  scratch.statusCode = res.statusCode
  // Where headers were set before, it looks at the new ones first.
  if (res.getHeaderNames().length > 0) scratch.setHeader('X-Set', 'before')
  if (res.statusMessage !== undefined) scratch.statusMessage = res.statusMessage
  try {
    NODE.writeHead.apply(scratch, [...args])
  } catch (error) {
    // It keeps these, though it has thrown.
    res.statusCode = scratch.statusCode
    if (scratch.statusMessage !== undefined) res.statusMessage = scratch.statusMessage
    throw error
  }
}

/** As `writeHead` does it where headers were set before. */
function setHeaders(res: ServerResponse, headers: unknown): void {
  for (const [name, value] of pairsOf(headers)) NODE.setHeader.call(res, name, value)
}

function pairsOf(headers: unknown): readonly (readonly [string, unknown])[] {
  if (typeof headers !== 'object' || headers === null) return []
  if (!Array.isArray(headers)) return Object.entries(headers).filter(([name]) => name !== '')
  const flat: readonly unknown[] = headers
  return flat.flatMap((name, place) =>
    place % 2 === 0 && typeof name === 'string' && name !== '' ? [[name, flat[place + 1]]] : [],
  )
}

function setsCookie(headers: unknown): boolean {
  return pairsOf(headers).some(([name]) => name.toLowerCase() === 'set-cookie')
}

function isEventStream(res: ServerResponse, raw: unknown): boolean {
  const given = pairsOf(raw).find(([name]) => name.toLowerCase() === 'content-type')?.[1]
  const type = given ?? res.getHeader('content-type')
  return typeof type === 'string' && /^text\/event-stream\b/i.test(type)
}

/** A stream that nobody will read: a late error of it must not end the process. */
function discard(source: Readable, res: ServerResponse): void {
  if (typeof source.unpipe === 'function') source.unpipe(res)
  source.on('error', () => {})
  if (typeof source.destroy === 'function') source.destroy()
}
