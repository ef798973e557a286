/**
 * An application under load whose every effect can be accounted for: each request adds its number to a list in its
 * session and to a table, and 1 to a counter, and what it answered is compared with both in the end. Knows nothing of what breaks meanwhile.
 */
import mysql, { type Pool, type RowDataPacket } from 'mysql2/promise'
import type { EventPayloads, SessionTxOptions } from '../../lib/index.js'
import type { KoaContext } from '../../lib/http/koa-context.js'
import { COMMIT_TABLE_DDL } from '../../lib/mysql/commit-record/commit-table.js'
import { systemEnvironment } from '../../lib/transaction/clock.js'
import { serveTx, type TxMiddleware, type TxServed } from './app.js'
import type { Client } from './client.js'

/** What the client was told: it is stored; it is not; nobody knows (yet). */
type Told = 'stored' | 'not stored' | 'unknown'

export interface Torture {
  /** The application, or the first of them. */
  readonly served: TxServed
  /** One for each URL. */
  readonly apps: readonly TxServed[]
  readonly answers: Readonly<Record<string, number>>
  readonly settled: readonly EventPayloads['settled'][]
  /** One request of that visitor; to the application of that number, by default always the same for a visitor. */
  request(visitor: number, app?: number): Promise<Told>
  /** Resolves when nothing is in doubt any more. */
  calm(): Promise<void>
  /** What does not agree, as sentences; empty if all is well. Also `effects`, how many there are. */
  verify(): Promise<{ readonly problems: readonly string[]; readonly effects: number }>
  close(): Promise<void>
}

/**
 * @param appUrl what the application connects to: the server, or a proxy in front of it; several applications if there are
 * several
 * @param url the server itself
 * @param options called for each application if it is a function
 * @param counters how many rows count; of fewer than visitors, several share one
 */
export async function openTorture(
  appUrl: string | readonly string[],
  url: string,
  visitors: number,
  options: SessionTxOptions<KoaContext> | (() => SessionTxOptions<KoaContext>) = {},
  counters = visitors,
): Promise<Torture> {
  const appUrls = typeof appUrl === 'string' ? [appUrl] : appUrl
  const setUp = await mysql.createConnection(url)
  await setUp.query('DROP TABLE IF EXISTS effect, counter, sessiontx_commits')
  await setUp.query('CREATE TABLE effect (number INT NOT NULL, visitor INT NOT NULL) ENGINE=InnoDB')
  await setUp.query('CREATE TABLE counter (id INT PRIMARY KEY, n INT NOT NULL) ENGINE=InnoDB')
  await setUp.query('INSERT INTO counter SELECT seq, 0 FROM seq_0_to_99')
  await setUp.query(COMMIT_TABLE_DDL)
  await setUp.end()

  const below: TxMiddleware = async ctx => {
    const [visitor, number] = [Number(ctx.get('x-visitor')), Number(ctx.get('x-number'))]
    if (ctx.method === 'POST') {
      const numbers = (ctx.session['numbers'] ?? []) as number[]
      await ctx.tx.query('INSERT INTO effect VALUES (?, ?)', [number, visitor])
      await ctx.tx.query('UPDATE counter SET n = n + 1 WHERE id = ?', [visitor % counters])
      ctx.session['numbers'] = [...numbers, number]
    }
    ctx.body = { numbers: ctx.session['numbers'] ?? [] }
  }
  const pools: Pool[] = appUrls.map(uri => mysql.createPool({ uri, connectionLimit: 8 }))
  const apps = await Promise.all(
    pools.map(pool =>
      serveTx({
        environment: systemEnvironment,
        options: {
          pool,
          commitRecord: 'always',
          ...(typeof options === 'function' ? options() : options),
        },
        above: [tellCode],
        below,
      }),
    ),
  )
  const [served] = apps
  if (served === undefined) throw new Error('no URL')
  const clients: Client[] = Array.from({ length: visitors }, (_, visitor) =>
    apps[visitor % apps.length]!.client(),
  )
  // Each has its session before anything breaks: a cookie that got lost would be a session that nobody can look at.
  const begun: number[] = []
  const told = new Map<number, { readonly visitor: number; readonly told: Told }>()
  const answers: Record<string, number> = {}
  const settled: EventPayloads['settled'][] = []
  for (const { tx } of apps) tx.on('settled', event => settled.push(event))
  let count = 0

  async function request(visitor: number, app = visitor % apps.length): Promise<Told> {
    const number = ++count
    const headers = { 'x-visitor': String(visitor), 'x-number': String(number) }
    const own = clients[visitor]!
    const answer = await (app === visitor % apps.length ? own : elsewhere(own, apps[app]!)).send(
      'POST',
      '/',
      { headers },
    )
    const code = answer.status === 200 ? 'OK' : (answer.headers['x-code'] as string | undefined)
    const kind = `${answer.status} ${code}`
    answers[kind] = (answers[kind] ?? 0) + 1
    const what = code === 'OK' ? 'stored' : code === 'COMMIT_UNKNOWN' ? 'unknown' : 'not stored'
    if (answer.status !== 200 && answer.status !== 503) throw new Error(`${kind}: ${answer.text}`)
    told.set(number, { visitor, told: what })
    return what
  }

  async function calm(): Promise<void> {
    while (apps.some(({ tx }) => tx.stats().inDoubt !== 0))
      await new Promise(resolve => setTimeout(resolve, 20))
  }

  async function verify(): Promise<{ problems: string[]; effects: number }> {
    const looking = await mysql.createConnection(url)
    if (apps.length > 1) await looking.query('SET SESSION wsrep_sync_wait = 1') // the nodes of one cluster
    const [rows] = await looking.query<(RowDataPacket & { number: number; visitor: number })[]>(
      'SELECT number, visitor FROM effect ORDER BY number',
    )
    const [counted] = await looking.query<(RowDataPacket & { n: number })[]>(
      'SELECT n FROM counter ORDER BY id',
    )
    await looking.end()
    const problems: string[] = []
    for (const [visitor, client] of clients.entries()) {
      const inRows = rows.filter(one => one.visitor === visitor).map(({ number }) => number)
      const { numbers } = (await client.get('/')).json<{ numbers: number[] }>()
      const inSession = numbers.toSorted((a, b) => a - b)
      if (inSession.join() !== inRows.join())
        problems.push(
          `visitor ${visitor}: the session has ${differing(inSession, inRows)}, the table ${differing(inRows, inSession)}`,
        )
    }
    for (const [id, { n }] of counted.entries()) {
      const here = rows.filter(one => one.visitor % counters === id).length
      if (n !== here) problems.push(`counter ${id}: counted ${n}, and ${here} effects are there`)
    }
    const times = new Map<number, number>()
    for (const { number } of rows) times.set(number, (times.get(number) ?? 0) + 1)
    for (const [number, { told: what }] of told) {
      const here = times.get(number) ?? 0
      if (here > 1) problems.push(`effect ${number} is there ${here} times`)
      if (what === 'stored' && here === 0) problems.push(`effect ${number} was answered 200 and is not there`)
      if (what === 'not stored' && here > 0) problems.push(`effect ${number} was refused and is there`)
    }
    return { problems, effects: rows.length }
  }

  for (const visitor of clients.keys()) begun.push((await request(visitor)) === 'stored' ? 1 : 0)
  if (begun.includes(0)) throw new Error('not every visitor got a session')
  return {
    served,
    apps,
    answers,
    settled,
    request,
    calm,
    verify,
    close: async () => {
      for (const app of apps) await app.close()
      for (const pool of pools) await pool.end()
    },
  }
}

/** The same visitor at another application: the session is the same, and its cookie does not change. */
function elsewhere(client: Client, served: TxServed): Client {
  const other = served.client()
  for (const [name, value] of client.cookies) other.cookies.set(name, value)
  return other
}

const tellCode: TxMiddleware = async (ctx, next) => {
  try {
    await next()
  } catch (error) {
    const { code, status, message } = error as { code?: string; status?: number; message: string }
    ctx.status = status ?? 500
    ctx.set('x-code', String(code))
    ctx.body = message
  }
}

function differing(some: readonly number[], others: readonly number[]): string {
  const only = some.filter(number => !others.includes(number))
  return only.length === 0 ? 'nothing more' : only.slice(0, 5).join(' ')
}
