/** `node child.js <application> <database URL> <connections> <store>`: one of the compared applications in its process. */
import type { RequestListener } from 'node:http'
import { createApp } from '../app.js'
import { serveApplication } from '../processes/application.js'
import { openPool } from '../schema.js'
import { openStore, type StoreName } from '../stores.js'
import { type ComparedApp, koaSessionApp } from './koa-session.js'
import { openKoaSessionStore } from './koa-session-stores.js'

const [name, url, connectionsMax, store] = process.argv.slice(2) as [string, string, string, StoreName]
const pool = openPool(url, Number(connectionsMax))
const { app, counts, close } = await createCompared()
app.silent = true

serveApplication({
  listener: app.callback() as RequestListener,
  figures: counts,
  close: () => close().then(() => pool.end()),
})

async function createCompared(): Promise<ComparedApp & { readonly close: () => Promise<unknown> }> {
  if (name !== 'session-tx') {
    const lock = name === 'for-update' ? 'FOR UPDATE' : ''
    const sessions = await openKoaSessionStore(store, pool)
    return { ...koaSessionApp(pool, sessions.store, lock), close: sessions.close }
  }
  const sessions = await openStore(store)
  const { app: own, tx } = createApp(pool, sessions.store)
  const counts = () => {
    const { conflicts, retried } = tx.stats()
    return { conflicts: conflicts.total, reruns: retried }
  }
  return { app: own, counts, close: () => tx.close().then(sessions.close) }
}
