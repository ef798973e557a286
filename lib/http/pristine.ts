/**
 * What a request and its response looked like before the first attempt, and how to make them look so again: own
 * properties, headers, status, listeners. Knows Node's HTTP objects and that frameworks hang objects beside them; knows
 * no framework.
 */
import type { EventEmitter } from 'node:events'
import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import { eventNames, type NamesOf, ownNames, usualEvents, usualNames } from './usual-names.js'

interface Listeners {
  readonly name: string | symbol
  readonly listeners: readonly unknown[]
}

/** A framework's object: its own keys, and for each the value of a plain property, the descriptor of any other. */
interface Frame {
  readonly object: object
  readonly keys: readonly PropertyKey[]
  readonly kept: readonly unknown[]
}

/** Where Node notes which headers were removed, beside the headers themselves; removing `Date` clears `sendDate`. */
type Removed = Record<'_removedTE' | '_removedContLen' | '_removedConnection' | 'sendDate', boolean> & {
  /** Trailers, rendered. */
  readonly _trailer: string
}

/** Header names in the case that they were written and leave in. Node has it on messages of HTTP/1, @types/node on one. */
interface RawNames extends ServerResponse {
  getRawHeaderNames?(): string[]
}

const NONE: readonly never[] = Object.freeze([])

function headerNamesOf(res: RawNames): readonly string[] {
  return res.getRawHeaderNames?.() ?? res.getHeaderNames() // in HTTP/2 all of them are in lower case
}

/** What the queue of on-finished hangs on a response; callbacks of a failed attempt must not fire. */
interface FinishQueue {
  __onFinished?: { queue?: unknown[] | null }
}

/** Hidden by OpenTelemetry's instrumentation of Express: the patterns of the layers that a request is in. */
interface LayerPath {
  readonly __ot_middlewares?: unknown[]
}

/** How the names on a request, its response and the framework's objects are found. */
export interface Looks {
  readonly frames: readonly NamesOf<object>[]
  readonly reqForeign: NamesOf<object>
  readonly resForeign: NamesOf<object>
  readonly reqEvents: NamesOf<EventEmitter>
  readonly resEvents: NamesOf<EventEmitter>
}

/** For requests that somebody may have done anything to before us. */
const EVERY_TIME: Looks = {
  frames: [],
  reqForeign: foreignNamesOfRequest,
  resForeign: foreignNamesOfResponse,
  reqEvents: eventNames,
  resEvents: eventNames,
}

/** For requests that all come straight from Node and one framework. @param frames how many objects of the framework's */
export function usualLooks(frames: number): Looks {
  return {
    frames: Array.from({ length: frames }, () => usualNames(ownNames)),
    reqForeign: usualNames(foreignNamesOfRequest),
    resForeign: usualNames(foreignNamesOfResponse),
    reqEvents: usualEvents(),
    resEvents: usualEvents(),
  }
}

export class Pristine {
  readonly #req: IncomingMessage
  readonly #res: ServerResponse
  readonly #frames: readonly Frame[]
  readonly #plain: ReadonlySet<PropertyKey>
  readonly #reqForeign: Foreign
  readonly #resForeign: Foreign
  readonly #reqHeaders: IncomingMessage['headers']
  readonly #layerPath: number
  readonly #url: string | undefined
  readonly #method: string | undefined
  readonly #headers: readonly (readonly [string, number | string | string[] | undefined])[]
  readonly #statusCode: number
  readonly #hasStatus: boolean
  readonly #statusMessage: string
  readonly #removed: Removed
  readonly #reqListeners: readonly Listeners[]
  readonly #resListeners: readonly Listeners[]
  readonly #finishCallbacks: number
  /** Our own listeners, added since: they stay. */
  readonly #kept: unknown[] = []

  /**
   * All that is done here is done for every request, and nearly all of it for nothing: few are run again.
   *
   * @param frames the framework's objects whose own properties belong to the attempt
   * @param plain properties that the framework itself assigns to them: data, which need no descriptor
   * @param looks those of all requests that come the same way
   */
  constructor(
    req: IncomingMessage,
    res: ServerResponse,
    frames: readonly object[],
    plain: ReadonlySet<PropertyKey>,
    looks: Looks = EVERY_TIME,
  ) {
    this.#req = req
    this.#res = res
    this.#plain = plain
    this.#frames = frames.map((object, place) =>
      frameOf(object, (looks.frames[place] ?? ownNames)(object), plain),
    )
    this.#reqForeign = foreignOf(req, looks.reqForeign(req))
    this.#resForeign = foreignOf(res, looks.resForeign(res))
    this.#reqHeaders = { ...req.headers }
    this.#layerPath = layerPath(req)?.length ?? 0
    this.#url = req.url
    this.#method = req.method
    const names = headerNamesOf(res)
    this.#headers = names.length === 0 ? NONE : names.map(name => [name, copied(res.getHeader(name))])
    this.#statusCode = res.statusCode
    this.#hasStatus = Object.hasOwn(res, 'statusCode')
    this.#statusMessage = res.statusMessage
    this.#removed = removedOf(res)
    this.#reqListeners = listenersOf(req, looks.reqEvents(req))
    this.#resListeners = listenersOf(res, looks.resEvents(res))
    this.#finishCallbacks = finishQueue(res)?.length ?? 0
  }

  /** A listener that belongs to the request, not to the attempt. */
  keep(listener: unknown): void {
    this.#kept.push(listener)
  }

  restore(): void {
    for (const frame of this.#frames) restoreFrame(frame, this.#plain)
    restoreForeign(this.#req, NODE_REQUEST, this.#reqForeign)
    restoreHeaders(this.#req.headers, this.#reqHeaders)
    layerPath(this.#req)?.splice(this.#layerPath)
    if (this.#url !== undefined) this.#req.url = this.#url
    if (this.#method !== undefined) this.#req.method = this.#method
    restoreListeners(this.#req, this.#reqListeners, this.#kept)
    this.restoreResponse()
  }

  /** Only the response: for an error that is answered where the request has come to. */
  restoreResponse(): void {
    const res = this.#res
    restoreForeign(res, NODE_RESPONSE, this.#resForeign)
    for (const name of res.getHeaderNames()) res.removeHeader(name)
    for (const [name, value] of this.#headers) if (value !== undefined) res.setHeader(name, value)
    // 200 is on the prototype.
    if (!this.#hasStatus) Reflect.deleteProperty(res, 'statusCode')
    if (res.statusCode !== this.#statusCode) res.statusCode = this.#statusCode
    if (res.statusMessage !== this.#statusMessage) res.statusMessage = this.#statusMessage
    Object.assign(res, this.#removed)
    restoreListeners(res, this.#resListeners, this.#kept)
    finishQueue(res)?.splice(this.#finishCallbacks)
  }
}

function removedOf(res: ServerResponse): Removed {
  const { _removedTE, _removedContLen, _removedConnection, sendDate, _trailer } = res as ServerResponse &
    Removed
  return { _removedTE, _removedContLen, _removedConnection, sendDate, _trailer }
}

function copied<T>(value: T): T {
  return (Array.isArray(value) ? [...value] : value) as T
}

function frameOf(object: object, keys: readonly PropertyKey[], plain: ReadonlySet<PropertyKey>): Frame {
  const valueOrDescriptor = (key: PropertyKey): unknown =>
    plain.has(key)
      ? (object as Record<PropertyKey, unknown>)[key]
      : Reflect.getOwnPropertyDescriptor(object, key)
  return { object, keys, kept: keys.map(valueOrDescriptor) }
}

function restoreFrame({ object, keys, kept }: Frame, plain: ReadonlySet<PropertyKey>): void {
  for (const key of Reflect.ownKeys(object)) if (!keys.includes(key)) Reflect.deleteProperty(object, key)
  for (const [place, key] of keys.entries()) {
    const descriptor = plain.has(key)
      ? { value: kept[place], writable: true, enumerable: true, configurable: true }
      : (kept[place] as PropertyDescriptor | undefined)
    if (descriptor !== undefined) Object.defineProperty(object, key, descriptor)
  }
}

/** What others hung on a request or response, by name; undefined: nothing, as on most of them. */
type Foreign = readonly (readonly [PropertyKey, PropertyDescriptor])[] | undefined

/** What Node keeps for itself: these are not ours to drop, and what matters of them is restored one by one. */
const NODE_REQUEST: ReadonlySet<PropertyKey> = nodeKeys(new IncomingMessage(new Socket()))
const NODE_RESPONSE: ReadonlySet<PropertyKey> = nodeKeys(
  new ServerResponse(new IncomingMessage(new Socket())),
)

function nodeKeys(fresh: object): ReadonlySet<PropertyKey> {
  const later = ['__onFinished', '_consumed', '_dumped', '_events', '_eventsCount', '_header', '_closed']
  const servers = ['statusCode', '_maxRequestsPerSocket']
  return new Set([...Reflect.ownKeys(fresh), ...later, ...servers])
}

function foreignNamesOfRequest(req: object): readonly PropertyKey[] {
  return foreignNames(req, NODE_REQUEST)
}

function foreignNamesOfResponse(res: object): readonly PropertyKey[] {
  return foreignNames(res, NODE_RESPONSE)
}

/**
 * Not the hidden names (those that do not enumerate), which are left as they are: V8 has the list of the others at hand,
 * while `Reflect.ownKeys` of a request and its response takes 6 µs.
 */
function foreignNames(object: object, nodes: ReadonlySet<PropertyKey>): readonly PropertyKey[] {
  let found: PropertyKey[] | undefined
  for (const keys of [Object.keys(object), Object.getOwnPropertySymbols(object)])
    for (const key of keys) if (!nodes.has(key)) (found ??= []).push(key)
  return found ?? NONE
}

function foreignOf(object: object, names: readonly PropertyKey[]): Foreign {
  let found: [PropertyKey, PropertyDescriptor][] | undefined
  for (const key of names) {
    const descriptor = Reflect.getOwnPropertyDescriptor(object, key)
    if (descriptor !== undefined) (found ??= []).push([key, descriptor])
  }
  return found
}

function restoreForeign(object: object, nodes: ReadonlySet<PropertyKey>, before: Foreign = []): void {
  for (const key of foreignNames(object, nodes))
    if (!before.some(([name]) => name === key)) Reflect.deleteProperty(object, key)
  for (const [key, descriptor] of before) Object.defineProperty(object, key, descriptor)
}

/** In place: somebody above us may hold the object. */
function restoreHeaders(headers: IncomingMessage['headers'], before: IncomingMessage['headers']): void {
  for (const name of Object.keys(headers))
    if (!Object.hasOwn(before, name)) Reflect.deleteProperty(headers, name)
  Object.assign(headers, before)
}

function listenersOf(emitter: EventEmitter, names: readonly PropertyKey[]): readonly Listeners[] {
  if (names.length === 0) return NOBODY
  return (names as readonly (string | symbol)[]).map(name => ({
    name,
    listeners: emitter.rawListeners(name),
  }))
}

const NOBODY: readonly Listeners[] = Object.freeze([])

function restoreListeners(
  emitter: EventEmitter,
  pristine: readonly Listeners[],
  kept: readonly unknown[],
): void {
  const byName = new Map(pristine.map(({ name, listeners }) => [name, listeners]))
  for (const name of new Set([...emitter.eventNames(), ...byName.keys()])) {
    const now = emitter.rawListeners(name)
    const isKept = (listener: unknown): boolean =>
      kept.includes(listener) || kept.includes((listener as { listener?: unknown }).listener)
    const before = [...(byName.get(name) ?? []), ...now.filter(isKept)]
    if (now.length === before.length && now.every((listener, place) => listener === before[place])) continue
    emitter.removeAllListeners(name)
    for (const listener of before) emitter.on(name, listener as (...args: unknown[]) => void)
  }
}

function layerPath(req: IncomingMessage & LayerPath): unknown[] | undefined {
  return req.__ot_middlewares
}

function finishQueue(res: ServerResponse): unknown[] | undefined {
  return (res as FinishQueue).__onFinished?.queue ?? undefined
}
