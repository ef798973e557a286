/** Clients of the Redis that REDIS_URL names, in both libraries; each test takes a prefix of its own. */

import { randomBytes } from 'node:crypto'
import { Cluster, Redis } from 'ioredis'
import { createClient, createCluster } from 'redis'

export type NodeRedis = Awaited<ReturnType<typeof openNodeRedis>>
export type NodeRedisCluster = Awaited<ReturnType<typeof openNodeRedisCluster>>

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

/** @param urls of nodes, of which it asks one for the others */
export async function openNodeRedisCluster(urls: readonly string[]) {
  const client = createCluster({ rootNodes: urls.map(url => ({ url })) })
  client.on('error', () => {})
  client.on('node-error', () => {})
  await client.connect()
  return client
}

export function openIoredisCluster(urls: readonly string[]): Cluster {
  const client = new Cluster([...urls])
  client.on('error', () => {})
  return client
}
