/**
 * The database that a command is pointed at. The only part of the library that loads mysql2 itself. Knows nothing of
 * what is asked of it.
 */
import { UsageError } from './output.js'

/** What we use of a connection of mysql2/promise. */
export interface Connection {
  query(sql: string, values?: readonly unknown[]): Promise<unknown[]>
  end(): Promise<void>
}

const FORM = 'mysql://user:password@host:port/database'

/**
 * The text is never repeated: there may be a password in it.
 *
 * @param needs who needs it, for the message
 * @throws UsageError
 */
export function databaseUrl(text: string | undefined, needs: string): string {
  if (text === undefined || text === '') throw new UsageError(`${needs} needs --url ${FORM}`)
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !/^(mysql|mariadb):$/.test(url.protocol))
    throw new UsageError(`--url must be like ${FORM}`)
  if (!/^\/[^/]+$/.test(url.pathname)) throw new UsageError(`--url must name the database: ${FORM}`)
  return url.href.replace(/^mariadb:/, 'mysql:')
}

/** @throws the driver's error */
export async function connect(url: string): Promise<Connection> {
  let mysql: { createConnection(options: object): Promise<unknown> }
  try {
    mysql = await import('mysql2/promise')
  } catch (error) {
    throw new Error('mysql2 is not installed here: npm install mysql2', { cause: error })
  }
  return (await mysql.createConnection({ uri: url, connectTimeout: 10_000 })) as Connection
}
