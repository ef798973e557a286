/** Where the shop's sessions can live, by the names that the command line knows. */
import { memoryStore, mysqlStore, type SessionStore } from 'session-tx'

const STORES = {
  memory: () => memoryStore(),
  mysql: () => mysqlStore(),
} as const satisfies Record<string, () => SessionStore>

export type StoreName = keyof typeof STORES
export const STORE_NAMES = Object.keys(STORES) as readonly StoreName[]

export const createStore = (name: StoreName): SessionStore => STORES[name]()
