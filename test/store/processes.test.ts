/**
 * What the contract says of claims to one session, from three processes at once: each of them has read the same when they
 * begin to write, and what all of them did is there afterwards, merged or one after the other, session and rows alike.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { resolve } from 'node:path'
import { mysqlStore, redisStore, type Session, sessionTx, type SessionTx } from '../../lib/index.js'
import { COMMIT_TABLE_DDL } from '../../lib/mysql/commit-record/commit-table.js'
import { sessionTables } from '../../lib/store/mysql-tables.js'
import type { FromCompeting, ToCompeting } from '../processes/competing.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { valueOf } from '../support/observing.js'
import { newPrefix, type NodeRedis, openNodeRedis, redisUrl } from '../support/redis.js'

const NAMES = ['a', 'b', 'c']
const TURNS = 12
/** Compiled by the scripts that run the tests. */
const file = resolve(__dirname, '../../.cache/build/test/processes/competing.js')

let db: TestDatabase
let redis: NodeRedis
const prefix = newPrefix()

beforeAll(async () => {
  db = await openDatabase()
  redis = await openNodeRedis()
  for (const ddl of [COMMIT_TABLE_DDL, ...sessionTables('sessions').map(table => table.ddl)])
    await db.pool.query(ddl)
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(async () => {
  redis.destroy()
  await db.close()
})

/** Lets them go on when all have come to the same place; resolves when all have done what they were told. */
function inTurns(children: readonly ChildProcess[]): Promise<void> {
  const say = (child: ChildProcess, what: ToCompeting): void => void child.send(what)
  const arrived = new Map<string, number>()
  return new Promise((done, fail) => {
    let left = children.length
    for (const child of children) {
      child.once('exit', () => fail(new Error('a process ended before its time')))
      child.on('message', (message: FromCompeting) => {
        if ('failed' in message) fail(new Error(message.failed))
        else if ('done' in message) {
          left -= 1
          if (left === 0) done()
        } else {
          const count = (arrived.get(message.at) ?? 0) + 1
          arrived.set(message.at, count)
          if (count === children.length) for (const one of children) say(one, message.at)
        }
      })
    }
  })
}

describe.each([
  ['mysql', () => mysqlStore()],
  ['redis', () => redisStore(redis, { prefix })],
] as const)('%s', (where, store) => {
  let tx: SessionTx
  let children: ChildProcess[]

  beforeEach(async () => {
    await db.pool.query('REPLACE INTO item VALUES (1, 0)')
    tx = sessionTx({ pool: db.pool, store: store() })
    children = NAMES.map(() => fork(file, [where, db.url, redisUrl(), prefix]))
  })
  afterEach(async () => {
    for (const child of children) {
      child.removeAllListeners('exit')
      const ended = once(child, 'exit')
      if (child.connected) child.disconnect()
      await ended
    }
    await tx.close()
  })

  async function created(): Promise<string> {
    return tx.run((_tx, session: Session) => {
      Object.assign(session, { n: 0, counted: 0, tags: [] })
      return session.id
    })
  }

  test('three processes that start from the same lose nothing of each other, in two sessions and one row', async () => {
    const sessionIds = [await created(), await created()]
    const all = inTurns(children)
    for (const [place, child] of children.entries())
      child.send({ name: NAMES[place], sessionIds, turns: TURNS })
    await all
    const turns = Array.from({ length: TURNS }, (_, turn) => turn)
    for (const sessionId of sessionIds) {
      const found = await tx.run((_tx, session) => session.toJSON(), { sessionId })
      expect({ ...found, tags: (found['tags'] as string[]).toSorted() }).toEqual({
        n: NAMES.length * turns.filter(turn => turn % 3 !== 0).length,
        counted: NAMES.length * TURNS,
        tags: NAMES.flatMap(name => turns.map(turn => `${name}${turn}`)).toSorted(),
      })
    }
    const joint = turns.filter(turn => turn % 2 === 0).length
    const rows = await valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = 1`)
    expect(rows).toBe(sessionIds.length * NAMES.length * joint)
  })
})
