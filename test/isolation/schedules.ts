/**
 * The anomalies of the Hermitage tests as schedules over named items, and how each is recognised in what was read and
 * what is left. Written from the definitions in A. Adya, "Weak Consistency" (1999), in M. Kleppmann's selection and
 * under his names. Knows nothing of where an item lives.
 */

export type Who = 'T1' | 'T2' | 'T3'
/** What one read saw: the items by name. */
export type Seen = Readonly<Record<string, number>>

export interface Predicate {
  readonly sql: string
  readonly holds: (n: number) => boolean
}

export type Operation =
  | { readonly does: 'read'; readonly item: string }
  | { readonly does: 'write'; readonly item: string; readonly to: (seen: readonly Seen[]) => number }
  | { readonly does: 'find'; readonly where: Predicate }
  | { readonly does: 'insert'; readonly item: string; readonly n: number }
  | { readonly does: 'add to all'; readonly n: number }
  | { readonly does: 'delete'; readonly where: Predicate }
  | { readonly does: 'commit' }
  | { readonly does: 'abort' }

/** Of the transactions that committed, in what order each saw what; and what is left. */
export interface History {
  readonly seen: Readonly<Partial<Record<Who, readonly Seen[]>>>
  readonly left: Seen
}

export interface Schedule {
  /** As in Hermitage. */
  readonly name: string
  /** What goes wrong, in a sentence for readers of the manual. */
  readonly sentence: string
  readonly steps: readonly (readonly [Who, Operation])[]
  readonly anomaly: (history: History) => boolean
}

export const START: Seen = Object.freeze({ x: 10, y: 20 })

const read = (item: string): Operation => ({ does: 'read', item })
const write = (item: string, to: number | ((seen: readonly Seen[]) => number)): Operation => ({
  does: 'write',
  item,
  to: typeof to === 'number' ? () => to : to,
})
const find = (where: Predicate): Operation => ({ does: 'find', where })
const insert = (item: string, n: number): Operation => ({ does: 'insert', item, n })
const remove = (where: Predicate): Operation => ({ does: 'delete', where })
const addToAll = (n: number): Operation => ({ does: 'add to all', n })
const commit: Operation = { does: 'commit' }
const abort: Operation = { does: 'abort' }

const is = (value: number): Predicate => ({ sql: `n = ${value}`, holds: n => n === value })
const multipleOf = (factor: number): Predicate => ({ sql: `n % ${factor} = 0`, holds: n => n % factor === 0 })
const anything: Predicate = { sql: '1 = 1', holds: () => true }

/** The first value of an item that a transaction saw. */
const first = (seen: readonly Seen[] | undefined, item: string): number | undefined =>
  seen?.find(one => item in one)?.[item]
const sees = (seen: readonly Seen[] | undefined, ...values: number[]): boolean =>
  seen?.some(one => Object.values(one).some(value => values.includes(value))) ?? false
const plusOne =
  (item: string) =>
  (seen: readonly Seen[]): number =>
    (first(seen, item) ?? Number.NaN) + 1

export const SCHEDULES: readonly Schedule[] = Object.freeze([
  {
    name: 'G0',
    sentence: 'the writes of two transactions end up mixed: one item from each',
    steps: [
      ['T1', write('x', 11)],
      ['T2', write('x', 12)],
      ['T1', write('y', 21)],
      ['T1', commit],
      ['T2', write('y', 22)],
      ['T2', commit],
    ],
    anomaly: ({ left }) => (left['x'] === 11) !== (left['y'] === 21),
  },
  {
    name: 'G1a',
    sentence: 'a transaction reads what another one wrote and then rolled back',
    steps: [
      ['T1', write('x', 101)],
      ['T1', write('y', 201)],
      ['T2', read('x')],
      ['T2', read('y')],
      ['T1', abort],
      ['T2', read('x')],
      ['T2', read('y')],
      ['T2', commit],
    ],
    anomaly: ({ seen }) => sees(seen.T2, 101, 201),
  },
  {
    name: 'G1b',
    sentence: 'a transaction reads a value that another one overwrote before it committed',
    steps: [
      ['T1', write('x', 101)],
      ['T1', write('y', 201)],
      ['T2', read('x')],
      ['T2', read('y')],
      ['T1', write('x', 11)],
      ['T1', write('y', 21)],
      ['T1', commit],
      ['T2', read('x')],
      ['T2', read('y')],
      ['T2', commit],
    ],
    anomaly: ({ seen }) => sees(seen.T2, 101, 201),
  },
  {
    name: 'G1c',
    sentence: 'two transactions each read what the other one wrote',
    steps: [
      ['T1', write('x', 11)],
      ['T2', write('y', 22)],
      ['T1', read('y')],
      ['T2', read('x')],
      ['T1', commit],
      ['T2', commit],
    ],
    anomaly: ({ seen }) => sees(seen.T1, 22) && sees(seen.T2, 11),
  },
  {
    name: 'OTV',
    sentence: 'a transaction sees the effect of another one, and then sees it gone again',
    steps: [
      ['T1', write('x', 11)],
      ['T1', write('y', 19)],
      ['T2', write('x', 12)],
      ['T1', commit],
      ['T3', read('x')],
      ['T2', write('y', 18)],
      ['T3', read('y')],
      ['T2', commit],
      ['T3', read('y')],
      ['T3', read('x')],
      ['T3', commit],
    ],
    // Something of T2, and after it something that T2 had replaced.
    anomaly: ({ seen }) => {
      const since = (seen.T3 ?? []).findIndex(one => sees([one], 12, 18))
      return since >= 0 && sees(seen.T3?.slice(since), 11, 19, 10, 20)
    },
  },
  {
    name: 'PMP',
    sentence: 'the same search finds different items the second time',
    steps: [
      ['T1', find(is(30))],
      ['T2', insert('z', 30)],
      ['T2', insert('w', 30)],
      ['T2', commit],
      ['T1', find(multipleOf(30))],
      ['T1', commit],
    ],
    anomaly: ({ seen }) => sees(seen.T1, 30) && Object.keys(seen.T1?.[0] ?? {}).length === 0,
  },
  {
    name: 'PMP, write predicate',
    sentence: 'a transaction deletes other items than a search for the same showed it',
    steps: [
      ['T1', addToAll(10)],
      ['T2', find(is(20))],
      ['T2', remove(is(20))],
      ['T1', commit],
      ['T2', commit],
    ],
    anomaly: ({ seen, left }) => {
      if (seen.T2 === undefined) return false
      const shown = Object.keys(seen.T2[0] ?? {}).sort()
      const gone = Object.keys(START).filter(name => !(name in left))
      return shown.join() !== gone.sort().join()
    },
  },
  {
    name: 'P4',
    sentence:
      'two transactions read an item and write what follows from it, and one of the two writes is lost',
    steps: [
      ['T1', read('x')],
      ['T1', read('y')],
      ['T2', read('x')],
      ['T2', read('y')],
      ['T1', write('x', plusOne('x'))],
      ['T2', write('x', plusOne('x'))],
      ['T1', write('y', plusOne('y'))],
      ['T1', commit],
      ['T2', write('y', plusOne('y'))],
      ['T2', commit],
    ],
    anomaly: ({ seen, left }) =>
      seen.T1 !== undefined && seen.T2 !== undefined && (left['x'] !== 12 || left['y'] !== 22),
  },
  {
    name: 'G-single',
    sentence:
      'a transaction reads one item before and another one after somebody’s commit of both (read skew)',
    steps: [
      ['T1', read('x')],
      ['T2', read('x')],
      ['T2', read('y')],
      ['T2', write('x', 12)],
      ['T2', write('y', 18)],
      ['T2', commit],
      ['T1', read('y')],
      ['T1', commit],
    ],
    anomaly: ({ seen }) => first(seen.T1, 'x') === 10 && first(seen.T1, 'y') === 18,
  },
  {
    name: 'G-single, predicate dependencies',
    sentence: 'read skew between two searches for different things',
    steps: [
      ['T1', find(multipleOf(5))],
      ['T2', write('x', 12)],
      ['T2', write('y', 18)],
      ['T2', commit],
      ['T1', find(multipleOf(3))],
      ['T1', commit],
    ],
    anomaly: ({ seen }) => sees(seen.T1, 10) && sees(seen.T1, 12, 18),
  },
  {
    name: 'G-single, write predicate 1',
    sentence: 'read skew between a read and a delete that searches, after the other one committed',
    steps: [
      ['T1', read('x')],
      ['T2', find(anything)],
      ['T2', write('x', 12)],
      ['T2', write('y', 18)],
      ['T2', commit],
      ['T1', remove(is(20))],
      ['T1', commit],
    ],
    anomaly: ({ seen, left }) => first(seen.T1, 'x') === 10 && 'y' in left,
  },
  {
    name: 'G-single, write predicate 2',
    sentence: 'the same, with the delete sent before the other one committed',
    steps: [
      ['T1', read('x')],
      ['T2', find(anything)],
      ['T2', write('x', 12)],
      ['T2', write('y', 18)],
      ['T1', remove(is(20))],
      ['T2', commit],
      ['T1', commit],
    ],
    anomaly: ({ seen, left }) => first(seen.T1, 'x') === 10 && 'y' in left && left['y'] === 18,
  },
  {
    name: 'G2-item',
    sentence: 'two transactions read both items and each changes another one, as if alone (write skew)',
    steps: [
      ['T1', read('x')],
      ['T1', read('y')],
      ['T2', read('x')],
      ['T2', read('y')],
      ['T1', write('x', 11)],
      ['T2', write('y', 21)],
      ['T1', commit],
      ['T2', commit],
    ],
    anomaly: ({ seen }) => first(seen.T1, 'y') === 20 && first(seen.T2, 'x') === 10,
  },
  {
    name: 'G2',
    sentence: 'two transactions find nothing and each adds what the other one searched for',
    steps: [
      ['T1', find(multipleOf(3))],
      ['T2', find(multipleOf(3))],
      ['T1', insert('z', 30)],
      ['T2', insert('w', 42)],
      ['T1', commit],
      ['T2', commit],
    ],
    anomaly: ({ seen }) =>
      seen.T1 !== undefined && seen.T2 !== undefined && !sees(seen.T1, 42) && !sees(seen.T2, 30),
  },
  {
    name: 'G2, two edges',
    sentence: 'write skew that shows only because a third transaction, which writes nothing, read in between',
    steps: [
      ['T1', find(anything)],
      ['T2', write('y', 25)],
      ['T2', commit],
      ['T3', find(anything)],
      ['T3', commit],
      ['T1', write('x', 0)],
      ['T1', commit],
    ],
    anomaly: ({ seen, left }) =>
      left['x'] === 0 &&
      first(seen.T1, 'y') === 20 &&
      first(seen.T3, 'y') === 25 &&
      first(seen.T3, 'x') === 10,
  },
])
