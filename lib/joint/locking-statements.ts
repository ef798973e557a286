/**
 * Of the statements of one attempt, which have certainly opened no read view: their text says that they look only at
 * rows that they lock, and their table has no trigger that would look further. Knows neither session nor snapshot.
 */
import type { Lease } from '../mysql/lease/lease.js'
import type { StatementFacts } from '../mysql/statement/facts.js'

export class LockingStatements {
  readonly #hasNoTrigger: (schema: string, table: string) => boolean
  /** Of names without one; undefined after a USE. */
  #schema: string | undefined

  constructor(hasNoTrigger: (schema: string, table: string) => boolean) {
    this.#hasNoTrigger = hasNoTrigger
  }

  opening({ schema }: Lease): void {
    this.#schema = schema
  }

  sending({ parts }: StatementFacts): void {
    if (parts.some(({ uses }) => uses !== undefined)) this.#schema = undefined
  }

  /** A doubt counts as a view. */
  opensNoView({ lockingOnly }: StatementFacts): boolean {
    if (lockingOnly === undefined) return false
    const schema = lockingOnly.schema ?? this.#schema
    return schema !== undefined && this.#hasNoTrigger(schema, lockingOnly.name)
  }
}
