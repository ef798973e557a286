/**
 * `ctx.session` as the application sees it: an object whose properties are the session variables, with the members of
 * koa-session's session beside them, not enumerable. A thin proxy over a working copy. Knows no HTTP.
 */
import { inspect } from 'node:util'
import { SessionTxError } from '../errors.js'
import type { WorkingCopy } from './working-copy.js'

/** Members of every session. A variable cannot have one of these names. */
export interface SessionMembers {
  /** The secret that the cookie carries. Never log it. */
  readonly id: string
  readonly isNew: boolean
  /** Milliseconds that the cookie is kept, or undefined for a cookie that ends with the browser session. */
  maxAge: number | undefined
  /**
   * A new id, empty or keeping the named variables; the old id is dead. Do it at login: it stops session fixation.
   * The promise is for compatibility, the change is made at once and takes effect at commit.
   */
  regenerate(options?: { readonly keep?: readonly string[] }): Promise<void>
  /** Ends the session at commit. */
  destroy(): Promise<void>
  /** Counts as activity even if nothing is read. */
  touch(): void
  /** Does nothing by itself: the session is stored with the transaction, or not at all. */
  save(): Promise<void>
  /** Forgets what this attempt changed. */
  reload(): Promise<void>
}

/** Untyped here; the entry adds the application's own `SessionData`. */
export type SessionObject = SessionMembers & { [variable: string]: unknown }

interface CookieAge {
  maxAge: number | undefined
}

/** Where methods and the reserved accessors live, so that they are neither own nor enumerable. */
class SessionPrototype implements SessionMembers {
  readonly #copy: WorkingCopy
  readonly #cookie: CookieAge
  constructor(copy: WorkingCopy, cookie: CookieAge) {
    this.#copy = copy
    this.#cookie = cookie
  }
  get id(): string {
    return this.#copy.id
  }
  get isNew(): boolean {
    return this.#copy.isNew
  }
  get maxAge(): number | undefined {
    return this.#cookie.maxAge
  }
  set maxAge(ms: number | undefined) {
    this.#cookie.maxAge = ms
  }
  // Not async: a refusal is thrown where it was called, also where nobody awaits.
  regenerate(options: { readonly keep?: readonly string[] } = {}): Promise<void> {
    this.#copy.regenerate(options.keep ?? [])
    return Promise.resolve()
  }
  destroy(): Promise<void> {
    this.#copy.destroy()
    return Promise.resolve()
  }
  touch(): void {
    this.#copy.touch()
  }
  async save(): Promise<void> {}
  reload(): Promise<void> {
    this.#copy.reload()
    return Promise.resolve()
  }
  toJSON(): Record<string, unknown> {
    const entries = this.#copy.names().map(name => [name, this.#copy.get(name)] as const)
    return Object.fromEntries(entries)
  }
}

const RESERVED: ReadonlySet<string> = new Set(
  Object.getOwnPropertyNames(SessionPrototype.prototype).filter(name => name !== 'constructor'),
)

/** What the proxy stands before. Every trap is ours, so its own fields never show. */
class Target {
  readonly copy: WorkingCopy
  readonly members: SessionPrototype
  constructor(copy: WorkingCopy, members: SessionPrototype) {
    this.copy = copy
    this.members = members
  }
  /** console.log looks behind a proxy; show the variables there, too. It calls this with the proxy as `this`. */
  readonly [inspect.custom] = (): unknown =>
    this.copy.destroyed ? '[session destroyed]' : this.members.toJSON()
}

const handler: ProxyHandler<Target> = {
  get(target, name) {
    const { copy, members } = target
    if (typeof name === 'symbol') return Reflect.get(Object.prototype, name)
    if (RESERVED.has(name)) {
      const member: unknown = Reflect.get(members, name)
      return typeof member === 'function' ? member.bind(members) : member
    }
    const value = copy.get(name)
    // Only what every object has shows through: toString, hasOwnProperty, constructor.
    return value === undefined ? Reflect.get(Object.prototype, name) : value
  },
  set(target, name, value) {
    const { copy, members } = target
    if (name === 'maxAge') members.maxAge = value as number | undefined
    else copy.set(variableName(name), value)
    return true
  },
  has(target, name) {
    const { copy } = target
    return typeof name === 'string' && (RESERVED.has(name) || copy.has(name) || name in Object.prototype)
  },
  deleteProperty(target, name) {
    target.copy.set(variableName(name), undefined)
    return true
  },
  ownKeys(target) {
    return target.copy.names()
  },
  getOwnPropertyDescriptor(target, name) {
    const { copy } = target
    if (typeof name === 'symbol' || RESERVED.has(name) || !copy.has(name)) return undefined
    return { value: copy.get(name), writable: true, enumerable: true, configurable: true }
  },
  defineProperty(target, name, descriptor) {
    if (!('value' in descriptor)) throw new TypeError('a session variable cannot be an accessor')
    target.copy.set(variableName(name), descriptor.value)
    return true
  },
  getPrototypeOf: () => Object.prototype,
  setPrototypeOf: () => false,
  preventExtensions: () => false,
}

function variableName(name: string | symbol): string {
  if (typeof name === 'symbol') {
    throw new SessionTxError(
      'SESSION_VALUE',
      `a session variable needs a string as its name, got ${String(name)}`,
    )
  }
  if (RESERVED.has(name))
    throw new SessionTxError('SESSION_VALUE', `'${name}' is a member of every session; choose another name`)
  return name
}

export function sessionObject(copy: WorkingCopy, cookie: CookieAge): SessionObject {
  return new Proxy(new Target(copy, new SessionPrototype(copy, cookie)), handler) as unknown as SessionObject
}
