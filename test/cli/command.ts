/** Runs the command line tool in this process. */
import { sessionTxCommand } from '../../lib/cli/session-tx.js'

export interface CommandEnd {
  readonly code: number
  readonly said: string
  readonly complained: string
}

export async function run(...args: readonly string[]): Promise<CommandEnd> {
  const said: string[] = []
  const complained: string[] = []
  const output = {
    say: (line: string) => void said.push(line),
    complain: (line: string) => void complained.push(line),
  }
  const code = await sessionTxCommand(args, output)
  return { code, said: said.join('\n'), complained: complained.join('\n') }
}
