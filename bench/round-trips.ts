/**
 * Commands on the wire per request, on a connection that is leased already: those that the answer waits for, and those
 * that come after it. A count, not a measurement: the exit status is 1 if one is not what it has to be.
 */
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import Koa, { type DefaultState, type ParameterizedContext } from 'koa'
import mysql from 'mysql2/promise'
import { sessionTx, type SessionTxContext, type SessionTxOptions } from 'session-tx'
import { COMMIT_TABLE_DDL } from '../lib/mysql/commit-record/commit-table.js'
import { openProxy, type Proxy } from '../test/support/proxy.js'
import { BenchDatabase } from './support/database.js'
import { print, printHeading, printTable } from './support/report.js'

type Context = ParameterizedContext<DefaultState, SessionTxContext>

interface Shape {
  readonly title: string
  readonly statements: number
  readonly options?: SessionTxOptions
  readonly handle: (ctx: Context) => Promise<void>
  /** Beside the statements. */
  readonly more: number
  readonly after: number
}

const read = async (ctx: Context): Promise<void> => {
  await ctx.tx.query('SELECT visits FROM visitors WHERE id = ?', [1])
  await ctx.tx.query('SELECT COUNT(*) FROM visitors')
}
const write = async (ctx: Context): Promise<void> => {
  await ctx.tx.query('SELECT visits FROM visitors WHERE id = 1')
  await ctx.tx.query('UPDATE visitors SET visits = visits + 1 WHERE id = 1')
  ctx.session.visits = (ctx.session.visits ?? 0) + 1
}

const shapes: readonly Shape[] = [
  { title: 'nothing', statements: 0, handle: async () => {}, more: 0, after: 0 },
  {
    title: 'session only',
    statements: 0,
    handle: async ctx => {
      ctx.session.visits = (ctx.session.visits ?? 0) + 1
    },
    more: 0,
    after: 0,
  },
  { title: 'reads rows', statements: 2, handle: read, more: 0, after: 1 },
  {
    title: 'reads rows, commit record',
    statements: 2,
    options: { commitRecord: 'always' },
    handle: read,
    more: 0,
    after: 1,
  },
  { title: 'writes both sides', statements: 2, handle: write, more: 1, after: 0 },
  {
    title: 'writes both sides, commit record',
    statements: 2,
    options: { commitRecord: 'always' },
    handle: write,
    more: 2,
    after: 0,
  },
  {
    title: 'reads with a lock',
    statements: 1,
    handle: async ctx => {
      await ctx.tx.query('SELECT visits FROM visitors WHERE id = 1 FOR UPDATE')
    },
    more: 1,
    after: 0,
  },
  {
    title: 'is rolled back',
    statements: 2,
    handle: async ctx => {
      await write(ctx)
      ctx.tx.doom()
    },
    more: 1,
    after: 0,
  },
]

/** Commands of the second request of an application, when the answer is ready and from then on. */
async function count(
  shape: Shape,
  proxy: Proxy,
): Promise<{ readonly waited: number; readonly after: number }> {
  const pool = mysql.createPool({ uri: proxy.url, connectionLimit: 1 })
  const tx = sessionTx({ pool, ...shape.options })
  const app = new Koa<DefaultState, SessionTxContext>()
  let ready = 0
  app.use(async (_ctx, next) => {
    await next()
    ready = proxy.commands.length
  })
  app.use(tx)
  app.use(shape.handle)
  app.use(ctx => void (ctx.body = 'done'))
  const server = createServer(app.callback() as RequestListener)
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
  const first = await fetch(url)
  await first.text()
  const cookie = first.headers
    .getSetCookie()
    .map(line => line.split(';')[0])
    .join('; ')
  await quiet(proxy)
  const before = proxy.commands.length
  await (await fetch(url, { headers: { cookie } })).text()
  await quiet(proxy)
  const counted = { waited: ready - before, after: proxy.commands.length - ready }
  server.closeAllConnections()
  server.close()
  await tx.close()
  await pool.end()
  return counted
}

/** Resolves when no command has come for a while; what gives a connection back comes after a second. */
async function quiet(proxy: Proxy): Promise<void> {
  for (let seen = -1; seen !== proxy.commands.length; ) {
    seen = proxy.commands.length
    await new Promise(resolve => setTimeout(resolve, 100))
  }
}

const database = await BenchDatabase.open()
const proxy = await openProxy(database.url.href)
try {
  printHeading('session-tx, commands per request on a leased connection', database.server)
  await database.makeVisitors(1)
  await database.run(COMMIT_TABLE_DDL)
  const rows = [['a request that', 'statements', 'before the answer', 'after it', '']]
  let isWrong = false
  for (const shape of shapes) {
    const { waited, after } = await count(shape, proxy)
    const isRight = waited === shape.statements + shape.more && after === shape.after
    isWrong ||= !isRight
    const should = `should be ${shape.statements + shape.more} and ${shape.after}`
    rows.push([shape.title, String(shape.statements), String(waited), String(after), isRight ? '' : should])
  }
  print()
  printTable(rows)
  process.exitCode = isWrong ? 1 : 0
} finally {
  await proxy.close()
  await database.close()
}
