/**
 * Numbers by name with a bound on the names, and the last few of anything. Memory stays the same however long
 * a process runs and whatever names an application invents. Knows nothing of what is counted.
 */

/** How many distinct names one map keeps; later names share {@link OTHER}. */
export const NAMES_MAX = 200

/** Longest name kept, in UTF-16 units; a longer one is cut and ends in `…`. */
export const NAME_LENGTH_MAX = 200

/** The name under which everything is counted that came after {@link NAMES_MAX} others. */
export const OTHER = '(other)'

/**
 * A count per name; a name that was never counted is absent. The object has no prototype: any name is only a
 * name.
 */
export type Counts<Name extends string = string> = Readonly<Partial<Record<Name, number>>>

/** Cuts what is too long to be a name that somebody chose, so that a hundred of them cannot fill a scrape. */
export function boundedName<Name extends string>(name: Name): Name {
  return name.length <= NAME_LENGTH_MAX ? name : (`${name.slice(0, NAME_LENGTH_MAX - 1)}…` as Name)
}

/** Counts by name; the first {@link NAMES_MAX} names are kept apart, in the order they came. */
export class CappedCounts<Name extends string = string> {
  // A Map and not an object: `__proto__` and `constructor` are names that a session variable may have.
  readonly #counts = new Map<string, number>()

  add(name: Name): void {
    const key = boundedName(name)
    const count = this.#counts.get(key)
    if (count !== undefined) this.#counts.set(key, count + 1)
    else if (this.#counts.size < NAMES_MAX) this.#counts.set(key, 1)
    else this.#counts.set(OTHER, (this.#counts.get(OTHER) ?? 0) + 1)
  }

  /** A copy without a prototype; {@link OTHER} is there only if something was counted under it. */
  toObject(): Counts<Name> {
    const result = Object.create(null) as Record<string, number>
    for (const [name, count] of this.#counts) result[name] = count
    return result as Counts<Name>
  }
}

/** The last `size` things added: a ring, so that adding moves nothing. */
export class Recent<Thing> {
  readonly #size: number
  readonly #things: Thing[] = []
  #next = 0

  constructor(size: number) {
    this.#size = size
  }

  add(thing: Thing): void {
    this.#things[this.#next] = thing
    this.#next = (this.#next + 1) % this.#size
  }

  /** Oldest first. */
  list(): Thing[] {
    if (this.#things.length < this.#size) return this.#things.slice()
    return [...this.#things.slice(this.#next), ...this.#things.slice(0, this.#next)]
  }
}
