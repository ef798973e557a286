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

  constructor(start: () => Promise<T>) {
    let settle: { resolve: (value: T) => void; reject: (error: unknown) => void } | undefined
    super((resolve, reject) => {
      settle = { resolve, reject }
    })
    this.#end = start().then(
      value => {
        this.#onSettled?.(false)
        settle?.resolve(value)
      },
      (error: unknown) => {
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
