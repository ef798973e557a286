/**
 * The statements of one attempt that are not answered yet, and those that failed: what a commit waits for and what a
 * rollback must not. Knows nothing of SQL or connections.
 */
import { Statement } from './running-statement.js'

type Caller = (...args: never[]) => unknown

export class RunningStatements<T> {
  readonly #sent = new Set<Statement<T>>()
  /**
   * Asked for and not sent: they wait for one before them, or are no statement of the server's. Going back to a savepoint
   * does not wait for these: one of them may be what does it.
   */
  readonly #besides = new Set<Statement<T>>()
  readonly #failed: Statement<T>[] = []
  #settling = false

  /** @param after what must have ended before it is sent; if it rejects, it is not */
  run(send: () => Promise<T>, caller: Caller, after?: Promise<void>): Statement<T> {
    if (after === undefined) return this.#track(this.#sent, new Statement(send, caller))
    const sendLater = async (): Promise<T> => {
      await after
      this.#besides.delete(statement)
      this.#sent.add(statement)
      return send()
    }
    const statement = this.#track(this.#besides, new Statement(sendLater, caller))
    return statement
  }

  beside(work: () => Promise<T>, caller: Caller): Statement<T> {
    return this.#track(this.#besides, new Statement(work, caller))
  }

  #track(place: Set<Statement<T>>, statement: Statement<T>): Statement<T> {
    place.add(statement)
    statement.settled(failed => {
      this.#sent.delete(statement)
      this.#besides.delete(statement)
      if (failed) this.#failed.push(statement)
    })
    return statement
  }

  /** The server has some of them. */
  get areSent(): boolean {
    return this.#sent.size > 0
  }
  /** What the server is working at. */
  get oldestSent(): Statement<T> | undefined {
    const [oldest] = this.#sent
    return oldest
  }
  /** Resolves when those that the server has now are answered. */
  async sentEnd(): Promise<void> {
    await Promise.all([...this.#sent].map(statement => statement.end))
  }

  /** The handler has returned: it cannot react to a failure any more. */
  get settling(): boolean {
    return this.#settling
  }
  /** Resolves when all are answered, also those that are asked for meanwhile. */
  async settle(): Promise<void> {
    this.#settling = true
    while (this.#sent.size + this.#besides.size > 0)
      await Promise.all([...this.#sent, ...this.#besides].map(statement => statement.end))
  }
  /** The first whose failure nobody has heard of. */
  get unheard(): Statement<T> | undefined {
    return this.#failed.find(statement => !statement.awaited)
  }
}
