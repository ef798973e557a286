/**
 * A session of ours as the one object that a store of express-session or koa-session keeps: each variable under its name,
 * with the values of codec.ts, and beside them what such a store has no place for. Knows no store.
 */
import type { Settled } from '../session/store.js'
import { putOwn } from '../session/value.js'
import { CODEC_FORMAT, decodeValue, encodeValue } from './codec.js'
import type { LegacyContents } from './legacy-dialect.js'

/** Begins with what no variable's name is kept with. */
const OWN = '$sessiontx'
/** Kept by express-session's stores for themselves. */
const THEIRS = 'cookie'

/** Milliseconds since 1970, and the format of the values. */
interface OwnFacts {
  readonly format: number
  readonly created: number
  readonly touched: number
}

export interface LegacySession {
  readonly createdAt: number
  readonly touchedAt: number
  /** Texts by variable: what they were when the store was asked. */
  readonly texts: ReadonlyMap<string, string>
}

const keptName = (name: string): string => (name.startsWith('$') ? `$${name}` : name)

export function contentsOf(
  variables: Iterable<readonly [name: string, text: string]>,
  createdAt: number,
  touchedAt: number,
): LegacyContents {
  const contents = {}
  for (const [name, text] of variables) putOwn(contents, keptName(name), JSON.parse(text) as unknown)
  const facts: OwnFacts = { format: CODEC_FORMAT, created: createdAt, touched: touchedAt }
  putOwn(contents, OWN, facts)
  return contents
}

/** Undefined for a session that another package has written: its id is none of ours. */
export function readContents(contents: LegacyContents): LegacySession | undefined {
  const facts = contents[OWN] as OwnFacts | undefined
  if (facts === undefined) return undefined
  const texts = new Map<string, string>()
  for (const [kept, value] of Object.entries(contents)) {
    if (kept === OWN || kept === THEIRS) continue
    texts.set(kept.startsWith('$') ? kept.slice(1) : kept, JSON.stringify(value))
  }
  return { createdAt: Number(facts.created), touchedAt: Number(facts.touched), texts }
}

export const textOf = (settled: Settled): string => encodeValue(settled.value)

/** @throws STORE_UNAVAILABLE for what is not a value of ours */
export const valueOf = (text: string, name: string): Settled =>
  decodeValue(text, CODEC_FORMAT, `session variable '${name}'`)
