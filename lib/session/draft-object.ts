/**
 * Drafts of plain objects and arrays: a proxy that reads the committed value until the first write to this level, and
 * a copy of this one level from then on. Knows nothing of Maps, Sets, sessions or savepoints.
 *
 * The target of the proxy is an empty object or array that nobody else sees. With the frozen committed value as its
 * target a proxy would have to report it unchanged; and it is what makes `Array.isArray(draft)` true.
 */
import { ContainerNode, NODE } from './draft-node.js'
import { type Fields, isStampKey, putOwn } from './value.js'

/**
 * Targets of the proxies. `console.log` looks behind a proxy at the target, and would find it empty; the method it looks
 * for there is called with the proxy as `this`.
 */
const SHOWN = Symbol.for('nodejs.util.inspect.custom')

class ObjectTarget {
  [SHOWN](): object {
    return Object.fromEntries(Object.entries(this))
  }
}

class ArrayTarget extends Array<unknown> {
  [SHOWN](): object {
    return Array.from(this)
  }
}

export class ObjectNode extends ContainerNode<Fields> implements ProxyHandler<Fields> {
  readonly #isArray = Array.isArray(this.base)
  #proxy: object | undefined

  protected override makeHandle(): object {
    this.#proxy = new Proxy(
      (this.#isArray ? new ArrayTarget() : new ObjectTarget()) as object as Fields,
      this,
    )
    return this.#proxy
  }

  protected override makeContents(): Fields {
    const base = this.base as Fields
    if (Array.isArray(base))
      return base.map((item, index) => this.partOrPrimitive(String(index), item)) as never
    const contents: Fields = { ...base }
    for (const key of Object.keys(base)) {
      const value = base[key]
      if (typeof value === 'object' && value !== null) putOwn(contents, key, this.part(key, value))
    }
    return contents
  }

  protected override copyContents(contents: Fields): Fields {
    return Array.isArray(contents) ? (contents.slice() as never) : { ...contents }
  }

  override values(): Iterable<unknown> {
    return Object.values(this.working())
  }

  get(_target: Fields, key: PropertyKey, receiver: unknown): unknown {
    if (key === NODE) return receiver === this.#proxy ? this : undefined // not to somebody who inherits from the draft
    if (isStampKey(key)) return undefined
    const source = this.#source()
    const value = source[key]
    if (typeof value !== 'object' || value === null) return value
    return Object.hasOwn(source, key) ? this.#shownAt(key, value) : value // `draft.__proto__` is inherited
  }

  has(_target: Fields, key: PropertyKey): boolean {
    return !isStampKey(key) && key in this.#source()
  }

  ownKeys(): (string | symbol)[] {
    const keys = Reflect.ownKeys(this.#source())
    const last = keys.at(-1)
    if (last !== undefined && isStampKey(last)) keys.pop() // the only symbol of a committed value, hence its last key
    return keys
  }

  getOwnPropertyDescriptor(_target: Fields, key: PropertyKey): PropertyDescriptor | undefined {
    const source = this.#source()
    if (isStampKey(key) || !Object.hasOwn(source, key)) return undefined
    const ordinary = !this.#isLength(key)
    const value = this.#shownAt(key, source[key])
    return { value, writable: true, enumerable: ordinary, configurable: ordinary }
  }

  /**
   * Writing what is there already changes nothing. `draft.__proto__ = x` makes an own property of that name (which a
   * committed value keeps as data); it never changes a prototype.
   */
  set(_target: Fields, key: PropertyKey, value: unknown, receiver: unknown): boolean {
    if (receiver !== this.#proxy) return defineOn(receiver, key, value) // somebody inherits from the draft
    return this.#put(key, value)
  }

  /** Plain properties only: an accessor or a hidden or constant property could not be committed as such. */
  defineProperty(_target: Fields, key: PropertyKey, property: PropertyDescriptor): boolean {
    this.refuseIfClosed()
    if ('get' in property || 'set' in property) return false
    const exists = Object.hasOwn(this.#source(), key)
    const { writable = exists, enumerable = exists, configurable = exists } = property
    if (!writable || (!this.#isLength(key) && !(enumerable && configurable))) return false
    return 'value' in property || !exists ? this.#put(key, property.value) : true
  }

  deleteProperty(_target: Fields, key: PropertyKey): boolean {
    this.refuseIfClosed()
    if (this.#isLength(key)) return false
    if (isStampKey(key) || !Object.hasOwn(this.#source(), key)) return true
    return Reflect.deleteProperty(this.written(), key)
  }

  /** The target's own is for `console.log` only. */
  getPrototypeOf(): object {
    return this.#isArray ? Array.prototype : Object.prototype
  }

  setPrototypeOf(): boolean {
    return false
  }

  preventExtensions(): boolean {
    return false
  }

  #put(key: PropertyKey, value: unknown): boolean {
    this.refuseIfClosed()
    if (this.#isLength(key) && Number(value) !== Number(value) >>> 0)
      throw new RangeError('Invalid array length')
    const kept = this.kept(value)
    const source = this.#source()
    if (Object.hasOwn(source, key) && Object.is(this.#keptAt(key, source[key]), kept)) return true
    putOwn(this.written(), key, kept)
    return true
  }

  #source(): Fields {
    return this.contents ?? (this.base as Fields)
  }

  /** What is kept at a key; before the first write the node of a committed part, if anybody has it. */
  #keptAt(key: PropertyKey, value: unknown): unknown {
    return this.contents === undefined && typeof value === 'object' && value !== null
      ? this.knownPart(key)
      : value
  }

  #shownAt(key: PropertyKey, value: unknown): unknown {
    return this.shown(this.contents === undefined ? this.partOrPrimitive(key, value) : value)
  }

  #isLength(key: PropertyKey): boolean {
    return key === 'length' && this.#isArray
  }
}

function defineOn(receiver: unknown, key: PropertyKey, value: unknown): boolean {
  if (typeof receiver !== 'object' || receiver === null) return false
  return Reflect.defineProperty(receiver, key, {
    value,
    writable: true,
    enumerable: true,
    configurable: true,
  })
}
