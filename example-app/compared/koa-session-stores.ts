/** External stores for koa-session, as they are usually written: the whole session, read before and written after. */
import { setImmediate as later } from 'node:timers/promises'
import type { Pool, RowDataPacket } from 'mysql2/promise'
import { openRedis, type StoreName } from '../stores.js'

export interface KoaSessionStore {
  get(key: string): Promise<unknown>
  set(key: string, session: unknown): Promise<void>
  destroy(key: string): Promise<void>
}

export interface OpenedKoaSessionStore {
  readonly store: KoaSessionStore
  close(): Promise<unknown>
}

export async function openKoaSessionStore(name: StoreName, pool: Pool): Promise<OpenedKoaSessionStore> {
  if (name === 'redis') {
    const client = await openRedis()
    return { store: redis(client), close: () => client.close() }
  }
  return { store: name === 'mysql' ? rows(pool) : memory(), close: async () => {} }
}

/** Answers as Redis does, serialised and later, but without its network. */
function memory(): KoaSessionStore {
  const sessions = new Map<string, string>()
  return {
    async get(key) {
      await later()
      const text = sessions.get(key)
      return text === undefined ? undefined : JSON.parse(text)
    },
    async set(key, session) {
      const text = JSON.stringify(session)
      await later()
      sessions.set(key, text)
    },
    async destroy(key) {
      await later()
      sessions.delete(key)
    },
  }
}

function redis(client: Awaited<ReturnType<typeof openRedis>>): KoaSessionStore {
  return {
    async get(key) {
      const text = await client.get(key)
      return text === null ? undefined : JSON.parse(text)
    },
    async set(key, session) {
      await client.set(key, JSON.stringify(session), { EX: DAY_SECONDS })
    },
    async destroy(key) {
      await client.del(key)
    },
  }
}
const DAY_SECONDS = 86_400

/** On connections of its own, as every such store is: it knows nothing of the handler's transaction. */
function rows(pool: Pool): KoaSessionStore {
  return {
    async get(key) {
      const sql = 'SELECT contents FROM koa_sessions WHERE id = ?'
      const [[row]] = await pool.query<RowDataPacket[]>(sql, [key])
      return row === undefined ? undefined : JSON.parse(String(row['contents']))
    },
    async set(key, session) {
      const text = JSON.stringify(session)
      await pool.query(
        'INSERT INTO koa_sessions (id, contents) VALUES (?, ?) ON DUPLICATE KEY UPDATE contents = ?',
        [key, text, text],
      )
    },
    async destroy(key) {
      await pool.query('DELETE FROM koa_sessions WHERE id = ?', [key])
    },
  }
}
