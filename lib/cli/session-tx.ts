/**
 * The command line tool: finds the command, shows how it is used, turns errors into sentences. Exit codes: 0 done,
 * 1 failed, 2 used wrongly. Knows nothing of what a command does.
 */
import { DOCTOR_USAGE, doctor } from './doctor.js'
import { MIGRATE_USAGE, migrate } from './migrate.js'
import { type Output, UsageError } from './output.js'

type Command = (args: readonly string[], output: Output) => Promise<number>

const COMMANDS: Readonly<Record<string, Command>> = Object.freeze({ migrate, doctor })
const USAGE = `${MIGRATE_USAGE}\n\n${DOCTOR_USAGE}`
const HELP = new Set(['help', '--help', '-h'])

/**
 * @param args without those of node itself
 * @returns the exit code
 */
export async function sessionTxCommand([name, ...args]: readonly string[], output: Output): Promise<number> {
  if (name === undefined || HELP.has(name) || args.some(arg => arg === '--help' || arg === '-h')) {
    output.say(USAGE)
    return name === undefined ? 2 : 0
  }
  try {
    const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
    if (command === undefined) {
      throw new UsageError(`there is no command '${name}'; there is ${Object.keys(COMMANDS).join(', ')}`)
    }
    return await command(args, output)
  } catch (error) {
    const { message, code } = error as { message?: string; code?: string }
    // An AggregateError (no address of the host answers) has no message.
    output.complain(`session-tx: ${message || code}`)
    if (!(error instanceof UsageError)) return 1
    output.complain(`\n${USAGE}`)
    return 2
  }
}
