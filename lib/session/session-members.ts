/**
 * The members that every session has beside its variables: koa-session's and express-session's, each in the form that
 * its users call it in. Promise or callback, the change is made at once, in the attempt's working copy, and stored with
 * the transaction or not at all. Knows no HTTP.
 */
import { SessionTxError } from '../errors.js'
import type { ConfiguredCookie } from './cookie-attributes.js'
import { COOKIE_PART, CookieSettings, type CookieWish, type SessionCookieMembers } from './cookie-settings.js'
import type { Variables, WorkingCopy } from './working-copy.js'

/** As in Node: called once, later, with an error or nothing. */
export type SessionCallback = (error?: unknown) => void

export interface RegenerateOptions {
  /** Variables that go along; `'cookie'` for what was assigned to `session.cookie`. */
  readonly keep?: readonly string[]
}

/** Members of every session. A variable cannot have one of these names. */
export interface SessionMembers {
  /** The secret that the cookie carries. Never log it. */
  readonly id: string
  /** The same, as koa-session calls it. */
  readonly externalKey: string
  readonly isNew: boolean
  /** There is at least one variable. */
  readonly populated: boolean
  /** Milliseconds that the cookie is kept, or undefined for a cookie that ends with the browser session. Kept with the session. */
  get maxAge(): number | undefined
  set maxAge(ms: number | 'session' | null | undefined)
  /** What the cookie of this session is to look like. Kept with the session. */
  readonly cookie: SessionCookieMembers
  /**
   * A new id, empty or keeping the named variables; the old id is dead. Do it at login: it stops session fixation.
   * With a callback, as in express-session, `ctx.session` (`req.session`) is a new object afterwards, and the one that
   * it was called on shows the variables that were.
   */
  regenerate(options?: RegenerateOptions): Promise<void>
  regenerate(done: SessionCallback): void
  regenerate(options: RegenerateOptions, done: SessionCallback): void
  /** Ends the session at commit. */
  destroy(): Promise<void>
  destroy(done: SessionCallback): void
  /** Counts as activity even if nothing is read. */
  touch(): void
  /** Does nothing by itself: the session is stored with the transaction, or not at all. */
  save(): Promise<void>
  save(done: SessionCallback): void
  /** The same, as koa-session calls it. */
  manuallyCommit(): Promise<void>
  /** Forgets what this attempt changed; what is read is still its snapshot. */
  reload(): Promise<void>
  reload(done: SessionCallback): void
  /** The variables as a plain object, without members. */
  toJSON(): Record<string, unknown>
  /** The same, as koa-session calls it. */
  inspect(): Record<string, unknown>
}

/** What one session object stands for: the working copy, or what that was before the session went on in a new object. */
export interface SessionFace {
  readonly copy: WorkingCopy
  past: (Variables & { readonly id: string }) | undefined
}

export interface MembersSetup {
  readonly cookie: ConfiguredCookie
  readonly wish: CookieWish
  /** Milliseconds since 1970. */
  readonly wallNow: () => number
  /** The session goes on in a new object. */
  readonly renewed: () => void
}

export function variablesOf({ copy, past }: SessionFace): Variables {
  return past ?? copy
}

/** The application's variables. */
export function namesOf(face: SessionFace): string[] {
  return variablesOf(face)
    .names()
    .filter(name => name !== COOKIE_PART)
}

/** @throws SESSION_DESTROYED */
export function assertPresent({ past }: SessionFace): void {
  if (past === undefined) return
  const message =
    'this object is the session as it was before regenerate(); go on with ctx.session (req.session)'
  throw new SessionTxError('SESSION_DESTROYED', message)
}

/** Methods and accessors are on the prototype: neither own nor enumerable. */
export class MembersOfSession implements SessionMembers {
  readonly #face: SessionFace
  readonly #setup: MembersSetup
  #cookie: CookieSettings | undefined

  constructor(face: SessionFace, setup: MembersSetup) {
    this.#face = face
    this.#setup = setup
  }

  get id(): string {
    return this.#face.past?.id ?? this.#face.copy.id
  }
  get externalKey(): string {
    return this.id
  }
  get isNew(): boolean {
    return this.#face.copy.isNew
  }
  get populated(): boolean {
    return namesOf(this.#face).length > 0
  }
  get maxAge(): number | undefined {
    return this.cookie.maxAge ?? undefined
  }
  set maxAge(ms: number | 'session' | null | undefined) {
    this.cookie.maxAge = ms === 'session' ? undefined : ms
  }
  get cookie(): SessionCookieMembers {
    this.#cookie ??= cookieOf(this.#face, this.#setup)
    return this.#cookie
  }

  // None is async: without a callback a refusal is thrown where it was called, also where nobody awaits.
  regenerate(options?: RegenerateOptions): Promise<void>
  regenerate(done: SessionCallback): void
  regenerate(options: RegenerateOptions, done: SessionCallback): void
  regenerate(
    first: RegenerateOptions | SessionCallback = {},
    second?: SessionCallback,
  ): Promise<void> | void {
    const [options, done] = typeof first === 'function' ? [{}, first] : [first, second]
    const keep = namesToKeep(options)
    return settle(done, () => {
      assertPresent(this.#face)
      const { copy } = this.#face
      const past = { id: copy.id, ...copy.past() }
      copy.regenerate(keep)
      if (done === undefined) return
      this.#face.past = past
      this.#setup.renewed()
    })
  }
  destroy(): Promise<void>
  destroy(done: SessionCallback): void
  destroy(done?: SessionCallback): Promise<void> | void {
    return settle(done, () => {
      assertPresent(this.#face)
      this.#face.copy.destroy()
    })
  }
  touch(): void {
    this.#face.copy.touch()
  }
  save(): Promise<void>
  save(done: SessionCallback): void
  save(done?: SessionCallback): Promise<void> | void {
    return settle(done, () => {})
  }
  manuallyCommit(): Promise<void> {
    return this.save()
  }
  reload(): Promise<void>
  reload(done: SessionCallback): void
  reload(done?: SessionCallback): Promise<void> | void {
    return settle(done, () => {
      assertPresent(this.#face)
      this.#face.copy.reload()
    })
  }
  toJSON(): Record<string, unknown> {
    const variables = variablesOf(this.#face)
    return Object.fromEntries(namesOf(this.#face).map(name => [name, variables.get(name)] as const))
  }
  inspect(): Record<string, unknown> {
    return this.toJSON()
  }
}

function cookieOf(face: SessionFace, { cookie, wish, wallNow }: MembersSetup): CookieSettings {
  const variables = {
    get: (name: string) => variablesOf(face).get(name),
    set: (name: string, value: unknown) => {
      assertPresent(face)
      face.copy.set(name, value)
    },
  }
  return new CookieSettings({ configured: cookie, variables, wish, wallNow })
}

/**
 * Makes the change at once and tells of it later, as every callback of Node is: by the callback, or by a promise. Who
 * gave a callback hears of a refusal by it.
 */
function settle(done: SessionCallback | undefined, change: () => void): Promise<void> | void {
  if (done === undefined) {
    change()
    return Promise.resolve()
  }
  if (typeof done !== 'function') throw new TypeError(`a callback must be a function, got ${typeof done}`)
  let refusal: readonly unknown[] = []
  try {
    change()
  } catch (error) {
    refusal = [error]
  }
  queueMicrotask(() => done(...refusal))
}

function namesToKeep(options: RegenerateOptions): readonly string[] {
  const { keep = [] } = options
  if (Array.isArray(keep) && keep.every(name => typeof name === 'string')) return keep
  throw new TypeError('regenerate({ keep }) takes an array of names of variables')
}
