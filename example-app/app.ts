/** The shop as a Koa application on session-tx: all that it takes is here. Opens and closes nothing by itself. */
import { bodyParser } from '@koa/bodyparser'
import Koa, { type DefaultState } from 'koa'
import {
  memoryStore,
  resolvers,
  type SessionStore,
  sessionTx,
  type SessionTx,
  type SessionTxContext,
} from 'session-tx'
import { koaShop } from './koa-shop.js'
import { sorryPage } from './pages/shop-page.js'
import { shop } from './shop.js'

export interface ShopApp {
  readonly app: Koa<DefaultState, SessionTxContext>
  readonly tx: SessionTx
}

/** @param pool of mysql2; the caller ends it, after `tx.close()` */
export function createApp(pool: object, store: SessionStore = memoryStore()): ShopApp {
  const app = new Koa<DefaultState, SessionTxContext>()
  // Two tabs that count a visit at once need not run again: the sum of both is what either would have wanted.
  const tx = sessionTx({ pool, store, resolve: { visits: resolvers.counter } })
  app.use(tx.metrics())
  app.use(bodyParser())
  app.use(async (ctx, next) => {
    try {
      await next()
    } catch (error) {
      // Above session-tx: what is rendered here is the answer to a request that has been rolled back.
      const { status = 500, message } = error as { status?: number; message: string }
      if (status >= 500 || ctx.accepts('json', 'html') !== 'html') throw error
      ctx.status = status
      ctx.type = 'html'
      ctx.body = sorryPage(message)
    }
  })
  app.use(tx)
  app.use(koaShop(shop()).routes())
  return { app, tx }
}
