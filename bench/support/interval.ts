/**
 * How far a median can be trusted: its 95 % interval, by ranks. Nothing is assumed of how the values are spread, which
 * on a machine with other work is nothing that has a name. Knows nothing of what was measured.
 *
 * Source: the sign test turned round; how many of n values are below the true median is binomial with ½.
 */
import { median } from './report.js'

export interface Interval {
  readonly median: number
  /** -Infinity and Infinity with fewer than six values, which say nothing. */
  readonly low: number
  readonly high: number
}

const OUTSIDE_EACH_SIDE = 0.025

export function intervalOf(values: readonly number[]): Interval {
  const sorted = [...values].sort((a, b) => a - b)
  const cut = cutOf(sorted.length)
  return {
    median: median(sorted),
    low: sorted[cut - 1] ?? -Infinity,
    high: sorted[sorted.length - cut] ?? Infinity,
  }
}

/** The interval begins and ends at the value of this place, counted from 1 and from either end; 0: it has no end. */
function cutOf(count: number): number {
  let probability = 0.5 ** count
  let below = probability
  let cut = 0
  while (below <= OUTSIDE_EACH_SIDE) {
    cut += 1
    probability *= (count - cut + 1) / cut
    below += probability
  }
  return cut
}

/** `met` and `missed` only where the whole interval says so. */
export function verdictWithin({ median: middle, low, high }: Interval, atMost: number): string {
  const word = high <= atMost ? 'met' : low > atMost ? 'missed' : 'not decided'
  const range = `95 % interval ${low.toFixed(3)} to ${high.toFixed(3)}`
  return `${middle.toFixed(3)}, ${range}, target at most ${atMost.toFixed(2)}: ${word}`
}
