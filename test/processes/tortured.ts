/**
 * `node tortured.js <database URL> [<Redis URL> <prefix>]`: the application of support/torture-app.ts in its process,
 * sessions in MySQL or in Redis.
 */
import type { RequestListener } from 'node:http'
import Koa, { type DefaultState } from 'koa'
import mysql from 'mysql2/promise'
import { createClient } from 'redis'
import { mysqlStore, redisStore, sessionTx, type SessionTxContext } from 'session-tx'
import { serveApplication } from '../../example-app/processes/application.js'
import { addEffect, tellCode } from '../support/torture-app.js'

const [url = '', redisUrl, prefix = ''] = process.argv.slice(2)
const pool = mysql.createPool({ uri: url, connectionLimit: 8 })
const redis = redisUrl === undefined ? undefined : createClient({ url: redisUrl })
redis?.on('error', () => {}) // it connects again
await redis?.connect()
const store = redis === undefined ? mysqlStore() : redisStore(redis, { prefix, graceMs: 2_000 })
const tx = sessionTx({ pool, store, retry: { retries: 10, deadlineMs: 10_000 } })
const app = new Koa<DefaultState, SessionTxContext>()
app.silent = true
app.use(tellCode).use(tx).use(addEffect)

serveApplication({
  listener: app.callback() as RequestListener,
  figures: () => ({ commitsLost: tx.stats().commitsLost }),
  close: async () => {
    await tx.close()
    await pool.end()
    redis?.destroy()
  },
})
