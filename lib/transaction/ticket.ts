/**
 * First come, first served among those who lost a race for the same key. A ticket is a place in one queue per key; its
 * holder runs while the others wait, so a crowd of losers commits one after the other instead of racing again (50
 * parallel requests of one session with 3 retries: immediate re-run lets 4 through, jitter 9, tickets all 50).
 * A ticket also reserves its keys until the holder is done: whoever comes later and could run again gives way when it
 * wants to commit, else a holder that takes longer than the newcomers would lose to each of them. Nobody waits for a
 * reservation with a connection in hand: giving way means rolling back and queueing. Knows no session, no transaction.
 */
import { SessionTxError } from '../errors.js'
import type { Interrupt } from './interrupt.js'

export interface Ticket {
  readonly keys: readonly string[]
  /** The holder has no other attempt after this one. */
  insist(): void
  /** Gives the place to the next in every queue; calling it twice does nothing. */
  release(): void
}

interface Customer {
  /** Nothing was lost yet; these take no places from those who have lost, and have as many. */
  readonly early?: boolean
  /** What it is called where somebody gives way to it: the route of a request. */
  readonly name?: () => string
}

/** Who holds one key, and whoever waits behind. */
interface Queue {
  holder: Customer
  readonly turns: { readonly customer: Customer; readonly begin: () => void }[]
  /** How many of them have lost nothing yet, and how many have. */
  readonly waiting: { early: number; lost: number }
}

export class TicketOffice {
  readonly #waitingMax: number
  /** A key without holder has no entry. */
  readonly #queues = new Map<string, Queue>()
  readonly #insistedOn = new Set<string>()
  #waiting = 0

  constructor(waitingMax: number) {
    this.#waitingMax = waitingMax
  }

  /** For the metrics. */
  get counts(): { readonly waiting: number; readonly keys: number } {
    return { waiting: this.#waiting, keys: this.#queues.size }
  }

  /** Nobody holds a ticket for anything. */
  get isIdle(): boolean {
    return this.#queues.size === 0
  }

  /** True while somebody holds a ticket for the key. */
  isTaken(key: string): boolean {
    return this.#queues.has(key)
  }

  /** What the holder of the key calls itself; undefined if nobody holds it, or the holder does not say. */
  holderOf(key: string): string | undefined {
    return this.#queues.get(key)?.holder.name?.()
  }

  /** True while the holder of the key is at its last attempt. */
  isInsistedOn(key: string): boolean {
    return this.#insistedOn.has(key)
  }

  /**
   * Waits for its turn on every key. Keys are taken one by one in sorted order, so two requests never wait for each
   * other. Call it with no connection in hand.
   * @throws QUEUE_FULL when `waitingMax` of the same sort already wait for one of the keys
   * @throws whatever interrupts the wait (DEADLINE, client gone)
   */
  async take(keys: readonly string[], interrupt: Interrupt, customer: Customer = {}): Promise<Ticket> {
    const held: string[] = []
    try {
      for (const key of [...new Set(keys)].sort()) {
        await this.#takeOne(key, interrupt, customer)
        held.push(key)
      }
    } catch (error) {
      for (const key of held) this.#pass(key)
      throw error
    }
    let released = false
    return {
      keys: held,
      insist: () => {
        if (!released) for (const key of held) this.#insistedOn.add(key)
      },
      release: () => {
        if (released) return
        released = true
        for (const key of held) this.#pass(key)
      },
    }
  }

  #takeOne(key: string, interrupt: Interrupt, customer: Customer): Promise<void> | undefined {
    const queue = this.#queues.get(key)
    if (queue === undefined) {
      this.#queues.set(key, { holder: customer, turns: [], waiting: { early: 0, lost: 0 } })
      return undefined
    }
    const { turns, waiting } = queue
    const sort = customer.early === true ? 'early' : 'lost'
    if (waiting[sort] >= this.#waitingMax) {
      const message = `${turns.length} requests already wait for the same key (a session variable or a table)`
      throw new SessionTxError('QUEUE_FULL', message)
    }
    const ended = interrupt.waitingEnded
    if (ended !== undefined) throw ended
    const count = (change: 1 | -1): void => {
      this.#waiting += change
      waiting[sort] += change
    }
    count(1)
    return new Promise((resolve, reject) => {
      const begin = (): void => {
        stopListening()
        count(-1)
        resolve()
      }
      const turn = { customer, begin }
      turns.push(turn)
      const stopListening = interrupt.onWaitingEnd(reason => {
        turns.splice(turns.indexOf(turn), 1)
        count(-1)
        reject(reason)
      })
    })
  }

  #pass(key: string): void {
    this.#insistedOn.delete(key)
    const queue = this.#queues.get(key)
    const next = queue?.turns.shift()
    if (queue === undefined || next === undefined) this.#queues.delete(key)
    else {
      queue.holder = next.customer
      next.begin()
    }
  }
}
