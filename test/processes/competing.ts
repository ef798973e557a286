/**
 * `node competing.js <mysql|redis> <database URL> <Redis URL> <prefix>`: does to sessions what its parent says, in turns.
 * In each turn it says what it has read, and goes on when it is told that everybody else has, too: so all of them start
 * from the same, and one of them at most is right.
 */
import mysql from 'mysql2/promise'
import { createClient } from 'redis'
import { mysqlStore, redisStore, resolvers, sessionTx } from 'session-tx'

/** What the parent says: what to do, and then where to go on. */
export type ToCompeting =
  | { readonly name: string; readonly sessionIds: readonly string[]; readonly turns: number }
  | string

/** A place where it waits, or that it is done. */
export type FromCompeting = { readonly at: string } | { readonly done: true } | { readonly failed: string }

declare module 'session-tx' {
  interface SessionData {
    /** Without a resolver. */
    n?: number
    counted?: number
    tags?: string[]
  }
}

const [where, url = '', redisUrl = '', prefix = ''] = process.argv.slice(2)
const pool = mysql.createPool({ uri: url, connectionLimit: 4 })
const redis = createClient({ url: redisUrl })
if (where === 'redis') await redis.connect()
const tx = sessionTx({
  pool,
  store: where === 'redis' ? redisStore(redis, { prefix }) : mysqlStore(),
  resolve: { counted: resolvers.counter, tags: resolvers.union },
  retry: { retries: 10, deadlineMs: 15_000 },
})

const tell = (message: FromCompeting): void => void process.send?.(message)
const waiting = new Map<string, () => void>()

/** Until the parent says so. */
function at(place: string): Promise<void> {
  return new Promise(resolve => {
    waiting.set(place, resolve)
    tell({ at: place })
  })
}

async function compete(name: string, sessionId: string, turns: number): Promise<void> {
  for (let turn = 0; turn < turns; turn += 1) {
    let arrived = false
    await tx.run(
      async (own, session) => {
        const { n = 0, counted = 0, tags = [] } = session
        if (!arrived) {
          arrived = true
          await at(`${sessionId} ${turn}`)
        }
        // Merged where nobody has changed what has no resolver.
        if (turn % 3 !== 0) session.n = n + 1
        session.counted = counted + 1
        session.tags = [...tags, `${name}${turn}`]
        if (turn % 2 === 0) await own.query('UPDATE item SET n = n + 1 WHERE id = 1')
      },
      { sessionId },
    )
  }
}

process.on('message', (message: ToCompeting) => {
  if (typeof message === 'string') {
    waiting.get(message)?.()
    return
  }
  const { name, sessionIds, turns } = message
  Promise.all(sessionIds.map(id => compete(name, id, turns))).then(
    () => tell({ done: true }),
    (error: unknown) => tell({ failed: String((error as Error).stack) }),
  )
})
process.once('disconnect', () => {
  void tx.close().then(async () => {
    await pool.end()
    if (where === 'redis') redis.destroy()
  })
})
