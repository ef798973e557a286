/**
 * A stream as the body of an answer, from when its handler is over until Koa takes it: longer than without us, and an
 * error that comes meanwhile must neither end the process nor answer an attempt that is not the last. Knows no framework.
 */
import type { EventEmitter } from 'node:events'

type Listener = (...args: unknown[]) => void

/**
 * Koa 3 gives a body no listener before it sends it, Koa 2 one that answers at once. Until the function that is returned
 * is called an error is only kept; then it goes to those who were there to hear it. Undefined: it is no stream of Node's.
 */
export function holdErrors(body: unknown): (() => void) | undefined {
  if (!isStream(body)) return undefined
  const theirs = body.rawListeners('error') as Listener[]
  let failure: { readonly error: unknown } | undefined
  body.removeAllListeners('error')
  body.on('error', (error: unknown) => {
    failure ??= { error }
  })
  return () => {
    for (const listener of theirs) {
      body.on('error', listener)
      if (failure !== undefined) listener.call(body, failure.error)
    }
  }
}

/**
 * A stream that nobody will read. A late error must neither end the process nor, through the listener that Koa 2 gives
 * each body, answer the next attempt with a 500: so ours replaces all others before it is destroyed.
 */
export function discardStream(body: unknown): void {
  if (typeof body !== 'object' || body === null) return
  const { on, removeAllListeners, destroy } = body as Record<'on' | 'removeAllListeners' | 'destroy', unknown>
  if (typeof on !== 'function' || typeof destroy !== 'function') return
  if (typeof removeAllListeners === 'function') removeAllListeners.call(body, 'error')
  on.call(body, 'error', () => {})
  destroy.call(body)
}

function isStream(body: unknown): body is EventEmitter {
  const { pipe, rawListeners } = (body ?? {}) as { readonly pipe?: unknown; readonly rawListeners?: unknown }
  return typeof pipe === 'function' && typeof rawListeners === 'function'
}
