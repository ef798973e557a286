/** Where session-tx stands in the stack: what is above it runs once, what is below runs again, wherever it was mounted. */
import Router, { type RouterMiddleware } from '@koa/router'
import compose from 'koa-compose'
import Koa from 'koa'
import { currentTx, sessionTx, type SessionTx } from '../../lib/index.js'
import {
  koas,
  serve,
  serveTx,
  type Served,
  type TxApp,
  type TxContext,
  type TxMiddleware,
} from '../support/app.js'
import { promptly } from '../support/clock.js'

let served: Served
let warned: jest.SpyInstance
const txs: SessionTx[] = []

beforeEach(() => {
  warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
})
afterEach(async () => {
  warned.mockRestore()
  await served.close()
  for (const tx of txs.splice(0)) await tx.close()
})

/** Any application at all; `tx` is closed with it. */
async function serving(app: TxApp, ...used: readonly SessionTx[]): Promise<{ readonly errors: unknown[] }> {
  const errors: unknown[] = []
  app.on('error', error => errors.push(error))
  txs.push(...used)
  const handle = app.callback()
  served = await serve((req, res) => void handle(req, res))
  return { errors }
}

/** Writes down each time it runs, on the way in and on the way out. */
function logging(log: string[], name: string): TxMiddleware {
  return async (_ctx, next) => {
    log.push(`${name} in`)
    await next()
    log.push(`${name} out`)
  }
}

/** Loses its first race. */
const twice: TxMiddleware = ctx => {
  if (ctx.tx.attempt === 1) ctx.tx.conflict()
  ctx.body = `attempt ${ctx.tx.attempt}`
}

describe.each(koas)('%s: anywhere in the stack', (_name, App) => {
  test.each([0, 1, 3])('%d above: those run once, those below run again', async count => {
    const log: string[] = []
    const app = new App()
    const tx = sessionTx({}, promptly)
    const above = Array.from({ length: count }, (_, place) => `above ${place}`)
    for (const name of above) app.use(logging(log, name))
    app.use(tx)
    for (const name of ['first', 'second']) app.use(logging(log, name))
    app.use(twice)
    await serving(app, tx)
    expect((await served.client().get()).text).toBe('attempt 2')
    expect(log).toEqual([
      ...above.map(name => `${name} in`),
      ...['first in', 'second in', 'first in', 'second in', 'second out', 'first out'],
      ...above.toReversed().map(name => `${name} out`),
    ])
    expect(warned).not.toHaveBeenCalled()
  })

  test('@koa/router below matches again, and the route that matched is the one that is told', async () => {
    const seen: unknown[] = []
    const router = new Router()
    router.param('item', (item, ctx, next) => {
      ctx['item'] = Number(item)
      return next()
    })
    router.post('cart', '/cart/:item', ctx => {
      const { tx } = ctx as unknown as TxContext
      seen.push([ctx._matchedRoute, ctx._matchedRouteName, { ...ctx.params }, ctx['item']])
      ctx.params['item'] = 'dirty'
      if (tx.attempt < 3) tx.conflict()
      ctx.body = ctx['item']
    })
    const { client, tx, close } = await serveTx({
      Koa: App,
      below: [router.routes() as unknown as TxMiddleware, router.allowedMethods() as unknown as TxMiddleware],
    })
    served = { url: '', client, close }
    const expected = ['/cart/:item', 'cart', { item: '7' }, 7]
    expect((await client().post('/cart/7')).text).toBe('7')
    expect(seen).toEqual([expected, expected, expected])
    expect((await client().post('/nowhere')).status).toBe(404)
    expect((await client().get('/cart/7')).status).toBe(405)
    expect(tx.stats().conflicts.byRoute).toEqual({ '/cart/:item': 2 })
  })

  // Koa itself copies the stack in callback(): what was added counts from the next callback() on.
  test('a stack that grew after the first request: what was added runs again, too', async () => {
    const log: string[] = []
    const app = new App()
    const tx = sessionTx({}, promptly)
    app.use(tx)
    app.use(async (ctx, next) => {
      await next()
      if (ctx.tx.attempt === 1) ctx.tx.conflict()
      ctx.body = `attempt ${ctx.tx.attempt}`
    })
    await serving(app, tx)
    expect((await served.client().get()).text).toBe('attempt 2')
    app.use(logging(log, 'added'))
    await served.close()
    await serving(app)
    expect((await served.client().get()).text).toBe('attempt 2')
    expect(log).toEqual(['added in', 'added out', 'added in', 'added out'])
  })

  test('wrapped by somebody who copies its properties, or keeps the original, it still knows its place', async () => {
    for (const mark of [
      (wrapper: TxMiddleware, tx: SessionTx) => Object.assign(wrapper, tx),
      (wrapper: TxMiddleware, tx: SessionTx) => Object.assign(wrapper, { __original: tx }),
    ]) {
      const app = new App()
      const tx = sessionTx({}, promptly)
      app.use(mark((ctx, next) => tx(ctx, next) as Promise<unknown>, tx))
      app.use(twice)
      await serving(app, tx)
      expect((await served.client().get()).text).toBe('attempt 2')
      await served.close()
    }
    expect(warned).not.toHaveBeenCalled()
  })
})

describe('where it cannot find what is below it, it runs once and warns, naming the remedy:', () => {
  const wrapped: readonly (readonly [string, (app: TxApp, tx: SessionTx, handler: TxMiddleware) => void])[] =
    [
      [
        'router.use(tx)',
        (app, tx, handler) => {
          const router = new Router()
          router.use(tx as unknown as RouterMiddleware)
          router.get('/', handler as unknown as RouterMiddleware)
          app.use(router.routes() as unknown as TxMiddleware)
        },
      ],
      ['compose([tx, handler])', (app, tx, handler) => app.use(compose([tx as TxMiddleware, handler]))],
      [
        'a mounted application',
        (app, tx, handler) => {
          const inner: TxApp = new Koa()
          inner.use(tx)
          inner.use(handler)
          app.use(compose(inner.middleware as TxMiddleware[]))
        },
      ],
      [
        'a wrapper that keeps nothing of it',
        (app, tx, handler) => {
          app.use((ctx, next) => tx(ctx, next) as Promise<unknown>)
          app.use(handler)
        },
      ],
    ]

  test.each(wrapped)('%s', async (_what, mount) => {
    let ran = 0
    const app: TxApp = new Koa()
    const tx = sessionTx({}, promptly)
    mount(app, tx, ctx => {
      ran += 1
      ctx.session['visits'] = ran
      if (ctx.query['lose'] !== undefined) ctx.tx.conflict()
      ctx.body = { retries: ctx.tx.retries, visits: ctx.session['visits'] }
    })
    const { errors } = await serving(app, tx)
    expect((await served.client().get()).json()).toMatchObject({ visits: 1 })
    const answer = await served.client().get('/?lose')
    expect(answer.status).toBe(503)
    expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(1)
    expect(ran).toBe(2)
    expect(errors).toEqual([expect.objectContaining({ code: 'NOT_RERUNNABLE' })])
    expect((errors[0] as Error).message).toMatch(/app\.use/)
    expect((errors[0] as Error).message).toMatch(/tx\.transactional\(handler\)/)
    expect(tx.stats()).toMatchObject({ notRerunnable: { position: 2 }, sessions: { live: 1 } })
    expect(warned).toHaveBeenCalledTimes(1)
    expect(warned.mock.calls[0]?.[0]).toMatch(/app\.use\(.*tx\.transactional\(handler\)/s)
  })

  test('with retries: 0 there is nothing to find and nothing to warn of', async () => {
    const app: TxApp = new Koa()
    const tx = sessionTx({ retry: { retries: 0 } }, promptly)
    app.use(compose([tx as TxMiddleware, twice]))
    const { errors } = await serving(app, tx)
    await served.client().get()
    expect(warned).not.toHaveBeenCalled()
    expect(errors).toEqual([expect.objectContaining({ code: 'RETRIES_EXHAUSTED' })])
  })
})

describe('tx.transactional(handler) runs one handler again,', () => {
  async function routing(
    define: (router: Router, tx: SessionTx) => void,
    above?: (app: TxApp, tx: SessionTx) => void,
  ) {
    const app: TxApp = new Koa()
    const tx = sessionTx({}, promptly)
    const router = new Router()
    above?.(app, tx)
    define(router, tx)
    app.use(router.routes() as unknown as TxMiddleware)
    return { tx, ...(await serving(app, tx)) }
  }
  const asRoute = (middleware: unknown): RouterMiddleware => middleware as RouterMiddleware

  test('on a route, with nothing mounted; what stands before it in the route runs once', async () => {
    const log: string[] = []
    const { tx } = await routing((router, of) => {
      router.get(
        '/buy/:item',
        asRoute(logging(log, 'before')),
        asRoute(of.transactional(twice as Parameters<typeof of.transactional>[0])),
      )
    })
    expect((await served.client().get('/buy/7')).text).toBe('attempt 2')
    expect(log).toEqual(['before in', 'before out'])
    expect(tx.stats()).toMatchObject({ conflicts: { byRoute: { '/buy/:item': 1 } }, notRerunnable: {} })
    expect(warned).not.toHaveBeenCalled()
  })

  test('with its own retries, and read-only', async () => {
    const retries: number[] = []
    const { errors } = await routing((router, of) => {
      router.get(
        '/often',
        asRoute(
          of.transactional(
            ctx => {
              const { tx } = ctx as unknown as TxContext
              retries.push(tx.retries)
              if (tx.attempt <= 5) tx.conflict()
              ctx.body = 'ok'
            },
            { retries: 5 },
          ),
        ),
      )
      router.get(
        '/read',
        asRoute(
          of.transactional(ctx => ((ctx as unknown as TxContext).session['a'] = 1), { readOnly: true }),
        ),
      )
    })
    expect((await served.client().get('/often')).text).toBe('ok')
    expect(retries).toEqual([5, 5, 5, 5, 5, 5])
    expect((await served.client().get('/read')).status).toBe(500)
    expect(errors).toEqual([expect.objectContaining({ code: 'READ_ONLY' })])
  })

  test('which may call next(): what it calls is inside, but a conflict after that is NOT_RERUNNABLE', async () => {
    const log: string[] = []
    const { errors, tx } = await routing((router, of) => {
      const passing = of.transactional(async (ctx, next) => {
        const context = ctx as unknown as TxContext
        log.push(`attempt ${context.tx.attempt}`)
        if (context.query['early'] !== undefined && context.tx.attempt === 1) context.tx.conflict()
        await next()
        if (context.query['late'] !== undefined) context.tx.conflict()
      })
      router.get('/', asRoute(passing), ctx => {
        log.push(`after, in ${currentTx()?.attempt}`)
        ctx.body = 'ok'
      })
    })
    expect((await served.client().get('/')).text).toBe('ok')
    expect((await served.client().get('/?early')).text).toBe('ok')
    expect((await served.client().get('/?late')).status).toBe(503)
    expect(log).toEqual([
      ...['attempt 1', 'after, in 1'],
      ...['attempt 1', 'attempt 2', 'after, in 2'],
      ...['attempt 1', 'after, in 1'],
    ])
    expect(errors).toEqual([
      expect.objectContaining({
        code: 'NOT_RERUNNABLE',
        message: expect.stringContaining('next()') as string,
      }),
    ])
    expect(tx.stats()).toMatchObject({ refused: { NOT_RERUNNABLE: 1 } })
  })

  test('below app.use(tx) it is simply the handler', async () => {
    const { tx } = await routing(
      (router, of) =>
        router.get(
          '/',
          asRoute(of.transactional(twice as Parameters<typeof of.transactional>[0], { retries: 9 })),
        ),
      (app, of) => app.use(of),
    )
    const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    try {
      expect((await served.client().get('/')).text).toBe('attempt 2')
      expect(tx.stats().attempts).toEqual({ 2: 1 })
      await served.client().get('/')
      // The transaction has begun above it, so its own options come too late.
      expect(warned.mock.calls.map(([text]) => text)).toEqual([
        expect.stringMatching(/options of tx\.transactional\(\) \(retries\).* app\.use\(tx\)/),
      ])
    } finally {
      warned.mockRestore()
    }
  })

  test('and says at start-up what is wrong with its arguments', async () => {
    const { tx } = await routing(router => router.get('/', () => {}))
    const handler = (): void => {}
    const cases: readonly (readonly [() => unknown, RegExp])[] = [
      [
        () => tx.transactional(handler, { retries: -1 }),
        /retries.* must be a whole number of 0 or more, got -1/,
      ],
      [
        () => tx.transactional(handler, { isolation: 'none' as 'snapshot' }),
        /isolation.* must be .*, got 'none'/,
      ],
      [() => tx.transactional(handler, { retry: 3 } as object), /unknown option `retry`.*retries/],
      [() => tx.transactional(undefined as unknown as typeof handler), /must be a function, got undefined/],
    ]
    for (const [act, message] of cases) {
      expect(act).toThrow(
        expect.objectContaining({ code: 'MISCONFIGURED', message: expect.stringMatching(message) as string }),
      )
    }
  })
})

describe('mounted twice', () => {
  test('the inner one is a no-op: one transaction, counted once', async () => {
    const app: TxApp = new Koa()
    const [outer, inner] = [sessionTx({}, promptly), sessionTx({}, promptly)]
    app.use(outer)
    app.use(inner)
    app.use(outer)
    app.use(twice)
    await serving(app, outer, inner)
    expect((await served.client().get()).text).toBe('attempt 2')
    expect(outer.stats().requests.committed).toBe(1)
    expect(inner.stats().requests.committed).toBe(0)
  })

  test('one middleware in two applications keeps its place in each', async () => {
    const tx = sessionTx({}, promptly)
    txs.push(tx)
    for (const above of [0, 2]) {
      const app: TxApp = new Koa()
      for (let place = 0; place < above; place++) app.use((_ctx, next) => next())
      app.use(tx)
      app.use(twice)
      await serving(app)
      expect((await served.client().get()).text).toBe('attempt 2')
      if (above === 0) await served.close()
    }
  })
})

describe('skip', () => {
  test('no transaction: ctx.tx and ctx.session are absent, nothing is counted', async () => {
    const { client, close, tx } = await serveTx({
      options: { skip: ({ path }) => path.startsWith('/static') },
      below: ctx => (ctx.body = [ctx.tx === undefined, ctx.session === undefined, currentTx() === undefined]),
    })
    served = { url: '', client, close }
    expect((await client().get('/static/a.css')).json()).toEqual([true, true, true])
    expect((await client().get('/')).json()).toEqual([false, false, false])
    expect(tx.stats().requests.committed).toBe(1)
  })
})
