/**
 * Ready-made resolvers: pure functions that merge a variable which another transaction committed meanwhile. A resolver
 * that throws leaves the conflict a conflict. Knows nothing of sessions.
 *
 * @example
 * app.use(sessionTx({ resolve: { visits: resolvers.counter, seen: resolvers.union } }))
 */
import { keyOf } from './value-key.js'

/**
 * `base` is what the attempt started from, `committed` what is stored now, `mine` what the attempt wants to store; each
 * is undefined where the variable is absent. Returns what to store instead (undefined removes the variable).
 */
export type Resolver = (base: unknown, committed: unknown, mine: unknown) => unknown

/** Both increments count. */
const counter: Resolver = (base, committed, mine) => number(committed) + number(mine) - number(base)

const max: Resolver = (_base, committed, mine) => extreme(Math.max, committed, mine)

const min: Resolver = (_base, committed, mine) => extreme(Math.min, committed, mine)

/** What either side added stays, what either side removed goes. Arrays and Sets, members compared by value. */
const union: Resolver = (base, committed, mine) => {
  const [before, theirs, ours] = [membersOf(base), membersOf(committed), membersOf(mine)]
  const merged = [...theirs].filter(([key]) => ours.has(key) || !before.has(key))
  for (const [key, member] of ours) if (!theirs.has(key) && !before.has(key)) merged.push([key, member])
  const members = merged.map(([, member]) => member)
  return committed instanceof Set || mine instanceof Set ? new Set(members) : members
}

/** What I appended goes behind what was committed. Throws unless both only appended to the same beginning. */
const append: Resolver = (base, committed, mine) => {
  const [before, theirs, ours] = [list(base), list(committed), list(mine)]
  for (const side of [theirs, ours]) {
    const same = before.every((item, place) => keyOf(item) === keyOf(side[place]))
    if (!same || side.length < before.length)
      throw new Error('append: an earlier item was changed or removed')
  }
  return [...theirs, ...ours.slice(before.length)]
}

const lastWrite: Resolver = (_base, _committed, mine) => mine

const firstWrite: Resolver = (_base, committed) => committed

/** Objects whose different keys were changed by the two sides. Throws where both changed one key. */
const disjoint: Resolver = (base, committed, mine) => {
  const [before, theirs, ours] = [record(base), record(committed), record(mine)]
  const merged = new Map(theirs)
  for (const key of new Set([...before.keys(), ...ours.keys()])) {
    if (sameAt(before, ours, key)) continue
    if (!sameAt(before, theirs, key)) throw new Error('disjoint: both changed the same key')
    if (ours.has(key)) merged.set(key, ours.get(key))
    else merged.delete(key)
  }
  // fromEntries defines own properties, also one that is called __proto__.
  return Object.fromEntries(merged)
}

export const resolvers = Object.freeze({ counter, max, min, union, append, lastWrite, firstWrite, disjoint })

/** Absent on one side: the other side's number. */
function extreme(choose: (a: number, b: number) => number, committed: unknown, mine: unknown): unknown {
  if (committed === undefined || mine === undefined) return committed ?? mine
  return choose(number(committed), number(mine))
}

function number(value: unknown): number {
  if (value === undefined || value === null) return 0
  if (typeof value !== 'number') throw new TypeError(`expected a number, got ${typeof value}`)
  return value
}

function list(value: unknown): readonly unknown[] {
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) throw new TypeError(`expected an array, got ${typeof value}`)
  return value
}

function membersOf(value: unknown): Map<string, unknown> {
  const members = value instanceof Set ? [...value] : list(value)
  return new Map(members.map(member => [keyOf(member), member]))
}

function record(value: unknown): Map<string, unknown> {
  if (value === undefined || value === null) return new Map()
  if (typeof value !== 'object' || Array.isArray(value))
    throw new TypeError(`expected an object, got ${typeof value}`)
  return new Map(Object.entries(value))
}

function sameAt(a: Map<string, unknown>, b: Map<string, unknown>, key: string): boolean {
  return a.has(key) === b.has(key) && keyOf(a.get(key)) === keyOf(b.get(key))
}
