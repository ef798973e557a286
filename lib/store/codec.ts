/**
 * Session values as JSON text: ordinary values stay ordinary JSON, so that an operator can read them and SQL can look into
 * them; what JSON has no word for is an object with one key that begins with `$`. Knows nothing of tables or versions.
 *
 *   bigint  {"$bigint":"12"}   Date  {"$date":"2026-11-26T12:00:00.000Z"}   Uint8Array  {"$bytes":"AQI="}
 *   -0      {"$number":"-0"}   Map   {"$map":[[key,value],…]}               Set         {"$set":[…]}
 *
 * An object of the application that has a single key beginning with `$` is written as {"$object":[[key,value]]}.
 */
import { SessionTxError } from '../errors.js'
import { type Settled, settleValue } from '../session/settling.js'
import { LEVELS_MAX, putOwn } from '../session/value.js'

/** Grows when a text may say something that an older reader would take for something else. */
export const CODEC_FORMAT = 1

/** @param value a committed value (session/settling.ts) */
export function encodeValue(value: unknown): string {
  return JSON.stringify(encoded(value))
}

function encoded(value: unknown): unknown {
  if (typeof value === 'bigint') return { $bigint: String(value) }
  if (typeof value === 'number') return Object.is(value, -0) ? { $number: '-0' } : value
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(encoded)
  if (value instanceof Date) return { $date: value.toISOString() }
  if (value instanceof Map) return { $map: Array.from(value, ([key, item]) => [encoded(key), encoded(item)]) }
  if (value instanceof Set) return { $set: Array.from(value, encoded) }
  if (value instanceof Uint8Array) return { $bytes: Buffer.from(value).toString('base64') }
  const entries = Object.entries(value)
  const [first] = entries
  if (entries.length === 1 && first?.[0].startsWith('$') === true)
    return { $object: [[first[0], encoded(first[1])]] }
  const copy = {}
  for (const [key, item] of entries) putOwn(copy, key, encoded(item))
  return copy
}

/**
 * The committed value again.
 *
 * @param place names the variable in errors
 * @throws STORE_UNAVAILABLE for a newer format, and for a text that is not ours; the message shows nothing of it
 */
export function decodeValue(text: string, format: number, place: string): Settled {
  if (format !== CODEC_FORMAT) {
    const remedy =
      format > CODEC_FORMAT ? 'a newer session-tx wrote it: update this process' : 'nothing of ours wrote it'
    throw unreadable(place, `is in format ${format}, and this session-tx reads ${CODEC_FORMAT}: ${remedy}`)
  }
  try {
    return settleValue(decoded(JSON.parse(text), 0), place)
  } catch (cause) {
    // Its message may quote the text.
    const why = cause instanceof Malformed ? cause.message : 'it is not JSON, or not a value of a session'
    throw unreadable(place, `cannot be read: ${why}`)
  }
}

class Malformed extends Error {}

function unreadable(place: string, what: string): SessionTxError {
  return new SessionTxError('STORE_UNAVAILABLE', `${place} ${what}`)
}

function decoded(value: unknown, level: number): unknown {
  if (typeof value !== 'object' || value === null) return value
  // Each level of a value takes two of the text at most.
  if (level > 2 * LEVELS_MAX) throw new Malformed(`it is nested deeper than ${LEVELS_MAX} levels`)
  if (Array.isArray(value)) return value.map(item => decoded(item, level + 1))
  const keys = Object.keys(value)
  const [only] = keys
  if (keys.length === 1 && only?.startsWith('$') === true)
    return tagged(only, (value as Record<string, unknown>)[only], level + 1)
  const copy = {}
  for (const [key, item] of Object.entries(value)) putOwn(copy, key, decoded(item, level + 1))
  return copy
}

function tagged(tag: string, content: unknown, level: number): unknown {
  switch (tag) {
    case '$bigint':
      return BigInt(matching(content, /^-?\d+$/, tag))
    case '$number':
      return Number(matching(content, /^-0$/, tag))
    case '$date': {
      const date = new Date(matching(content, /^[+-]?\d{4,6}-\d\d-\d\dT[\d:.]+Z$/, tag))
      if (Number.isNaN(date.getTime())) throw new Malformed('a $date is not a date')
      return date
    }
    case '$bytes':
      return new Uint8Array(Buffer.from(matching(content, /^[\w+/]*={0,2}$/, tag), 'base64'))
    case '$map':
      return new Map(pairs(content, tag, level).map(([key, item]) => [decoded(key, level + 1), item]))
    case '$set':
      return new Set(listed(content, tag).map(item => decoded(item, level + 1)))
    case '$object': {
      const copy = {}
      for (const [key, item] of pairs(content, tag, level)) putOwn(copy, matching(key, /^\$/, tag), item)
      return copy
    }
    default:
      throw new Malformed('it has a kind of value that is not known here')
  }
}

function matching(content: unknown, form: RegExp, tag: string): string {
  if (typeof content === 'string' && form.test(content)) return content
  throw new Malformed(`a ${tag} is not as it is written`)
}

function listed(content: unknown, tag: string): readonly unknown[] {
  if (Array.isArray(content)) return content
  throw new Malformed(`a ${tag} is not as it is written`)
}

function pairs(content: unknown, tag: string, level: number): (readonly [unknown, unknown])[] {
  return listed(content, tag).map(pair => {
    if (!Array.isArray(pair) || pair.length !== 2) throw new Malformed(`a ${tag} is not as it is written`)
    return [pair[0], decoded(pair[1], level + 1)] as const
  })
}
