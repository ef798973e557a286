/**
 * A request costs next to nothing until its handler asks for the session or the transaction; nobody can tell by anything
 * else that it began only then.
 */
import { SessionTxError } from '../../lib/index.js'
import { serveTx, type TxContext, type TxServed, type TxServing } from '../support/app.js'
import { deferred } from '../support/barrier.js'
import { fakeEnvironment } from '../support/clock.js'

const undo: (() => unknown)[] = []
afterEach(async () => {
  for (const one of undo.splice(0).reverse()) await one()
})

async function serving(given: TxServing): Promise<TxServed> {
  const served = await serveTx(given)
  undo.push(() => served.close())
  return served
}

const untouched = (ctx: TxContext): void => {
  ctx.body = 'untouched'
}

async function failureOf(work: () => unknown): Promise<unknown> {
  try {
    await work()
    return undefined
  } catch (error) {
    return error
  }
}

describe('a request that never asks', () => {
  test('is counted as committed in its first attempt, and told with its route and duration', async () => {
    const environment = fakeEnvironment()
    const { tx, client } = await serving({
      environment,
      below: ctx => {
        environment.clock.advance(25)
        untouched(ctx)
      },
    })
    const told: unknown[] = []
    tx.on('commit', facts => told.push(facts))
    await client().get('/')
    expect(told).toEqual([
      {
        id: expect.any(String),
        route: '(unmatched)',
        attempt: 1,
        durationMs: 25,
        commitMs: undefined,
        resolved: [],
      },
    ])
    expect(tx.stats()).toMatchObject({ requests: { committed: 1 }, attempts: { 1: 1 } })
  })

  test('gets its `begin` told before the handler runs, if somebody listens', async () => {
    const told: string[] = []
    const { tx, client } = await serving({
      below: ctx => {
        told.push('handler')
        untouched(ctx)
      },
    })
    tx.on('begin', () => told.push('begin'))
    await client().get('/')
    expect(told).toEqual(['begin', 'handler'])
  })

  test('is answered with 503 at its deadline, while its handler still runs', async () => {
    const environment = fakeEnvironment()
    const running = deferred()
    const entered = deferred()
    const { tx, client } = await serving({
      environment,
      options: { retry: { deadlineMs: 1_000 } },
      below: async () => {
        entered.resolve()
        await running.promise
      },
    })
    const answer = client().get('/')
    await entered.promise
    environment.clock.advance(1_000)
    expect((await answer).status).toBe(503)
    expect(tx.stats()).toMatchObject({ requests: { refused: 1 }, refused: { DEADLINE: 1 } })
    running.resolve()
  })

  test.each([
    ['a status of 500', undefined, 500],
    ['a veto', () => true, 200],
  ])('is counted as rolled back after %s, and the veto is asked once', async (_what, answer, status) => {
    const veto = answer && jest.fn(answer)
    const { tx, client } = await serving({
      options: veto === undefined ? {} : { veto },
      below: ctx => {
        untouched(ctx)
        ctx.status = status
      },
    })
    expect((await client().get('/')).status).toBe(status)
    expect(tx.stats().requests).toMatchObject({ committed: 0, rolledBack: 1 })
    if (veto !== undefined) expect(veto).toHaveBeenCalledTimes(1)
  })

  test('and throws a lost race of its own, runs again', async () => {
    let runs = 0
    const { tx, client } = await serving({
      options: { retry: { isRetryable: error => (error as Error).message === 'lost' } },
      below: ctx => {
        if (++runs === 1) throw new Error('lost')
        untouched(ctx)
      },
    })
    expect((await client().get('/')).status).toBe(200)
    expect(tx.stats().attempts).toEqual({ 2: 1 })
  })

  test('is waited for by close()', async () => {
    const running = deferred()
    const entered = deferred()
    const served = await serving({
      below: async ctx => {
        entered.resolve()
        await running.promise
        untouched(ctx)
      },
    })
    const answer = served.client().get('/')
    await entered.promise
    let isClosed = false
    const closed = served.tx.close().then(() => (isClosed = true))
    await new Promise(setImmediate)
    expect(isClosed).toBe(false)
    running.resolve()
    expect((await answer).status).toBe(200)
    await closed
  })

  test('leaves a transaction that is closed to what asks after the answer, and a session to read', async () => {
    let left: TxContext | undefined
    const { client } = await serving({
      above: [
        async (ctx, next) => {
          await next()
          ctx.set('x-isnew', String(ctx.session.isNew))
        },
      ],
      below: ctx => {
        left = ctx
        untouched(ctx)
      },
    })
    const answer = await client().get('/')
    expect(answer.headers).toMatchObject({ 'x-isnew': 'true' })
    expect(answer.headers).not.toHaveProperty('set-cookie')
    expect(left?.tx.attempt).toBe(1)
    const error = await failureOf(() => left?.tx.afterCommit(() => {}))
    expect(error).toMatchObject({ code: 'TRANSACTION_CLOSED' })
  })
})

describe('a request that asks', () => {
  test.each([
    ['at once', () => undefined],
    ['after an await', () => new Promise(setImmediate)],
  ])('%s has one attempt, that runs again with a new one when it loses', async (_what, pause) => {
    const seen: unknown[] = []
    const { client, tx } = await serving({
      below: async ctx => {
        await pause()
        const { attempt, isLastAttempt, lastError } = ctx.tx
        seen.push([attempt, isLastAttempt, lastError?.code])
        if (attempt === 1) throw new SessionTxError('CONFLICT', 'lost')
        ctx.session.visits = attempt
        ctx.body = 'ok'
      },
    })
    expect((await client().get('/')).status).toBe(200)
    expect(seen).toEqual([
      [1, false, undefined],
      [2, false, 'CONFLICT'],
    ])
    expect(tx.stats()).toMatchObject({ requests: { committed: 1 }, attempts: { 2: 1 } })
  })

  test('late has no more time than one that asks at once', async () => {
    const environment = fakeEnvironment()
    const asked = deferred()
    const { client } = await serving({
      environment,
      options: { retry: { deadlineMs: 1_000 } },
      below: async ctx => {
        environment.clock.advance(900)
        ctx.session.visits = 1
        asked.resolve()
        await new Promise(() => {})
      },
    })
    const answer = client().get('/')
    await asked.promise
    environment.clock.advance(100)
    expect((await answer).status).toBe(503)
  })

  test.each([
    ['only after its session has ended under it', false],
    ['at once, and whose session ends then', true],
  ])('%s does not begin a new one', async (_when, isAsked) => {
    const entered = deferred()
    const ended = deferred()
    const { client, tx } = await serving({
      below: async ctx => {
        ctx.body = JSON.stringify(ctx.path === '/look' ? ctx.session : {})
        if (ctx.path === '/login') ctx.session.visits = 1
        if (ctx.path === '/logout') ctx.session = null
        if (ctx.path === '/slow') {
          entered.resolve()
          await ended.promise
          ctx.session.visits = 2
        }
      },
    })
    if (isAsked) tx.on('begin', () => {}) // told before the handler, so the transaction is there
    const browser = client()
    await browser.get('/login')
    const answer = browser.get('/slow')
    await entered.promise
    await browser.get('/logout')
    ended.resolve()
    const { headers } = await answer
    expect(headers).not.toHaveProperty('set-cookie')
    expect((await browser.get('/look')).text).toBe('{}')
  })
})
