/**
 * @koa/router, koa-router and koa-mount on Koa, below session-tx: each attempt is routed anew, with the path, the parameters
 * and the mount path of the first. What stands in a mounted application can be run again if session-tx is outside of it.
 */
import Router from '@koa/router'
import mount from 'koa-mount'
import OldRouter from 'koa-router'
import { sessionTx } from '../../lib/index.js'
import {
  koas,
  serveTx,
  type TxApp,
  type TxContext,
  type TxMiddleware,
  type TxServed,
} from '../support/app.js'
import { promptly } from '../support/clock.js'

type AnyRouter = Router<object, TxContext>
const routers: readonly (readonly [string, new (options?: { readonly prefix?: string }) => AnyRouter])[] = [
  ['@koa/router', Router as unknown as new () => AnyRouter],
  ['koa-router', OldRouter as unknown as new () => AnyRouter],
]

/** Loses its first two races, with the path spoilt. */
function thirdTime(ctx: TxContext, answer: () => unknown): void {
  if (ctx.tx.attempt < 3) {
    ctx.path = '/spoilt'
    ctx.tx.conflict()
  }
  ctx.body = answer()
}

describe.each(koas)('%s', (_name, App) => {
  let served: TxServed
  afterEach(() => served.close())

  async function serving(...below: readonly unknown[]): Promise<TxServed> {
    served = await serveTx({ Koa: App, below: below as readonly TxMiddleware[] })
    return served
  }

  describe.each(routers)('%s', (_router, AnyRouter) => {
    test('nested, with a prefix and middleware of its own: every attempt takes the same way', async () => {
      const log: string[] = []
      const inner = new AnyRouter()
      inner.use(async (ctx, next) => {
        log.push(`inner ${ctx.tx.attempt}`)
        await next()
      })
      inner.post('buy', '/items/:item', ctx =>
        thirdTime(ctx, () => {
          ctx.session['bought'] = ctx.params['item']
          return [ctx.params, ctx.path, String(ctx._matchedRoute)]
        }),
      )
      inner.get('/bought', ctx => (ctx.body = ctx.session['bought'] ?? 'nothing'))
      const outer = new AnyRouter({ prefix: '/shops' })
      outer.use('/main', inner.routes())
      const { client, tx } = await serving(outer.routes(), outer.allowedMethods())
      const visitor = client()
      expect((await visitor.post('/shops/main/items/7')).json()).toEqual([
        { item: '7' },
        '/shops/main/items/7',
        '/shops/main/items/:item',
      ])
      expect(log).toEqual(['inner 1', 'inner 2', 'inner 3'])
      expect((await visitor.get('/shops/main/bought')).text).toBe('7')
      expect((await visitor.get('/shops/main/items/7')).status).toBe(405)
      expect((await visitor.get('/elsewhere')).status).toBe(404)
      expect(tx.stats().conflicts.byRoute).toEqual({ '/shops/main/items/:item': 2 })
    })

    test('an error in a route is an error of the request: nothing is stored', async () => {
      const router = new AnyRouter()
      router.post('/', ctx => {
        ctx.session['bought'] = 1
        ctx.throw(409, 'sold out')
      })
      const { client, tx } = await serving(router.routes())
      const answer = await client().post('/')
      expect([answer.status, answer.text]).toEqual([409, 'sold out'])
      expect(tx.stats().sessions).toMatchObject({ live: 0 })
    })
  })

  describe('koa-mount', () => {
    test('an application mounted below: its path and mount path are the same on each attempt', async () => {
      const seen: unknown[] = []
      const inner = new App()
      inner.use(async (ctx, next) => {
        seen.push([ctx.path, (ctx as { readonly mountPath?: unknown }).mountPath])
        await next()
      })
      inner.use(ctx => thirdTime(ctx, () => (ctx.session['seen'] = true)))
      const { client, tx } = await serving(mount('/shop', inner as never), (ctx: TxContext) => {
        ctx.body = ctx.path
      })
      expect((await client().get('/shop/items')).text).toBe('true')
      expect(seen).toEqual([
        ['/items', '/shop'],
        ['/items', '/shop'],
        ['/items', '/shop'],
      ])
      expect((await client().get('/other')).text).toBe('/other')
      expect(tx.stats()).toMatchObject({ attempts: { 1: 1, 3: 1 }, sessions: { live: 1 } })
    })

    test('what is passed on by a mounted middleware and loses its race further down is run again from the top', async () => {
      const seen: unknown[] = []
      const { client } = await serving(
        mount('/shop', (async (ctx: TxContext, next: () => Promise<unknown>) => {
          seen.push(ctx.path)
          await next()
        }) as never),
        (ctx: TxContext) => {
          seen.push(ctx.path)
          thirdTime(ctx, () => 'ok')
        },
      )
      expect((await client().get('/shop/items')).text).toBe('ok')
      expect(seen).toEqual(['/items', '/shop/items', '/items', '/shop/items', '/items', '/shop/items'])
    })

    test('session-tx in the mounted application: served once, with a warning that names the remedy', async () => {
      const warned = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
      try {
        const inner: TxApp = new App()
        const tx = sessionTx({}, promptly)
        inner.use(tx)
        inner.use(ctx => {
          ctx.session['seen'] = true
          ctx.body = ctx.path
        })
        const outer = mount('/shop', inner as never) as unknown as TxMiddleware
        served = await serveTx({ Koa: App, above: [outer], below: () => {} })
        expect((await served.client().get('/shop/items')).text).toBe('/items')
        expect(tx.stats()).toMatchObject({ notRerunnable: { position: 1 }, sessions: { live: 1 } })
        expect(warned.mock.calls[0]?.[0]).toMatch(/app\.use\(.*tx\.transactional\(handler\)/s)
        await tx.close()
      } finally {
        warned.mockRestore()
      }
    })
  })
})
