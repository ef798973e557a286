/**
 * What a store knows a user by: the SHA-256 of the value of `session.userVariable`, so that a store shows nobody who has
 * which session. Equal values have equal keys. Knows no store.
 */
import { SessionTxError } from '../errors.js'
import { sha256 } from './identity.js'
import { settleValue } from './settling.js'
import { keyOf } from './value-key.js'

/**
 * 43 characters, base64url.
 * @throws SESSION_VALUE for something that no session variable can hold
 */
export function userKey(user: unknown): string {
  if (user === undefined || user === null)
    throw new SessionTxError('SESSION_VALUE', `a user must not be ${String(user)}`)
  return sha256(keyOf(settleValue(user, 'user').value))
}

/** The key of what a variable has been given; undefined if it names nobody. */
export function userKeyOf(stored: { readonly value: unknown } | undefined): string | undefined {
  if (stored === undefined || stored.value === null) return undefined
  return sha256(keyOf(stored.value))
}
