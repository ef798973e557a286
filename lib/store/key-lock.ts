/** One at a time per key, first come, first served. Knows nothing of what is done. */
export class KeyLock {
  readonly #ends = new Map<string, Promise<void>>()

  /** Resolves when it is ours to the function that gives it back. */
  async take(key: string): Promise<() => void> {
    const before = this.#ends.get(key)
    let giveBack = (): void => {}
    const end = new Promise<void>(resolve => {
      giveBack = resolve
    })
    const all = before === undefined ? end : before.then(() => end)
    this.#ends.set(key, all)
    await before
    return () => {
      if (this.#ends.get(key) === all) this.#ends.delete(key)
      giveBack()
    }
  }
}
