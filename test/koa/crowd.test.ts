/**
 * Many requests of one session at the same moment, each with a row of its own: what it costs where they change different
 * variables, and what becomes of those who leave, cannot win or cannot run again where they want the same one.
 */
import { resolvers } from '../../lib/index.js'
import type { TxContext, TxServing } from '../support/app.js'
import { Barrier, deferred, Gate } from '../support/barrier.js'
import type { Answer, Client, Sending } from '../support/client.js'
import { fakeEnvironment } from '../support/clock.js'
import { openDatabase, type TestDatabase } from '../support/database.js'
import { attemptOf, type HandlerApp, handlerApp } from '../support/handler-app.js'
import { nothingOpen, valueOf } from '../support/observing.js'

const CONNECTIONS = 16
const CROWD = 50

let db: TestDatabase
let app: HandlerApp

beforeAll(async () => {
  db = await openDatabase({ connectionLimit: CONNECTIONS })
  await db.pool.query('CREATE TABLE own (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
})
afterAll(() => db.close())
beforeEach(() => db.pool.query(`REPLACE INTO own SELECT seq, 0 FROM seq_1_to_${CROWD}`))
afterEach(async () => {
  await app.close()
  await nothingOpen(db)
})

async function serving(
  options: TxServing['options'] = {},
  environment?: TxServing['environment'],
): Promise<void> {
  app = await handlerApp({ pool: db.pool, ...options }, environment)
}

const numbers = (count: number): number[] => Array.from({ length: count }, (_, index) => index + 1)
const as = (who: number): Sending => ({ headers: { 'x-who': String(who) } })
const who = (ctx: TxContext): number => Number(ctx.get('x-who'))
const visitOwnRow = (ctx: TxContext): Promise<unknown> =>
  ctx.tx.query('UPDATE own SET n = n + 1 WHERE id = ?', [who(ctx)])

/** Reads the variable, does something else, and writes it; the row comes last. */
async function addOne(ctx: TxContext, meanwhile: () => unknown): Promise<void> {
  const n = Number(ctx.session['n'])
  await meanwhile()
  ctx.session['n'] = n + 1
  await visitOwnRow(ctx)
}

const statuses = (answers: readonly Answer[]): Record<number, number> => {
  const counts: Record<number, number> = {}
  for (const { status } of answers) counts[status] = (counts[status] ?? 0) + 1
  return counts
}

/** What the session says, and what the rows do. */
async function counted(client: Client): Promise<readonly [unknown, number]> {
  const { n } = await app.stored(client)
  return [n, Number(await valueOf(db, `SELECT SUM(n) FROM ${db.name}.own`))]
}

const someTurns = (): Promise<void> => new Promise(resolve => setImmediate(resolve))
async function untilWaiting(count: number): Promise<void> {
  while (app.tx.stats().tickets?.waiting !== count) await someTurns()
}

describe('16 clients of one session at once', () => {
  const [CLIENTS, ROUNDS] = [16, 5]

  /** Nobody of a round commits before all of it have written. */
  async function rounds(client: Client, nameOf: (number: number) => string): Promise<readonly Answer[]> {
    const answers: Answer[] = []
    for (let round = 0; round < ROUNDS; round++) {
      const met = new Barrier(CLIENTS)
      app.on('/add', async ctx => {
        const name = ctx.get('x-variable')
        ctx.session[name] = Number(ctx.session[name]) + 1
        await visitOwnRow(ctx)
        await met.arrive()
      })
      const ask = (number: number): Promise<Answer> => {
        return client.post('/add', '', { headers: { ...as(number).headers, 'x-variable': nameOf(number) } })
      }
      answers.push(...(await Promise.all(numbers(CLIENTS).map(ask))))
    }
    return answers
  }

  test('that change different variables: 1.00 attempts per commit, and nothing is lost', async () => {
    await serving()
    const nameOf = (number: number): string => `own${number}`
    const own = numbers(CLIENTS).map(nameOf)
    const client = await app.shopper(Object.fromEntries(own.map(name => [name, 0])))
    const answers = await rounds(client, nameOf)
    expect(answers.map(attemptOf)).toEqual(numbers(CLIENTS * ROUNDS).map(() => 1))
    expect(await app.stored(client)).toEqual(Object.fromEntries(own.map(name => [name, ROUNDS])))
    expect((await counted(client))[1]).toBe(CLIENTS * ROUNDS)
    const { retried, conflicts } = app.tx.stats()
    expect([retried, conflicts.total]).toEqual([0, 0])
  })

  test('that add to one variable with resolvers.counter: all commit without a re-run', async () => {
    await serving({ resolve: { n: resolvers.counter } })
    const client = await app.shopper({ n: 0 })
    const answers = await rounds(client, () => 'n')
    expect(answers.map(attemptOf)).toEqual(numbers(CLIENTS * ROUNDS).map(() => 1))
    expect(await counted(client)).toEqual([CLIENTS * ROUNDS, CLIENTS * ROUNDS])
    const { retried, resolved, conflicts } = app.tx.stats()
    expect([retried, conflicts.total]).toEqual([0, 0])
    // The first of each round found what it had read.
    expect(resolved).toEqual({ n: (CLIENTS - 1) * ROUNDS })
  })
})

test('50 queue after a lost race and some leave while they wait: they make no further attempt, all others commit', async () => {
  const LEAVING = 12
  await serving()
  const client = await app.shopper({ n: 0 })
  const attempts = new Map<number, number>()
  const met = new Barrier(CROWD)
  const [stands, goesOn] = [deferred<number>(), new Gate()]
  app.on('/add', ctx => {
    attempts.set(who(ctx), ctx.tx.attempt)
    return addOne(ctx, () => {
      if (ctx.tx.attempt === 1) return met.arrive()
      stands.resolve(who(ctx))
      return goesOn.passed()
    })
  })
  const answered = new Set<number>()
  const crowd = numbers(CROWD).map(number => {
    const { answer, leave } = client.start('POST', '/add', as(number))
    return { number, leave, answer: answer.finally(() => answered.add(number)) }
  })
  const holder = await stands.promise
  await untilWaiting(CROWD - 2) // but for the winner, and who holds the ticket
  while (answered.size === 0) await someTurns()

  const leaving = crowd.filter(({ number }) => number !== holder && !answered.has(number)).slice(0, LEAVING)
  const staying = crowd.filter(one => !leaving.includes(one))
  const left = Promise.allSettled(leaving.map(({ answer }) => answer))
  for (const { leave } of leaving) leave()
  expect((await left).map(({ status }) => status)).toEqual(leaving.map(() => 'rejected'))
  await untilWaiting(CROWD - 2 - LEAVING)

  // As many strangers as there are connections have one each, all at the same time.
  const strangers = new Barrier(CONNECTIONS)
  app.on('/stranger', async ctx => {
    await visitOwnRow(ctx)
    await strangers.arrive()
  })
  const others = await Promise.all(
    numbers(CONNECTIONS).map(number => app.client().post('/stranger', '', as(number))),
  )
  expect(statuses(others)).toEqual({ 200: CONNECTIONS })

  goesOn.open()
  const answers = await Promise.all(staying.map(({ answer }) => answer))
  expect(statuses(answers)).toEqual({ 200: CROWD - LEAVING })
  expect(leaving.map(({ number }) => attempts.get(number))).toEqual(leaving.map(() => 1))
  expect(await counted(client)).toEqual([CROWD - LEAVING, CROWD - LEAVING + CONNECTIONS])
  expect(app.tx.stats()).toMatchObject({
    requests: { refused: LEAVING },
    tickets: { waiting: 0, keys: 0 },
  })
})

test('a request that always conflicts in a crowd: 503 RETRIES_EXHAUSTED with Retry-After, all others commit', async () => {
  const OTHERS = 15
  await serving()
  const client = await app.shopper({ n: 0 })
  const met = new Barrier(OTHERS + 1)
  let ran = 0
  app.on('/add', ctx => addOne(ctx, () => ctx.tx.attempt === 1 && met.arrive()))
  app.on('/never', async ctx => {
    ran += 1
    await addOne(ctx, () => ctx.tx.attempt === 1 && met.arrive())
    ctx.tx.conflict('as always')
  })
  const never = client.post('/never', '', as(OTHERS + 1))
  const answers = await Promise.all(numbers(OTHERS).map(number => client.post('/add', '', as(number))))
  expect(statuses(answers)).toEqual({ 200: OTHERS })
  const { status, headers } = await never
  expect(status).toBe(503)
  expect(Number(headers['retry-after'])).toBeGreaterThanOrEqual(1)
  expect(ran).toBe(4)
  expect(app.errors).toEqual([
    expect.objectContaining({
      code: 'RETRIES_EXHAUSTED',
      cause: expect.objectContaining({ code: 'CONFLICT' }),
    }),
  ])
  expect(await counted(client)).toEqual([OTHERS, OTHERS])
  expect(app.tx.stats()).toMatchObject({ exhausted: 1, tickets: { waiting: 0, keys: 0 } })
})

describe('a body larger than hold.requestBytesMax, among writers of the same variable', () => {
  const CLIENTS = 8
  const large = 'x'.repeat(65)
  const BIG = CLIENTS + 1
  let client: Client
  let meanwhile: (ctx: TxContext) => unknown
  beforeEach(async () => {
    meanwhile = () => {}
    // Time stands still: four times a second one of a route begins without queueing.
    await serving({ hold: { requestBytesMax: 64 } }, fakeEnvironment())
    client = await app.shopper({ n: 0 })
    for (const path of ['/add', '/elsewhere']) app.on(path, ctx => addOne(ctx, () => meanwhile(ctx)))
  })

  /** All but one lose it in their first attempt. */
  async function race(): Promise<void> {
    const met = new Barrier(CLIENTS)
    meanwhile = ctx => ctx.tx.attempt === 1 && met.arrive()
    const answers = await Promise.all(numbers(CLIENTS).map(number => client.post('/add', '', as(number))))
    expect(statuses(answers)).toEqual({ 200: CLIENTS })
  }

  test('where somebody has lost on its route: it has its turn before its only attempt, and commits', async () => {
    await race()
    const [stands, goesOn] = [deferred(), new Gate()]
    meanwhile = () => {
      stands.resolve()
      return goesOn.passed()
    }
    const first = client.post('/add', '', as(1))
    await stands.promise
    const big = client.post('/add', large, as(BIG))
    await untilWaiting(1)
    const others = numbers(CLIENTS)
      .slice(1)
      .map(number => client.post('/add', '', as(number)))
    await untilWaiting(CLIENTS)
    goesOn.open()
    const answers = await Promise.all([first, big, ...others])
    expect(answers.map(attemptOf)).toEqual(answers.map(() => 1))
    expect(await counted(client)).toEqual([2 * CLIENTS + 1, 2 * CLIENTS + 1])
  })

  test('where nobody has lost yet: it begins at once, and who loses all the same is told NOT_RERUNNABLE', async () => {
    const [stands, goesOn] = [deferred(), new Gate()]
    meanwhile = ctx => {
      if (who(ctx) !== BIG) return
      stands.resolve()
      return goesOn.passed()
    }
    const big = client.post('/add', large, as(BIG))
    await stands.promise
    expect(statuses([await client.post('/add', '', as(1))])).toEqual({ 200: 1 })
    goesOn.open()
    const { status, headers } = await big
    expect([status, headers['retry-after']]).toEqual([503, expect.stringMatching(/^[1-9]/)])
    expect(app.errors).toEqual([expect.objectContaining({ code: 'NOT_RERUNNABLE' })])
    expect(await counted(client)).toEqual([1, 1])
  })

  test('where it began without a place in the queue: it need not give way, and who stands there runs once more', async () => {
    const [lost, overtaken, stands, goesOn] = [deferred(), new Gate(), deferred(), new Gate()]
    meanwhile = ctx => {
      if (who(ctx) !== 1) return
      if (ctx.tx.attempt === 1) {
        lost.resolve()
        return overtaken.passed()
      }
      if (ctx.tx.attempt > 2) return
      stands.resolve()
      return goesOn.passed()
    }
    const elder = client.post('/add', '', as(1))
    await lost.promise
    expect((await client.post('/add', '', as(2))).status).toBe(200)
    overtaken.open()
    await stands.promise
    expect(attemptOf(await client.post('/elsewhere', large, as(BIG)))).toBe(1)
    goesOn.open()
    expect(attemptOf(await elder)).toBe(3)
    expect(await counted(client)).toEqual([3, 3])
  })
})
