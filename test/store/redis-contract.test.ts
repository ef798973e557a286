/** The Redis store keeps the published contract of a session store, with both clients. */
import type { Redis } from 'ioredis'
import { redisStore } from '../../lib/index.js'
import { storeContract } from '../../lib/testing/index.js'
import { newPrefix, type NodeRedis, openIoredis, openNodeRedis } from '../support/redis.js'

let nodeRedis: NodeRedis
let ioredis: Redis

beforeAll(async () => {
  nodeRedis = await openNodeRedis()
  ioredis = openIoredis()
})
afterAll(async () => {
  await nodeRedis.close()
  await ioredis.quit()
})

const capabilities = {
  local: false,
  injectedClock: false,
  countsCommits: true,
  parallelClaims: true,
  findsUsers: true,
}
const prefix = newPrefix()

storeContract('redisStore with node-redis', () => redisStore(nodeRedis, { prefix }), capabilities)
storeContract('redisStore with ioredis', () => redisStore(ioredis, { prefix }), capabilities)
