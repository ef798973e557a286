/**
 * One of the compared applications in a process of its own, so that those who load it do not share its event loop. Told
 * what to serve by its arguments; ends when whoever started it does.
 */
import type { AddressInfo } from 'node:net'
import { createApp } from '../app.js'
import { openPool } from '../schema.js'
import { type ComparedApp, koaSessionApp } from './koa-session.js'

const [name = '', url = ''] = process.argv.slice(2)
const pool = openPool(url)
const { app, counts, close } = createCompared()
app.silent = true

const server = app.listen(0, '127.0.0.1', () =>
  process.send?.({ port: (server.address() as AddressInfo).port }),
)
process.on('message', () => process.send?.(counts()))
process.once('disconnect', () => void end())
// Ctrl-C reaches the whole process group; when to end is the parent's to say.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => {})

async function end(): Promise<void> {
  server.closeAllConnections()
  await new Promise(resolve => server.close(resolve))
  await close()
  await pool.end()
}

function createCompared(): ComparedApp & { readonly close: () => Promise<void> } {
  if (name !== 'session-tx') {
    return { ...koaSessionApp(pool, name === 'for-update' ? 'FOR UPDATE' : ''), close: async () => {} }
  }
  const { app: own, tx } = createApp(pool)
  const counts = () => {
    const { conflicts, retried } = tx.stats()
    return { conflicts: conflicts.total, reruns: retried }
  }
  return { app: own, counts, close: () => tx.close() }
}
