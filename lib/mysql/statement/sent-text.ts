/**
 * The text that the server gets, as far as it can differ from the one that was given: mysql2's `query` puts names and
 * raw SQL into it before it is sent. Knows nothing of what the text says.
 */
import type { CoreConnection, StatementOptions } from '../driver.js'

/**
 * Values are left out where they can only be literals, so that the text stays one that is known. Not so for `??`
 * (names), for what brings its own SQL (`mysql.raw()`), and where the pool has a `queryFormat` of its own.
 */
export function sentText(
  connection: CoreConnection,
  method: 'query' | 'execute',
  statement: string | StatementOptions,
  given: unknown,
): string {
  if (typeof statement === 'string') return filled(connection, method, statement, given)
  const { sql, values, namedPlaceholders } = statement
  return filled(connection, method, sql, given ?? values, namedPlaceholders)
}

function filled(
  connection: CoreConnection,
  method: 'query' | 'execute',
  sql: string,
  values: unknown,
  namedPlaceholders?: unknown,
): string {
  if (method === 'execute' || values === undefined || values === null) return sql
  const isOwn = typeof connection.config.queryFormat === 'function'
  const differs = isOwn || sql.includes('??') || bringsSql(values)
  return differs ? connection.format(sql, values, namedPlaceholders) : sql
}

function bringsSql(values: unknown): boolean {
  const isRaw = (value: unknown): boolean =>
    typeof value === 'object' && value !== null && 'toSqlString' in value
  if (Array.isArray(values)) return values.some(isRaw)
  return isRaw(values) || (typeof values === 'object' && Object.values(values as object).some(isRaw))
}
