/** The same shop as an Express application on session-tx, with the same handlers. Opens and closes nothing by itself. */
import express, { type Express, type Request, type Response } from 'express'
import { memoryStore, resolvers, type SessionStore } from 'session-tx'
import { sessionTx, type SessionTx } from 'session-tx/express'
import { assetOf, shopPage, sorryPage } from './pages/shop-page.js'
import { shop } from './shop.js'
import type { Handler, Visit } from './visit.js'

interface ExpressShop {
  readonly app: Express
  readonly tx: SessionTx
}

/** @param pool of mysql2; the caller ends it, after `tx.close()` */
export function createExpressApp(pool: object, store: SessionStore = memoryStore()): ExpressShop {
  const app = express()
  const tx = sessionTx({ pool, store, resolve: { visits: resolvers.counter } })
  const { look, putIntoCart, takeOutOfCart, checkOut, logIn } = shop()
  app.use(tx.metrics())
  app.use(express.json(), express.urlencoded())
  app.use(tx)
  app.get('/', async (req, res) => {
    const seen = await look(visitOf(req))
    if (wantsPage(req)) res.send(shopPage(seen, 'Express'))
    else res.json(seen)
  })
  app.post('/cart', answering(putIntoCart))
  app.delete('/cart/:item', answering(takeOutOfCart))
  app.post('/cart/:item/remove', answering(takeOutOfCart))
  app.post('/checkout', answering(checkOut))
  app.post('/login', answering(logIn))
  app.post(
    '/logout',
    answering(async ({ session }) => {
      await session.destroy()
      return {}
    }),
  )
  app.get('/assets/:name', async (req, res) => {
    const { type, text } = await assetOf(req.params.name)
    res.type(type).send(text)
  })
  // Express knows an error handler by its four parameters.
  app.use((error: { status?: number; message: string }, req: Request, res: Response, _next: unknown) => {
    const { status = 500, message } = error
    const text = status < 500 ? message : 'Something went wrong; nothing was changed.'
    res.status(status)
    if (wantsPage(req)) res.send(sorryPage(text))
    else res.type('text').send(text)
  })
  return { app, tx }
}

const wantsPage = (req: Request): boolean => req.accepts(['json', 'html']) === 'html'

function answering(handler: Handler): (req: Request, res: Response) => Promise<void> {
  return async (req, res) => {
    const answer = await handler(visitOf(req))
    res.set('X-Attempts', String(req.tx.attempt))
    if (wantsPage(req)) res.redirect(303, '/')
    else res.json(answer)
  }
}

function visitOf(req: Request): Visit {
  return {
    session: req.session,
    tx: req.tx,
    sent: { ...(req.body as object | undefined), ...req.params },
    receipt: order => req.app.emit('receipt', order),
  }
}
