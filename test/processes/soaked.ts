/**
 * `node soaked.js <database URL> <connections> <sessions> <bytes of a body>`: an application that is loaded for a long time
 * (faults/soak.test.ts), with routes for all that a request can do, and what its parent wants to know of what is left over:
 * also how many objects of the library's own classes are alive. The numbers are the most that it has of each.
 */
import { readdirSync, readFileSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import v8 from 'node:v8'
import { runInNewContext } from 'node:vm'
import Koa, { type DefaultState, type ParameterizedContext } from 'koa'
import mysql, { type RowDataPacket } from 'mysql2/promise'
import { serveApplication } from '../../example-app/processes/application.js'
import { memoryStore, resolvers, sessionTx, type SessionTxContext } from 'session-tx'

export interface SoakFigures {
  /** After everything was collected. */
  readonly heapBytes: number
  readonly running: number
  readonly served: number
  readonly handles: Readonly<Record<string, number>>
  readonly stats: Pick<
    ReturnType<typeof tx.stats>,
    'requests' | 'conflicts' | 'retried' | 'resolved' | 'refused' | 'tickets' | 'sessions'
  >
}

v8.setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

const [url = '', ...limits] = process.argv.slice(2)
const [connections, sessionsMax, requestBytesMax] = limits.map(Number) as [number, number, number]
const pool = mysql.createPool({ uri: url, connectionLimit: connections })
const tx = sessionTx({
  pool,
  store: memoryStore({ sessionsMax }),
  resolve: { clicks: resolvers.counter },
  hold: { requestBytesMax },
  retry: { retries: 5, deadlineMs: 10_000 },
})

type Context = ParameterizedContext<DefaultState, SessionTxContext>

/** The first to come wait for as many others as there are connections. */
class Meeting {
  #waiting: (() => void)[] = []

  join(): Promise<void> {
    return new Promise(go => {
      this.#waiting.push(go)
      if (this.#waiting.length < connections) return
      for (const each of this.#waiting.splice(0)) each()
    })
  }
}
const meeting = new Meeting()

async function addToRow(ctx: Context, id: number): Promise<void> {
  const [[row]] = await ctx.tx.query<RowDataPacket[]>('SELECT n FROM soak WHERE id = ?', [id])
  await ctx.tx.query('UPDATE soak SET n = ? WHERE id = ?', [Number(row?.['n']) + 1, id])
}

function addToVariable({ session }: Context, name: string): void {
  session[name] = Number(session[name] ?? 0) + 1
}

async function bodyBytes(ctx: Context): Promise<number> {
  let bytes = 0
  for await (const chunk of ctx.req as AsyncIterable<Buffer>) bytes += chunk.length
  return bytes
}

const ownRow = (ctx: Context): number => 10 + Number(ctx.get('x-visitor'))

const routes: Readonly<Record<string, (ctx: Context) => unknown>> = {
  read: async ctx => {
    await ctx.tx.query('SELECT n FROM soak WHERE id = ?', [ownRow(ctx)])
    return { ...ctx.session }
  },
  write: async ctx => {
    addToVariable(ctx, Number(ctx.get('x-visitor')) % 2 === 0 ? 'visits' : 'clicks')
    await addToRow(ctx, ownRow(ctx))
    ctx.tx.afterCommit(() => {})
  },
  upload: async ctx => {
    const uploads = (ctx.session['uploads'] ?? []) as unknown[]
    ctx.session['uploads'] = [...uploads.slice(-5), { bytes: await bodyBytes(ctx) }]
  },
  hot: async ctx => {
    addToVariable(ctx, 'hot')
    await addToRow(ctx, 1)
  },
  conflict: async ctx => {
    addToVariable(ctx, 'visits')
    if (ctx.tx.attempt < 3) ctx.tx.conflict()
  },
  throw: async ctx => {
    addToVariable(ctx, 'visits')
    await addToRow(ctx, ownRow(ctx))
    throw new Error('as always')
  },
  /** Its client may leave meanwhile. */
  slow: async ctx => {
    addToVariable(ctx, 'visits')
    await ctx.tx.query('SELECT SLEEP(0.005)')
    await addToRow(ctx, 2)
    ctx.tx.signal.addEventListener('abort', () => {})
  },
  savepoint: async ctx => {
    addToVariable(ctx, 'visits')
    await ctx.tx
      .savepoint(async () => {
        addToVariable(ctx, 'undone')
        await addToRow(ctx, ownRow(ctx))
        throw new Error('back')
      })
      .catch(() => {})
  },
  login: async ctx => {
    await ctx.session.regenerate()
    ctx.session['user'] = Number(ctx.get('x-visitor'))
    await addToRow(ctx, ownRow(ctx))
  },
  logout: async ctx => {
    await ctx.session.destroy()
  },
  /** Answered when as many are here as there are connections, each with one. */
  meet: async ctx => {
    await addToRow(ctx, ownRow(ctx))
    await meeting.join()
  },
}

let running = 0
let served = 0
const app = new Koa<DefaultState, SessionTxContext>()
app.silent = true
app.use(async (ctx, next) => {
  if (ctx.path === '/live') return void (ctx.body = await liveObjects())
  running += 1
  try {
    await next()
  } finally {
    running -= 1
    served += 1
  }
})
app.use(tx)
app.use(async ctx => {
  const found = routes[ctx.path.slice(1)]
  if (found === undefined) return
  ctx.body = (await found(ctx)) ?? { attempt: ctx.tx.attempt }
})

/** The classes of the library, exported or not. What the metrics count by second and minute fills within an hour. */
const LAYERS = ['transaction', 'session', 'mysql', 'store', 'joint', 'http']
const classes = new Set(LAYERS.flatMap(classesOf))

function classesOf(layer: string): string[] {
  const folder = new URL(`${layer}/`, import.meta.resolve('session-tx'))
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter(file => file.endsWith('.js'))
    .flatMap(file => [...readFileSync(new URL(file, folder), 'utf8').matchAll(/^(?:export )?class (\w+)/gm)])
    .map(([, name]) => name!)
}

interface Snapshot {
  readonly snapshot: {
    readonly meta: { readonly node_fields: string[]; readonly node_types: (string[] | string)[] }
  }
  readonly nodes: readonly number[]
  readonly strings: readonly string[]
}

/** How many objects there are of each class. Taking a snapshot collects everything first. */
async function liveObjects(): Promise<Record<string, number>> {
  let text = ''
  for await (const chunk of v8.getHeapSnapshot().setEncoding('utf8')) text += String(chunk)
  const { snapshot, nodes, strings } = JSON.parse(text) as Snapshot
  const { node_fields: fields, node_types: types } = snapshot.meta
  const [typeAt, nameAt] = [fields.indexOf('type'), fields.indexOf('name')]
  const object = types[typeAt]!.indexOf('object')
  const counts = Object.fromEntries([...classes].sort().map(name => [name, 0]))
  for (let node = 0; node < nodes.length; node += fields.length) {
    if (nodes[node + typeAt] !== object) continue
    const name = strings[nodes[node + nameAt]!]!
    if (classes.has(name)) counts[name]! += 1
  }
  return counts
}

function handles(): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const kind of process.getActiveResourcesInfo()) counts[kind] = (counts[kind] ?? 0) + 1
  return counts
}

serveApplication({
  listener: app.callback() as RequestListener,
  figures: (): SoakFigures => {
    collectGarbage()
    const { requests, conflicts, retried, resolved, refused, tickets, sessions } = tx.stats()
    const stats = { requests, conflicts, retried, resolved, refused, tickets, sessions }
    return { heapBytes: process.memoryUsage().heapUsed, running, served, handles: handles(), stats }
  },
  close: async () => {
    await tx.close()
    await pool.end()
  },
})
