/**
 * The applications that bench/contention.ts and bench/fairness.ts compare: the same routes, each with another way to keep parallel requests
 * from each other. Knows nothing of load or measuring.
 *
 *   /variable/<row>    adds one to a variable that everybody has, and to a row of one's own
 *   /variables/<row>   the same with a variable of one's own
 *   /row/<row>         reads a row that everybody has, adds one, writes it; adds one to a variable of one's own
 *   /frame/<row>       reads a variable and a row; one request of a hundred writes both
 *   /hold/<ms>         reads a variable that everybody has, works that long, adds one to it
 *   /total             the sum of the session's variables        /figures   what was run again, and for how long
 */
import { setTimeout } from 'node:timers/promises'
import Koa, { type DefaultState, type Middleware } from 'koa'
import mysql, { type ResultSetHeader, type RowDataPacket } from 'mysql2/promise'
import { sessionTx, type SessionTxContext, type SessionTxOptions } from 'session-tx'
import { keys, withKoaSession } from './koa-session-app.js'

/** What an application tells of itself; all of it only grows. */
export interface RaceFigures {
  readonly attempts: number
  readonly committed: number
  readonly wastedMs: number
  /** How many requests ended in which attempt. */
  readonly byAttempts: Readonly<Record<number, number>>
}

const HOT_ROW = 1
const WRITING_SHARE = 100
const CONNECTIONS_MAX = 16

type Session = Record<string, unknown>

interface Rows {
  read(row: number): Promise<number>
  write(row: number, visits: number): Promise<unknown>
  add(row: number): Promise<unknown>
}

type Query = <T extends RowDataPacket[] | ResultSetHeader>(
  sql: string,
  values: unknown[],
) => Promise<[T, unknown]>

function rowsThrough(query: Query, lock: string): Rows {
  return {
    async read(row) {
      const [[found]] = await query<RowDataPacket[]>(`SELECT visits FROM visitors WHERE id = ? ${lock}`, [
        row,
      ])
      return Number(found?.['visits'])
    },
    write: (row, visits) => query('UPDATE visitors SET visits = ? WHERE id = ?', [visits, row]),
    add: row => query('UPDATE visitors SET visits = visits + 1 WHERE id = ?', [row]),
  }
}

function addTo(session: Session, name: string): void {
  session[name] = Number(session[name] ?? 0) + 1
}

let frames = 0

/** One request, as one would write it if nobody else were there. */
async function work(path: string, session: Session, rows: Rows): Promise<void> {
  const [, what, number] = path.split('/')
  const row = Number(number)
  if (what === 'variable' || what === 'variables') {
    addTo(session, what === 'variable' ? 'visits' : `visits${row}`)
    await rows.add(row)
  } else if (what === 'row') {
    await rows.write(HOT_ROW, (await rows.read(HOT_ROW)) + 1)
    addTo(session, 'visits')
  } else if (what === 'hold') {
    const visits = Number(session['visits'] ?? 0)
    await setTimeout(Number(number))
    session['visits'] = visits + 1
  } else {
    session['user'] ??= 0
    await rows.read(row)
    frames += 1
    if (frames % WRITING_SHARE !== 0) return
    addTo(session, 'visits')
    await rows.add(row)
  }
}

/** What has been added to the session; koa-session keeps a number of its own beside it. */
function total(session: Session): number {
  const added = Object.entries(session).filter(([name]) => name.startsWith('visits'))
  return added.reduce((sum, [, value]) => sum + Number(value), 0)
}

type Options = SessionTxOptions & { readonly lock?: string; readonly asAWhole?: boolean }

/** @param asAWhole whoever has read anything of a session loses to whoever has changed anything of it */
function withSessionTx(databaseUrl: string, { lock = '', asAWhole = false, ...options }: Options = {}) {
  const app = new Koa<DefaultState, SessionTxContext>()
  app.keys = keys
  app.silent = true
  const pool = mysql.createPool({ uri: databaseUrl, connectionLimit: CONNECTIONS_MAX })
  const tx = sessionTx({ pool, ...options })
  app.use(async (ctx, next) => {
    if (ctx.path !== '/figures') return next()
    const { attempts, requests, wastedMs } = tx.stats()
    const runs = Object.entries(attempts).reduce((sum, [count, times]) => sum + Number(count) * times, 0)
    const { committed } = requests
    ctx.body = { attempts: runs, committed, wastedMs, byAttempts: attempts } satisfies RaceFigures
  })
  app.use(tx)
  app.use(async ctx => {
    if (ctx.path === '/total') {
      ctx.body = String(total(asAWhole ? ((ctx.session['all'] ?? {}) as Session) : ctx.session))
      return
    }
    const session = asAWhole ? ((ctx.session['all'] ??= {}) as Session) : ctx.session
    if (asAWhole) ctx.tx.readCurrent('all')
    await work(ctx.path, session, rowsThrough(ctx.tx.query.bind(ctx.tx) as Query, lock))
    ctx.body = 'done'
  })
  return app
}

interface ByHand {
  readonly lock?: string
  /** What stands above session and transaction. */
  readonly above?: readonly Middleware[]
}

function byHand(databaseUrl: string, { lock = '', above = [] }: ByHand = {}) {
  const pool = mysql.createPool({ uri: databaseUrl, connectionLimit: CONNECTIONS_MAX })
  let committed = 0
  const figures: Middleware = async (ctx, next) => {
    if (ctx.path !== '/figures') return next()
    const byAttempts = { 1: committed }
    ctx.body = { attempts: committed, committed, wastedMs: 0, byAttempts } satisfies RaceFigures
  }
  const app = withKoaSession<Session>(figures, ...above)
  app.silent = true
  app.use(async ctx => {
    if (ctx.path === '/total') {
      ctx.body = String(total(ctx.session))
      return
    }
    const connection = await pool.getConnection()
    try {
      await connection.beginTransaction()
      await work(ctx.path, ctx.session, rowsThrough(connection.query.bind(connection) as Query, lock))
      await connection.commit()
      committed += 1
    } catch (error) {
      await connection.rollback()
      const { errno } = error as { errno?: number }
      ctx.throw(errno === 1213 || errno === 1205 ? 503 : 500)
    } finally {
      connection.release()
    }
    ctx.body = 'done'
  })
  return app
}

const idOf = (ctx: Koa.Context): string => ctx.cookies.get('koa.sess') ?? ''

/** The ideal for one process: one request of a session after the other. */
function mutexPerSession(): Middleware {
  const last = new Map<string, Promise<void>>()
  return async (ctx, next) => {
    const id = idOf(ctx)
    const before = last.get(id)
    let done = (): void => {}
    const mine = new Promise<void>(resolve => {
      done = resolve
    })
    last.set(id, mine)
    try {
      await before
      await next()
    } finally {
      done()
      if (last.get(id) === mine) last.delete(id)
    }
  }
}

/** The classic lock: of the database, for all processes, held by a connection that does nothing else. */
function lockPerSession(databaseUrl: string): Middleware {
  const pool = mysql.createPool({ uri: databaseUrl, connectionLimit: CONNECTIONS_MAX })
  return async (ctx, next) => {
    const id = idOf(ctx)
    const connection = await pool.getConnection()
    try {
      await connection.query('SELECT GET_LOCK(?, 60)', [id])
      await next()
    } finally {
      await connection.query('DO RELEASE_LOCK(?)', [id])
      connection.release()
    }
  }
}

export const raceSides = {
  raceSessionTx: (url: string) => withSessionTx(url),
  raceSessionTxForUpdate: (url: string) => withSessionTx(url, { lock: 'FOR UPDATE' }),
  raceWithoutTickets: (url: string) => withSessionTx(url, { retry: { tickets: false } }),
  raceWholeSession: (url: string) => withSessionTx(url, { asAWhole: true }),
  raceBegin: (url: string) => byHand(url),
  raceForUpdate: (url: string) => byHand(url, { lock: 'FOR UPDATE' }),
  raceGetLock: (url: string) => byHand(url, { above: [lockPerSession(url)] }),
  raceMutex: (url: string) => byHand(url, { above: [mutexPerSession()] }),
}
