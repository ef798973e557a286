/** The shop's handlers behind Koa's router: JSON for programs, pages for people. Knows nothing of what handlers do. */
import { Router, type RouterContext } from '@koa/router'
import type { DefaultState } from 'koa'
import type { SessionTxContext } from 'session-tx'
import { assetOf, shopPage } from './pages/shop-page.js'
import type { Shop } from './shop.js'
import type { Handler, Visit } from './visit.js'

type Context = RouterContext<DefaultState, SessionTxContext>

export function koaShop(shop: Shop): Router<DefaultState, SessionTxContext> {
  return new Router<DefaultState, SessionTxContext>()
    .get('/', async ctx => {
      const seen = await shop.look(visitOf(ctx))
      ctx.body = wantsPage(ctx) ? shopPage(seen, 'Koa') : seen
      if (wantsPage(ctx)) ctx.type = 'html'
    })
    .post('/cart', answering(shop.putIntoCart))
    .delete('/cart/:item', answering(shop.takeOutOfCart))
    .post('/cart/:item/remove', answering(shop.takeOutOfCart)) // a form knows no DELETE
    .post('/checkout', answering(shop.checkOut))
    .post('/login', answering(shop.logIn))
    .post(
      '/logout',
      answering(async ({ session }) => {
        await session.destroy()
        return {}
      }),
    )
    .get('/assets/:name', async ctx => {
      const { type, text } = await assetOf(ctx.params['name'])
      ctx.type = type
      ctx.body = text
    })
}

/** Of the formats that the client takes, HTML is the first: a browser's form or address line. */
const wantsPage = (ctx: Context): boolean => ctx.accepts('json', 'html') === 'html'

function answering(handler: Handler): (ctx: Context) => Promise<void> {
  return async ctx => {
    const answer = await handler(visitOf(ctx))
    // How often it ran, for those who watch a race.
    ctx.set('X-Attempts', String(ctx.tx.attempt ?? 1))
    if (wantsPage(ctx)) {
      ctx.redirect('/')
      ctx.status = 303
    } else ctx.body = answer
  }
}

function visitOf(ctx: Context): Visit {
  const body = (ctx.request as { body?: object }).body ?? {}
  return {
    session: ctx.session,
    tx: ctx.tx,
    sent: { ...body, ...ctx.params },
    receipt: order => ctx.app.emit('receipt', order),
  }
}
