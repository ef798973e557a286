/** One request can cost many runs; each multiplier has its limit, its answer and its counter. Both frameworks. */
import express from 'express'
import { isSessionTxError } from '../../lib/errors.js'
import type { Stats } from '../../lib/index.js'
import type { Tx } from '../../lib/joint/tx.js'
import { serveTx } from '../support/app.js'
import { deferred } from '../support/barrier.js'
import type { Answer, Client } from '../support/client.js'
import { fakeEnvironment, promptly } from '../support/clock.js'
import { serveExpress } from '../support/express-app.js'
import type { Environment } from '../../lib/transaction/clock.js'

/** What both frameworks' options have in common. */
interface Limits {
  readonly retry?: {
    readonly retries?: number
    readonly deadlineMs?: number
    readonly tickets?: { readonly waitingMax: number }
    readonly budget?: { readonly capacity: number; readonly ratio: number; readonly perSecond: number }
  }
  readonly hold?: { readonly requestBytesMax?: number; readonly responseBytesMax?: number }
}

interface Exchange {
  readonly tx: Tx
  readonly session: Record<string, unknown>
  readonly path: string
}

interface Limited {
  readonly client: () => Client
  readonly stats: () => Stats
  /** Codes of the errors that came to the application. */
  readonly codes: () => readonly string[]
  close(): Promise<void>
}

type Work = (exchange: Exchange) => unknown
type Open = (limits: Limits, work: Work, environment?: Environment) => Promise<Limited>

const codesOf = (errors: readonly unknown[]) => (): readonly string[] =>
  errors.map(error => (isSessionTxError(error) ? error.code : String(error)))

const onKoa: Open = async (options, work, environment = promptly) => {
  const served = await serveTx({
    options,
    environment,
    below: async ctx => {
      await work({ tx: ctx.tx, session: ctx.session, path: ctx.path })
      ctx.body = 'ok'
    },
  })
  return {
    client: served.client,
    stats: () => served.tx.stats(),
    codes: codesOf(served.errors),
    close: served.close,
  }
}

const onExpress: Open = async (options, work, environment = promptly) => {
  const served = await serveExpress({
    express,
    options,
    environment,
    below: async (req, res) => {
      await work({ tx: req.tx, session: req.session, path: req.path })
      res.send('ok')
    },
  })
  return {
    client: served.client,
    stats: () => served.tx.stats(),
    codes: codesOf(served.errors),
    close: served.close,
  }
}

describe.each([
  ['Koa', onKoa],
  ['Express', onExpress],
] as const)('%s', (_, open) => {
  let app: Limited
  let runs = 0
  const always: Work = ({ tx }) => {
    runs += 1
    tx.conflict()
  }
  beforeEach(() => {
    runs = 0
  })
  afterEach(() => app.close())

  function expectRefused(answer: Answer, code: string): void {
    expect([answer.status, Number(answer.headers['retry-after']) >= 1]).toEqual([503, true])
    expect(app.codes()).toContain(code)
    expect(app.stats().refused).toMatchObject({ [code]: 1 })
  }

  test('runs: at most 1 + retries', async () => {
    app = await open({ retry: { retries: 5 } }, always)
    expectRefused(await app.client().get(), 'RETRIES_EXHAUSTED')
    expect(runs).toBe(6)
    expect(app.stats().exhausted).toBe(1)
  })

  test('runs of all requests together: those that sleep are paid from one budget', async () => {
    app = await open({ retry: { retries: 5, budget: { capacity: 2, ratio: 0, perSecond: 0 } } }, always)
    expectRefused(await app.client().get(), 'BUDGET_EXHAUSTED')
    expect(runs).toBe(3)
    expect(app.stats().budget).toEqual({ tokens: 0, capacity: 2 })
  })

  test('time: all runs together, whatever the handler waits for', async () => {
    const environment = fakeEnvironment()
    const reached = deferred()
    app = await open(
      { retry: { deadlineMs: 1_000 } },
      () => {
        reached.resolve()
        return new Promise(() => {}) // it never comes back
      },
      environment,
    )
    const answer = app.client().get()
    await reached.promise
    environment.clock.advance(1_000)
    expectRefused(await answer, 'DEADLINE')
  })

  test('requests that wait for one session: at most waitingMax', async () => {
    const [reached, go] = [deferred(), deferred()]
    let inside = 0
    app = await open({ retry: { tickets: { waitingMax: 1 } } }, async ({ tx, session, path }) => {
      session['n'] = Number(session['n'] ?? 0) + 1
      if (path === '/start' || tx.attempt > 1) return
      inside += 1
      if (inside === 4) reached.resolve()
      await go.promise
    })
    const client = app.client()
    await client.get('/start')
    const answers = Array.from({ length: 4 }, () => client.get('/'))
    await reached.promise
    go.resolve()
    // One wins, one has the ticket, one waits for it.
    const statuses = (await Promise.all(answers)).map(({ status }) => status)
    expect(statuses.sort()).toEqual([200, 200, 200, 503])
    expect(app.stats().refused).toEqual({ QUEUE_FULL: 1 })
    expect(app.codes()).toEqual(['QUEUE_FULL'])
  })

  test('body bytes: what is larger is not kept, and its request runs once', async () => {
    app = await open({ hold: { requestBytesMax: 10 } }, always)
    expectRefused(await app.client().post('/', 'x'.repeat(11)), 'NOT_RERUNNABLE')
    expect(runs).toBe(1)
    expect(app.stats().notRerunnable).toEqual({ body: 1 })
  })
})

test('Express: response bytes: what is larger is not held, and its request runs once', async () => {
  let runs = 0
  const served = await serveExpress({
    express,
    options: { hold: { responseBytesMax: 10 } },
    below: (_req, res) => {
      runs += 1
      res.write('x'.repeat(11))
      res.end()
    },
  })
  expect((await served.client().get()).text).toBe('x'.repeat(11))
  expect(runs).toBe(1)
  expect(served.tx.stats().notRerunnable).toEqual({ responseBytes: 1 })
  await served.close()
})
