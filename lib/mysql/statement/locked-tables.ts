/** The tables in which an attempt has locked rows, or was about to, as far as the texts say. */
import type { StatementFacts } from './facts.js'

export class LockedTables {
  readonly #names = new Set<string>()

  sending({ lockingOnly, parts }: StatementFacts): void {
    if (lockingOnly !== undefined) this.#names.add(lockingOnly.name)
    for (const { writes } of parts) for (const { name } of writes) this.#names.add(name)
  }

  /** Without their schemas, as the server's messages have them. */
  get names(): readonly string[] {
    return [...this.#names]
  }
}
