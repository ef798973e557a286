/**
 * The applications that are compared. Those of one comparison answer the same with the same keys signing their cookies;
 * each is written as its own users would write it. Knows nothing of load or measuring.
 */
import Koa, { type DefaultState } from 'koa'
import mysql from 'mysql2/promise'
import { sessionTx, type SessionTxContext } from 'session-tx'
import { keys, withKoaSession } from './koa-session-app.js'
import { raceSides } from './race-sides.js'
import { storeSides } from './store-sides.js'

declare module 'session-tx' {
  interface SessionData {
    visits?: number
  }
}

/** Everybody has a connection at once: what is measured is not the waiting for one. */
const connectionLimit = 16

const rowOf = (path: string): number => Number(path.slice(1))

export const sides = {
  ...storeSides,
  ...raceSides,

  /** One variable and one row per request, in one joint transaction. */
  jointSessionTx(databaseUrl: string) {
    const app = new Koa<DefaultState, SessionTxContext>()
    app.keys = keys
    app.use(sessionTx({ pool: mysql.createPool({ uri: databaseUrl, connectionLimit }) }))
    app.use(async ctx => {
      ctx.session.visits = (ctx.session.visits ?? 0) + 1
      await ctx.tx.query('UPDATE visitors SET visits = visits + 1 WHERE id = ?', [rowOf(ctx.path)])
      ctx.body = String(ctx.session.visits)
    })
    return app
  },

  /** The same by hand: two sides that know nothing of each other. */
  jointByHand(databaseUrl: string) {
    const pool = mysql.createPool({ uri: databaseUrl, connectionLimit })
    const app = withKoaSession()
    app.use(async ctx => {
      ctx.session.visits = (ctx.session.visits ?? 0) + 1
      const connection = await pool.getConnection()
      try {
        await connection.beginTransaction()
        await connection.query('UPDATE visitors SET visits = visits + 1 WHERE id = ?', [rowOf(ctx.path)])
        await connection.commit()
      } catch (error) {
        await connection.rollback()
        throw error
      } finally {
        connection.release()
      }
      ctx.body = String(ctx.session.visits)
    })
    return app
  },

  /** One variable read and written, no SQL. */
  sessionOnlySessionTx() {
    const app = new Koa<DefaultState, SessionTxContext>()
    app.keys = keys
    app.use(sessionTx())
    app.use(async ctx => {
      ctx.session.visits = (ctx.session.visits ?? 0) + 1
      ctx.body = String(ctx.session.visits)
    })
    return app
  },

  /** The same without keys: the id alone is the secret, as session-tx has it by default. */
  sessionOnlyUnsigned() {
    const app = new Koa<DefaultState, SessionTxContext>()
    app.use(sessionTx())
    app.use(async ctx => {
      ctx.session.visits = (ctx.session.visits ?? 0) + 1
      ctx.body = String(ctx.session.visits)
    })
    return app
  },

  sessionOnlyKoaSession() {
    const app = withKoaSession()
    app.use(async ctx => {
      ctx.session.visits = (ctx.session.visits ?? 0) + 1
      ctx.body = String(ctx.session.visits)
    })
    return app
  },

  /** No session at all: what Koa itself costs. */
  plainKoa() {
    let visits = 0
    const app = new Koa()
    app.use(async ctx => {
      visits += 1
      ctx.body = String(visits)
    })
    return app
  },

  /** Two middleware functions, the upper one empty: what standing in the stack costs anybody. */
  emptyMiddleware() {
    const app = new Koa()
    app.use(async (_ctx, next) => {
      await next()
    })
    app.use(async ctx => {
      ctx.body = 'untouched'
    })
    return app
  },

  /** Mounted, but neither the session nor the transaction is used. */
  untouchedSessionTx() {
    const app = new Koa()
    app.use(sessionTx())
    app.use(async ctx => {
      ctx.body = 'untouched'
    })
    return app
  },

  /** The same with koa-session. */
  untouchedKoaSession() {
    const app = withKoaSession()
    app.use(async ctx => {
      ctx.body = 'untouched'
    })
    return app
  },

  /** One variable is read; a session's first request makes it. */
  readingSessionTx() {
    const app = new Koa<DefaultState, SessionTxContext>()
    app.use(sessionTx())
    app.use(async ctx => {
      const { visits } = ctx.session
      if (visits === undefined) ctx.session.visits = 1
      ctx.body = String(visits)
    })
    return app
  },
} satisfies Record<string, (databaseUrl: string) => unknown>

export type SideName = keyof typeof sides
