/**
 * `session.cookie`: what this session's cookie is to look like, where that differs from how cookies are configured. The
 * differences are kept with the session, as a variable under a name that the application cannot use, so that every store
 * keeps them, a rollback takes them back, and two requests that change them are told apart like any others. Knows no HTTP.
 */
import {
  type ConfiguredCookie,
  COOKIE_RULES,
  type CookieAttributes,
  objectionTo,
  type Rule,
} from './cookie-attributes.js'

/** The variable that holds the differences. A member of every session has this name, so no variable of the application. */
export const COOKIE_PART = 'cookie'

/** Null stands for undefined, which a session cannot hold. */
type Differences = { readonly [Name in keyof CookieAttributes]?: CookieAttributes[Name] | null }

/** What express-session documents of `req.session.cookie`. Assigning changes the cookie for good, once committed. */
export interface SessionCookieMembers {
  /** Milliseconds that the browser keeps the cookie, counted from when it was last sent; null: until it is closed. */
  get maxAge(): number | null
  set maxAge(ms: number | null | undefined)
  readonly originalMaxAge: number | null
  /** `maxAge` from now; null or false: until the browser is closed. */
  get expires(): Date | null
  set expires(at: Date | false | null | undefined)
  path: string
  domain: string | undefined
  httpOnly: boolean
  secure: 'auto' | boolean
  sameSite: 'strict' | 'lax' | 'none' | boolean
  partitioned: boolean | undefined
  priority: 'low' | 'medium' | 'high' | undefined
  toJSON(): Record<string, unknown>
}

/** What the handler wants of the cookie of this response. */
export interface CookieWish {
  /** Something was changed, or a `maxAge` assigned, even if it was what it had been: the cookie is sent. */
  assigned: boolean
  /** `maxAge` was given as the moment at which it ends. */
  expires: { readonly at: Date; readonly maxAge: number } | undefined
}

/** The cookie as it is sent. */
export interface SentCookie extends CookieAttributes {
  readonly expires: Date | undefined
}

interface CookieSetup {
  readonly configured: ConfiguredCookie
  readonly variables: { get(name: string): unknown; set(name: string, value: unknown): void }
  readonly wish: CookieWish
  /** Milliseconds since 1970. */
  readonly wallNow: () => number
}

const AGE_MS_MAX = 36_525 * 86_400_000
const RULES: Readonly<Partial<Record<keyof CookieAttributes, Rule>>> = COOKIE_RULES
const MAY_BE_ABSENT: ReadonlySet<string> = new Set(['maxAge', 'domain', 'partitioned', 'priority'])

export class CookieSettings implements SessionCookieMembers {
  readonly #setup: CookieSetup

  constructor(setup: CookieSetup) {
    this.#setup = setup
    // A misspelt attribute is a TypeError, not a cookie that does not do what it was told.
    Object.freeze(this)
  }

  get maxAge(): number | null {
    return this.#now.maxAge ?? null
  }
  set maxAge(ms: number | null | undefined) {
    if (ms !== undefined && ms !== null && !(Number.isFinite(ms) && Math.abs(ms) <= AGE_MS_MAX))
      throw wrong('maxAge', 'a number of milliseconds (a century at most), or null', ms)
    this.#put('maxAge', ms === undefined || ms === null ? undefined : Math.max(0, Math.floor(ms)))
  }
  get originalMaxAge(): number | null {
    return this.maxAge
  }
  get expires(): Date | null {
    const { maxAge } = this
    const { expires } = this.#setup.wish
    if (maxAge === null) return null
    return new Date(expires?.maxAge === maxAge ? expires.at : this.#setup.wallNow() + maxAge)
  }
  set expires(at: Date | false | null | undefined) {
    if (at === false || at === null || at === undefined) {
      this.maxAge = null
      return
    }
    const time: unknown = Object.prototype.toString.call(at) === '[object Date]' ? at.getTime() : Number.NaN
    if (typeof time !== 'number' || Number.isNaN(time)) throw wrong('expires', 'a Date, false or null', at)
    this.maxAge = time - this.#setup.wallNow()
    this.#setup.wish.expires = { at: new Date(time), maxAge: this.maxAge ?? 0 }
  }
  get path(): string {
    return this.#now.path
  }
  set path(path: string) {
    this.#put('path', path)
  }
  get domain(): string | undefined {
    return this.#now.domain
  }
  set domain(domain: string | undefined) {
    this.#put('domain', domain)
  }
  get httpOnly(): boolean {
    return this.#now.httpOnly
  }
  set httpOnly(httpOnly: boolean) {
    this.#put('httpOnly', httpOnly)
  }
  get secure(): 'auto' | boolean {
    return this.#now.secure
  }
  set secure(secure: 'auto' | boolean) {
    this.#put('secure', secure)
  }
  get sameSite(): 'strict' | 'lax' | 'none' | boolean {
    return this.#now.sameSite
  }
  set sameSite(sameSite: 'strict' | 'lax' | 'none' | boolean) {
    this.#put('sameSite', sameSite)
  }
  get partitioned(): boolean | undefined {
    return this.#now.partitioned
  }
  set partitioned(partitioned: boolean | undefined) {
    this.#put('partitioned', partitioned)
  }
  get priority(): 'low' | 'medium' | 'high' | undefined {
    return this.#now.priority
  }
  set priority(priority: 'low' | 'medium' | 'high' | undefined) {
    this.#put('priority', priority)
  }
  toJSON(): Record<string, unknown> {
    const { path, domain, httpOnly, secure, sameSite, partitioned, priority } = this.#now
    const { originalMaxAge, expires } = this
    return { originalMaxAge, expires, path, domain, httpOnly, secure, sameSite, partitioned, priority }
  }

  get #differences(): Differences {
    return (this.#setup.variables.get(COOKIE_PART) as Differences | undefined) ?? {}
  }
  get #now(): CookieAttributes {
    return withDifferences(this.#setup.configured, this.#differences)
  }

  #put<Name extends keyof CookieAttributes>(name: Name, value: CookieAttributes[Name]): void {
    const { configured, variables, wish } = this.#setup
    const mustBe = value === undefined && MAY_BE_ABSENT.has(name) ? undefined : RULES[name]?.(value)
    if (mustBe !== undefined) throw wrong(name, mustBe, value)
    const { [name]: before, ...others } = { ...this.#differences }
    const isConfigured = value === configured[name]
    const next = isConfigured ? others : { ...others, [name]: value ?? null }
    const objection = objectionTo(
      { ...withDifferences(configured, next), name: configured.name },
      attribute => `session.cookie.${attribute}`,
    )
    if (objection !== undefined) throw new TypeError(objection)
    // Assigned what it was: no write, so requests that do it all the time do not compete. Only what ends by itself is sent
    // again then: its time begins anew.
    const isSame = isConfigured ? before === undefined : before === (value ?? null)
    wish.assigned ||= !isSame || (name === 'maxAge' && value !== undefined)
    if (isSame) return
    variables.set(COOKIE_PART, Object.keys(next).length === 0 ? undefined : next)
  }
}

function withDifferences(
  { path, domain, httpOnly, sameSite, secure, maxAge, partitioned, priority }: CookieAttributes,
  differences: Differences,
): CookieAttributes {
  const attributes = { path, domain, httpOnly, sameSite, secure, maxAge, partitioned, priority }
  for (const [name, value] of Object.entries(differences))
    if (Object.hasOwn(attributes, name)) Object.assign(attributes, { [name]: value ?? undefined })
  return attributes
}

/** The cookie to be sent, from what is stored with the session. */
export function sentCookie(configured: CookieAttributes, stored: unknown, wish: CookieWish): SentCookie {
  const { expires } = wish
  if (stored !== undefined || expires !== undefined) return withWish(configured, stored, expires)
  let usual = USUAL.get(configured)
  if (usual === undefined) USUAL.set(configured, (usual = withWish(configured, stored, expires)))
  return usual
}

/** Asked for by every request with a session, and nearly always the same. */
const USUAL = new WeakMap<CookieAttributes, SentCookie>()

function withWish(configured: CookieAttributes, stored: unknown, expires: CookieWish['expires']): SentCookie {
  const attributes = withDifferences(configured, (stored as Differences | undefined) ?? {})
  const { maxAge } = attributes
  const asked = expires !== undefined && expires.maxAge === maxAge
  return { ...attributes, expires: asked ? expires.at : undefined }
}

function wrong(name: string, mustBe: string, value: unknown): TypeError {
  const found =
    typeof value === 'string' ? `'${value.slice(0, 40)}'` : typeof value === 'number' ? value : typeof value
  return new TypeError(`\`session.cookie.${name}\` must be ${mustBe}, got ${found}`)
}
