/**
 * What happened in one span of time, a second, a minute or all of it: counts, times, and the hottest names. Spans add
 * up, so that a minute is sixty seconds. Memory is fixed. Knows nothing of clocks.
 */
import type { RequestOutcome } from '../stats.js'
import { TopNames } from './top-names.js'

/** Requests by attempts: 1, 2, 3, 4, 5 and more. */
const ATTEMPT_PLACES = 5
/** Upper bounds of commit times: 0.1 ms, and each a quarter more than the one before, up to about a minute. */
const COMMIT_FIRST_MS = 0.1
const COMMIT_GROWTH = 1.25
const COMMIT_PLACES = 62

const KINDS_OF_NAMES = ['variables', 'tables', 'routes', 'pairs', 'spots'] as const
type KindOfNames = (typeof KINDS_OF_NAMES)[number]

export class Span {
  readonly requests: Record<RequestOutcome, number> = { committed: 0, rolledBack: 0, refused: 0, unknown: 0 }
  readonly attempts = new Array<number>(ATTEMPT_PLACES).fill(0)
  conflicts = 0
  reruns = 0
  /** Milliseconds of attempts that lost, and of those that committed. */
  wastedMs = 0
  usefulMs = 0
  readonly #commits = new Array<number>(COMMIT_PLACES).fill(0)
  readonly #names: Readonly<Record<KindOfNames, TopNames>>

  /** @param places how many names of each kind are kept */
  constructor(places: number) {
    this.#names = Object.fromEntries(KINDS_OF_NAMES.map(kind => [kind, new TopNames(places)])) as Record<
      KindOfNames,
      TopNames
    >
  }

  get ended(): number {
    const { committed, rolledBack, refused, unknown } = this.requests
    return committed + rolledBack + refused + unknown
  }

  names(kind: KindOfNames): TopNames {
    return this.#names[kind]
  }

  addEnd(outcome: RequestOutcome, attempts: number): void {
    this.requests[outcome]++
    this.attempts[Math.min(attempts, ATTEMPT_PLACES) - 1]!++
  }

  addCommitMs(commitMs: number): void {
    const place = Math.ceil(Math.log(commitMs / COMMIT_FIRST_MS) / Math.log(COMMIT_GROWTH))
    // Not below the first, also for 0 ms, whose logarithm is -Infinity.
    this.#commits[Math.min(Math.max(0, place), COMMIT_PLACES - 1)]!++
  }

  /** A bound that so many percent of the commits kept to, at most a quarter too high; undefined without commits. */
  commitMs(percent: number): number | undefined {
    const total = this.#commits.reduce((sum, count) => sum + count, 0)
    if (total === 0) return undefined
    let seen = 0
    const place = this.#commits.findIndex(count => (seen += count) >= (total * percent) / 100)
    return COMMIT_FIRST_MS * COMMIT_GROWTH ** place
  }

  addAll(other: Span): void {
    for (const outcome of Object.keys(this.requests) as RequestOutcome[])
      this.requests[outcome] += other.requests[outcome]
    other.attempts.forEach((count, place) => (this.attempts[place]! += count))
    other.#commits.forEach((count, place) => (this.#commits[place]! += count))
    this.conflicts += other.conflicts
    this.reruns += other.reruns
    this.wastedMs += other.wastedMs
    this.usefulMs += other.usefulMs
    for (const kind of KINDS_OF_NAMES) this.#names[kind].addAll(other.#names[kind])
  }
}
