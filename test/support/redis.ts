/** Clients of the Redis that REDIS_URL names, in both libraries; each test takes a prefix of its own. */

import { randomBytes } from 'node:crypto'
import { Redis } from 'ioredis'
import { createClient } from 'redis'

export type NodeRedis = Awaited<ReturnType<typeof openNodeRedis>>

export function redisUrl(): string {
  const url = process.env.REDIS_URL
  if (!url) throw new Error('REDIS_URL is not set: run npm test; it starts a Redis')
  return url
}

/** Nobody else's keys begin with it. */
export function newPrefix(): string {
  return `t_${randomBytes(6).toString('hex')}:`
}

/** An error of the connection is what its commands say; without a listener it would end the process. */
export async function openNodeRedis(url = redisUrl()) {
  const client = createClient({ url })
  client.on('error', () => {})
  await client.connect()
  return client
}

export function openIoredis(url = redisUrl()): Redis {
  const client = new Redis(url, { maxRetriesPerRequest: null })
  client.on('error', () => {})
  return client
}
