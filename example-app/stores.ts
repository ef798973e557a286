/** Where the shop's sessions can live, by the names that the command line knows. */
import { createClient, createCluster } from 'redis'
import { memoryStore, mysqlStore, redisStore, type SessionStore } from 'session-tx'

/** A store, and what must be closed after `tx.close()`. */
export interface OpenedStore {
  readonly store: SessionStore
  close(): Promise<unknown>
}

const nothing = async (): Promise<void> => {}

const STORES = {
  memory: async () => ({ store: memoryStore(), close: nothing }),
  mysql: async () => ({ store: mysqlStore(), close: nothing }),
  redis: async () => {
    const client = await openRedis()
    return { store: redisStore(client, { prefix: 'shop:' }), close: () => client.close() }
  },
} as const satisfies Record<string, () => Promise<OpenedStore>>

export type StoreName = keyof typeof STORES
export const STORE_NAMES = Object.keys(STORES) as readonly StoreName[]

export const openStore = (name: StoreName): Promise<OpenedStore> => STORES[name]()

/** The server that REDIS_URL names, or the cluster whose nodes REDIS_NODES names. */
export async function openRedis() {
  const { REDIS_URL: url, REDIS_NODES: nodes } = process.env
  if (url === undefined) throw new Error('REDIS_URL is not set: npm run demo and npm start set it')
  const client =
    nodes === undefined
      ? createClient({ url })
      : createCluster({ rootNodes: nodes.split(' ').map(node => ({ url: node })) })
  client.on('error', (error: Error) => console.error(`Redis: ${error.message}`))
  await client.connect()
  return client
}
