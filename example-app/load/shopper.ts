/** A shopper: one session, several tabs at once, and a memory of what the shop has answered. Knows no database. */
import type { Shopper as Remembered } from '../invariants.js'
import type { CartLine } from '../shop.js'
import { type Answer, Browser } from './browser.js'

const HOT = ['tea', 'coffee', 'cake', 'bread']
const SCARCE = ['badge', 'cup', 'poster', 'vinyl', 'lamp']
const OTHERS = [
  'apple',
  'butter',
  'candle',
  'honey',
  'jam',
  'milk',
  'pasta',
  'pen',
  'rice',
  'salt',
  'soap',
  'sugar',
]

export class Shopper {
  readonly #browser: Browser
  readonly #random: () => number
  readonly #answered = { visits: 0, added: [] as string[], removed: [] as string[], orders: [] as number[] }
  /** How often each status was answered. */
  readonly statuses = new Map<number, number>()

  constructor(port: number, seed: number) {
    this.#browser = new Browser(port)
    this.#random = randomFrom(seed)
  }

  /** Looks at the shop: what the session holds. */
  async look(): Promise<Remembered['session']> {
    const { status, text } = await this.#send('GET', '/')
    if (status !== 200) throw new Error(`GET / was answered with ${status}: ${text}`)
    this.#answered.visits += 1
    return JSON.parse(text) as Remembered['session']
  }

  /** Shops in as many tabs until told to stop. */
  async shop(tabs: number, isOver: () => boolean): Promise<void> {
    const tab = async (): Promise<void> => {
      while (!isOver()) await this.#step()
    }
    await Promise.all(Array.from({ length: tabs }, tab))
  }

  /** Looks for the last time. */
  async leave(): Promise<Remembered> {
    const session = await this.look()
    this.#browser.close()
    return { session, answered: this.#answered }
  }

  async #step(): Promise<void> {
    const chance = this.#random()
    if (chance < 0.3) {
      const { status } = await this.#send('GET', '/')
      if (status === 200) this.#answered.visits += 1
    } else if (chance < 0.7) {
      const answer = await this.#send('POST', '/cart', { item: this.#wish() })
      if (answer.status === 200) this.#answered.added.push((JSON.parse(answer.text) as CartLine).line)
    } else {
      await this.#checkOut()
    }
  }

  #wish(): string | undefined {
    const chance = this.#random()
    const shelf = chance < 0.5 ? HOT : chance < 0.7 ? SCARCE : OTHERS
    return shelf[Math.floor(this.#random() * shelf.length)]
  }

  async #checkOut(): Promise<void> {
    const answer = await this.#send('POST', '/checkout')
    if (answer.status === 200)
      this.#answered.orders.push((JSON.parse(answer.text) as { order: number }).order)
    const [, gone] = (answer.status === 409 && /^sold out: (.+)/.exec(answer.text)) || []
    if (gone === undefined) return
    const removed = await this.#send('DELETE', `/cart/${gone}`)
    if (removed.status === 200) this.#answered.removed.push((JSON.parse(removed.text) as CartLine).line)
  }

  async #send(method: string, path: string, body?: object): Promise<Answer> {
    const answer = await this.#browser.send(method, path, body)
    this.statuses.set(answer.status, (this.statuses.get(answer.status) ?? 0) + 1)
    return answer
  }
}

/** The same numbers for the same seed, so that every application sees the same wishes. Source: mulberry32. */
function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}
