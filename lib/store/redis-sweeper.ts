/**
 * What every process does beside requests: finishes intents that nobody has met, notices losses, writes idle times, forgets
 * users' sessions that have expired. No process leads: each step can be done by several at once. Knows no claims.
 */
import type { Clock, Timer } from '../transaction/clock.js'
import type { DecisionRecord } from '../transaction/announced-decision.js'
import { type RedisJournal, SHARDS } from './redis-journal.js'
import { listedIn } from './redis-replies.js'
import type { RedisSettling } from './redis-settling.js'

const AT_ONCE_MAX = 16
const FLUSH_AFTER_MS = 1_000
/** One of so many shards looks at how its server is set up. */
const LOOKS_EVERY = 32
const FORSAKEN_EVERY_MS = 600_000

interface SweeperSetup {
  readonly clock: Clock
  readonly journal: RedisJournal
  readonly settling: RedisSettling
  readonly decisions: DecisionRecord | undefined
  readonly everyMs: number
  /** Younger ones are left to their owner. */
  readonly olderThanMs: number
  readonly life: readonly [number, number]
}

export class RedisSweeper {
  readonly #setup: SweeperSetup
  #touched = new Map<string, number>()
  #flushTimer: Timer | undefined
  #flushing: Promise<void> = Promise.resolve()
  #sweepTimer: Timer | undefined
  #sweeping: Promise<unknown> | undefined
  #forsakenAt: number
  #closed = false

  constructor(setup: SweeperSetup) {
    this.#setup = setup
    this.#forsakenAt = setup.clock.now() - FORSAKEN_EVERY_MS
    this.#scheduleSweep()
  }

  #scheduleSweep(): void {
    this.#sweepTimer = this.#setup.clock.after(this.#setup.everyMs, () => {
      this.#sweeping = this.sweep().then(() => {
        if (!this.#closed) this.#scheduleSweep()
      })
    })
  }

  /** All shards. @returns whether all were looked at, and nothing old is left */
  async sweep(): Promise<boolean> {
    const shards = Array.from({ length: SHARDS }, (_, shard) => shard)
    let isClean = true
    const worker = async (): Promise<void> => {
      for (let shard = shards.pop(); shard !== undefined && !this.#closed; shard = shards.pop()) {
        try {
          isClean = (await this.#sweepShard(shard)) && isClean
        } catch {
          isClean = false // away: the next sweep finds it, or another process
        }
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE_MAX }, worker))
    const { clock, decisions } = this.#setup
    const isDue = clock.now() - this.#forsakenAt >= FORSAKEN_EVERY_MS
    if (isClean && isDue && !this.#closed && decisions !== undefined) {
      this.#forsakenAt = clock.now()
      decisions.swept()
    }
    return isClean
  }

  async #sweepShard(shard: number): Promise<boolean> {
    const { journal, settling, olderThanMs } = this.#setup
    const looks = shard % LOOKS_EVERY === 0 ? 1 : 0
    const { rest } = await journal.inShard(shard, 'sweep', '', olderThanMs, looks)
    let isClean = true
    for (const intent of listedIn(rest[0])) {
      const open = await settling.finish(intent.key, [intent])
      if (open.length > 0) isClean = false
      // Of a session that is gone the list may still say something.
      else await journal.step('unlist', intent.key, intent.listed)
    }
    return isClean
  }

  /** Will be written soon. */
  touch(key: string, at: number): void {
    if (this.#closed) return
    this.#touched.set(key, at)
    this.#flushTimer ??= this.#setup.clock.after(FLUSH_AFTER_MS, () => {
      this.#flushing = this.flush()
    })
  }

  /** Writes what has been gathered. What cannot be written is written with the next, unless it was touched again since. */
  async flush(): Promise<void> {
    const { clock, journal, life } = this.#setup
    this.#flushTimer?.cancel()
    this.#flushTimer = undefined
    const touched = this.#touched
    this.#touched = new Map()
    const one = async ([key, at]: readonly [string, number]): Promise<void> => {
      try {
        await journal.step('touch', key, Math.round(clock.now() - at), ...life)
      } catch {
        if (!this.#touched.has(key)) this.touch(key, at) // or, if we end, the session is that much older
      }
    }
    await Promise.all([...touched].map(one))
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#sweepTimer?.cancel()
    this.#flushTimer?.cancel()
    await this.#sweeping
    await this.#flushing
    await this.flush()
  }
}
