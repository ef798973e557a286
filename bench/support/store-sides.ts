/**
 * The applications that bench/stores.ts compares: the same three routes over each store, each written as its own users
 * would write them. `/read/<variables>/<row>` reads a variable, `/write/…` changes one, `/joint/…` changes one and a
 * row. A new session gets its variables with its first request. Knows nothing of load or measuring.
 */
import { RedisStore } from 'connect-redis'
import express, { type Request, type RequestHandler } from 'express'
import expressSession from 'express-session'
import mysqlStoreOf from 'express-mysql-session'
import Koa, { type DefaultState } from 'koa'
import mysql, { type Pool } from 'mysql2/promise'
import { createClient } from 'redis'
import {
  memoryStore,
  mysqlStore,
  redisStore,
  type Session,
  type SessionStore,
  sessionTx,
  type SessionTxContext,
} from 'session-tx'
import { keys } from './koa-session-app.js'

/** Everybody has a connection at once: what is measured is not the waiting for one. */
const connectionLimit = 16
const ADD_TO_ROW = 'UPDATE visitors SET visits = visits + 1 WHERE id = ?'

/** As an application would have it: something in a cart. */
const otherVariable = (number: number): unknown => ({ id: number, name: `article ${number}`, pieces: 1 })

/** `visits` and others beside it, so many together. */
function fill(session: Record<string, unknown>, variables: number): void {
  if (session['visits'] !== undefined) return
  session['visits'] = 0
  for (let number = 1; number < variables; number++) session[`variable${number}`] = otherVariable(number)
}

function withSessionTx(store: SessionStore, databaseUrl: string): Koa<DefaultState, SessionTxContext> {
  const app = new Koa<DefaultState, SessionTxContext>()
  app.keys = keys
  app.use(sessionTx({ store, pool: mysql.createPool({ uri: databaseUrl, connectionLimit }) }))
  app.use(async ctx => {
    const [, action, variables, row] = ctx.path.split('/')
    fill(ctx.session, Number(variables))
    if (action === 'joint') await ctx.tx.query(ADD_TO_ROW, [row])
    if (action !== 'read') addVisit(ctx.session)
    ctx.body = String(ctx.session.visits)
  })
  return app
}

function addVisit(session: Session): void {
  session.visits = (session.visits ?? 0) + 1
}

/** The one that npm run bench has started. */
function openRedis() {
  const { REDIS_URL: url } = process.env
  if (url === undefined) throw new Error('REDIS_URL is not set: run npm run bench, it starts a Redis')
  return createClient({ url }).connect()
}

async function withRedisStore(databaseUrl: string): Promise<Koa<DefaultState, SessionTxContext>> {
  return withSessionTx(redisStore(await openRedis()), databaseUrl)
}

async function withConnectRedis(databaseUrl: string, disableTouch: boolean): Promise<RequestHandler> {
  const store = new RedisStore({ client: await openRedis(), disableTouch })
  return withExpressSession(store, mysql.createPool({ uri: databaseUrl, connectionLimit }))
}

async function withExpressMysqlSession(databaseUrl: string, disableTouch: boolean): Promise<RequestHandler> {
  const pool = mysql.createPool({ uri: databaseUrl, connectionLimit })
  const MySQLStore = mysqlStoreOf(expressSession)
  const store = new MySQLStore({ disableTouch, schema: { tableName: 'express_sessions' } }, pool)
  // Who comes earlier finds no table, and was seen to wait for ever.
  await store.onReady()
  return withExpressSession(store, pool)
}

/** Without what costs Express something and has nothing to do with sessions. */
function withExpressSession(store: object, pool: Pool): RequestHandler {
  const app = express().disable('etag').disable('x-powered-by')
  app.use(expressSession({ store, secret: keys, resave: false, saveUninitialized: false }))
  app.get('/read/:variables/:row', (req, res) => {
    const session = filled(req)
    res.send(String(session['visits']))
  })
  app.get('/write/:variables/:row', (req, res) => {
    const session = filled(req)
    session['visits'] = Number(session['visits']) + 1
    res.send(String(session['visits']))
  })
  app.get('/joint/:variables/:row', async (req, res) => {
    const session = filled(req)
    const connection = await pool.getConnection()
    try {
      await connection.beginTransaction()
      await connection.query(ADD_TO_ROW, [req.params.row])
      session['visits'] = Number(session['visits']) + 1
      await connection.commit()
    } catch (error) {
      await connection.rollback()
      throw error
    } finally {
      connection.release()
    }
    res.send(String(session['visits']))
  })
  return app
}

function filled(req: Request): Record<string, unknown> {
  const { session } = req as unknown as { readonly session: Record<string, unknown> }
  fill(session, Number(req.params['variables']))
  return session
}

export const storeSides = {
  storeMemory: (databaseUrl: string) => withSessionTx(memoryStore(), databaseUrl),
  storeMysql: (databaseUrl: string) => withSessionTx(mysqlStore(), databaseUrl),
  storeExpress: (databaseUrl: string) => withExpressMysqlSession(databaseUrl, false),
  /** Does not write the idle time at each request that only reads: a session ends a day after its last change. */
  storeExpressUntouched: (databaseUrl: string) => withExpressMysqlSession(databaseUrl, true),
  storeRedis: withRedisStore,
  storeConnectRedis: (databaseUrl: string) => withConnectRedis(databaseUrl, false),
  storeConnectRedisUntouched: (databaseUrl: string) => withConnectRedis(databaseUrl, true),
}
