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
  app.use(tx)
  app.use(shop().routes())
  return { app, tx }
}
