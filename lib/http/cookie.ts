/**
 * The session's cookie: reads the id, writes it, takes it away. The bytes are the `cookies` package's business, the
 * signature keygrip's. Knows no session and no framework beyond Node's request and response.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import Cookies from 'cookies'
import Keygrip from 'keygrip'
import { LRUCache } from 'lru-cache'
import type { SentCookie } from '../session/cookie-settings.js'
import { isSessionId, sha256 } from '../session/identity.js'

/** Signs and verifies; keygrip's own `index` where there is one, so that rotated keys sign anew. */
export interface Signer {
  sign(data: string): string
  verify(data: string, digest: string): boolean
  index?(data: string, digest: string): number
}

/**
 * A keygrip, by what is used of it. Spelled out, since our type declarations are read where there is no @types/keygrip.
 */
export interface KeyRing extends Signer {
  index(data: string, digest: string): number
}

export interface FoundCookie {
  /** The id, if the request has a cookie with a well-formed one whose signature (where there are keys) is right. */
  readonly id: string | undefined
  /** Signed with a key that has been rotated out: to be sent again before that key is gone. */
  readonly signedByOldKey: boolean
}

const NONE: FoundCookie = Object.freeze({ id: undefined, signedByOldKey: false })

export class SessionCookie {
  readonly #name: string
  /** Browsers drop such a cookie without a word unless it is `Secure`, on whatever connection. */
  readonly #nameNeedsSecure: boolean

  constructor(name: string) {
    this.#name = name
    this.#nameNeedsSecure = /^__(?:host|secure)-/i.test(name)
  }

  /**
   * Looks, and sets nothing: the `cookies` package would answer a bad signature, or one by an old key, at once, with
   * attributes that are not ours, and whatever becomes of the attempt.
   */
  read(req: IncomingMessage, res: ServerResponse, keys: KeyRing | undefined): FoundCookie {
    if (req.headers.cookie === undefined) return NONE
    const cookies = new Cookies(req, res)
    const id = cookies.get(this.#name, { signed: false })
    if (id === undefined || !isSessionId(id)) return NONE
    if (keys === undefined) return { id, signedByOldKey: false }
    const signature = cookies.get(`${this.#name}.sig`, { signed: false })
    const key = signature === undefined ? -1 : keys.index(`${this.#name}=${id}`, signature)
    return key < 0 ? NONE : { id, signedByOldKey: key > 0 }
  }

  write(
    req: IncomingMessage,
    res: ServerResponse,
    keys: KeyRing | undefined,
    connectionIsSecure: boolean,
    { id, sent }: { readonly id: string; readonly sent: SentCookie },
  ): void {
    const { maxAge } = sent
    // By its date: to the `cookies` package a `maxAge` of 0 is none.
    const expires = maxAge === undefined ? undefined : (sent.expires ?? new Date(Date.now() + maxAge))
    const options = expires === undefined ? {} : { expires }
    this.#set(req, res, keys, connectionIsSecure, sent, id, options)
  }

  /** With the attributes that it was sent with: browsers know a cookie by its path and domain, too. */
  clear(
    req: IncomingMessage,
    res: ServerResponse,
    keys: KeyRing | undefined,
    connectionIsSecure: boolean,
    { sent }: { readonly sent: SentCookie },
  ): void {
    this.#set(req, res, keys, connectionIsSecure, sent, null, {})
  }

  #set(
    req: IncomingMessage,
    res: ServerResponse,
    keys: KeyRing | undefined,
    connectionIsSecure: boolean,
    sent: SentCookie,
    value: string | null,
    options: Cookies.SetOption,
  ): void {
    const secure = this.#isSecure(connectionIsSecure, sent)
    const cookies = new Cookies(req, res, keys === undefined ? { secure } : { secure, keys: keys as Keygrip })
    cookies.set(this.#name, value, { ...optionsOf(sent, secure), ...options, signed: keys !== undefined })
  }

  #isSecure(connectionIsSecure: boolean, { secure, sameSite, partitioned }: SentCookie): boolean {
    const isNeeded = this.#nameNeedsSecure || sameSite === 'none' || partitioned === true
    return secure === 'auto' ? connectionIsSecure || isNeeded : secure
  }
}

function optionsOf(sent: SentCookie, secure: boolean): Cookies.SetOption {
  const { path, domain, httpOnly, sameSite, partitioned, priority } = sent
  return {
    path,
    httpOnly,
    sameSite,
    secure,
    overwrite: true,
    ...(domain === undefined ? {} : { domain }),
    ...(partitioned === undefined ? {} : { partitioned }),
    ...(priority === undefined ? {} : { priority }),
  }
}

/** Keys as they were configured, ready for the `cookies` package: an array signs with SHA-256, a keygrip is used as it is. */
export function keygripOf(keys: readonly string[] | Signer | undefined): KeyRing | undefined {
  if (keys === undefined) return undefined
  if (Array.isArray(keys)) return keys.length === 0 ? undefined : new RotatingKeys(keys as string[])
  const signer = keys as Signer
  if (typeof signer.index === 'function') return signer as KeyRing
  const index = (data: string, digest: string): number => (signer.verify(data, digest) ? 0 : -1)
  return {
    sign: data => signer.sign(data),
    verify: (data, digest) => signer.verify(data, digest),
    index,
  }
}

/** Signatures found right are remembered: a session's cookie comes with each of its requests. */
const SIGNATURES_MAX = 10_000

interface FoundRight {
  /** Hash of what was signed: the id itself is kept nowhere. */
  readonly of: string
  /** The key that made it; worth nothing once the application has taken it out. */
  readonly key: string
}

/**
 * Signs as keygrip does, with SHA-256. Compares by `timingSafeEqual`: keygrip hides how long its comparison takes behind
 * random bytes and two more HMACs, which makes a signature five times as expensive to check (38 µs against 7).
 */
class RotatingKeys implements KeyRing {
  readonly #keys: readonly string[]
  readonly #right = new LRUCache<string, FoundRight>({ max: SIGNATURES_MAX })

  /** The application may change the array later. */
  constructor(keys: readonly string[]) {
    this.#keys = keys
  }

  sign(data: string): string {
    return new Keygrip(this.#keys, 'sha256').sign(data)
  }
  verify(data: string, digest: string): boolean {
    return this.index(data, digest) >= 0
  }
  /** Which key made the digest, -1 if none did. */
  index(data: string, digest: string): number {
    const of = sha256(data)
    const right = this.#right.get(digest)
    if (right?.of === of) return this.#keys.indexOf(right.key)
    const given = Buffer.from(digest)
    const index = this.#keys.findIndex(key => {
      const made = Buffer.from(createHmac('sha256', key).update(data).digest('base64url'))
      return given.length === made.length && timingSafeEqual(given, made)
    })
    const key = this.#keys[index]
    if (key !== undefined) this.#right.set(digest, { of, key })
    return index
  }
}
