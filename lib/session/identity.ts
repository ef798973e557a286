/**
 * A session's id and the key it is stored under. The id is a secret that only the cookie carries: 256 random bits; the
 * store sees its SHA-256, so a leaked store opens no session. Knows nothing of cookies.
 * Source: OWASP Session Management Cheat Sheet; ASVS 5.0 7.2.3 asks for 128 bits.
 */
import crypto, { randomFillSync } from 'node:crypto'

const ID_BYTES = 32
const ID_FORM = /^[A-Za-z0-9_-]{43}$/
const KEY_SHOWN_CHARACTERS = 12

/** Random bytes are drawn for many ids at once: one system call per id costs more than the rest of making it. */
const pool = Buffer.allocUnsafe(ID_BYTES * 64)
let used = pool.length

/** 43 characters, base64url. */
export function newSessionId(): string {
  if (used === pool.length) {
    randomFillSync(pool)
    used = 0
  }
  const id = pool.toString('base64url', used, used + ID_BYTES)
  pool.fill(0, used, used + ID_BYTES)
  used += ID_BYTES
  return id
}

/** False for anything that cannot be an id of ours: such cookies are not even looked up. */
export function isSessionId(text: string): boolean {
  return ID_FORM.test(text)
}

/** In base64url. `crypto.hash` takes half the time of a hash object, and came with Node 20.12. */
export const sha256: (text: string) => string =
  typeof crypto.hash === 'function'
    ? text => crypto.hash('sha256', text, 'base64url')
    : text => crypto.createHash('sha256').update(text).digest('base64url')

/** The key a session is stored under. */
export function sessionKey(id: string): string {
  return sha256(id)
}

/** How a session is named in errors, events and metrics. */
export function shownKey(key: string): string {
  return key.slice(0, KEY_SHOWN_CHARACTERS)
}
