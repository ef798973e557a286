/** Idle times and expiry of the MySQL store: what is written when, and that nothing alive is ever removed. */
import type { RowDataPacket } from 'mysql2/promise'
import { EventHub } from '../../lib/events.js'
import { corePoolOf } from '../../lib/mysql/driver.js'
import { LeaseBroker } from '../../lib/mysql/lease/lease.js'
import { storeDatabase } from '../../lib/mysql/store-database.js'
import { mysqlStore } from '../../lib/store/mysql.js'
import { MysqlTimes } from '../../lib/store/mysql-times.js'
import { SessionStatements, sessionTables } from '../../lib/store/mysql-tables.js'
import { systemClock } from '../../lib/transaction/clock.js'
import { FakeClock } from '../support/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'

const HOUR_MS = 3_600_000
const database = (): ReturnType<typeof storeDatabase> => storeDatabase(broker, 5_000)

let db: TestDatabase
let broker: LeaseBroker
let clock: FakeClock

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: 4 })
  for (const { ddl } of sessionTables('sessions')) await db.pool.query(ddl)
  broker = new LeaseBroker(corePoolOf(db.pool), {
    isolation: 'snapshot',
    lockWaitMs: 5_000,
    clock: systemClock,
  })
})
afterAll(async () => {
  await broker.close()
  await db.close()
})
beforeEach(async () => {
  clock = new FakeClock()
  await db.pool.query('DELETE FROM sessions')
  await db.pool.query('DELETE FROM sessions_times')
})

/** A session of that age, last used so long ago. */
async function stored(key: string, createdMs: number, idleMs: number): Promise<void> {
  const ago = 'UTC_TIMESTAMP(3) - INTERVAL ? MICROSECOND'
  await db.pool.query(
    `INSERT INTO sessions_times (session, created_at, touched_at) VALUES (?, ${ago}, ${ago})`,
    [key, createdMs * 1_000, idleMs * 1_000],
  )
  await db.pool.query(
    "INSERT INTO sessions VALUES (?, '', 1, 1, 1, '', '', UTC_TIMESTAMP(3)), (?, 'n', 1, 1, 1, '1', '', UTC_TIMESTAMP(3))",
    [key, key],
  )
}

/** Seconds since each was used, rounded. */
async function idleSeconds(): Promise<Record<string, number>> {
  const [rows] = await db.pool.query<RowDataPacket[]>(
    'SELECT session, TIMESTAMPDIFF(MICROSECOND, touched_at, UTC_TIMESTAMP(6)) AS us FROM sessions_times',
  )
  return Object.fromEntries(
    rows.map(row => [row['session'] as string, Math.round(Number(row['us']) / 1e7) * 10]),
  )
}

function times(limits: { idleMs?: number | false; absoluteMs?: number | false } = {}): MysqlTimes {
  return new MysqlTimes({
    clock,
    database: database(),
    statements: new SessionStatements('sessions'),
    idleMs: HOUR_MS,
    absoluteMs: false,
    ...limits,
  })
}

test('idle times are gathered, written together when it is time, each as long ago as it was', async () => {
  await stored('a', HOUR_MS, 600_000)
  await stored('b', HOUR_MS, 600_000)
  const one = times()
  one.touch('a', clock.now() - 100_000)
  one.touch('b', clock.now() - 200_000)
  expect(await idleSeconds()).toEqual({ a: 600, b: 600 })
  expect(clock.pending).toContain(1_000)
  await one.flush()
  expect(await idleSeconds()).toEqual({ a: 100, b: 200 })
  await one.close()
})

test('an idle time never goes back: of two processes the later one counts', async () => {
  await stored('a', HOUR_MS, 60_000)
  const late = times()
  late.touch('a', clock.now() - 500_000)
  await late.close()
  expect(await idleSeconds()).toEqual({ a: 60 })
})

test('of a session that is gone nothing comes back', async () => {
  const one = times()
  one.touch('gone', clock.now())
  await one.close()
  expect(await idleSeconds()).toEqual({})
})

test('closing writes what is gathered, and what is touched afterwards nobody writes', async () => {
  await stored('a', HOUR_MS, 600_000)
  const one = times()
  one.touch('a', clock.now())
  await one.close()
  expect(await idleSeconds()).toEqual({ a: 0 })
  one.touch('a', clock.now())
  expect(clock.pending).toEqual([])
})

test('what is well past its time is removed, all of it, and nothing else', async () => {
  for (let index = 0; index < 230; index++) await stored(`old${index}`, 9 * HOUR_MS, 2 * HOUR_MS)
  await stored('fresh', 9 * HOUR_MS, 0)
  await stored('just', 9 * HOUR_MS, HOUR_MS + 1_000)
  const one = times()
  expect(await one.sweep()).toBe(230)
  expect(Object.keys(await idleSeconds()).sort()).toEqual(['fresh', 'just'])
  const [rows] = await db.pool.query<RowDataPacket[]>(
    'SELECT DISTINCT session FROM sessions ORDER BY session',
  )
  expect(rows.map(row => row['session'] as string)).toEqual(['fresh', 'just'])
  await one.close()
})

test('absolute age ends a session that is in use; where nothing expires nothing is removed', async () => {
  await stored('old', 5 * HOUR_MS, 0)
  const never = times({ idleMs: false })
  expect(await never.sweep()).toBe(0)
  await never.close()
  const one = times({ absoluteMs: 4 * HOUR_MS })
  expect(await one.sweep()).toBe(1)
  await one.close()
})

test('a session is touched while the sweeper looks at it: it waits, and lets it live', async () => {
  await stored('a', 9 * HOUR_MS, 2 * HOUR_MS)
  const holder = await db.pool.getConnection()
  await holder.query('START TRANSACTION')
  await holder.query('UPDATE sessions_times SET touched_at = UTC_TIMESTAMP(3)')
  const one = times()
  const sweeping = one.sweep()
  await db.admin.query('SELECT 1')
  await holder.query('COMMIT')
  holder.release()
  expect(await sweeping).toBe(0)
  expect(await idleSeconds()).toEqual({ a: 0 })
  await one.close()
})

test.each<readonly [string, { idleMs: number | false; absoluteMs: number | false }, number, number, string]>([
  ['idle', { idleMs: HOUR_MS, absoluteMs: false }, 0, HOUR_MS + 31_000, 'idle'],
  ['absolute', { idleMs: false, absoluteMs: HOUR_MS }, HOUR_MS + 1_000, 0, 'absolute'],
])(
  '%s expiry goes by the database, is told once, and is never early',
  async (_, limits, createdMs, idle, reason) => {
    await stored('past', createdMs, idle)
    await stored('almost', createdMs === 0 ? 0 : HOUR_MS - 60_000, idle === 0 ? 0 : HOUR_MS + 20_000)
    const events = new EventHub()
    const told: unknown[] = []
    events.on('session:expired', payload => told.push(payload))
    const store = mysqlStore()
    store.start({ clock, events, ...limits, touchGranularityMs: 30_000, database: database() })
    expect(await store.open('past')).toBeUndefined()
    expect(await store.open('past')).toBeUndefined()
    expect(told).toEqual([{ session: 'past', reason }])
    expect((await store.open('almost'))?.snapshot().get('n')?.value).toBe(1)
    await store.close()
  },
)
