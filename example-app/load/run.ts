/** One compared application under load, from an empty shop to what is left of it. Leaves no process and no database. */
import mysql, { type RowDataPacket } from 'mysql2/promise'
import type { ShopState } from '../invariants.js'
import { ApplicationGroup } from '../processes/group.js'
import { CONNECTIONS_MAX, createDatabase, databaseUrl, dropDatabase } from '../schema.js'
import { CREDIT } from '../shop.js'
import type { StoreName } from '../stores.js'
import { Shopper } from './shopper.js'

/** URLs of one server, or of several that have the same data. */
export type Nodes = readonly [string, ...string[]]

export interface LoadOptions {
  /** Which application, as compared/child.ts knows it. */
  readonly application: string
  readonly store: StoreName
  readonly processes: number
  readonly seconds: number
  readonly nodes: Nodes
  readonly signal: AbortSignal
  readonly onProgress: (share: number, requests: number) => void
}

/** What an application tells of itself. */
interface Figures {
  readonly conflicts: number
  readonly reruns: number
}

export interface LoadResult extends Figures {
  readonly state: ShopState
  readonly requestsPerSecond: number
  readonly statuses: ReadonlyMap<number, number>
}

const SHOPPERS = 16
const TABS = 3
const PROGRESS_MS = 200
const CHILD = new URL('../compared/child.js', import.meta.url)

export async function underLoad(options: LoadOptions): Promise<LoadResult> {
  const { application, store, processes, nodes } = options
  const name = `session_tx_demo_${process.pid}_${application.replaceAll('-', '_')}`
  const own = await createDatabase(nodes[0], name)
  try {
    const connectionsMax = Math.ceil(CONNECTIONS_MAX / processes)
    const group = await ApplicationGroup.start<Figures>(processes, CHILD, number => {
      const node = databaseUrl(nodes[number % nodes.length] ?? nodes[0], name)
      return [application, node, String(connectionsMax), store]
    })
    try {
      return await shopAt(group, own, options)
    } finally {
      await group.end()
    }
  } finally {
    await dropDatabase(nodes[0], name)
  }
}

async function shopAt(
  group: ApplicationGroup<Figures>,
  url: string,
  { seconds, nodes, signal, onProgress }: LoadOptions,
): Promise<LoadResult> {
  const shoppers = Array.from({ length: SHOPPERS }, (_, index) => new Shopper(group.port, index + 1))
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
  const figures = await group.figures()
  const conflicts = figures.reduce((sum, one) => sum + one.conflicts, 0)
  const reruns = figures.reduce((sum, one) => sum + one.reruns, 0)
  const left = await Promise.all(shoppers.map(shopper => shopper.leave()))
  const state = { ...(await rowsOf(url, nodes.length > 1)), credit: CREDIT, shoppers: left }
  return { state, requestsPerSecond, conflicts, reruns, statuses: statuses() }
}

async function rowsOf(
  url: string,
  isCluster: boolean,
): Promise<Pick<ShopState, 'stock' | 'orders' | 'lines' | 'balances'>> {
  const connection = await mysql.createConnection(url)
  // What another node has answered must be seen here.
  if (isCluster) await connection.query('SET SESSION wsrep_sync_wait = 1')
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
