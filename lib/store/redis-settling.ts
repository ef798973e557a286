/**
 * What becomes of intents in the Redis store, whoever left them: committed by what their decision says, they are
 * published; decided otherwise, taken back; open for too long, decided by force. Any process may do that for any other, and
 * each step can be done twice. Knows nothing of claims.
 */
import type { DecisionRecord } from '../transaction/announced-decision.js'
import type { Clock } from '../transaction/clock.js'
import type { RedisJournal } from './redis-journal.js'
import { type Intent, OWN_SLOT } from './redis-replies.js'

interface SettlingSetup {
  readonly journal: RedisJournal
  readonly decisions: DecisionRecord | undefined
  readonly clock: Clock
  /** An intent that is as old and not decided is decided by force. */
  readonly forcedAfterMs: number
  /** Time to live of sessions: idle and absolute, as the script wants them. */
  readonly life: readonly [number, number]
}

const PAUSE_MS = Object.freeze({ first: 20, max: 1_000 })
/** Longest that close() waits for what is left. */
const CLOSE_MS_MAX = 3_000

/** What a publish found: the commit's number, or that somebody else did it, or that there is no session. */
type Published = { readonly commits: number } | 'already' | 'gone'

export class RedisSettling {
  readonly #setup: SettlingSetup
  /** Intents of this process that have not ended; resolved when they have. */
  readonly #own = new Map<string, Promise<void>>()
  readonly #background = new Set<Promise<void>>()
  #closed = false

  constructor(setup: SettlingSetup) {
    this.#setup = setup
  }

  /** An intent of this process is about to be staged. @returns to be called when it has ended */
  own(txid: string): () => void {
    let end = (): void => {}
    const ended = new Promise<void>(resolve => {
      end = resolve
    })
    this.#own.set(txid, ended)
    return () => {
      this.#own.delete(txid)
      end()
    }
  }

  isOwn({ txid }: Intent): boolean {
    return this.#own.has(txid)
  }

  /**
   * Finishes those of a session's intents that are decided.
   * @returns those that were open when they were looked up
   * @throws STORE_UNAVAILABLE
   */
  async finish(key: string, intents: readonly Intent[]): Promise<Intent[]> {
    const open = await Promise.all(
      intents.map(async intent => ((await this.#finished(key, intent)) ? [] : [intent])),
    )
    return open.flat()
  }

  async #finished(key: string, intent: Intent): Promise<boolean> {
    const fate = await this.#fateOf(intent)
    if (fate === 'open') return false
    if (fate === 'committed') await this.publish(key, intent.txid)
    else await this.takeBack(key, intent.txid)
    return true
  }

  async #fateOf(intent: Intent): Promise<'committed' | 'rolledBack' | 'open'> {
    const { decisions, forcedAfterMs } = this.#setup
    const { decision, ageMs } = intent
    const isOld = ageMs >= forcedAfterMs
    if (decision.slot === OWN_SLOT) return isOld && !this.isOwn(intent) ? 'rolledBack' : 'open'
    if (decisions === undefined) return 'open' // of processes that have a database, and will see to it
    const fate = await decisions.lookUp(decision)
    return fate === 'open' && isOld ? decisions.settle(decision, ageMs) : fate
  }

  async publish(key: string, txid: string): Promise<Published> {
    const { status, rest } = await this.#setup.journal.step('publish', key, txid, ...this.#setup.life)
    const commits = Number(rest[0])
    if (status === 'done') return { commits }
    return commits > 0 ? 'already' : 'gone'
  }

  async takeBack(key: string, txid: string): Promise<void> {
    await this.#setup.journal.step('rollback', key, txid, ...this.#setup.life)
  }

  /** Until it is done, or everything ends; then other processes do it. */
  inBackground(work: () => Promise<unknown>, ended: () => void): void {
    const going = this.untilDone(work).then(isDone => {
      if (isDone) ended()
    })
    this.#background.add(going)
    void going.finally(() => this.#background.delete(going))
  }

  /** @returns false: close() gave up */
  async untilDone(work: () => Promise<unknown>): Promise<boolean> {
    for (let pauseMs: number = PAUSE_MS.first; !this.#closed; pauseMs = Math.min(2 * pauseMs, PAUSE_MS.max)) {
      try {
        await work()
        return true
      } catch {
        await this.pause(pauseMs) // Redis is away: the intent says what is to be done
      }
    }
    return false
  }

  pause(ms: number): Promise<void> {
    return new Promise(resolve => {
      this.#setup.clock.after(ms, resolve)
    })
  }

  /** Until one of them may have ended: those of this process tell. */
  async wait(intents: readonly Intent[], pauseMs: number): Promise<void> {
    const own = intents.map(({ txid }) => this.#own.get(txid)).filter(ended => ended !== undefined)
    await Promise.race([...own, this.pause(own.length === intents.length ? PAUSE_MS.max : pauseMs)])
  }

  async close(): Promise<void> {
    await Promise.race([this.pause(CLOSE_MS_MAX), Promise.all(this.#background)])
    this.#closed = true
  }
}
