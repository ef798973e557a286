/**
 * A hot spot: what was lost, by which route, to which. As one string, because that is what a sketch counts. Knows
 * nothing of advice.
 */
import type { ConflictDetails, ConflictKind } from '../../errors.js'

/** Where the winner is not known: MySQL names no winner of a row. */
export const UNKNOWN_WINNER = '(unknown)'

/** Longest name of a part, so that all four fit into one bounded name. */
const PART_LENGTH_MAX = 45

export interface Spot {
  readonly kind: ConflictKind
  /** Session variable or table; empty where the conflict has neither. */
  readonly what: string
  readonly loser: string
  readonly winner: string
}

export function spotName(conflict: ConflictDetails, route: string): string {
  const what = conflict.variable ?? conflict.table ?? ''
  const parts = [conflict.kind, what, route, conflict.winner ?? UNKNOWN_WINNER]
  return parts.map(shortened).join('\n')
}

export function spotOf(name: string): Spot {
  const [kind = '', what = '', loser = '', winner = ''] = name.split('\n')
  return { kind: kind as ConflictKind, what, loser, winner }
}

export function pairName(loser: string, winner: string): string {
  return [loser, winner].map(shortened).join('\n')
}

export function pairOf(name: string): readonly [loser: string, winner: string] {
  const [loser = '', winner = ''] = name.split('\n')
  return [loser, winner]
}

/** A line break would end the part. */
function shortened(part: string): string {
  const line = part.replaceAll('\n', ' ')
  return line.length <= PART_LENGTH_MAX ? line : `${line.slice(0, PART_LENGTH_MAX - 1)}…`
}
