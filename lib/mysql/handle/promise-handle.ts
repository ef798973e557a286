/**
 * The promise flavour of a connection handle, in the shape of mysql2/promise's connection. Decides nothing: the callback
 * flavour behind it does the work.
 */
import { EventEmitter } from 'node:events'
import type { StatementOptions } from '../driver.js'
import type { StatementMethod } from '../statement/dispatch.js'
import type { Answer } from '../resource.js'

/** The callback flavour, as far as this one needs it. */
interface HandleBehind extends EventEmitter {
  readonly config: object
  readonly threadId: number | null
  send(
    method: StatementMethod,
    statement: string | StatementOptions,
    values: unknown,
    caller: (...args: never[]) => unknown,
  ): Promise<Answer>
  refuse(method: string): never
  assertUsable(): void
  escape(value: unknown): string
  escapeId(value: unknown): string
  format(sql: string, values?: unknown): string
}

export class PromiseHandle extends EventEmitter {
  /** The callback flavour of the same handle. */
  readonly connection: HandleBehind

  constructor(connection: HandleBehind) {
    super()
    this.connection = connection
  }

  query(statement: string | StatementOptions, values?: unknown): Promise<Answer> {
    assertNoCallback(values)
    return this.connection.send('query', statement, values, this.query)
  }
  execute(statement: string | StatementOptions, values?: unknown): Promise<Answer> {
    assertNoCallback(values)
    return this.connection.send('execute', statement, values, this.execute)
  }

  beginTransaction(): Promise<Answer> {
    return this.connection.send('query', 'BEGIN', undefined, this.beginTransaction)
  }
  commit(): Promise<Answer> {
    return this.connection.send('query', 'COMMIT', undefined, this.commit)
  }
  rollback(): Promise<Answer> {
    return this.connection.send('query', 'ROLLBACK', undefined, this.rollback)
  }

  async connect(): Promise<void> {
    this.connection.assertUsable()
  }
  async ping(): Promise<true> {
    this.connection.assertUsable()
    return true
  }
  async prepare(): Promise<never> {
    return this.connection.refuse('prepare')
  }
  async changeUser(): Promise<never> {
    return this.connection.refuse('changeUser')
  }
  async reset(): Promise<never> {
    return this.connection.refuse('reset')
  }

  /** The connection is the attempt's: it ends with it. */
  release(): void {}
  destroy(): void {}
  close(): void {}
  unprepare(): void {}
  async end(): Promise<void> {}
  async [Symbol.asyncDispose](): Promise<void> {}

  get config(): object {
    return this.connection.config
  }
  get threadId(): number | null {
    return this.connection.threadId
  }
  escape(value: unknown): string {
    return this.connection.escape(value)
  }
  escapeId(value: unknown): string {
    return this.connection.escapeId(value)
  }
  format(sql: string, values?: unknown): string {
    return this.connection.format(sql, values)
  }
}

function assertNoCallback(values: unknown): void {
  if (typeof values === 'function')
    throw new Error('Callback function is not available with promise clients.')
}
