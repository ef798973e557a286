/**
 * Drafts of Maps and Sets: real subclasses, so that `instanceof` holds, whose own storage stays empty and whose every
 * method goes to the node. Knows nothing of plain objects, sessions or savepoints.
 *
 * Not a proxy: built-in methods look for the storage in the object itself, so each would have to be bound anew.
 * The price: what bypasses the methods (structuredClone, `Map.prototype.get.call(draft)`) sees an empty Map.
 */
import { ContainerNode, NODE } from './draft-node.js'

export class MapNode extends ContainerNode<Map<unknown, unknown>> {
  protected override makeHandle(): object {
    return Object.freeze(new DraftMap(this))
  }

  protected override makeContents(): Map<unknown, unknown> {
    const contents = new Map<unknown, unknown>()
    for (const [key, value] of this.#base) contents.set(key, this.partOrPrimitive(key, value))
    return contents
  }

  protected override copyContents(contents: Map<unknown, unknown>): Map<unknown, unknown> {
    return new Map(contents)
  }

  override values(): Iterable<unknown> {
    return this.working().values()
  }

  get size(): number {
    return (this.contents ?? this.#base).size
  }

  has(key: unknown): boolean {
    return (this.contents ?? this.#base).has(key)
  }

  get(key: unknown): unknown {
    if (this.contents !== undefined) return this.shown(this.contents.get(key))
    return this.shown(this.partOrPrimitive(key, this.#base.get(key)))
  }

  set(key: unknown, value: unknown): void {
    this.refuseIfClosed()
    const kept = this.kept(value)
    if (this.has(key) && Object.is(this.#keptAt(key), kept)) return
    this.written().set(key, kept)
  }

  delete(key: unknown): boolean {
    this.refuseIfClosed()
    return this.has(key) && this.written().delete(key)
  }

  clear(): void {
    this.refuseIfClosed()
    if (this.size > 0) this.written().clear()
  }

  /** Live like the real one: runs over the working contents, so that what the loop deletes or adds is seen. */
  *entries(): Generator<[unknown, unknown], undefined> {
    for (const [key, kept] of this.working()) yield [key, this.shown(kept)]
    return undefined
  }

  #keptAt(key: unknown): unknown {
    if (this.contents !== undefined) return this.contents.get(key)
    const value = this.#base.get(key)
    return typeof value === 'object' && value !== null ? this.knownPart(key) : value
  }

  get #base(): Map<unknown, unknown> {
    return this.base as Map<unknown, unknown>
  }
}

export class SetNode extends ContainerNode<Set<unknown>> {
  protected override makeHandle(): object {
    return Object.freeze(new DraftSet(this))
  }

  protected override makeContents(): Set<unknown> {
    const contents = new Set<unknown>()
    for (const member of this.base as Set<unknown>) contents.add(this.partOrPrimitive(member, member))
    return contents
  }

  protected override copyContents(contents: Set<unknown>): Set<unknown> {
    return new Set(contents)
  }

  override values(): Iterable<unknown> {
    return this.working().values()
  }

  get size(): number {
    return (this.contents ?? (this.base as Set<unknown>)).size
  }

  has(member: unknown): boolean {
    const isPrimitive = typeof member !== 'object' || member === null
    if (this.contents === undefined && isPrimitive) return (this.base as Set<unknown>).has(member)
    return this.working().has(this.kept(member))
  }

  add(member: unknown): void {
    this.refuseIfClosed()
    if (!this.has(member)) this.written().add(this.kept(member))
  }

  delete(member: unknown): boolean {
    this.refuseIfClosed()
    return this.has(member) && this.written().delete(this.kept(member))
  }

  clear(): void {
    this.refuseIfClosed()
    if (this.size > 0) this.written().clear()
  }

  *members(): Generator<unknown, undefined> {
    for (const kept of this.working()) yield this.shown(kept)
    return undefined
  }
}

class DraftMap extends Map<unknown, unknown> {
  readonly #node: MapNode

  constructor(node: MapNode) {
    super()
    this.#node = node
  }

  get [NODE](): MapNode | undefined {
    return #node in this ? this.#node : undefined
  }

  /** For `console.log`, which looks into the storage itself. */
  [Symbol.for('nodejs.util.inspect.custom')](): object {
    return new Map(this)
  }

  override get size(): number {
    return this.#node.size
  }

  override has(key: unknown): boolean {
    return this.#node.has(key)
  }

  override get(key: unknown): unknown {
    return this.#node.get(key)
  }

  override set(key: unknown, value: unknown): this {
    this.#node.set(key, value)
    return this
  }

  override delete(key: unknown): boolean {
    return this.#node.delete(key)
  }

  override clear(): void {
    this.#node.clear()
  }

  override forEach(
    callback: (value: unknown, key: unknown, map: Map<unknown, unknown>) => void,
    self?: unknown,
  ): void {
    for (const [key, value] of this.#node.entries()) callback.call(self, value, key, this)
  }

  override entries(): Generator<[unknown, unknown], undefined> {
    return this.#node.entries()
  }

  override *keys(): Generator<unknown, undefined> {
    for (const [key] of this.#node.entries()) yield key
    return undefined
  }

  override *values(): Generator<unknown, undefined> {
    for (const [, value] of this.#node.entries()) yield value
    return undefined
  }

  override [Symbol.iterator](): Generator<[unknown, unknown], undefined> {
    return this.#node.entries()
  }
}

class DraftSet extends Set<unknown> {
  readonly #node: SetNode

  constructor(node: SetNode) {
    super()
    this.#node = node
  }

  get [NODE](): SetNode | undefined {
    return #node in this ? this.#node : undefined
  }

  /** For `console.log`, which looks into the storage itself. */
  [Symbol.for('nodejs.util.inspect.custom')](): object {
    return new Set(this)
  }

  override get size(): number {
    return this.#node.size
  }

  override has(member: unknown): boolean {
    return this.#node.has(member)
  }

  override add(member: unknown): this {
    this.#node.add(member)
    return this
  }

  override delete(member: unknown): boolean {
    return this.#node.delete(member)
  }

  override clear(): void {
    this.#node.clear()
  }

  override forEach(
    callback: (value: unknown, again: unknown, set: Set<unknown>) => void,
    self?: unknown,
  ): void {
    for (const member of this.#node.members()) callback.call(self, member, member, this)
  }

  override *entries(): Generator<[unknown, unknown], undefined> {
    for (const member of this.#node.members()) yield [member, member]
    return undefined
  }

  override keys(): Generator<unknown, undefined> {
    return this.#node.members()
  }

  override values(): Generator<unknown, undefined> {
    return this.#node.members()
  }

  override [Symbol.iterator](): Generator<unknown, undefined> {
    return this.#node.members()
  }
}

/** Methods of younger runtimes that would look into the empty storage. None of them changes a Set. */
const SET_METHODS = [
  'union',
  'intersection',
  'difference',
  'symmetricDifference',
  'isSubsetOf',
  'isSupersetOf',
  'isDisjointFrom',
]

for (const name of SET_METHODS) {
  const method: unknown = Reflect.get(Set.prototype, name)
  if (typeof method === 'function') {
    define(DraftSet, name, function (this: DraftSet, other: unknown): unknown {
      return method.call(new Set(this), other)
    })
  }
}

if ('getOrInsert' in Map.prototype) {
  define(DraftMap, 'getOrInsert', function (this: DraftMap, key: unknown, value: unknown): unknown {
    return this.has(key) ? this.get(key) : this.set(key, value).get(key)
  })
  define(
    DraftMap,
    'getOrInsertComputed',
    function (this: DraftMap, key: unknown, make: (key: unknown) => unknown) {
      return this.has(key) ? this.get(key) : this.set(key, make(key)).get(key)
    },
  )
}

// A copy by `new draft.constructor(draft)`, and a strict comparison of types in a test, should meet the real class.
define(DraftMap, 'constructor', Map)
define(DraftSet, 'constructor', Set)

function define(ofClass: { readonly prototype: object }, name: string, value: unknown): void {
  Object.defineProperty(ofClass.prototype, name, { value, writable: true, configurable: true })
}
