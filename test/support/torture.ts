/**
 * Visitors of an application whose every effect can be accounted for (torture-app.ts): what it answered is compared with
 * what is in the sessions and in the rows in the end. Knows nothing of what breaks meanwhile.
 */
import mysql, { type Pool, type RowDataPacket } from 'mysql2/promise'
import type { EventPayloads, SessionTxOptions } from '../../lib/index.js'
import type { KoaContext } from '../../lib/http/koa-context.js'
import { COMMIT_TABLE_DDL } from '../../lib/mysql/commit-record/commit-table.js'
import { systemEnvironment } from '../../lib/transaction/clock.js'
import { sessionTables } from '../../lib/store/mysql-tables.js'
import { serveTx, type TxServed } from './app.js'
import { type Answer, Client } from './client.js'
import { addEffect, makeTables, OWN_HEADER, tellCode } from './torture-app.js'

/** What the client was told: it is stored; it is not; nobody knows (yet). */
type Told = 'stored' | 'not stored' | 'unknown'

/** The application was there no longer when it should have answered. */
const CUT = 'cut'

export interface VisitorsSetup {
  /** Of the applications; a visitor goes to the one of its number, unless told otherwise. */
  readonly urls: readonly string[]
  /** Of the database server itself. */
  readonly databaseUrl: string
  readonly count: number
  /** How many rows count; of fewer than visitors, several share one. */
  readonly counters?: number
  /** All sessions may end, and begin anew with the next request: each agrees with the rows that were made in it. */
  readonly sessionsEnd?: boolean
}

export class Visitors {
  readonly answers: Record<string, number> = {}
  readonly #setup: VisitorsSetup & { readonly counters: number }
  readonly #clients: readonly Client[]
  readonly #told = new Map<number, Told>()
  #count = 0

  private constructor(setup: VisitorsSetup & { readonly counters: number }) {
    const { urls, count } = setup
    this.#setup = setup
    this.#clients = Array.from({ length: count }, (_, visitor) => new Client(urls[visitor % urls.length]!))
  }

  /** Each has its session before anything breaks: a cookie that got lost would be a session that nobody can look at. */
  static async begin(setup: VisitorsSetup): Promise<Visitors> {
    const visitors = new Visitors({ counters: setup.count, ...setup })
    for (let visitor = 0; visitor < setup.count; visitor++)
      if ((await visitors.request(visitor)) !== 'stored') throw new Error('not every visitor got a session')
    return visitors
  }

  /** One request of that visitor; to the application of that number, by default always the same for a visitor. */
  async request(visitor: number, application?: number): Promise<Told> {
    const number = ++this.#count
    const headers = {
      'x-visitor': String(visitor),
      'x-number': String(number),
      'x-counter': String(visitor % this.#setup.counters),
    }
    const told = this.#understood(await answerTo(this.#client(visitor, application), headers))
    this.#told.set(number, told)
    return told
  }

  /** The same visitor at another application: the session is the same, and its cookie does not change. */
  #client(visitor: number, application?: number): Client {
    const own = this.#clients[visitor]!
    if (application === undefined) return own
    const other = new Client(this.#setup.urls[application]!)
    for (const [name, value] of own.cookies) other.cookies.set(name, value)
    return other
  }

  #understood(answer: Answer | typeof CUT): Told {
    if (answer === CUT || answer.headers[OWN_HEADER] === undefined) return this.#note(CUT, 'unknown')
    const { status, headers, text } = answer
    const code = status === 200 ? 'OK' : String(headers['x-code'])
    if (status !== 200 && status !== 503) throw new Error(`${status} ${code}: ${text}`)
    const told = code === 'OK' ? 'stored' : code === 'COMMIT_UNKNOWN' ? 'unknown' : 'not stored'
    return this.#note(`${status} ${code}`, told)
  }

  #note(kind: string, told: Told): Told {
    this.answers[kind] = (this.answers[kind] ?? 0) + 1
    return told
  }

  /** What does not agree, as sentences; empty if all is well. Also `effects`, how many there are. */
  async verify(): Promise<{ readonly problems: readonly string[]; readonly effects: number }> {
    const { databaseUrl, urls, counters } = this.#setup
    const looking = await mysql.createConnection(databaseUrl)
    if (urls.length > 1) await looking.query('SET SESSION wsrep_sync_wait = 1') // the nodes of one cluster
    const [rows] = await looking.query<
      (RowDataPacket & { number: number; visitor: number; session: number })[]
    >('SELECT number, visitor, session FROM effect ORDER BY number')
    const [counted] = await looking.query<(RowDataPacket & { n: number })[]>(
      'SELECT n FROM counter ORDER BY id',
    )
    await looking.end()
    const problems: string[] = []
    for (const [visitor, client] of this.#clients.entries()) {
      const { numbers } = (await client.get('/')).json<{ numbers: number[] }>()
      const inSession = numbers.toSorted((a, b) => a - b)
      const own = rows.filter(one => one.visitor === visitor)
      const inRows = own
        .filter(({ session }) => this.#setup.sessionsEnd !== true || session === numbers[0])
        .map(({ number }) => number)
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
    for (const [number, what] of this.#told) {
      const here = times.get(number) ?? 0
      if (here > 1) problems.push(`effect ${number} is there ${here} times`)
      if (what === 'stored' && here === 0) problems.push(`effect ${number} was answered 200 and is not there`)
      if (what === 'not stored' && here > 0) problems.push(`effect ${number} was refused and is there`)
    }
    return { problems, effects: rows.length }
  }
}

async function answerTo(
  client: Client,
  headers: Readonly<Record<string, string>>,
): Promise<Answer | typeof CUT> {
  try {
    return await client.send('POST', '/', { headers })
  } catch {
    return CUT // it was told as such, and counted
  }
}

function differing(some: readonly number[], others: readonly number[]): string {
  const only = some.filter(number => !others.includes(number))
  return only.length === 0 ? 'nothing more' : only.slice(0, 5).join(' ')
}

export interface Torture extends Pick<Visitors, 'answers' | 'request' | 'verify'> {
  /** The application, or the first of them. */
  readonly served: TxServed
  /** One for each URL. */
  readonly apps: readonly TxServed[]
  readonly settled: readonly EventPayloads['settled'][]
  /** Resolves when nothing is in doubt any more. */
  calm(): Promise<void>
  close(): Promise<void>
}

/**
 * The application in this process, with commit records.
 * @param appUrl what the application connects to: the server, or a proxy in front of it; several applications if there
 * are several
 * @param url the server itself
 * @param options called for each application if it is a function
 */
export async function openTorture(
  appUrl: string | readonly string[],
  url: string,
  count: number,
  options: SessionTxOptions<KoaContext> | (() => SessionTxOptions<KoaContext>) = {},
  counters = count,
): Promise<Torture> {
  await makeTables(url, [COMMIT_TABLE_DDL, ...sessionTables('sessions').map(({ ddl }) => ddl)])
  const pools: Pool[] = [appUrl].flat().map(uri => mysql.createPool({ uri, connectionLimit: 8 }))
  const serving = pools.map(pool => {
    const given = typeof options === 'function' ? options() : options
    return serveTx({
      environment: systemEnvironment,
      options: { pool, commitRecord: 'always', ...given },
      above: [tellCode],
      below: addEffect,
    })
  })
  const apps = await Promise.all(serving)
  const [served] = apps
  if (served === undefined) throw new Error('no URL')
  const settled: EventPayloads['settled'][] = []
  for (const { tx } of apps) tx.on('settled', event => settled.push(event))
  const visitors = await Visitors.begin({ urls: apps.map(one => one.url), databaseUrl: url, count, counters })
  return {
    served,
    apps,
    answers: visitors.answers,
    request: (visitor, application) => visitors.request(visitor, application),
    verify: () => visitors.verify(),
    settled,
    calm: async () => {
      while (apps.some(({ tx }) => tx.stats().inDoubt !== 0))
        await new Promise(resolve => setTimeout(resolve, 20))
    },
    close: async () => {
      for (const app of apps) await app.close()
      for (const pool of pools) await pool.end()
    },
  }
}
