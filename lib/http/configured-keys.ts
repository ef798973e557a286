/**
 * Keys as an application configured them, made ready once: their signatures are remembered there. Knows no request.
 */
import { type KeyRing, keygripOf, type Signer } from './cookie.js'

const known = new WeakMap<object, KeyRing>()

/** Undefined: there are none, so cookies are not signed. */
export function keyRingOf(configured: unknown): KeyRing | undefined {
  if (configured === undefined || configured === null || typeof configured !== 'object') return undefined
  const ready = known.get(configured)
  if (ready !== undefined) return ready
  const made = keygripOf(configured as readonly string[] | Signer)
  if (made !== undefined) known.set(configured, made)
  return made
}
