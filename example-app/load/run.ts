/** One compared application under load, from an empty shop to what is left of it. Leaves no process and no database. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import mysql, { type RowDataPacket } from 'mysql2/promise'
import type { ShopState } from '../invariants.js'
import { createDatabase, dropDatabase } from '../schema.js'
import { CREDIT } from '../shop.js'
import { Shopper } from './shopper.js'

export interface LoadOptions {
  /** Which application, as compared/child.ts knows it. */
  readonly application: string
  readonly seconds: number
  readonly url: string
  readonly signal: AbortSignal
  readonly onProgress: (share: number, requests: number) => void
}

export interface LoadResult {
  readonly state: ShopState
  readonly requestsPerSecond: number
  readonly conflicts: number
  readonly reruns: number
  readonly statuses: ReadonlyMap<number, number>
}

const SHOPPERS = 16
const TABS = 3
const PROGRESS_MS = 200

export async function underLoad(options: LoadOptions): Promise<LoadResult> {
  const { application, url } = options
  const name = `session_tx_demo_${process.pid}_${application.replaceAll('-', '_')}`
  const own = await createDatabase(url, name)
  // Under NODE_ENV=production the application would want to be told who may look at its metrics.
  const env = { ...process.env, NODE_ENV: 'development' }
  const child = fork(fileURLToPath(new URL('../compared/child.js', import.meta.url)), [application, own], {
    env,
  })
  const ended = once(child, 'exit')
  try {
    const { port } = await tellsOf<{ port: number }>(child, ended)
    return await shopAt(port, own, options, child, ended)
  } finally {
    if (child.connected) child.disconnect()
    await ended
    await dropDatabase(url, name)
  }
}

async function shopAt(
  port: number,
  url: string,
  { seconds, signal, onProgress }: LoadOptions,
  child: ChildProcess,
  ended: Promise<unknown>,
): Promise<LoadResult> {
  const shoppers = Array.from({ length: SHOPPERS }, (_, index) => new Shopper(port, index + 1))
  await Promise.all(shoppers.map(shopper => shopper.look()))
  const statuses = (): Map<number, number> => {
    const counts = new Map<number, number>()
    for (const shopper of shoppers)
      for (const [status, count] of shopper.statuses) counts.set(status, (counts.get(status) ?? 0) + count)
    return counts
  }
  const requests = (): number => [...statuses().values()].reduce((sum, count) => sum + count, 0)

  const start = performance.now()
  const before = requests()
  const share = (): number => (performance.now() - start) / (seconds * 1000)
  const progress = setInterval(() => onProgress(Math.min(1, share()), requests()), PROGRESS_MS)
  try {
    await Promise.all(shoppers.map(shopper => shopper.shop(TABS, () => signal.aborted || share() >= 1)))
  } finally {
    clearInterval(progress)
  }
  signal.throwIfAborted()
  const requestsPerSecond = (requests() - before) / ((performance.now() - start) / 1000)
  const counts = tellsOf<{ conflicts: number; reruns: number }>(child, ended)
  child.send('counts')
  const { conflicts, reruns } = await counts
  const left = await Promise.all(shoppers.map(shopper => shopper.leave()))
  const state = { ...(await rowsOf(url)), credit: CREDIT, shoppers: left }
  return { state, requestsPerSecond, conflicts, reruns, statuses: statuses() }
}

/** The next thing that the child says. */
async function tellsOf<T>(child: ChildProcess, ended: Promise<unknown>): Promise<T> {
  const died = ended.then(() => Promise.reject(new Error('the application ended before its time')))
  const [message] = (await Promise.race([once(child, 'message'), died])) as [T]
  return message
}

async function rowsOf(url: string): Promise<Pick<ShopState, 'stock' | 'orders' | 'lines' | 'balances'>> {
  const connection = await mysql.createConnection(url)
  const all = async <Row>(table: string): Promise<Row[]> => {
    const [rows] = await connection.query<RowDataPacket[]>('SELECT * FROM ??', [table])
    return rows as Row[]
  }
  try {
    return {
      stock: await all('stock'),
      orders: await all('orders'),
      lines: await all('order_lines'),
      balances: await all('accounts'),
    }
  } finally {
    await connection.end()
  }
}
