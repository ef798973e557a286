/**
 * How a rollback gets a connection to itself: what still runs on it is waited for, and killed when that takes too long
 * or the time is over. Knows nothing of transactions.
 */
import type { Clock } from '../transaction/clock.js'
import type { RunningStatements } from './statement/running-statements.js'

/** How long a rollback waits for statements that still run. */
const RUNNING_MS_MAX = 2_500
/** How long one that was killed may take to notice. */
const KILLED_MS_MAX = 500
/** A KILL that overtakes its statement on the way ends nothing. */
const KILL_AGAIN_MS = 50
/** How long the answer to what ends a transaction is waited for. */
const END_MS_MAX = 2_500

interface EndingSetup {
  readonly clock: Clock
  /** The request's deadline has passed: nothing is waited for. */
  isLate(): boolean
  /** Ends the statement that runs. @returns false if it cannot be reached */
  kill(): Promise<boolean>
}

/**
 * mysql2 sends the next statement when one is answered, so killing takes a KILL for each. It cannot hit what comes later:
 * its answer is there before ROLLBACK is sent, and the server forgets it at the end of each statement (seen on MariaDB
 * 10.11: 300 of 300 that came too late ended nothing).
 *
 * @returns false if something still runs: only losing the connection ends it
 */
export async function endStatements<T>(
  statements: RunningStatements<T>,
  { clock, isLate, kill }: EndingSetup,
): Promise<boolean> {
  if (!statements.areSent) return true
  if (!isLate() && (await endsInTime(clock, statements.sentEnd(), RUNNING_MS_MAX))) return true
  for (;;) {
    const { oldestSent } = statements
    if (oldestSent === undefined) return true
    if (!(await killUntilItEnds(oldestSent.end, { clock, kill }))) return false
  }
}

async function killUntilItEnds(
  end: Promise<void>,
  { clock, kill }: Pick<EndingSetup, 'clock' | 'kill'>,
): Promise<boolean> {
  for (let waitedMs = 0; waitedMs < KILLED_MS_MAX; waitedMs += KILL_AGAIN_MS) {
    if (!(await kill())) return false
    if (await endsInTime(clock, end, KILL_AGAIN_MS)) return true
  }
  return false
}

async function endsInTime(clock: Clock, end: Promise<void>, limitMs: number): Promise<boolean> {
  let giveUp = (): void => {}
  const late = new Promise<false>(resolve => {
    giveUp = () => resolve(false)
  })
  const timer = clock.after(limitMs, () => giveUp())
  const ended = await Promise.race([end.then(() => true), late])
  timer.cancel()
  return ended
}

/** A server that does not answer keeps neither the request nor the connection's place in the pool. */
export function inTime<T>(clock: Clock, end: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const late = (): void =>
      reject(new Error(`the transaction's end was not answered within ${END_MS_MAX} ms`))
    const timer = clock.after(END_MS_MAX, late)
    void end.then(resolve, reject).finally(() => timer.cancel())
  })
}
