/**
 * Statements are sent in the order in which they were asked for, also where one has to be looked into before it is sent.
 * Knows nothing of what is looked for.
 */
export class SendingOrder {
  /** The look into a statement that is not sent yet. */
  #looking: Promise<void> | undefined

  /**
   * Somebody who came earlier is being looked into: wait for it, and ask again. Await this itself: behind a promise more,
   * one who comes in between would be sent first.
   */
  get earlier(): Promise<void> | undefined {
    return this.#looking
  }

  /** @param looking undefined: there is nothing to look into; if it rejects, that is what `failed` makes of it */
  send<T>(
    looking: Promise<void> | undefined,
    send: () => Promise<T>,
    failed: (error: unknown) => unknown,
  ): Promise<T> {
    if (looking === undefined) return send()
    const sent = looking.then(send, (error: unknown) => {
      throw failed(error)
    })
    // Asked for later than `sent`, so that those who wait come after it.
    const over = (): void => {
      this.#looking = undefined
    }
    this.#looking = looking.then(over, over)
    return sent
  }
}
