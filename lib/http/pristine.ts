/**
 * What a request and its response looked like before the first attempt, and how to make them look so again: own
 * properties, headers, status, listeners. Knows Node's HTTP objects and that frameworks hang objects beside them; knows
 * no framework.
 */
import type { EventEmitter } from 'node:events'
import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'

interface Listeners {
  readonly emitter: EventEmitter
  readonly byName: Map<string | symbol, readonly unknown[]>
}

/** Where Node notes which headers were removed, beside the headers themselves; removing `Date` clears `sendDate`. */
type Removed = Record<'_removedTE' | '_removedContLen' | '_removedConnection' | 'sendDate', boolean>

/** What the queue of on-finished hangs on a response; callbacks of a failed attempt must not fire. */
interface FinishQueue {
  __onFinished?: { queue?: unknown[] | null }
}

export class Pristine {
  readonly #req: IncomingMessage
  readonly #res: ServerResponse
  readonly #frames: readonly { readonly object: object; readonly own: PropertyDescriptorMap }[]
  readonly #reqForeign: Foreign
  readonly #resForeign: Foreign
  readonly #reqHeaders: IncomingMessage['headers']
  readonly #url: string | undefined
  readonly #method: string | undefined
  readonly #headers: readonly (readonly [string, number | string | string[] | undefined])[]
  readonly #statusCode: number
  readonly #statusMessage: string
  readonly #removed: Removed
  readonly #listeners: readonly Listeners[]
  readonly #finishCallbacks: number
  /** Our own listeners, added since: they stay. */
  readonly #kept = new Set<unknown>()

  /** `frames` are the framework's objects whose own properties belong to the attempt. */
  constructor(req: IncomingMessage, res: ServerResponse, frames: readonly object[]) {
    this.#req = req
    this.#res = res
    this.#frames = frames.map(object => ({ object, own: Object.getOwnPropertyDescriptors(object) }))
    this.#reqForeign = foreignOf(req, NODE_REQUEST)
    this.#resForeign = foreignOf(res, NODE_RESPONSE)
    this.#reqHeaders = { ...req.headers }
    this.#url = req.url
    this.#method = req.method
    this.#headers = res.getHeaderNames().map(name => [name, copied(res.getHeader(name))])
    this.#statusCode = res.statusCode
    this.#statusMessage = res.statusMessage
    this.#removed = removedOf(res)
    this.#listeners = [req, res].map(emitter => ({ emitter, byName: listenersOf(emitter) }))
    this.#finishCallbacks = finishQueue(res)?.length ?? 0
  }

  /** A listener that belongs to the request, not to the attempt. */
  keep(listener: unknown): void {
    this.#kept.add(listener)
  }

  restore(): void {
    for (const { object, own } of this.#frames) restoreOwn(object, own)
    restoreForeign(this.#req, NODE_REQUEST, this.#reqForeign)
    restoreForeign(this.#res, NODE_RESPONSE, this.#resForeign)
    restoreHeaders(this.#req.headers, this.#reqHeaders)
    if (this.#url !== undefined) this.#req.url = this.#url
    if (this.#method !== undefined) this.#req.method = this.#method
    this.#restoreResponse()
    for (const listeners of this.#listeners) restoreListeners(listeners, this.#kept)
    finishQueue(this.#res)?.splice(this.#finishCallbacks)
  }

  #restoreResponse(): void {
    const res = this.#res
    for (const name of res.getHeaderNames()) res.removeHeader(name)
    for (const [name, value] of this.#headers) if (value !== undefined) res.setHeader(name, value)
    res.statusCode = this.#statusCode
    if (res.statusMessage !== this.#statusMessage) res.statusMessage = this.#statusMessage
    Object.assign(res, this.#removed)
  }
}

function removedOf(res: ServerResponse): Removed {
  const { _removedTE, _removedContLen, _removedConnection, sendDate } = res as ServerResponse & Removed
  return { _removedTE, _removedContLen, _removedConnection, sendDate }
}

function copied<T>(value: T): T {
  return (Array.isArray(value) ? [...value] : value) as T
}

function restoreOwn(object: object, own: PropertyDescriptorMap): void {
  for (const key of Reflect.ownKeys(object)) if (!Object.hasOwn(own, key)) Reflect.deleteProperty(object, key)
  Object.defineProperties(object, own)
}

/** What others hung on a request or response, by name; undefined: nothing, as on most of them. */
type Foreign = readonly (readonly [PropertyKey, PropertyDescriptor])[] | undefined

/** What Node keeps for itself: these are not ours to drop, and what matters of them is restored one by one. */
const NODE_REQUEST: ReadonlySet<PropertyKey> = nodeKeys(new IncomingMessage(new Socket()))
const NODE_RESPONSE: ReadonlySet<PropertyKey> = nodeKeys(new ServerResponse(new IncomingMessage(new Socket())))

function nodeKeys(fresh: object): ReadonlySet<PropertyKey> {
  const later = ['__onFinished', '_consumed', '_dumped', '_events', '_eventsCount', '_header', '_closed']
  return new Set([...Reflect.ownKeys(fresh), ...later])
}

function foreignOf(object: object, nodes: ReadonlySet<PropertyKey>): Foreign {
  let found: (readonly [PropertyKey, PropertyDescriptor])[] | undefined
  for (const key of Reflect.ownKeys(object)) {
    if (nodes.has(key)) continue
    const descriptor = Reflect.getOwnPropertyDescriptor(object, key)
    if (descriptor !== undefined) (found ??= []).push([key, descriptor])
  }
  return found
}

function restoreForeign(object: object, nodes: ReadonlySet<PropertyKey>, before: Foreign = []): void {
  for (const key of Reflect.ownKeys(object)) {
    if (!nodes.has(key) && !before.some(([name]) => name === key)) Reflect.deleteProperty(object, key)
  }
  for (const [key, descriptor] of before) Object.defineProperty(object, key, descriptor)
}

/** In place: somebody above us may hold the object. */
function restoreHeaders(headers: IncomingMessage['headers'], before: IncomingMessage['headers']): void {
  for (const name of Object.keys(headers)) if (!Object.hasOwn(before, name)) Reflect.deleteProperty(headers, name)
  Object.assign(headers, before)
}

function listenersOf(emitter: EventEmitter): Map<string | symbol, readonly unknown[]> {
  return new Map(emitter.eventNames().map(name => [name, emitter.rawListeners(name)]))
}

function restoreListeners({ emitter, byName }: Listeners, kept: ReadonlySet<unknown>): void {
  for (const name of new Set([...emitter.eventNames(), ...byName.keys()])) {
    const now = emitter.rawListeners(name)
    const ours = now.filter(listener => kept.has(listener) || kept.has((listener as { listener?: unknown }).listener))
    const before = [...(byName.get(name) ?? []), ...ours]
    if (now.length === before.length && now.every((listener, place) => listener === before[place])) continue
    emitter.removeAllListeners(name)
    for (const listener of before) emitter.on(name, listener as (...args: unknown[]) => void)
  }
}

function finishQueue(res: ServerResponse): unknown[] | undefined {
  return (res as FinishQueue).__onFinished?.queue ?? undefined
}
