/**
 * A Galera cluster of the test's own: its nodes, the way to one node that has joined, and applications on each. Knows
 * nothing of what is tested on it.
 */
import mysql, { type Connection, type Pool, type RowDataPacket } from 'mysql2/promise'
import type { KoaContext, SessionTxOptions } from '../../lib/index.js'
import { systemEnvironment } from '../../lib/transaction/clock.js'
import { serveTx, type TxMiddleware, type TxServed } from './app.js'
import { ownCluster, type OwnServer } from './own-server.js'

export interface Cluster {
  readonly nodes: readonly OwnServer[]
  /** A connection of the cluster's own to each node, made anew where it was lost. */
  admin(node: number): Promise<Connection>
  /** As somebody outside of every application. */
  query(node: number, sql: string): Promise<RowDataPacket[]>
  /** Resolves when every node has what any of them has answered. */
  seenEverywhere(): Promise<void>
  /** Resolves when the node is a member again and has everything. */
  joined(node: number): Promise<void>
  /** From the other nodes, not from its clients; resolves when it has given up its place in the cluster. */
  cutOff(node: number): Promise<void>
  /** The end of that. */
  reconnect(node: number): Promise<void>
  /** An application whose pool leads to that node; ended with the cluster or before. */
  serve(
    node: number,
    below: TxMiddleware,
    options?: SessionTxOptions<KoaContext>,
    url?: string,
  ): Promise<TxServed>
  /** Ends all applications. */
  clear(): Promise<void>
  close(): Promise<void>
}

const LOOK_AGAIN_MS = 20
const STATE = "SHOW STATUS WHERE Variable_name IN ('wsrep_ready', 'wsrep_local_state_comment')"

export async function openCluster(): Promise<Cluster> {
  const nodes = await ownCluster()
  const admins = new Map<number, Connection>()
  let undo: (() => Promise<void>)[] = []

  async function admin(node: number): Promise<Connection> {
    const known = admins.get(node)
    if (known !== undefined) return known
    const connection = await mysql.createConnection(nodes[node]!.url)
    connection.on('error', () => admins.delete(node))
    admins.set(node, connection)
    return connection
  }

  async function query(node: number, sql: string): Promise<RowDataPacket[]> {
    const [rows] = await (await admin(node)).query<RowDataPacket[]>(sql)
    return rows
  }

  async function isMember(node: number): Promise<boolean> {
    try {
      const [rows] = await (await admin(node)).query<(RowDataPacket & { Value: string })[]>(STATE)
      return (
        rows
          .map(({ Value }) => Value)
          .sort()
          .join() === 'ON,Synced'
      )
    } catch {
      admins.delete(node) // it has ended, or does not listen yet
      return false
    }
  }
  async function until(node: number, isIn: boolean): Promise<void> {
    while ((await isMember(node)) !== isIn) await new Promise(resolve => setTimeout(resolve, LOOK_AGAIN_MS))
  }
  const isolate = async (node: number, how: 0 | 1): Promise<unknown> =>
    (await admin(node)).query(`SET GLOBAL wsrep_provider_options = 'gmcast.isolate=${how}'`)

  const clear = async (): Promise<void> => {
    for (const one of undo.splice(0).reverse()) await one()
  }
  const cluster: Cluster = {
    nodes,
    admin,
    query,
    async seenEverywhere() {
      for (const node of nodes.keys()) {
        await query(node, 'SET SESSION wsrep_sync_wait = 7')
        await query(node, 'SELECT COUNT(*) FROM information_schema.engines')
      }
    },
    joined: node => until(node, true),
    async cutOff(node) {
      await isolate(node, 1)
      await until(node, false)
    },
    async reconnect(node) {
      await isolate(node, 0)
    },
    async serve(node, below, options = {}, url = nodes[node]!.url) {
      const pool: Pool = mysql.createPool({ uri: url, connectionLimit: 8 })
      const served = await serveTx({ environment: systemEnvironment, options: { pool, ...options }, below })
      undo.push(async () => {
        await served.close()
        await pool.end()
      })
      return served
    },
    clear,
    async close() {
      await clear()
      for (const connection of admins.values()) connection.destroy()
      undo = []
      await nodes[0]?.close()
    },
  }
  for (const node of nodes.keys()) await cluster.joined(node)
  return cluster
}
