/**
 * The same shop as most Koa applications would have it: koa-session with an external store, and a transaction written
 * by hand around the handler.
 */
import { bodyParser } from '@koa/bodyparser'
import Koa, { type DefaultState } from 'koa'
import koaSession from 'koa-session'
import type { Pool, PoolConnection } from 'mysql2/promise'
import type { SessionTxContext } from 'session-tx'
import { koaShop } from '../koa-shop.js'
import { shop } from '../shop.js'
import type { KoaSessionStore } from './koa-session-stores.js'

export interface ComparedApp {
  readonly app: Koa<DefaultState, SessionTxContext>
  readonly counts: () => { readonly conflicts: number; readonly reruns: number }
}

/** Deadlock, lock wait timeout, changed since read. */
const CONFLICTS: readonly unknown[] = [1213, 1205, 1020]

export function koaSessionApp(pool: Pool, store: KoaSessionStore, lock: '' | 'FOR UPDATE'): ComparedApp {
  const app = new Koa<DefaultState, SessionTxContext>()
  let conflicts = 0
  app.use(bodyParser())
  app.use(koaSession({ store, signed: false }, app))
  app.use(async (ctx, next) => {
    let opened: Promise<PoolConnection> | undefined
    const afterCommit: (() => unknown)[] = []
    const tx = {
      query: async (sql: string, values?: unknown[]) => (await (opened ??= begin(pool))).query(sql, values),
      afterCommit: (hook: () => unknown) => afterCommit.push(hook),
    }
    Object.assign(ctx, { tx })
    try {
      await next()
      await (await opened)?.query('COMMIT')
    } catch (error) {
      if (CONFLICTS.includes((error as { errno?: unknown }).errno)) conflicts += 1
      await (await opened)?.query('ROLLBACK')
      throw error
    } finally {
      ;(await opened)?.release()
    }
    for (const hook of afterCommit) hook()
  })
  app.use(koaShop(shop(lock)).routes())
  return { app, counts: () => ({ conflicts, reruns: 0 }) }
}

async function begin(pool: Pool): Promise<PoolConnection> {
  const connection = await pool.getConnection()
  await connection.query('BEGIN')
  return connection
}
