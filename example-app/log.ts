/** The log of the shop by pino: a line for each re-run, a warning when a request gave up. Never a session's value or id. */
import type { Logger } from 'pino'
import type { SessionTx } from 'session-tx'

/** @returns how to stop */
export function logConflicts(tx: Pick<SessionTx, 'on'>, log: Logger): () => void {
  return tx.on('conflict', ({ id, route, attempt, conflict, attemptMs, decision }) => {
    const { kind, variable, table, winner } = conflict
    const fields = { transaction: id, route, attempt, kind, variable, table, winner, attemptMs, decision }
    if (decision === 'rerun') log.info(fields, 'lost a race, runs again')
    else log.warn(fields, 'lost a race and gave up')
  })
}
