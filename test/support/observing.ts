/**
 * Looking at what a request left behind, from outside of it: rows, open transactions and locks from a second connection,
 * and a store that writes down what is asked of it.
 */
import type { RowDataPacket } from 'mysql2/promise'
import type { Claim, MaybePromise, OpenSession, SessionStore } from '../../lib/index.js'
import type { TestDatabase } from './database.js'

/** The one column of the one row of a query, read outside of every pool. */
export async function valueOf(
  db: TestDatabase,
  sql: string,
  values: readonly unknown[] = [],
): Promise<unknown> {
  const [rows] = await db.admin.query<RowDataPacket[][]>({ sql, rowsAsArray: true }, [...values])
  return rows[0]?.[0] as unknown
}

/** information_schema.innodb_trx is a copy that the server renews only if nobody has read it for this long. */
const COPY_AGE_MS = 130
const LOOKS_MAX = 60

/** Resolves when no transaction of this database is open; rejects with what is, if it stays. */
export async function nothingOpen(db: TestDatabase): Promise<void> {
  const sql =
    'SELECT p.ID, t.trx_state, t.trx_query FROM information_schema.innodb_trx t ' +
    'JOIN information_schema.processlist p ON p.ID = t.trx_mysql_thread_id WHERE p.DB = ?'
  let open: RowDataPacket[] = []
  for (let looks = 0; looks < LOOKS_MAX; looks++) {
    ;[open] = await db.admin.query<RowDataPacket[]>(sql, [db.name])
    if (open.length === 0) return
    await new Promise(resolve => setTimeout(resolve, COPY_AGE_MS))
  }
  throw new Error(`still open: ${JSON.stringify(open)}`)
}

/** Whether nobody holds a lock on the rows of this query. */
export async function isUnlocked(db: TestDatabase, table: string, id: number): Promise<boolean> {
  try {
    await db.admin.query(`SELECT * FROM ${db.name}.${table} WHERE id = ? FOR UPDATE NOWAIT`, [id])
    return true
  } catch (error) {
    if ((error as { errno?: number }).errno === 1205) return false
    throw error
  }
}

/** A store that passes everything on and writes `prepare session`, `install session` … into a log. */
export function observedStore(
  inner: SessionStore,
  log: string[],
  before: (line: string) => void = () => {},
): SessionStore {
  const note = (line: string): void => {
    log.push(line)
    before(line)
  }
  const observed = (opened: OpenSession): OpenSession => ({
    key: opened.key,
    get ended() {
      return opened.ended
    },
    snapshot: () => opened.snapshot(),
    disturbance: since => opened.disturbance(since),
    pause: () => opened.pause(),
    touch: () => opened.touch(),
    release: () => opened.release(),
    claim: write => {
      const claim = opened.claim(write)
      return {
        prepare: () => (note('prepare session'), claim.prepare()),
        commit: () => (note('install session'), claim.commit()),
        release: () => (note('release session'), claim.release()),
        doubt: () => (note('doubt session'), claim.doubt()),
        rollback: () => (note('roll back session'), claim.rollback()),
      } satisfies Claim
    },
  })
  const whenOpen = <T extends OpenSession | undefined>(
    opened: MaybePromise<T>,
  ): MaybePromise<OpenSession | T> => {
    if (opened instanceof Promise) return opened.then(one => (one === undefined ? one : observed(one)))
    return opened === undefined ? opened : observed(opened)
  }
  return {
    name: inner.name,
    capability: inner.capability,
    start: settings => inner.start(settings),
    open: key => whenOpen(inner.open(key)),
    create: key => whenOpen(inner.create(key)),
    counts: () => inner.counts(),
    close: () => inner.close(),
  }
}
