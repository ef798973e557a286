/**
 * What `query()` and `execute()` of a connection handle's callback flavour return: the command as mysql2 has it, as far as
 * its events go. Rows come all at once, after the answer. Knows nothing of transactions.
 */
import { EventEmitter } from 'node:events'
import { Readable } from 'node:stream'
import type { Answer } from '../resource.js'
import type { Statement } from '../statement/running-statement.js'

export type AnswerCallback = (error: Error | null, result?: unknown, fields?: unknown) => void

export class HandleCommand extends EventEmitter {
  readonly sql: string
  #streamed = false
  #statement: Statement<Answer> | undefined

  constructor(sql: string) {
    super()
    this.sql = sql
  }

  /**
   * Refused: the rows of a stream arrive on the connection that every other statement of the request needs, so the first
   * one sent meanwhile would wait for a stream that waits for it. The statement is not sent.
   *
   * @returns a stream that fails with a TypeError when it is read: Knex hears of nothing else
   */
  stream(): Readable {
    this.#streamed = true
    return new Readable({
      objectMode: true,
      read() {
        this.destroy(noStreams())
      },
    })
  }

  /** Streaming is asked for right after `query()`: only then is it known that the statement is to be sent. */
  async ready(): Promise<void> {
    await Promise.resolve()
    if (this.#streamed) throw noStreams()
  }

  /**
   * Tells callback and listeners, outside of any promise: what they throw is theirs.
   *
   * @param canReact a failure that comes when nobody can act on it any more counts as one that nobody heard
   */
  follow(statement: Statement<Answer>, callback: AnswerCallback | undefined, canReact: () => boolean): void {
    this.#statement = statement
    statement.observe(
      ([rows, fields]) => queueMicrotask(() => this.#tell(rows, fields, callback)),
      (error: unknown) => {
        const hears = callback !== undefined || this.listenerCount('error') > 0 || this.#streamed
        if (hears && canReact()) statement.markAwaited()
        queueMicrotask(() => this.#tellFailure(error as Error, callback))
      },
    )
  }

  /** Awaited, it answers as the promise flavour: a handle serves both. (mysql2's own command throws here.) */
  // oxlint-disable-next-line unicorn/no-thenable -- it is meant to be awaited
  then<A = Answer, B = never>(
    onValue?: ((answer: Answer) => A | PromiseLike<A>) | null,
    onError?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return (this.#statement as Statement<Answer>).then(onValue, onError)
  }

  #tell(rows: unknown, fields: unknown, callback: AnswerCallback | undefined): void {
    if (callback !== undefined) callback(null, rows, fields)
    else {
      if (fields !== undefined) this.emit('fields', fields)
      for (const row of Array.isArray(rows) ? (rows as unknown[]) : [rows]) this.emit('result', row)
    }
    this.emit('end')
  }

  #tellFailure(error: Error, callback: AnswerCallback | undefined): void {
    if (callback !== undefined) callback(error)
    else if (this.listenerCount('error') > 0) this.emit('error', error)
    this.emit('end')
  }
}

function noStreams(): TypeError {
  return new TypeError(
    'a stream cannot be part of the transaction of a request: its one connection would be busy until the last row ' +
      'was read. Read in portions (LIMIT), or outside of the transaction: ambientPool(pool).outside(() => …)',
  )
}
