/**
 * Steps of the Redis store as calls of its script, each with what this process remembers of the journal of a shard; and
 * what it hears of losses. Knows no session.
 *
 * Sessions are spread over shards by their key; a shard is a hash tag, so that in a Redis Cluster all of its keys are on
 * one node: what was lost, what is in doubt and who has which sessions is known without asking all keys.
 */
import { randomBytes } from 'node:crypto'
import { SessionTxError } from '../errors.js'
import type { EventHub } from '../events.js'
import type { Clock } from '../transaction/clock.js'
import { type RedisClient, ScriptRunner } from './redis-client.js'
import { FORMAT, SCRIPT } from './redis-script.js'

export const SHARDS = 256

type Step =
  | 'look'
  | 'stage'
  | 'commit'
  | 'publish'
  | 'rollback'
  | 'forbid'
  | 'reserve'
  | 'unreserve'
  | 'uncreate'
  | 'fetch'
  | 'touch'
  | 'sweep'
  | 'unlist'
  | 'users'
  | 'tidy'

/** What the script said, without what it said of the journal. */
export interface Reply {
  readonly status: string
  readonly rest: readonly unknown[]
}

interface Known {
  readonly epoch: string
  readonly run: string
  readonly count: number
}

const UNKNOWN: Known = Object.freeze({ epoch: '', run: '', count: 0 })
const WARN_AFTER_MS = 100
/** Of a commit: staged, and published. */
const HALVES = 2

interface JournalSetup {
  readonly client: RedisClient
  readonly prefix: string
  readonly clock: Clock
  readonly events: EventHub
}

function shardOf(key: string): number {
  let hash = 0
  for (let place = 0; place < key.length; place += 1) hash = (Math.imul(hash, 31) + key.charCodeAt(place)) | 0
  return (hash ^ (hash >>> 16)) & (SHARDS - 1)
}

export class RedisJournal {
  readonly #setup: JournalSetup
  readonly #runner: ScriptRunner
  readonly #known: Known[] = Array.from({ length: SHARDS }, () => UNKNOWN)
  #unreported = 0

  constructor(setup: JournalSetup) {
    this.#setup = setup
    this.#runner = new ScriptRunner(setup.client, SCRIPT)
  }

  /** @throws STORE_UNAVAILABLE; MISCONFIGURED if Redis is not set up to keep what it is given */
  step(step: Step, key: string, ...args: readonly (string | number)[]): Promise<Reply> {
    return this.inShard(shardOf(key), step, key, ...args)
  }

  async inShard(
    shard: number,
    step: Step,
    key: string,
    ...args: readonly (string | number)[]
  ): Promise<Reply> {
    const base = `${this.#setup.prefix}{${shard.toString(16).padStart(2, '0')}}:`
    const keys = [`${base}s:${key}`, `${base}journal`, `${base}intents`, `${base}users`]
    const { epoch, run, count } = this.#known[shard] ?? UNKNOWN
    const about = [step, epoch, run, String(count), randomBytes(6).toString('hex'), key]
    const sent = { keys, args: [...about, ...args.map(String)] }
    const [journal, status, ...rest] = await this.#runner.run(sent, this.#setup.clock)
    if (status === 'setup') throw badSetUp(String(rest[0]), String(rest[1]))
    if (status === 'format') throw newerFormat(String(rest[0]))
    this.#hear(shard, String(journal).split(' '))
    return { status: String(status), rest }
  }

  #hear(shard: number, [epoch = '', run = '', count = '0', lost = '0']: readonly string[]): void {
    const before = this.#known[shard]
    const known = { epoch, run, count: Number(count) }
    // Answers of several connections may come in another order.
    if (before?.epoch !== epoch || before.run !== run || before.count < known.count)
      this.#known[shard] = known
    if (lost !== '0') this.#lost(Math.ceil(Number(lost) / HALVES))
  }

  /** Told of at once; warned of when all shards that were asked together have been heard. */
  #lost(transactions: number): void {
    const { events, clock } = this.#setup
    events.emit('commitsLost', { transactions })
    if (this.#unreported === 0) clock.after(WARN_AFTER_MS, () => this.#warn())
    this.#unreported += transactions
  }

  #warn(): void {
    const message =
      `Redis has lost what it had answered of ${this.#unreported} commit(s) of sessions, or more; the sessions they may ` +
      'have belonged to have ended. Was it emptied, restarted without all of its data, or is it a replica after a failover?'
    this.#unreported = 0
    process.emitWarning(message, 'SessionTxWarning')
  }
}

function badSetUp(policy: string, aof: string): SessionTxError {
  const found = [
    ...(aof === '1' ? [] : ['appendonly is no']),
    ...(policy === 'noeviction' ? [] : [`maxmemory-policy is ${policy}`]),
  ].join(' and ')
  const message = `redisStore needs a Redis that keeps what it is given: set appendonly yes and maxmemory-policy noeviction; ${found}`
  return new SessionTxError('MISCONFIGURED', message)
}

function newerFormat(format: string): SessionTxError {
  const message = `sessions in Redis are in format ${format}, and this session-tx writes ${FORMAT}: a newer one wrote them, update this process`
  return new SessionTxError('STORE_UNAVAILABLE', message)
}
