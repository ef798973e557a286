/**
 * Where the first attempts of a route keep losing, the next ones queue before they begin: one run each instead of two.
 * Readers and other routes do not wait.
 */
import type { RowDataPacket } from 'mysql2/promise'
import { serveTx, type TxContext, type TxServed } from '../support/app.js'
import { Barrier, deferred, Gate } from '../support/barrier.js'
import { fakeEnvironment } from '../support/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { nothingOpen, valueOf } from '../support/observing.js'

const CROWD = 8

let db: TestDatabase
let served: TxServed
let pause: (ctx: TxContext) => Promise<void>

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: CROWD + 1 })
  await db.pool.query('CREATE TABLE item (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(async () => {
  await db.pool.query('REPLACE INTO item VALUES (1, 0)')
  pause = async () => {}
  served = await serveTx({ options: { pool: db.pool }, below: answer, environment: fakeEnvironment() })
})
afterEach(async () => {
  await served.close()
  await nothingOpen(db)
})

async function answer(ctx: TxContext): Promise<void> {
  if (ctx.path === '/variable') {
    const n = Number(ctx.session['n'] ?? 0)
    await pause(ctx)
    ctx.session['n'] = n + 1
  } else if (ctx.path === '/row') {
    const [[row]] = await ctx.tx.query<RowDataPacket[]>('SELECT n FROM item WHERE id = 1')
    await pause(ctx)
    await ctx.tx.query('UPDATE item SET n = ? WHERE id = 1', [Number(row?.['n']) + 1])
  } else ctx.body = ctx.session['n'] ?? null
  ctx.body ??= ctx.tx.attempt
}

/** Requests by the number of their attempts since the last look. */
function attemptsSince(before: Readonly<Record<number, number>>): Record<number, number> {
  const now = Object.entries(served.tx.stats().attempts)
  const grown = now.map(([count, times]) => [count, times - (before[Number(count)] ?? 0)] as const)
  return Object.fromEntries(grown.filter(([, times]) => times > 0))
}

/** All have read before anybody writes, as long as they do not wait for each other. */
async function race(path: string, client = served.client()): Promise<void> {
  const met = new Barrier(CROWD)
  pause = ctx => (ctx.tx.attempt === 1 ? met.arrive() : Promise.resolve())
  const answers = await Promise.all(Array.from({ length: CROWD }, () => client.get(path)))
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
  pause = async () => {}
}

test.each(['/variable', '/row'])(
  '%s: after a race that nearly all have lost, the next crowd runs once each',
  async path => {
    const client = served.client()
    await client.get('/variable')
    const before = { ...served.tx.stats().attempts }
    await race(path, client)
    expect(attemptsSince(before)).toEqual({ 1: 1, 2: CROWD - 1 })
    const between = { ...served.tx.stats().attempts }
    const answers = await Promise.all(Array.from({ length: CROWD }, () => client.get(path)))
    expect(answers.map(({ text }) => text)).toEqual(Array.from({ length: CROWD }, () => '1'))
    expect(attemptsSince(between)).toEqual({ 1: CROWD })
  },
)

test('nobody waits who only reads, and no other session waits for a variable', async () => {
  const client = served.client()
  await client.get('/variable')
  await race('/variable', client)
  const [stands, goesOn] = [deferred(), new Gate()]
  pause = async () => {
    stands.resolve()
    await goesOn.passed()
  }
  const slow = client.get('/variable')
  await stands.promise
  expect((await client.get('/read')).text).toBe(String(CROWD + 1))
  pause = async () => {}
  expect((await served.client().get('/variable')).text).toBe('1')
  goesOn.open()
  expect((await slow).text).toBe('1')
})

test('who finds the queue full before its first attempt begins without, and takes no place from those who have lost', async () => {
  await served.close()
  served = await serveTx({
    options: { pool: db.pool, retry: { tickets: { waitingMax: CROWD } } },
    below: answer,
    environment: fakeEnvironment(),
  })
  await race('/row')
  const [stands, goesOn] = [deferred(), new Gate()]
  pause = async ctx => {
    if (ctx.get('x-slow') === '') return
    stands.resolve()
    await goesOn.passed()
  }
  const slow = served.client().get('/row', { headers: { 'x-slow': 'yes' } })
  await stands.promise
  const waiting = Array.from({ length: CROWD }, () => served.client().get('/row'))
  while (served.tx.stats().tickets?.waiting !== CROWD) await new Promise(resolve => setImmediate(resolve))
  expect((await served.client().get('/row')).status).toBe(200)
  goesOn.open()
  const answers = await Promise.all([slow, ...waiting])
  expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
  expect(await valueOf(db, `SELECT n FROM ${db.name}.item WHERE id = 1`)).toBe(2 * CROWD + 2)
})

test('works of tx.run() share a name and nothing else: none queues because others keep losing', async () => {
  const met = new Barrier(CROWD)
  const add = (): Promise<void> =>
    served.tx.run(async tx => {
      const [[row]] = await tx.query<RowDataPacket[]>('SELECT n FROM item WHERE id = 1')
      if (tx.attempt === 1) await met.arrive()
      await tx.query('UPDATE item SET n = ? WHERE id = 1', [Number(row?.['n']) + 1])
    })
  await Promise.all(Array.from({ length: CROWD }, add))
  const both = new Barrier(2)
  const meet = (): Promise<void> => served.tx.run(() => both.arrive())
  await Promise.all([meet(), meet()])
})

describe('waiting before the first attempt', () => {
  /** Stands in the row's queue as the first, until the gate opens. */
  async function holding(environment = fakeEnvironment()) {
    await served.close()
    const retries = (ctx: TxContext): number => (ctx.get('x-once') === '' ? 3 : 0)
    served = await serveTx({ options: { pool: db.pool, retry: { retries } }, below: answer, environment })
    await race('/row')
    const [stands, goesOn] = [deferred(), new Gate()]
    pause = async () => {
      stands.resolve()
      await goesOn.passed()
    }
    const slow = served.client().get('/row')
    await stands.promise
    return { slow, goesOn, environment }
  }
  const untilWaiting = async (count: number): Promise<void> => {
    while (served.tx.stats().tickets?.waiting !== count) await new Promise(resolve => setImmediate(resolve))
  }

  test('who cannot run again queues for what was lost there at all, however long ago within ten seconds', async () => {
    const { slow, goesOn, environment } = await holding()
    environment.clock.advance(5_000)
    const once = served.client().get('/row', { headers: { 'x-once': 'yes' } })
    await untilWaiting(1)
    goesOn.open()
    expect([(await slow).text, (await once).text]).toEqual(['1', '1'])
  })

  test('the deadline ends it, and is told as a refusal', async () => {
    const { slow, goesOn, environment } = await holding()
    environment.clock.advance(100)
    const late = served.client().get('/row')
    await untilWaiting(1)
    environment.clock.advance(10_000) // so the one that stands there is late, too
    expect([(await late).status, (await slow).status]).toEqual([503, 503])
    goesOn.open()
    expect(served.tx.stats()).toMatchObject({ refused: { DEADLINE: 2 }, requests: { refused: 2 } })
  })
})
