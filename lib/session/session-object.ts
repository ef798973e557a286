/**
 * `ctx.session` as the application sees it: an object whose properties are the session variables, with the members of
 * koa-session's session beside them, not enumerable. A thin proxy over a working copy. Knows no HTTP.
 */
import { inspect } from 'node:util'
import { SessionTxError } from '../errors.js'
import { COOKIE_PART } from './cookie-settings.js'
import {
  assertPresent,
  MembersOfSession,
  type MembersSetup,
  namesOf,
  type SessionFace,
  type SessionMembers,
  variablesOf,
} from './session-members.js'
import type { WorkingCopy } from './working-copy.js'

/** Untyped here; the entry adds the application's own `SessionData`. */
export type SessionObject = SessionMembers & { [variable: string]: unknown }

const RESERVED: ReadonlySet<string> = new Set(
  Object.getOwnPropertyNames(MembersOfSession.prototype).filter(name => name !== 'constructor'),
)

/** What the proxy stands before. Every trap is ours, so its own fields never show. */
class Target {
  readonly face: SessionFace
  readonly members: MembersOfSession
  constructor(face: SessionFace, members: MembersOfSession) {
    this.face = face
    this.members = members
  }
  /** console.log looks behind a proxy; show the variables there, too. It calls this with the proxy as `this`. */
  readonly [inspect.custom] = (): unknown =>
    this.face.past === undefined && this.face.copy.destroyed ? '[session destroyed]' : this.members.toJSON()
}

const handler: ProxyHandler<Target> = {
  get({ face, members }, name) {
    if (typeof name === 'symbol') return Reflect.get(Object.prototype, name)
    if (RESERVED.has(name)) {
      const member: unknown = Reflect.get(members, name)
      return typeof member === 'function' ? member.bind(members) : member
    }
    const value = variablesOf(face).get(name)
    // Only what every object has shows through: toString, hasOwnProperty, constructor.
    return value === undefined ? Reflect.get(Object.prototype, name) : value
  },
  set({ face, members }, name, value) {
    if (name === 'maxAge') members.maxAge = value as number | undefined
    else setVariable(face, name, value)
    return true
  },
  has({ face }, name) {
    if (typeof name !== 'string') return false
    return RESERVED.has(name) || variablesOf(face).has(name) || name in Object.prototype
  },
  deleteProperty({ face }, name) {
    setVariable(face, name, undefined)
    return true
  },
  ownKeys: ({ face }) => namesOf(face),
  getOwnPropertyDescriptor({ face }, name) {
    if (typeof name === 'symbol' || RESERVED.has(name)) return undefined
    const value = variablesOf(face).get(name)
    return value === undefined ? undefined : { value, writable: true, enumerable: true, configurable: true }
  },
  defineProperty({ face }, name, descriptor) {
    if (!('value' in descriptor)) throw new TypeError('a session variable cannot be an accessor')
    setVariable(face, name, descriptor.value)
    return true
  },
  getPrototypeOf: () => Object.prototype,
  setPrototypeOf: () => false,
  preventExtensions: () => false,
}

function setVariable(face: SessionFace, name: string | symbol, value: unknown): void {
  const variable = variableName(name)
  assertPresent(face)
  face.copy.set(variable, value)
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

export function sessionObject(copy: WorkingCopy, setup: MembersSetup): SessionObject {
  const face: SessionFace = { copy, past: undefined }
  return new Proxy(new Target(face, new MembersOfSession(face, setup)), handler) as unknown as SessionObject
}

/** `ctx.session = …`: null ends the session; an object takes the place of all variables, under the same id and cookie. */
export function assignSession(copy: WorkingCopy, value: unknown): void {
  if (value === null || value === undefined) {
    copy.destroy()
    return
  }
  if (typeof value !== 'object' || Array.isArray(value)) {
    const found = Array.isArray(value) ? 'an array' : typeof value
    throw new TypeError(`a session can be null or an object, got ${found}`)
  }
  const variables: Record<string, unknown> = { ...value }
  for (const name of Object.keys(variables)) variableName(name)
  const cookie = copy.destroyed ? undefined : copy.get(COOKIE_PART)
  copy.replace(variables)
  if (cookie !== undefined) copy.set(COOKIE_PART, cookie)
}
