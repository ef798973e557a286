/** `session-tx doctor`: looks at a database server and says in sentences what to change. Changes nothing there. */
import { parseArgs } from 'node:util'
import { connect, databaseUrl } from './database.js'
import { diagnose, type Finding, type PlannedUse } from './diagnosis.js'
import { type Output, UsageError } from './output.js'
import { readServer, type ServerReadings } from './server-readings.js'
import { tables } from './tables.js'

export const DOCTOR_USAGE = `session-tx doctor --url mysql://user:password@host:port/database
    looks at that server with the eyes of the application’s account, and says what to change; changes nothing
    without --url the environment variable MYSQL_URL is used; exit code 1 if there is a problem

    --connections 10   connectionLimit of the pool      --processes 1   how many processes have such a pool`

const COUNT = /^[1-9]\d{0,4}$/

/**
 * @returns the exit code
 * @throws UsageError for arguments that make no sense
 */
export async function doctor(args: readonly string[], output: Output): Promise<number> {
  const { url, use } = understood(args)
  const readings = await examine(url)
  const findings = diagnose(readings, use)
  for (const { level, text } of findings) output.say(`${level.padEnd(8)} ${text}`)
  const [problems, advices] = [count(findings, 'problem'), count(findings, 'advice')]
  output.say(
    `\n${problems} problem${problems === 1 ? '' : 's'}, ${advices} piece${advices === 1 ? '' : 's'} of advice`,
  )
  return problems === 0 ? 0 : 1
}

function understood(args: readonly string[]): { readonly url: string; readonly use: PlannedUse } {
  const options = {
    url: { type: 'string' },
    connections: { type: 'string', default: '10' },
    processes: { type: 'string', default: '1' },
  } as const
  let given: { url?: string; connections: string; processes: string }
  try {
    given = parseArgs({ args: [...args], options, strict: true }).values
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
  const { url = process.env['MYSQL_URL'], connections, processes } = given
  for (const [name, text] of Object.entries({ connections, processes }))
    if (!COUNT.test(text)) throw new UsageError(`--${name} must be a whole number of 1 to 99999`)
  return {
    url: databaseUrl(url, 'doctor'),
    use: { connections: Number(connections), processes: Number(processes) },
  }
}

async function examine(url: string): Promise<ServerReadings> {
  const connection = await connect(url)
  try {
    return await readServer(
      connection,
      tables().map(({ name }) => name),
    )
  } finally {
    await connection.end()
  }
}

function count(findings: readonly Finding[], wanted: Finding['level']): number {
  return findings.filter(({ level }) => level === wanted).length
}
