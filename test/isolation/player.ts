/**
 * Plays a schedule step by step: the next step is sent when every transaction has answered or waits for a lock, which
 * the server is asked for; nobody sleeps. Knows nothing of what performs a step.
 */
import type { RowDataPacket } from 'mysql2/promise'
import type { TestDatabase } from '../support/database.js'
import type { History, Operation, Schedule, Who } from './schedules.js'

/** One transaction of a schedule. */
export interface Party {
  /** Resolves when the step was answered; false: the transaction is over and takes no more steps. */
  perform(operation: Operation): Promise<boolean>
}

export interface Played {
  /** Some step had to wait for a lock of another transaction. */
  readonly waited: boolean
}

/** What became of a schedule in one place, at one level. */
export interface Outcome {
  readonly anomaly: boolean
  /** Why transactions lost: `1020`, `deadlock` … each once. */
  readonly losses: readonly string[]
  readonly waited: boolean
  readonly history: History
}

/** How a table says it. */
export function wordFor({ anomaly, losses, waited }: Outcome): string {
  if (anomaly) return '**possible**'
  if (losses.length > 0) return [...losses].sort().join(', ')
  return waited ? 'waits' : 'not seen'
}

export async function play(
  db: TestDatabase,
  { steps }: Schedule,
  partyOf: (who: Who) => Party,
): Promise<Played> {
  const tails = new Map<Who, Promise<boolean>>()
  const pending = new Set<Who>()
  let waited = false
  for (const [who, operation] of steps) {
    const party = partyOf(who)
    const before = tails.get(who) ?? Promise.resolve(true)
    // A step that waits keeps the later ones of its transaction back.
    const tail = before.then(goesOn => goesOn && party.perform(operation))
    tails.set(who, tail)
    pending.add(who)
    void tail.finally(() => {
      if (tails.get(who) === tail) pending.delete(who)
    })
    if (await standsStill(db, pending)) waited = true
  }
  await Promise.all(tails.values())
  return { waited }
}

/** Resolves when nothing moves any more; true if somebody waits for a lock. */
async function standsStill(db: TestDatabase, pending: ReadonlySet<Who>): Promise<boolean> {
  let confirmed = 0
  while (pending.size > 0) {
    // Twice: a deadlock is a wait for a moment before it is found.
    confirmed = (await lockWaits(db)) >= pending.size ? confirmed + 1 : 0
    if (confirmed === 3) return pending.size > 0
  }
  return false
}

/**
 * How many connections of this database wait for a row lock. From InnoDB's monitor: information_schema.INNODB_TRX is a
 * copy that is renewed only after a tenth of a second without readers.
 */
async function lockWaits(db: TestDatabase): Promise<number> {
  const [connections] = await db.admin.query<RowDataPacket[]>(
    'SELECT ID FROM information_schema.PROCESSLIST WHERE DB = ?',
    [db.name],
  )
  const [[monitor]] = await db.admin.query<RowDataPacket[]>('SHOW ENGINE INNODB STATUS')
  const waiting = String(monitor?.['Status'])
    .split('---TRANSACTION')
    .slice(1) // before it: the last deadlock, long over
    .filter(text => /\nLOCK WAIT /.test(text))
  return connections.filter(({ ID }) => waiting.some(text => text.includes(`thread id ${ID},`))).length
}
