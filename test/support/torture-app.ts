/**
 * The application of torture.ts: each request adds its number to a list in its session and to a table, and 1 to a
 * counter. Imports the library by its name, so that it runs on sources in jest and compiled in a process of its own.
 */
import mysql from 'mysql2/promise'
import type Koa from 'koa'
import type { SessionTxContext } from 'session-tx'

type Middleware = Koa.Middleware<Koa.DefaultState, SessionTxContext>

const COUNTERS_MAX = 100

/** @param ddl of further tables, made anew */
export async function makeTables(url: string, ddl: readonly string[]): Promise<void> {
  const setUp = await mysql.createConnection(url)
  await setUp.query('DROP TABLE IF EXISTS effect, counter, sessiontx_commits, sessions, sessions_times')
  await setUp.query(
    'CREATE TABLE effect (number INT NOT NULL, visitor INT NOT NULL, session INT NOT NULL) ENGINE=InnoDB',
  )
  await setUp.query('CREATE TABLE counter (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
  await setUp.query(`INSERT INTO counter SELECT seq, 0 FROM seq_0_to_${COUNTERS_MAX - 1}`)
  for (const text of ddl) await setUp.query(text)
  await setUp.end()
}

/** As new, under an application that runs. */
export async function emptyTables(url: string): Promise<void> {
  const setUp = await mysql.createConnection(url)
  await setUp.query('DELETE FROM effect')
  await setUp.query('UPDATE counter SET n = 0')
  await setUp.end()
}

/** Of every answer of the application: the port of one that was killed may be somebody else's by now. */
export const OWN_HEADER = 'x-torture'

/** Stands above session-tx: the client is told the code of an error. */
export const tellCode: Middleware = async (ctx, next) => {
  ctx.set(OWN_HEADER, 'own')
  try {
    await next()
  } catch (error) {
    const { code, status, message } = error as { code?: string; status?: number; message: string }
    ctx.status = status ?? 500
    ctx.set('x-code', String(code))
    ctx.body = message
  }
}

/** Stands below it. The client says who it is, which effect it wants, and which row counts it. */
export const addEffect: Middleware = async ctx => {
  const [visitor, number, counter] = ['x-visitor', 'x-number', 'x-counter'].map(name => Number(ctx.get(name)))
  if (ctx.method === 'POST') {
    const numbers = (ctx.session['numbers'] ?? []) as number[]
    // A session that was lost and begun anew is another one.
    await ctx.tx.query('INSERT INTO effect VALUES (?, ?, ?)', [number, visitor, numbers[0] ?? number])
    await ctx.tx.query('UPDATE counter SET n = n + 1 WHERE id = ?', [counter])
    ctx.session['numbers'] = [...numbers, Number(number)]
  }
  ctx.body = { numbers: ctx.session['numbers'] ?? [] }
}
