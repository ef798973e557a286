/**
 * Counts what is under way, so that closing can wait for it. Knows nothing of what it is.
 */
export class Activity {
  #count = 0
  #onIdle: (() => void)[] = []

  /** Something has begun; call the returned function when it has ended, once. */
  begin(): () => void {
    this.#count += 1
    return this.#end
  }

  readonly #end = (): void => {
    this.#count -= 1
    if (this.#count === 0) for (const idle of this.#onIdle.splice(0)) idle()
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    while (this.#count > 0) await new Promise<void>(resolve => this.#onIdle.push(resolve))
  }
}
