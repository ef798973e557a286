/**
 * Settles transactions whose COMMIT was not answered: tries until their outcome is known, each on a connection of its
 * own outside the pool's limit, or until it is told to give up. One try is in settle.ts. Knows nothing of slots' owners.
 */
import type { Environment } from '../../transaction/clock.js'
import type { CoreConnection } from '../driver.js'
import { type Claimed, settleOn, type Verdict, type Victim } from './settle.js'

export interface Unsettled extends Claimed {
  /** COMMIT was sent: somebody wants to know. Otherwise only the slot has to become usable again. */
  readonly sent: boolean
  /** Undefined: the connection lives, and nothing is open on it. */
  readonly victim: Victim | undefined
}

/** Between two tries, doubling: while the database is away a try takes as long as it takes to be refused. */
const PAUSE_MS = Object.freeze({ first: 50, max: 2_000 })

/** Threads of earlier tries that are remembered. */
const VICTIMS_MAX = 8

export class Settler {
  readonly #environment: Environment
  readonly #unsettled = new Map<Unsettled, () => void>()
  #onIdle: (() => void) | undefined

  constructor(environment: Environment) {
    this.#environment = environment
  }

  /** Ids of transactions whose COMMIT was sent and of which it is not known yet what became of them. */
  get inDoubt(): readonly string[] {
    return [...this.#unsettled.keys()].filter(({ sent }) => sent).map(({ txid }) => txid)
  }

  /**
   * Resolves when the outcome is known, or can never be.
   * @throws Error when {@link close} gave up
   */
  async settle(unsettled: Unsettled, connect: () => CoreConnection): Promise<Verdict> {
    let giveUp = (): void => {}
    const givenUp = new Promise<never>((_resolve, reject) => {
      giveUp = () => reject(new Error(`close() was called before transaction ${unsettled.txid} was settled`))
    })
    givenUp.catch(() => {})
    this.#unsettled.set(unsettled, giveUp)
    const victims = unsettled.victim === undefined ? [] : [unsettled.victim]
    try {
      for (let pauseMs: number = PAUSE_MS.first; ; pauseMs = Math.min(pauseMs * 2, PAUSE_MS.max)) {
        const verdict = await this.#attempt(unsettled, victims, connect, givenUp)
        if (verdict !== undefined) return verdict
        victims.splice(0, victims.length - VICTIMS_MAX)
        await this.#pause(pauseMs, givenUp)
      }
    } finally {
      this.#unsettled.delete(unsettled)
      if (this.#unsettled.size === 0) this.#onIdle?.()
    }
  }

  /** Not all at once when the database comes back. */
  async #pause(pauseMs: number, givenUp: Promise<never>): Promise<void> {
    const { clock, random } = this.#environment
    let wake = (): void => {}
    const passed = new Promise<void>(resolve => {
      wake = resolve
    })
    const timer = clock.after(pauseMs * (0.5 + random() / 2), () => wake())
    await Promise.race([passed, givenUp]).finally(() => timer.cancel())
  }

  /** Waits for what is unsettled, but not longer than `waitMs`. @returns the ids of what is left in doubt */
  async close(waitMs: number): Promise<readonly string[]> {
    if (this.#unsettled.size === 0) return []
    await new Promise<void>(resolve => {
      const timer = this.#environment.clock.after(waitMs, resolve)
      this.#onIdle = () => {
        timer.cancel()
        resolve()
      }
    })
    const left = this.inDoubt
    for (const giveUp of this.#unsettled.values()) giveUp()
    return left
  }

  /** Undefined: nothing is known yet. */
  async #attempt(
    unsettled: Unsettled,
    victims: Victim[],
    connect: () => CoreConnection,
    givenUp: Promise<never>,
  ): Promise<Verdict | undefined> {
    const connection = connect()
    try {
      const now = (): number => this.#environment.clock.now()
      const verdict = settleOn(connection, unsettled, victims, now).catch(() => undefined)
      return await Promise.race([verdict, givenUp])
    } finally {
      connection.destroy()
    }
  }
}
