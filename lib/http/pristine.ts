/**
 * What a request and its response looked like before the first attempt, and how to make them look so again: own
 * properties, headers, status, listeners. Knows Node's HTTP objects and that frameworks hang objects beside them; knows
 * no framework.
 */
import type { EventEmitter } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'

interface Listeners {
  readonly emitter: EventEmitter
  readonly byName: Map<string | symbol, readonly unknown[]>
}

/** Node forgets what a handler removed only when the response is new; these say "nothing was removed". */
const RESPONSE_DEFAULTS = Object.freeze({ _removedTE: false, _removedContLen: false, _removedConnection: false, sendDate: true })

/** What the queue of on-finished hangs on a response; callbacks of a failed attempt must not fire. */
interface FinishQueue {
  __onFinished?: { queue?: unknown[] | null }
}

export class Pristine {
  readonly #req: IncomingMessage
  readonly #res: ServerResponse
  readonly #frames: readonly { readonly object: object; readonly own: PropertyDescriptorMap }[]
  readonly #reqKeys: ReadonlySet<PropertyKey>
  readonly #resKeys: ReadonlySet<PropertyKey>
  readonly #url: string | undefined
  readonly #method: string | undefined
  readonly #headers: readonly (readonly [string, number | string | string[] | undefined])[]
  readonly #statusCode: number
  readonly #statusMessage: string
  readonly #listeners: readonly Listeners[]
  readonly #finishCallbacks: number
  /** Our own listeners, added since: they stay. */
  readonly #kept = new Set<unknown>()

  /** `frames` are the framework's objects whose own properties belong to the attempt. */
  constructor(req: IncomingMessage, res: ServerResponse, frames: readonly object[]) {
    this.#req = req
    this.#res = res
    this.#frames = frames.map(object => ({ object, own: Object.getOwnPropertyDescriptors(object) }))
    this.#reqKeys = new Set(Reflect.ownKeys(req))
    this.#resKeys = new Set(Reflect.ownKeys(res))
    this.#url = req.url
    this.#method = req.method
    this.#headers = res.getHeaderNames().map(name => [name, copied(res.getHeader(name))])
    this.#statusCode = res.statusCode
    this.#statusMessage = res.statusMessage
    this.#listeners = [req, res].map(emitter => ({ emitter, byName: listenersOf(emitter) }))
    this.#finishCallbacks = finishQueue(res)?.length ?? 0
  }

  /** A listener that belongs to the request, not to the attempt. */
  keep(listener: unknown): void {
    this.#kept.add(listener)
  }

  restore(): void {
    for (const { object, own } of this.#frames) restoreOwn(object, own)
    dropAdded(this.#req, this.#reqKeys)
    dropAdded(this.#res, this.#resKeys)
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
    res.statusMessage = this.#statusMessage
    Object.assign(res, RESPONSE_DEFAULTS)
  }
}

function copied<T>(value: T): T {
  return (Array.isArray(value) ? [...value] : value) as T
}

function restoreOwn(object: object, own: PropertyDescriptorMap): void {
  for (const key of Reflect.ownKeys(object)) if (!Object.hasOwn(own, key)) Reflect.deleteProperty(object, key)
  Object.defineProperties(object, own)
}

/** Properties that the attempt added. Those that Node keeps for itself (an underscore, a symbol) are not ours to drop. */
function dropAdded(object: object, before: ReadonlySet<PropertyKey>): void {
  for (const key of Reflect.ownKeys(object)) {
    if (typeof key === 'string' && !before.has(key) && !(key.startsWith('_') && NODE_KEEPS.has(key))) {
      Reflect.deleteProperty(object, key)
    }
  }
}

const NODE_KEEPS: ReadonlySet<string> = new Set(['__onFinished', '_consumed', '_dumped', '_eventsCount', '_header', '_closed'])

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
