/**
 * What requests leave behind on the connections they used: nothing, whatever they did and however they ended
 * (acceptance 45, 55). Two thousand random requests share a small pool with the application's own queries, which look
 * at each connection they are given before they use it.
 */
import fc from 'fast-check'
import mysql, { type Pool, type PoolConnection, type RowDataPacket } from 'mysql2/promise'
import type { KoaContext, SessionTxOptions } from '../../lib/index.js'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { deferred } from '../support/barrier.js'
import type { Client } from '../support/client.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { nothingOpen, valueOf } from '../support/observing.js'

const REQUESTS = 2_000
const VISITORS = 12
const SEED = Number(process.env['HYGIENE_SEED'] ?? Date.now() % 1_000_000)

/** What may stay on a connection when the statement is not undone. */
const messes = [
  "SELECT GET_LOCK('hygiene', 0)",
  'CREATE TEMPORARY TABLE left_over (a INT) ENGINE=InnoDB',
  'SET SESSION sort_buffer_size = 262144',
  'SET @left = 1',
  'SELECT n FROM item WHERE id = 1 INTO @left',
  'SET SESSION innodb_lock_wait_timeout = 7, SESSION tx_isolation = "READ-UNCOMMITTED"',
  "PREPARE left_over FROM 'SELECT 1'",
  'HANDLER item OPEN AS left_handler',
  'CALL leaves_all()',
  'SELECT no such syntax',
  'LOCK TABLES item WRITE',
  'SET autocommit = 1',
  'COMMIT',
  'SELECT n FROM item WHERE id = 2 FOR UPDATE',
] as const

const ends = [
  ...['answer', 'answer', 'answer', 'throw', 'doom', 'veto', 'conflict', 'row conflict'],
  ...['killed', 'killed, caught', 'savepoint', 'leave', 'deadline', 'unawaited'],
] as const

interface Plan {
  readonly id: number
  readonly visitor: number
  readonly messes: readonly string[]
  readonly end: (typeof ends)[number]
  readonly writesFirst: boolean
}

const plans = fc.record({
  visitor: fc.nat(VISITORS - 1),
  messes: fc.array(fc.constantFrom(...messes), { maxLength: 2 }),
  end: fc.constantFrom(...ends),
  writesFirst: fc.boolean(),
})

let db: TestDatabase
let pool: Pool
const undo: (() => unknown)[] = []

beforeAll(async () => {
  db = await openDatabase()
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
  await db.pool.query('INSERT INTO item VALUES (1, 0), (2, 0)')
  await db.pool.query('CREATE TABLE done (id INT PRIMARY KEY, times INT NOT NULL) ENGINE=InnoDB')
  await db.pool.query(
    `CREATE PROCEDURE leaves_all() BEGIN SET @left = 2; SET SESSION sort_buffer_size = 300000; DO GET_LOCK('hygiene', 0); END`,
  )
  pool = mysql.createPool({ uri: db.url, connectionLimit: 5 })
})
afterAll(async () => {
  for (const one of undo.splice(0).reverse()) await one()
  await pool.end()
  await db.close()
})

const all = new Map<number, Plan>()

async function handle(ctx: TxContext): Promise<void> {
  const plan = all.get(Number(ctx.path.slice(1)))
  if (plan === undefined) return
  const { id, end } = plan
  const first = ctx.tx.attempt === 1
  if (plan.writesFirst) await writeOnce(ctx, id)
  for (const mess of plan.messes) await ctx.tx.query(mess).catch(() => {})
  if (end === 'killed' && first) await killOwn(ctx)
  if (end === 'killed, caught' && first) await killOwn(ctx).catch(() => {})
  if (end === 'row conflict') await loseRow(ctx, first)
  if (end === 'deadline') await ctx.tx.query('DO SLEEP(60)')
  if (end === 'savepoint') await ctx.tx.savepoint(() => goBack(ctx)).catch(() => {})
  if (end === 'leave') left.get(id)?.()
  if (!plan.writesFirst) await writeOnce(ctx, id)
  if (end === 'conflict' && first) ctx.tx.conflict()
  if (end === 'throw') ctx.throw(418)
  if (end === 'doom') ctx.tx.doom()
  if (end === 'unawaited') void ctx.tx.query('SELECT SLEEP(0.001)')
  ctx.status = end === 'veto' ? 500 : 200
  ctx.body = String(id)
}

/** Both sides: the row, and a variable that must agree with it. */
async function writeOnce(ctx: TxContext, id: number): Promise<void> {
  ctx.session[`done${id % 50}`] = id
  await ctx.tx.execute('INSERT INTO done VALUES (?, 1)', [id])
}

async function killOwn(ctx: TxContext): Promise<void> {
  const [rows] = await ctx.tx.query<{ id: number }[]>('SELECT CONNECTION_ID() AS id')
  await db.admin.query('KILL ?', [rows[0]?.id])
  await ctx.tx.query('SELECT 1')
}

async function loseRow(ctx: TxContext, first: boolean): Promise<void> {
  await ctx.tx.query('SELECT n FROM item WHERE id = 1')
  if (first) await db.admin.query(`UPDATE ${db.name}.item SET n = n + 1 WHERE id = 1`)
  await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 1').catch(() => {})
}

async function goBack(ctx: TxContext): Promise<never> {
  await ctx.tx.query('UPDATE item SET n = n + 1 WHERE id = 2')
  throw new Error('back to the savepoint')
}

/** How each request's client goes away, while it may. */
const left = new Map<number, () => void>()

async function serving(options: SessionTxOptions<KoaContext>): Promise<TxServed> {
  const served = await serveTx({ options: { pool, ...options }, below: handle })
  undo.push(() => served.close())
  return served
}

/** `gone`: the client left, and nobody told it. */
async function send(client: Client, plan: Plan): Promise<number | 'gone'> {
  const { answer, leave } = client.start('POST', `/${plan.id}`)
  left.set(plan.id, leave)
  return answer.then(
    ({ status }) => status,
    () => 'gone' as const,
  )
}

const SETTINGS =
  'SELECT @@autocommit, @@in_transaction, @@tx_isolation, @@innodb_lock_wait_timeout, @@lock_wait_timeout, ' +
  "@@innodb_snapshot_isolation, @@sort_buffer_size, @left, DATABASE(), IS_USED_LOCK('hygiene') <=> CONNECTION_ID()"

/** All that can be seen of a connection by somebody who did nothing on it. */
async function stateOf(connection: PoolConnection): Promise<string> {
  const [settings] = await connection.query<RowDataPacket[][]>({ sql: SETTINGS, rowsAsArray: true })
  const errnos: unknown[] = []
  for (const probe of [
    'SELECT * FROM left_over',
    'EXECUTE left_over',
    'HANDLER left_handler READ FIRST',
    'SELECT 1 FROM item, done LIMIT 1',
  ]) {
    errnos.push(
      await connection.query(probe).then(
        () => 0,
        (error: { errno?: number }) => error.errno,
      ),
    )
  }
  return JSON.stringify([settings[0], errnos])
}

test(`2000 random requests leave nothing on any connection, and are all or nothing (HYGIENE_SEED=${SEED})`, async () => {
  const { connection, state: fresh } = await freshState()
  connection.destroy()
  const patient = await serving({ acquireMs: 20_000, retry: { deadlineMs: 700 } })
  // A second one on the same pool that gives up early: the deadline in the middle of statements, no connection to be had.
  const hasty = await serving({ acquireMs: 20, retry: { deadlineMs: 150 } })
  const apps = [patient, patient, patient, hasty]
  fc.sample(plans, { numRuns: REQUESTS, seed: SEED }).forEach((plan, id) => all.set(id, { id, ...plan }))

  const outcomes = new Map<number, number | 'gone'>()
  const queue = [...all.values()]
  const load = Array.from({ length: VISITORS }, async (_, visitor) => {
    const clients = new Map(apps.map(app => [app, app.client()]))
    for (let plan = queue.shift(); plan !== undefined; plan = queue.shift()) {
      const app = apps[(plan.id + visitor) % apps.length] ?? patient
      outcomes.set(plan.id, await send(clients.get(app) ?? app.client(), plan))
    }
  })
  const loaded = Promise.all(load)
  const over = deferred()
  const own = ownQueries(fresh, over.promise)
  await loaded
  over.resolve()
  const ownUpdates = await own

  await patient.close()
  await hasty.close()
  await nothingOpen(db)

  // The application's own updates were committed, each of them.
  expect(ownUpdates).toBeGreaterThan(50)
  expect(await valueOf(db, `SELECT times FROM ${db.name}.done WHERE id = -1`)).toBe(ownUpdates)

  // All or nothing: 200 and stored once, or an error and nothing.
  const [stored] = await db.admin.query<RowDataPacket[]>(
    `SELECT id, times FROM ${db.name}.done WHERE id >= 0`,
  )
  const storedIds = new Set(stored.map(row => row['id'] as number))
  const wrong = [...all.values()].filter(({ id, end }) => {
    const outcome = outcomes.get(id)
    if (outcome === 'gone') return false
    return storedIds.has(id) !== (outcome === 200 && end !== 'doom') // refused statements fail theirs
  })
  expect(wrong).toEqual([])

  // Every connection of the pool is as good as new, and none is missing.
  const connections = await Promise.all(Array.from({ length: 5 }, () => pool.getConnection()))
  expect(await Promise.all(connections.map(stateOf))).toEqual(Array(5).fill(fresh))
  for (const one of connections) one.release()

  // No false alarm.
  expect([patient.tx.stats().escaped.total, hasty.tx.stats().escaped.total]).toEqual([0, 0])

  // Not vacuous: every way to end was seen.
  const requests = [patient.tx.stats(), hasty.tx.stats()]
  const kinds = new Set(requests.flatMap(({ conflicts }) => Object.keys(conflicts.byKind)))
  expect([...kinds].sort()).toEqual(expect.arrayContaining(['connection', 'requested', 'row']))
  const refused = new Set(requests.flatMap(stats => Object.keys(stats.refused)))
  expect([...refused]).toEqual(expect.arrayContaining(['DEADLINE']))
  const counts = new Map<unknown, number>()
  for (const outcome of outcomes.values()) counts.set(outcome, (counts.get(outcome) ?? 0) + 1)
  for (const outcome of [200, 418, 500, 503, 'gone']) expect(counts.get(outcome)).toBeGreaterThan(10)
}, 180_000)

async function freshState(): Promise<{ readonly connection: PoolConnection; readonly state: string }> {
  const connection = await pool.getConnection()
  return { connection, state: await stateOf(connection) }
}

/** The application's other half: background work that takes connections of the same pool and trusts them. */
async function ownQueries(fresh: string, over: Promise<void>): Promise<number> {
  await db.admin.query(`INSERT INTO ${db.name}.done VALUES (-1, 0)`)
  let updates = 0
  let isOver = false
  void over.then(() => {
    isOver = true
  })
  while (!isOver) {
    const connection = await pool.getConnection()
    expect(await stateOf(connection)).toBe(fresh)
    connection.release()
    await pool.query('UPDATE done SET times = times + 1 WHERE id = -1')
    updates += 1
  }
  return updates
}
