/**
 * `session-tx migrate`: prints the definitions of the tables, or creates those that are missing. Never changes or drops
 * one.
 */
import { parseArgs } from 'node:util'
import { connect, type Connection, databaseUrl } from './database.js'
import { type Output, UsageError } from './output.js'
import { isTableName } from '../store/mysql-tables.js'
import { type Table, tables } from './tables.js'

export const MIGRATE_USAGE = `session-tx migrate [--print]
    prints the SQL that creates the tables; connects to nothing

session-tx migrate --apply --url mysql://user:password@host:port/database
    creates those that are missing in that database; needs CREATE and SELECT there
    without --url the environment variable MYSQL_URL is used, which other users of the machine cannot see

    --only sessions    the tables of mysqlStore; --only commits: that of the commit record
    --sessions name    what the option \`table\` of mysqlStore says, if it is not \`sessions\``

/**
 * @returns the exit code
 * @throws UsageError for arguments that make no sense
 */
export async function migrate(args: readonly string[], output: Output): Promise<number> {
  const { apply, url, wanted } = understood(args)
  if (!apply) {
    for (const { purpose, ddl } of wanted) output.say(`-- ${purpose}\n${ddl};`)
    return 0
  }
  const connection = await connect(databaseUrl(url, '--apply'))
  try {
    let bad = 0
    for (const table of wanted) {
      const problem = await ensure(connection, table, output)
      if (problem !== undefined) output.complain(problem)
      if (problem !== undefined) bad += 1
    }
    return bad === 0 ? 0 : 1
  } finally {
    await connection.end()
  }
}

interface Wanted {
  readonly apply: boolean
  readonly url: string | undefined
  readonly wanted: readonly Table[]
}

function understood(args: readonly string[]): Wanted {
  const options = {
    apply: { type: 'boolean' },
    print: { type: 'boolean' },
    url: { type: 'string' },
    only: { type: 'string' },
    sessions: { type: 'string' },
  } as const
  let given: { apply?: boolean; print?: boolean; url?: string; only?: string; sessions?: string }
  try {
    given = parseArgs({ args: [...args], options, strict: true }).values
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
  if (given.apply === true && given.print === true) throw new UsageError('choose one of --print and --apply')
  const { only, sessions, url = process.env['MYSQL_URL'], apply = false } = given
  if (sessions !== undefined && !isTableName(sessions))
    throw new UsageError('--sessions must be a name of 1 to 58 letters, digits and _')
  const wanted = tables(sessions).filter(({ part }) => only === undefined || part === only)
  if (wanted.length === 0) throw new UsageError('--only must be sessions or commits')
  return { apply, url, wanted }
}

/** What is wrong with the table; undefined: it is there, now or as before. */
async function ensure(connection: Connection, { name, purpose, ddl, columns }: Table, output: Output) {
  const before = await look(connection, name)
  if (before === undefined) {
    await connection.query(ddl)
    output.say(`created ${name} (${purpose})`)
    return undefined
  }
  const missing = columns.filter(column => !before.columns.includes(column))
  if (missing.length > 0)
    return `${name} is there, but has no column ${missing.join(', ')}: rename or drop it`
  if (before.engine.toLowerCase() !== 'innodb')
    return `${name} is there, but its engine is ${before.engine}, not InnoDB`
  output.say(`${name} is there already; nothing was changed`)
  return undefined
}

async function look(
  connection: Connection,
  table: string,
): Promise<{ readonly engine: string; readonly columns: readonly string[] } | undefined> {
  const where = 'WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ?'
  const [tables] = await connection.query(`SELECT ENGINE AS engine FROM information_schema.TABLES ${where}`, [
    table,
  ])
  const [found] = tables as { engine: string | null }[]
  if (found === undefined) return undefined
  const [columns] = await connection.query(
    `SELECT COLUMN_NAME AS name FROM information_schema.COLUMNS ${where}`,
    [table],
  )
  return { engine: found.engine ?? 'none', columns: (columns as { name: string }[]).map(({ name }) => name) }
}
