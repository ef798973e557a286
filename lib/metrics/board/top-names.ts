/**
 * The names that were counted most, in bounded memory: the space-saving sketch. A name that arrives when all places are
 * taken inherits the place, and the count, of the rarest; so the frequent ones are all there, and a count is too high by
 * at most the smallest kept one. Knows nothing of what is counted. Source: Metwally, Agrawal, El Abbadi, "Efficient
 * computation of frequent and top-k elements in data streams" (2005).
 */
import { boundedName } from '../counts.js'

export interface Counted {
  readonly name: string
  readonly count: number
}

export class TopNames {
  readonly #places: number
  readonly #counts = new Map<string, number>()

  constructor(places: number) {
    this.#places = places
  }

  add(name: string, count = 1): void {
    const key = boundedName(name)
    const known = this.#counts.get(key)
    if (known !== undefined || this.#counts.size < this.#places) {
      this.#counts.set(key, (known ?? 0) + count)
      return
    }
    const [rarest, least] = this.#rarest()
    this.#counts.delete(rarest)
    this.#counts.set(key, least + count)
  }

  /** Adds what another one counted. */
  addAll(other: TopNames): void {
    for (const [name, count] of other.#counts) this.add(name, count)
  }

  /** Most frequent first; of equals, the one that came first. */
  list(most = this.#places): Counted[] {
    const all = [...this.#counts].map(([name, count]) => ({ name, count }))
    return all.sort((a, b) => b.count - a.count).slice(0, most)
  }

  #rarest(): [name: string, count: number] {
    let found: [string, number] = ['', Infinity]
    for (const entry of this.#counts) if (entry[1] < found[1]) found = entry
    return found
  }
}
