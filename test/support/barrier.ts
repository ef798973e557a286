/**
 * What makes concurrent tests deterministic: points that wait for each other instead of for time. Knows nothing of what
 * is being ordered.
 */

/** A promise that somebody else settles. */
export interface Deferred<T> {
  readonly promise: Promise<T>
  readonly resolve: (value: T) => void
  readonly reject: (error: unknown) => void
}

export function deferred<T = void>(): Deferred<T> {
  let resolve: (value: T) => void = () => {}
  let reject: (error: unknown) => void = () => {}
  const promise = new Promise<T>((onValue, onError) => {
    resolve = onValue
    reject = onError
  })
  return { promise, resolve, reject }
}

/** Closed until somebody opens it, then open for ever. */
export class Gate {
  readonly #opened = deferred()

  open(): void {
    this.#opened.resolve()
  }
  passed(): Promise<void> {
    return this.#opened.promise
  }
}

/** Nobody goes on before `parties` have arrived; those who come later find it open. */
export class Barrier {
  readonly #parties: number
  readonly #full = deferred()
  #arrived = 0

  constructor(parties: number) {
    this.#parties = parties
  }

  arrive(): Promise<void> {
    this.#arrived += 1
    if (this.#arrived >= this.#parties) this.#full.resolve()
    return this.#full.promise
  }
}

/** Lets everything run that waits for nothing but promises. */
export function flush(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}

/** Whether it has settled by now. */
export async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false
  const note = (): void => {
    settled = true
  }
  promise.then(note, note)
  await flush()
  return settled
}
