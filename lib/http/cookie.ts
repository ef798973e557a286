/**
 * The session's cookie: reads the id, writes it, takes it away. The bytes are the `cookies` package's business, the
 * signature keygrip's. Knows no session and no framework beyond Node's request and response.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import Cookies from 'cookies'
import Keygrip from 'keygrip'
import { isSessionId } from '../session/identity.js'

/** As the `cookies` package names them; `secure: 'auto'` follows the connection. */
export interface CookieAttributes {
  readonly path: string
  readonly domain: string | undefined
  readonly httpOnly: boolean
  readonly sameSite: 'strict' | 'lax' | 'none' | boolean
  readonly secure: 'auto' | boolean
  readonly maxAge: number | undefined
  readonly partitioned: boolean | undefined
  readonly priority: 'low' | 'medium' | 'high' | undefined
}

/** Signs and verifies; keygrip's own `index` where there is one, so that rotated keys sign anew. */
export interface Signer {
  sign(data: string): string
  verify(data: string, digest: string): boolean
  index?(data: string, digest: string): number
}

export class SessionCookie {
  readonly #name: string
  readonly #attributes: CookieAttributes

  constructor(name: string, attributes: CookieAttributes) {
    this.#name = name
    this.#attributes = attributes
  }

  /** The id, if the request has a cookie with a well-formed one whose signature (where there are keys) is right. */
  read(req: IncomingMessage, res: ServerResponse, keys: Keygrip | undefined): string | undefined {
    if (req.headers.cookie === undefined) return undefined
    const id = this.#cookies(req, res, keys, false).get(this.#name, { signed: keys !== undefined })
    return id !== undefined && isSessionId(id) ? id : undefined
  }

  write(
    req: IncomingMessage,
    res: ServerResponse,
    keys: Keygrip | undefined,
    connectionIsSecure: boolean,
    cookie: { readonly id: string; readonly maxAge: number | undefined },
  ): void {
    const { secure } = this.#attributes
    const isSecure = secure === 'auto' ? connectionIsSecure : secure
    const options = { ...this.#options(isSecure), ...(cookie.maxAge === undefined ? {} : { maxAge: cookie.maxAge }) }
    this.#cookies(req, res, keys, isSecure).set(this.#name, cookie.id, { ...options, signed: keys !== undefined })
  }

  clear(req: IncomingMessage, res: ServerResponse, keys: Keygrip | undefined, connectionIsSecure: boolean): void {
    const { secure } = this.#attributes
    const isSecure = secure === 'auto' ? connectionIsSecure : secure
    const options = { ...this.#options(isSecure), signed: keys !== undefined }
    this.#cookies(req, res, keys, isSecure).set(this.#name, null, options)
  }

  #cookies(req: IncomingMessage, res: ServerResponse, keys: Keygrip | undefined, secure: boolean): Cookies {
    return new Cookies(req, res, keys === undefined ? { secure } : { secure, keys })
  }

  #options(secure: boolean): Cookies.SetOption {
    const { path, domain, httpOnly, sameSite, partitioned, priority } = this.#attributes
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
}

/** Keys as they were configured, ready for the `cookies` package: an array signs with SHA-256, a keygrip is used as it is. */
export function keygripOf(keys: readonly string[] | Signer | undefined): Keygrip | undefined {
  if (keys === undefined) return undefined
  if (Array.isArray(keys)) return keys.length === 0 ? undefined : new Keygrip(keys as string[], 'sha256')
  const signer = keys as Signer
  if (typeof signer.index === 'function') return signer as unknown as Keygrip
  const index = (data: string, digest: string): number => (signer.verify(data, digest) ? 0 : -1)
  return {
    sign: (data: string) => signer.sign(data),
    verify: (data: string, digest: string) => signer.verify(data, digest),
    index,
  } as unknown as Keygrip
}
