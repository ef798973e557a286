/** Hands one statement of an attempt to mysql2. Knows nothing of what it says or what follows from its answer. */
import type { ResultCallback, StatementOptions } from '../driver.js'
import type { Lease } from '../lease/lease.js'

export type StatementMethod = 'query' | 'execute'

/** @throws TypeError at once for a value that mysql2 cannot bind; nothing was sent then */
export function dispatch(
  { connection, prepared }: Lease,
  method: StatementMethod,
  statement: string | StatementOptions,
  values: unknown,
  onAnswer: ResultCallback,
): void {
  if (method === 'query') {
    if (values === undefined) connection.query(statement, onAnswer)
    else connection.query(statement, values, onAnswer)
    return
  }
  const { sql } =
    values === undefined
      ? connection.execute(statement, onAnswer)
      : connection.execute(statement, values, onAnswer)
  prepared.executed(typeof statement === 'string' ? { sql } : { ...statement, sql })
}
