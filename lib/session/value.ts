/**
 * What a session may hold: the kinds of values, how large they count, and how a committed one is told from any other.
 * Knows nothing of drafts, variables, versions or stores; the walk that validates and copies is `settling.ts`.
 *
 * A *committed* value is a copy of ours that nothing changes any more. Its arrays and objects are frozen, and they, its
 * Maps and its Sets carry a stamp: a property under a symbol that only this file uses. By the stamp a subtree
 * that is already committed is recognised, measured and shared without being visited; a frozen object of the
 * application has no stamp and is never mistaken for one. Dates and bytes are leaves, without stamp, always copied.
 */

/** Values that a session may hold. Map keys are primitives of these types. */
export type SessionValue =
  | null
  | boolean
  | number
  | string
  | bigint
  | Date
  | Uint8Array
  | SessionValue[]
  | { [key: string]: SessionValue }
  | Map<SessionValue, SessionValue>
  | Set<SessionValue>

export type Fields = Record<PropertyKey, unknown>

/**
 * Containers inside each other, at most. Far above what anybody keeps in a session, and low enough for every walk: one
 * over 500 levels took 450 to 600 KB of the 984 KB of stack, which the application's own frames share.
 */
export const LEVELS_MAX = 200

interface Stamp {
  readonly sizeBytes: number
  readonly levels: number
}

/** Registered: a store may have decoded values with the other build of this package. */
const STAMP = Symbol.for('session-tx.committed')

/** Hides the stamp from whoever looks through a draft. */
export function isStampKey(key: PropertyKey): boolean {
  return key === STAMP
}

function stampOf(value: object): Stamp | undefined {
  return (value as { readonly [STAMP]?: Stamp })[STAMP]
}

export function isCommitted(value: object): boolean {
  return stampOf(value) !== undefined
}

/** Makes a finished copy a committed value. */
export function stamp<T extends object>(copy: T, sizeBytes: number, levels: number): T {
  Object.defineProperty(copy, STAMP, { value: { sizeBytes, levels } satisfies Stamp })
  return Object.freeze(copy)
}

/** Containers inside each other in a committed value: 0 for a primitive or leaf, 1 for `{}`. */
export function levelsOf(value: unknown): number {
  return typeof value === 'object' && value !== null ? (stampOf(value)?.levels ?? 0) : 0
}

/**
 * Size of a committed value: roughly the UTF-8 bytes of its JSON, always the same for the same value. Strings count
 * their bytes and two quotes (escapes do not count), a bigint its digits, a Date 24, bytes as in Base64 (4 for 3),
 * a Map as an array of pairs, a Set as an array. O(1) except for a string, whose bytes are counted.
 */
export function sizeBytesOf(value: unknown): number {
  switch (typeof value) {
    case 'string':
      return utf8Length(value) + 2
    case 'number':
    case 'bigint':
    case 'boolean':
      return String(value).length
    case 'object': {
      if (value === null) return 4
      const known = stampOf(value)
      if (known !== undefined) return known.sizeBytes
      return ArrayBuffer.isView(value) ? 4 * Math.ceil(value.byteLength / 3) : 24
    }
    default:
      return 0
  }
}

/** Like `Buffer.byteLength`, which for a short key costs more in the call than in the counting. */
export function utf8Length(text: string): number {
  if (text.length > 32) return Buffer.byteLength(text)
  for (let index = 0; index < text.length; index++) {
    if (text.charCodeAt(index) > 0x7f) return Buffer.byteLength(text)
  }
  return text.length
}

export type Kind = 'object' | 'array' | 'map' | 'set' | 'date' | 'bytes'

/**
 * The kind of an object that a session may hold, `undefined` for every other one. Subclasses are other ones (their
 * methods would be lost), except Buffer. Asked by internal slot, so that values of another realm pass (`vm`, Jest).
 */
export function kindOf(value: object): Kind | undefined {
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype === null) return 'object'
  if (Array.isArray(value)) return isBuiltIn(prototype as object, Array.prototype) ? 'array' : undefined
  if (prototype === Object.prototype) return 'object'
  switch (Object.prototype.toString.call(value)) {
    case '[object Object]':
      // Of another realm: on top of the chain, and not merely an object made with `Object.create(null)`.
      return isTop(prototype as object) && Object.hasOwn(prototype as object, 'isPrototypeOf')
        ? 'object'
        : undefined
    case '[object Map]':
      return isBuiltIn(prototype as object, Map.prototype) && hasSlot(value, mapSize) ? 'map' : undefined
    case '[object Set]':
      return isBuiltIn(prototype as object, Set.prototype) && hasSlot(value, setSize) ? 'set' : undefined
    case '[object Date]':
      return isBuiltIn(prototype as object, Date.prototype) && hasSlot(value, Date.prototype.getTime)
        ? 'date'
        : undefined
    case '[object Uint8Array]':
      return hasSlot(value, Uint8Array.prototype.keys) ? 'bytes' : undefined
    default:
      return undefined
  }
}

const mapSize = getterOf(Map.prototype, 'size')
const setSize = getterOf(Set.prototype, 'size')

function getterOf(prototype: object, key: string): (this: never) => unknown {
  const getter = Object.getOwnPropertyDescriptor(prototype, key)?.get
  if (getter === undefined) throw new TypeError(`no getter ${key}`)
  return getter
}

function hasSlot(value: object, probe: (this: never) => unknown): boolean {
  try {
    probe.call(value as never)
    return true
  } catch {
    return false
  }
}

/** The prototype itself, or that of another realm: one step below the top. */
function isBuiltIn(prototype: object, ours: object): boolean {
  if (prototype === ours) return true
  const above: unknown = Object.getPrototypeOf(prototype)
  return above !== null && isTop(above as object)
}

function isTop(prototype: object): boolean {
  return Object.getPrototypeOf(prototype) === null
}

/**
 * Sets an own property, whatever its name. A plain assignment of `__proto__` would change the prototype, and one of
 * `toString` throws where intrinsics are frozen.
 */
export function putOwn(target: object, key: PropertyKey, value: unknown): void {
  if (Object.hasOwn(target, key) || !(key in target)) (target as Fields)[key] = value
  else Object.defineProperty(target, key, { value, writable: true, enumerable: true, configurable: true })
}

/** A copy of bytes; of a Buffer, too, a plain Uint8Array that shares no memory pool. */
export function copyBytes(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes)
}

/**
 * A deep copy of a committed value that its receiver may change: nothing frozen, no stamp, nothing shared.
 * For resolvers, and for what `regenerate({ keep })` carries over.
 */
export function detach<T>(committed: T): T {
  return detached(committed) as T
}

function detached(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(detached)
  if (value instanceof Map) return new Map(Array.from(value, ([key, item]) => [key, detached(item)]))
  if (value instanceof Set) return new Set(Array.from(value, detached))
  if (value instanceof Date) return new Date(value.getTime())
  if (value instanceof Uint8Array) return copyBytes(value)
  const copy = {}
  for (const [key, item] of Object.entries(value)) putOwn(copy, key, detached(item))
  return copy
}
