/**
 * How commands reach Redis: the few methods that are used of node-redis and ioredis, standalone and Cluster, as one. A
 * script is sent by its hash, and whole to a server that does not know it. Knows nothing of what the script does.
 */
import { createHash } from 'node:crypto'
import { SessionTxError } from '../errors.js'
import type { Clock } from '../transaction/clock.js'

/** `createClient()` or `createCluster()` of the package `redis`, 4 or newer. */
export interface NodeRedisClient {
  evalSha(sha1: string, options: { keys: string[]; arguments: string[] }): Promise<unknown>
  eval(script: string, options: { keys: string[]; arguments: string[] }): Promise<unknown>
}

/** `new Redis()` or `new Cluster()` of the package `ioredis`, 5 or newer. */
export interface IoredisClient {
  evalsha(sha1: string, keysCount: number, ...keysAndArguments: string[]): Promise<unknown>
  eval(script: string, keysCount: number, ...keysAndArguments: string[]): Promise<unknown>
}

export type RedisClient = NodeRedisClient | IoredisClient

/** A command was sent, perhaps, and not answered: whether it was carried out is not known, and it may be yet. */
export class Unanswered extends SessionTxError {
  constructor(message: string, cause?: unknown) {
    super('STORE_UNAVAILABLE', message, { cause })
  }
}

/** Longest that one is waited for: clients keep them while there is no connection. */
const ANSWER_MS_MAX = 2_000

interface Sent {
  readonly keys: string[]
  readonly args: string[]
}

export class ScriptRunner {
  readonly #script: string
  readonly #sha1: string
  readonly #bySha: (sha1: string, sent: Sent) => Promise<unknown>
  readonly #whole: (script: string, sent: Sent) => Promise<unknown>

  /** @throws MISCONFIGURED if it is no client of either library */
  constructor(client: RedisClient, script: string) {
    this.#script = script
    this.#sha1 = createHash('sha1').update(script).digest('hex')
    if (isClient<NodeRedisClient>(client, 'evalSha')) {
      this.#bySha = (sha1, { keys, args }) => client.evalSha(sha1, { keys, arguments: args })
      this.#whole = (text, { keys, args }) => client.eval(text, { keys, arguments: args })
    } else if (isClient<IoredisClient>(client, 'evalsha')) {
      this.#bySha = (sha1, { keys, args }) => client.evalsha(sha1, keys.length, ...keys, ...args)
      this.#whole = (text, { keys, args }) => client.eval(text, keys.length, ...keys, ...args)
    } else {
      const message = 'redisStore(client) takes a client of node-redis or ioredis, or a cluster of either'
      throw new SessionTxError('MISCONFIGURED', message)
    }
  }

  /** @throws STORE_UNAVAILABLE; {@link Unanswered} if it may be carried out all the same */
  async run(sent: Sent, clock: Clock): Promise<readonly unknown[]> {
    const work = this.#bySha(this.#sha1, sent).catch((error: unknown) => {
      if (!String((error as Error).message).startsWith('NOSCRIPT')) throw error
      return this.#whole(this.#script, sent)
    })
    try {
      return (await inTime(work, clock)) as unknown[]
    } catch (cause) {
      if (cause instanceof Unanswered) throw cause
      const { message } = cause as Error
      if (isReply(message))
        throw new SessionTxError('STORE_UNAVAILABLE', `Redis refused: ${message}`, { cause })
      throw new Unanswered(`Redis did not answer: ${message}`, cause)
    }
  }
}

function isClient<C>(client: unknown, method: 'evalSha' | 'evalsha'): client is C {
  const given = client as Record<string, unknown> | null | undefined
  return typeof given?.[method] === 'function' && typeof given['eval'] === 'function'
}

/** What Redis says begins with a word in capitals; what a client says of its connection does not. */
function isReply(message: string): boolean {
  return /^[A-Z]{2,} /.test(message)
}

function inTime<T>(work: Promise<T>, clock: Clock): Promise<T> {
  return new Promise((resolve, reject) => {
    const late = (): void => reject(new Unanswered(`Redis did not answer within ${ANSWER_MS_MAX} ms`))
    const timer = clock.after(ANSWER_MS_MAX, late)
    work.then(resolve, reject).finally(() => timer.cancel())
  })
}
