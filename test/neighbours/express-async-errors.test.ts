/**
 * Express 4 with express-async-errors, which puts a function before each handler, router and middleware that is mounted. The
 * package itself belongs to an Express called `express`, and here that is Express 5: what it does is done by hand.
 */
import type { ErrorRequestHandler } from 'express'
import express from 'express4'
import { type ExpressServed, losing, serveExpress } from '../support/express-app.js'

type Call = (...args: unknown[]) => unknown

/** Calls `next` when a promise is rejected; has the length and the enumerable properties of what it stands before. */
function awaiting(handle: Call): Call {
  function before(this: unknown, ...args: unknown[]): unknown {
    const result = handle.apply(this, args)
    const refused = args.at(-1) as Call
    if (result instanceof Promise) result.catch(error => refused(error))
    return result
  }
  Object.defineProperty(before, 'length', { value: handle.length })
  const properties = handle as unknown as Record<string, unknown>
  for (const name of Object.keys(handle)) Object.assign(before, { [name]: properties[name] })
  return before
}

interface LayerOf {
  wrapped: Call
}
interface Stacked {
  readonly stack: readonly object[]
}

beforeAll(() => {
  // Where the package looks it up: the class of all layers.
  const { stack } = express.Router().use(() => {}) as unknown as Stacked
  Object.defineProperty(Object.getPrototypeOf(stack[0]), 'handle', {
    enumerable: true,
    get(this: LayerOf): Call {
      return this.wrapped
    },
    set(this: LayerOf, handle: Call) {
      this.wrapped = awaiting(handle)
    },
  })
})

let served: ExpressServed
afterEach(() => served.close())

const inRouters = (levels: number): express.Router =>
  levels === 0
    ? express.Router().post('/it', losing(3))
    : express.Router().use('/deeper', inRouters(levels - 1))

test.each([
  ['in the application', 0, '/it'],
  ['in a router', 1, '/deeper/it'],
  ['in a router two levels down', 2, '/deeper/deeper/it'],
])('a handler %s that loses its race is run again', async (_, levels, path) => {
  served = await serveExpress({ express: express as never, below: inRouters(levels) })
  expect((await served.client().post(path)).text).toBe('attempt 3')
  expect(served.tx.stats().notRerunnable).toEqual({})
})

test('session-tx in a router finds what stands below it', async () => {
  served = await serveExpress({
    express: express as never,
    build: (app, tx) => app.use('/shop', express.Router().use(tx).post('/it', losing(3))),
  })
  expect((await served.client().post('/shop/it')).text).toBe('attempt 3')
})

test('a promise that is rejected: error middleware is called once, in the router of the handler, and nothing is stored', async () => {
  const seen: unknown[] = []
  const page: ErrorRequestHandler = (error: Error, _req, res, _next) => {
    seen.push(error.message)
    res.status(418).send('the page')
  }
  const router = express.Router()
  router.post('/it', async req => {
    req.session['n'] = 1
    if (req.tx.attempt < 3) req.tx.conflict()
    throw await Promise.resolve(new Error('no'))
  })
  router.use(page as unknown as express.ErrorRequestHandler)
  served = await serveExpress({ express: express as never, below: router as never })
  const answer = await served.client().post('/it')
  expect([answer.status, answer.text, seen, served.errors]).toEqual([418, 'the page', ['no'], []])
  expect(served.tx.stats()).toMatchObject({ retried: 2, sessions: { live: 0 } })
})
