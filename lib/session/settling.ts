/**
 * Turns what a handler left behind into a committed value: one walk that validates, copies what is not ours, and shares
 * what is already committed. Knows nothing of variables or versions, and of drafts only that they settle themselves.
 *
 * It fails with `SESSION_VALUE` and the path of the first value that cannot be stored. The message names the place and
 * the kind of thing found there, never the value.
 */
import { SessionTxError } from '../errors.js'
import {
  copyBytes,
  type Fields,
  isCommitted,
  type Kind,
  kindOf,
  LEVELS_MAX,
  levelsOf,
  putOwn,
  sizeBytesOf,
  stamp,
  utf8Length,
} from './value.js'

/** A value that is committed now, and its size by the rule of {@link sizeBytesOf}. */
export interface Settled {
  readonly value: unknown
  readonly sizeBytes: number
}

/** What the walk needs to know of a draft. */
export interface Settleable {
  readonly base: object
  /** False promises that nothing in it differs from `base`, so it need not be visited. */
  readonly touched: boolean
  settle(settling: Settling): object
}

/**
 * Validates a value that holds no drafts and copies it: for what a store has decoded, a resolver has returned.
 *
 * @throws SESSION_VALUE with the path of what cannot be stored.
 */
export function settleValue(value: unknown, path: string): Settled {
  const settled = new Settling(path, () => undefined).value(value)
  return { value: settled, sizeBytes: sizeBytesOf(settled) }
}

type Step = string | number | { readonly key: unknown } | undefined

/** One walk over one variable. Thrown away afterwards, also when it failed. */
export class Settling {
  readonly #path: string
  readonly #draftOf: (value: object) => Settleable | undefined
  readonly #copies: WeakMap<object, unknown> | undefined
  readonly #steps: Step[] = []
  /** What the walk is inside of. Its size is the level; meeting a member again is a cycle. */
  readonly #open = new Set<object>()
  /** The same thing in two places is copied once; also keeps `[[x, x], [x, x]]…` from taking exponential time. */
  readonly #done = new Map<object, object>()

  /** `copies`, if given, learns which committed value was made of which object of the application. */
  constructor(
    path: string,
    draftOf: (value: object) => Settleable | undefined,
    copies?: WeakMap<object, unknown>,
  ) {
    this.#path = path
    this.#draftOf = draftOf
    this.#copies = copies
  }

  value(value: unknown): unknown {
    switch (typeof value) {
      case 'string':
      case 'boolean':
      case 'bigint':
        return value
      case 'number':
        return Number.isFinite(value) ? value : this.#refuse(String(value))
      case 'object':
        return value === null ? null : this.#object(value)
      default:
        return this.#refuse(value === undefined ? 'undefined' : `a ${typeof value}`)
    }
  }

  #object(value: object): object {
    const draft = this.#draftOf(value)
    if (draft !== undefined && !draft.touched) return this.#shared(draft.base)
    if (draft === undefined && isCommitted(value)) return this.#shared(value)
    const subject = draft ?? value
    const done = this.#done.get(subject)
    if (done !== undefined) return this.#shared(done)
    if (this.#open.has(subject)) return this.#refuse('a cycle: it contains itself')
    if (this.#open.size >= LEVELS_MAX) return this.#refuse(TOO_DEEP)
    this.#open.add(subject)
    const settled = draft?.settle(this) ?? this.copy(value)
    this.#open.delete(subject)
    this.#done.set(subject, settled)
    if (draft === undefined) this.#copies?.set(value, settled)
    return this.#shared(settled)
  }

  #shared(committed: object): object {
    return this.#open.size + levelsOf(committed) > LEVELS_MAX ? this.#refuse(TOO_DEEP) : committed
  }

  /** Copies one level of an object of the application, its parts by {@link value}. */
  copy(source: object): object {
    return this.#build(source, kindOf(source), undefined)
  }

  /** The same for the contents of a changed draft, which come out as `base` itself if they are what it holds. */
  contents(source: object, base: object): object {
    return this.#build(source, kindOf(source), base)
  }

  #build(source: object, kind: Kind | undefined, base: object | undefined): object {
    switch (kind) {
      case 'object':
        return this.#fields(source as Fields, base as Fields | undefined)
      case 'array':
        return this.#items(source as unknown[], base as unknown[] | undefined)
      case 'map':
        return this.#entries(source as Map<unknown, unknown>, base as Map<unknown, unknown> | undefined)
      case 'set':
        return this.#members(source as Set<unknown>, base as Set<unknown> | undefined)
      case 'date': {
        const timeMs = Date.prototype.getTime.call(source)
        return Number.isNaN(timeMs) ? this.#refuse('an invalid Date') : new Date(timeMs)
      }
      case 'bytes':
        return copyBytes(source as Uint8Array)
      default:
        return this.#refuse(describe(source))
    }
  }

  #fields(source: Fields, base: Fields | undefined): object {
    // Contents of a draft (it has a base) are ours, without accessors: copied whole, which is far faster than key by key.
    const copy: Fields = base === undefined ? {} : { ...source }
    for (const symbol of Object.getOwnPropertySymbols(copy)) delete copy[symbol]
    let sizeBytes = 2
    let levels = 0
    let count = 0
    let same = base !== undefined
    for (const key of Object.keys(source)) {
      this.#steps.push(key)
      const given = base === undefined ? this.#data(source, key) : source[key]
      if (given === undefined) {
        delete copy[key]
      } else {
        const value = this.value(given)
        if (base === undefined || value !== given) putOwn(copy, key, value)
        sizeBytes += utf8Length(key) + 3 + sizeBytesOf(value) + (count++ === 0 ? 0 : 1)
        levels = Math.max(levels, levelsOf(value))
        same &&= Object.is(value, base?.[key])
      }
      this.#steps.pop()
    }
    return same && base !== undefined && sameKeys(copy, base) ? base : stamp(copy, sizeBytes, levels + 1)
  }

  #items(source: unknown[], base: unknown[] | undefined): object {
    const copy: unknown[] = []
    let sizeBytes = 2 + Math.max(0, source.length - 1)
    let levels = 0
    for (let index = 0; index < source.length; index++) {
      this.#steps.push(index)
      if (!Object.hasOwn(source, index)) return this.#refuse('a hole in a sparse array')
      const value = this.value(base === undefined ? this.#data(source, index) : source[index])
      copy.push(value)
      sizeBytes += sizeBytesOf(value)
      levels = Math.max(levels, levelsOf(value))
      this.#steps.pop()
    }
    const same = base?.length === copy.length && copy.every((item, index) => Object.is(item, base[index]))
    return same ? (base ?? copy) : stamp(copy, sizeBytes, levels + 1)
  }

  #entries(source: Map<unknown, unknown>, base: Map<unknown, unknown> | undefined): object {
    const copy = new Map<unknown, unknown>()
    let sizeBytes = 2 + Math.max(0, source.size - 1)
    let levels = 0
    for (const [key, given] of Map.prototype.entries.call(source)) {
      this.#steps.push({ key })
      if (typeof key === 'object' && key !== null) return this.#refuse('a Map key that is not a primitive')
      const value = this.value(given)
      copy.set(this.value(key), value)
      sizeBytes += 3 + sizeBytesOf(key) + sizeBytesOf(value)
      levels = Math.max(levels, levelsOf(value))
      this.#steps.pop()
    }
    return base !== undefined && sameOrder(copy, base) ? base : stamp(copy, sizeBytes, levels + 1)
  }

  #members(source: Set<unknown>, base: Set<unknown> | undefined): object {
    const copy = new Set<unknown>()
    let sizeBytes = 2
    let levels = 0
    this.#steps.push(undefined)
    for (const given of Set.prototype.values.call(source)) {
      const value = this.value(given)
      if (copy.has(value)) continue // two drafts of one committed object
      sizeBytes += sizeBytesOf(value) + (copy.size === 0 ? 0 : 1)
      levels = Math.max(levels, levelsOf(value))
      copy.add(value)
    }
    this.#steps.pop()
    return base !== undefined && sameOrder(copy, base) ? base : stamp(copy, sizeBytes, levels + 1)
  }

  /** Reads a property without running a getter: that would be the application's code in the middle of a commit. */
  #data(source: object, key: PropertyKey): unknown {
    const property = Object.getOwnPropertyDescriptor(source, key)
    if (property === undefined) return undefined
    return 'value' in property ? property.value : this.#refuse('an accessor (getter or setter)')
  }

  #refuse(found: string): never {
    const place = this.#path + this.#steps.map(written).join('')
    throw new SessionTxError('SESSION_VALUE', `${place} cannot be stored in a session: ${found}`)
  }
}

const TOO_DEEP = `nested deeper than ${LEVELS_MAX} levels`

function sameKeys(copy: Fields, base: Fields): boolean {
  const keys = Object.keys(copy)
  const baseKeys = Object.keys(base)
  return keys.length === baseKeys.length && keys.every((key, index) => key === baseKeys[index])
}

function sameOrder(copy: ReadonlyMap<unknown, unknown> | ReadonlySet<unknown>, base: typeof copy): boolean {
  if (copy.size !== base.size) return false
  const theirs = base.entries()
  for (const [key, value] of copy.entries()) {
    const other: readonly unknown[] = theirs.next().value ?? []
    if (!Object.is(key, other[0]) || !Object.is(value, other[1])) return false
  }
  return true
}

const KEY_CHARACTERS_MAX = 60

function written(step: Step): string {
  if (step === undefined) return '{}'
  if (typeof step === 'number') return `[${step}]`
  if (typeof step === 'object') return `.get(${writtenKey(step.key)})`
  return /^[A-Za-z_$][\w$]*$/.test(step) && step.length <= KEY_CHARACTERS_MAX
    ? `.${step}`
    : `[${writtenKey(step)}]`
}

function writtenKey(key: unknown): string {
  if (typeof key === 'bigint') return `${key}n`
  if (typeof key !== 'string') return typeof key === 'object' && key !== null ? describe(key) : String(key)
  return JSON.stringify(key.length > KEY_CHARACTERS_MAX ? `${key.slice(0, KEY_CHARACTERS_MAX)}…` : key)
}

function describe(value: object): string {
  const maker: unknown = Object.getPrototypeOf(value)?.constructor
  return typeof maker === 'function' && maker.name !== ''
    ? `an instance of ${maker.name}`
    : 'an object with a prototype'
}
