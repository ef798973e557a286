/**
 * A statement that was asked for: a promise that knows whether anybody ever waited for it. A failure that nobody heard
 * must neither end the process (unhandledRejection) nor be committed over: the attempt asks here before it commits.
 * Knows nothing of SQL.
 */

export class Statement<T> extends Promise<T> {
  /** Derived promises are plain ones: only the statement itself keeps the record. */
  static override get [Symbol.species](): PromiseConstructor {
    return Promise
  }

  #awaited = false
  #error: unknown
  #end: Promise<void> = Promise.resolve()
  #onSettled: ((failed: boolean) => void) | undefined

  /** @param start sends it; `caller` is left out of the stack that a failure shows, which begins where it was called */
  constructor(start: () => Promise<T>, caller: (...args: never[]) => unknown) {
    let settle: { resolve: (value: T) => void; reject: (error: unknown) => void } | undefined
    super((resolve, reject) => {
      settle = { resolve, reject }
    })
    const origin: { stack?: string } = {}
    Error.captureStackTrace(origin, caller)
    this.#end = start().then(
      value => {
        this.#onSettled?.(false)
        settle?.resolve(value)
      },
      (error: unknown) => {
        showOrigin(error, origin)
        this.#error = error
        this.#onSettled?.(true)
        settle?.reject(error)
      },
    )
    // Heard by us, without counting as awaited.
    super.then(undefined, () => {})
  }

  get awaited(): boolean {
    return this.#awaited
  }
  get error(): unknown {
    return this.#error
  }
  /** Resolves when the statement was answered, well or not. */
  get end(): Promise<void> {
    return this.#end
  }
  settled(listener: (failed: boolean) => void): void {
    this.#onSettled = listener
  }

  /** Hears of the answer without counting as somebody who waited for it. */
  observe(onValue: (value: T) => void, onError: (error: unknown) => void): void {
    void super.then(onValue, onError)
  }
  /** Whoever observed the failure has dealt with it. */
  markAwaited(): void {
    this.#awaited = true
  }

  // `await` calls this too, because the constructor is not Promise itself.
  // oxlint-disable-next-line unicorn/no-thenable -- it is a promise
  override then<A = T, B = never>(
    onValue?: ((value: T) => A | PromiseLike<A>) | null,
    onError?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    this.#awaited = true
    return super.then(onValue, onError)
  }
}

/** The driver's own frames say where a packet was read; people look for the line in their handler. */
function showOrigin(error: unknown, origin: { readonly stack?: string }): void {
  if (!(error instanceof Error) || origin.stack === undefined) return
  const frames = origin.stack.slice(origin.stack.indexOf('\n') + 1)
  error.stack = `${error.name}: ${error.message}\n${frames}`
}
