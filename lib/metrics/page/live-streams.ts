/**
 * Server-sent events for pages that are open: every second what changed. One timer for all of them, and none while nobody
 * looks. A stream ends when the server stops listening, so that looking keeps no server from closing, and after ten
 * minutes; a browser then asks anew. Knows nothing of what is sent. Source of the format: the HTML standard, section 9.2.
 */
import { Readable } from 'node:stream'
import type { Clock, Timer } from '../../transaction/clock.js'

/** How many pages are served at once; the next one reloads instead. */
export const STREAMS_MAX = 20
const EVERY_MS = 1000
const LIFE_MS = 600_000
/** A reader that takes nothing gets nothing: what it misses is in the next event. */
const BEHIND_BYTES_MAX = 1_000_000

interface Open {
  readonly stream: Readable
  readonly parts: () => Record<string, string>
  readonly isServing: () => boolean
  readonly endsAt: number
  readonly sent: Map<string, string>
}

export class LiveStreams {
  readonly #clock: Clock
  readonly #open = new Set<Open>()
  #timer: Timer | undefined

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /**
   * @param parts asked every second; what is as before is not sent again
   * @param isServing false: the server is closing
   * @returns undefined: there are too many
   */
  open(parts: () => Record<string, string>, isServing: () => boolean): Readable | undefined {
    if (this.#open.size >= STREAMS_MAX) return undefined
    const stream = new Readable({ read() {} })
    const open = { stream, parts, isServing, endsAt: this.#clock.now() + LIFE_MS, sent: new Map() }
    this.#open.add(open)
    stream.once('close', () => this.#closed(open))
    stream.push('retry: 1000\n\n')
    this.#send(open)
    this.#timer ??= this.#clock.after(EVERY_MS, () => this.#tick())
    return stream
  }

  #tick(): void {
    for (const open of this.#open) this.#send(open)
    this.#timer = this.#open.size === 0 ? undefined : this.#clock.after(EVERY_MS, () => this.#tick())
  }

  #send(open: Open): void {
    const { stream, sent } = open
    if (!open.isServing() || this.#clock.now() >= open.endsAt) {
      this.#open.delete(open)
      stream.push(null)
      return
    }
    if (stream.readableLength > BEHIND_BYTES_MAX) return
    const changed = Object.entries(open.parts()).filter(([name, text]) => sent.get(name) !== text)
    for (const [name, text] of changed) sent.set(name, text)
    // A comment where nothing changed: it finds out whether anybody is still there.
    const event =
      changed.length === 0
        ? ':\n\n'
        : `event: parts\ndata: ${JSON.stringify(Object.fromEntries(changed))}\n\n`
    stream.push(event)
  }

  #closed(open: Open): void {
    this.#open.delete(open)
    if (this.#open.size > 0) return
    this.#timer?.cancel()
    this.#timer = undefined
  }
}
