/**
 * Where requests keep losing races: routes, with the parts (variables, tables) that their first attempts lose. Where at
 * least half of them do, the next ones queue for these parts before they begin; but four times a second one races all the
 * same, to see whether it is still so. A race that is lost every time costs a second run every time; a queue costs the
 * wait alone. Nothing is asked or counted while nobody loses. Knows names only.
 *
 * A router finds the route of a request only below us, so the address tells it: that of requests seen before.
 */
import { LRUCache } from 'lru-cache'

const ROUTES_MAX = 200
const ADDRESSES_MAX = 2_000
const PARTS_MAX = 8
/** Fewer first attempts say nothing. */
const TRIES_MIN = 4
const LOST_SHARE_MIN = 0.5
const PROBE_EVERY_MS = 250
/** Without a lost race. */
const FORGET_AFTER_MS = 10_000

interface Entry {
  readonly parts: Set<string>
  tries: number
  losses: number
  /** When the next one races all the same; undefined: all do. */
  probeAt: number | undefined
}

const NONE: readonly string[] = Object.freeze([])

export class Heat {
  readonly #now: () => number
  readonly #entries = new LRUCache<string, Entry>({ max: ROUTES_MAX })
  readonly #routes = new LRUCache<string, string>({ max: ADDRESSES_MAX })
  #lostAt = 0

  /** @param now milliseconds on a clock that never goes back */
  constructor(now: () => number) {
    this.#now = now
  }

  /** Nobody has lost lately. */
  get isCold(): boolean {
    if (this.#entries.size === 0) return true
    if (this.#now() - this.#lostAt < FORGET_AFTER_MS) return false
    this.#entries.clear()
    this.#routes.clear()
    return true
  }

  /**
   * What a request to this address should queue for before its first attempt.
   * @param careful it has one attempt only, so whatever has been lost there at all
   */
  partsAt(address: string, careful: boolean): readonly string[] {
    const entry = this.#entries.get(this.#routes.get(address) ?? '')
    if (entry === undefined || !(careful || this.#queues(entry))) return NONE
    return [...entry.parts]
  }

  #queues(entry: Entry): boolean {
    if (entry.probeAt === undefined) return false
    const now = this.#now()
    if (now < entry.probeAt) return true
    entry.probeAt = now + PROBE_EVERY_MS
    return false
  }

  /** A first attempt, begun without queueing, has lost these. */
  lost(address: string, route: string, parts: readonly string[]): void {
    this.#lostAt = this.#now()
    const entry = this.#entries.get(route) ?? { parts: new Set(), tries: 0, losses: 0, probeAt: undefined }
    this.#entries.set(route, entry)
    this.#routes.set(address, route)
    for (const part of parts) if (entry.parts.size < PARTS_MAX) entry.parts.add(part)
    this.#tried(entry, true)
  }

  /** One has won. */
  won(address: string, route: string): void {
    const entry = this.#entries.get(route)
    if (entry === undefined) return
    this.#routes.set(address, route)
    this.#tried(entry, false)
  }

  #tried(entry: Entry, lost: boolean): void {
    entry.tries += 1
    if (lost) entry.losses += 1
    if (entry.tries < TRIES_MIN) return
    const isHot = entry.losses >= entry.tries * LOST_SHARE_MIN
    entry.probeAt = isHot ? (entry.probeAt ?? this.#now() + PROBE_EVERY_MS) : undefined
    entry.tries = 0
    entry.losses = 0
  }
}
