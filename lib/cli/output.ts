/** What a command of the command line tool says, and how it refuses arguments. */

export interface Output {
  say(line: string): void
  complain(line: string): void
}

/** The arguments make no sense: the usage is shown, and the exit code is 2. */
export class UsageError extends Error {}
