/**
 * The store for many processes and fast sessions: sessions in Redis, standalone or Cluster. Implements session/store.ts
 * (capability `staged`): with rows, session writes are staged as intents and MySQL's commit record decides; whoever meets
 * an intent finishes what a crash has left. Each process keeps what it has read; every use of it is checked by one read of
 * its version. Knows nothing of cookies or requests.
 */
import { randomBytes } from 'node:crypto'
import type {
  AttemptTransaction,
  OpenSession,
  SessionStore,
  StoreCounts,
  StoreSettings,
} from '../session/store.js'
import type { RedisClient } from './redis-client.js'
import { RedisJournal, SHARDS } from './redis-journal.js'
import { RedisSession } from './redis-open.js'
import { intentsIn, namesIn, texts, variablesIn } from './redis-replies.js'
import { RedisSettling } from './redis-settling.js'
import { RedisSweeper } from './redis-sweeper.js'
import type { RememberedSession, RememberedVariable } from './remembered-session.js'
import {
  assertKey,
  assertOptions,
  cacheBounds,
  refusal,
  SessionCache,
  type SessionCacheOptions,
} from './session-cache.js'

export interface RedisStoreOptions {
  /** Begins the names of all keys, default `session-tx:`. */
  readonly prefix?: string
  /** Longest that a session stays in doubt after a process died in a commit, default 6 000. */
  readonly graceMs?: number
  /** What this process remembers; false: nothing. */
  readonly cache?: SessionCacheOptions | false
}

const DEFAULTS = Object.freeze({ prefix: 'session-tx:', graceMs: 6_000, cache: Object.freeze({}) })
/** A reservation ends by itself: its holder may be gone. */
const RESERVED_MS = 2_000
const WAITED_MS_MAX = 5_000
const PAUSE_MS = 5
const MINDS_NONE = '*'
const GRACE_MS_MIN = 400
const PREFIX_FORM = /^[^{}\s]{1,100}$/

/**
 * Sessions in Redis, shared by all processes that use it. The client is the application's: connected, and closed by it
 * after `tx.close()`.
 * @param client of node-redis or ioredis, or a cluster of either
 * @throws MISCONFIGURED for another client, and for an unknown or bad option
 *
 * @example
 * app.use(sessionTx({ pool, store: redisStore(await createClient().connect()) }))
 */
export function redisStore(client: RedisClient, options: RedisStoreOptions = {}): SessionStore {
  assertOptions('redisStore', options, DEFAULTS)
  const { prefix = DEFAULTS.prefix, graceMs = DEFAULTS.graceMs, cache = DEFAULTS.cache } = options
  if (typeof prefix !== 'string' || !PREFIX_FORM.test(prefix)) {
    const what = 'a text of 1 to 100 characters without blanks and braces'
    throw refusal(`redisStore's \`prefix\` must be ${what}, got ${JSON.stringify(prefix)}`)
  }
  if (!Number.isSafeInteger(graceMs) || graceMs < GRACE_MS_MIN)
    throw refusal(
      `redisStore's \`graceMs\` must be a whole number of ${GRACE_MS_MIN} or more, got ${graceMs}`,
    )
  return new RedisStore(client, { prefix, graceMs }, cacheBounds('redisStore', cache))
}

interface Started {
  readonly settings: StoreSettings
  readonly cache: SessionCache
  readonly journal: RedisJournal
  readonly settling: RedisSettling
  readonly sweeper: RedisSweeper
  readonly life: readonly [number, number]
}

class RedisStore implements SessionStore {
  readonly name = 'redis'
  readonly capability = 'staged'
  readonly #client: RedisClient
  readonly #options: { readonly prefix: string; readonly graceMs: number }
  readonly #bounds: Required<SessionCacheOptions> | undefined
  readonly #process = randomBytes(9).toString('hex')
  #transactions = 0
  #state: Started | undefined

  constructor(
    client: RedisClient,
    options: { readonly prefix: string; readonly graceMs: number },
    bounds: Required<SessionCacheOptions> | undefined,
  ) {
    this.#client = client
    this.#options = options
    this.#bounds = bounds
  }

  get #started(): Started {
    if (this.#state === undefined) throw new TypeError('the store was used before sessionTx() started it')
    return this.#state
  }

  start(settings: StoreSettings): void {
    if (this.#state !== undefined)
      throw refusal('this store already belongs to another sessionTx(); give each its own')
    const { clock, events, decisions, idleMs, absoluteMs, touchGranularityMs } = settings
    const { prefix, graceMs } = this.#options
    const life = [
      idleMs === false ? 0 : idleMs + touchGranularityMs,
      absoluteMs === false ? 0 : absoluteMs,
    ] as const
    const journal = new RedisJournal({ client: this.#client, prefix, clock, events })
    // Old enough at half the grace, looked for four times in it: so nothing is left at its end.
    const forcedAfterMs = Math.ceil(graceMs / 2)
    const settling = new RedisSettling({ journal, decisions, clock, forcedAfterMs, life })
    const every = { everyMs: Math.ceil(graceMs / 4), olderThanMs: forcedAfterMs }
    const sweeper = new RedisSweeper({ clock, journal, settling, decisions, life, ...every })
    this.#state = {
      settings,
      cache: new SessionCache(settings, this.#bounds),
      journal,
      settling,
      sweeper,
      life,
    }
  }

  open(
    key: string,
    fresh = false,
    turn?: AttemptTransaction,
  ): OpenSession | undefined | Promise<OpenSession | undefined> {
    assertKey(key)
    const { cache } = this.#started
    const entry = cache.get(key)
    if (turn !== undefined) return this.#reserve(key, entry)
    if (entry === undefined || entry.dead)
      return this.#fetch(key, cache.blank(key), fresh ? MINDS_NONE : undefined)
    if (fresh || entry.isBlank || entry.distrust > 0 || cache.expiry(entry) !== undefined)
      return this.#fetch(key, entry, fresh ? MINDS_NONE : undefined)
    return this.#session(key, entry, 'cached', undefined)
  }

  /** For who lost before, and is first in line in this process: first come, first served between processes, too. */
  async #reserve(key: string, cached: RememberedSession | undefined): Promise<OpenSession | undefined> {
    const { cache, journal, settling, settings } = this.#started
    const holder = this.#newId()
    const { clock } = settings
    for (const until = clock.now() + WAITED_MS_MAX; clock.now() < until; ) {
      const { status } = await journal.step('reserve', key, holder, RESERVED_MS)
      if (status !== 'reserved') break
      await settling.pause(PAUSE_MS)
    }
    const entry = cached === undefined || cached.dead ? cache.blank(key) : cached
    return this.#fetch(key, entry, holder)
  }

  async #fetch(
    key: string,
    entry: RememberedSession,
    reservation: string | undefined,
  ): Promise<OpenSession | undefined> {
    const { cache } = this.#started
    const isComplete = await this.#hear(key, entry, false)
    if (entry.dead || cache.expire(key, entry)) return undefined
    if (entry.distrust > 0) entry.distrust -= 1
    cache.keep(key, entry)
    return this.#session(key, entry, isComplete ? 'fetched' : 'cached', reservation)
  }

  /**
   * Brings the entry up to date, with what was committed and not published yet.
   * @param asksOwn also commits of this process that are under way: the database may show their rows
   * @returns whether it is what was stored at one moment; false if there is no session, which has died then
   */
  async #hear(key: string, entry: RememberedSession, asksOwn: boolean): Promise<boolean> {
    const { cache, journal, settling, settings } = this.#started
    for (;;) {
      const askedAt = settings.clock.now()
      const isFirst = entry.isBlank
      const moment = entry.ask()
      const { status, rest } = await journal.step('fetch', key, isFirst ? 0 : entry.commits)
      if (status === 'none') {
        entry.die()
        cache.forget(key, entry)
        return false
      }
      const [commits, createdMs, touchedMs, hasNames, held, names, changed] = rest
      cache.age(entry, { createdMs: Number(createdMs), touchedMs: Number(touchedMs) }, askedAt, isFirst)
      const isComplete = absorb(
        entry,
        moment,
        hasNames === 1 ? namesIn(names) : undefined,
        variablesIn(changed),
      )
      if (isComplete) entry.commits = Number(commits)
      const intents = intentsIn(held).filter(intent => asksOwn || !settling.isOwn(intent))
      if (intents.length === 0 || (await settling.finish(key, intents)).length === intents.length)
        return isComplete
    }
  }

  create(key: string): OpenSession {
    return this.#session(key, this.#started.cache.unknown(), 'cached', undefined, true)
  }

  #newId(): string {
    this.#transactions += 1
    return `${this.#process}.${this.#transactions.toString(36)}`
  }

  #session(
    key: string,
    entry: RememberedSession,
    known: 'cached' | 'fetched',
    reservation: string | undefined,
    isNew = false,
  ): OpenSession {
    const { cache, settings, journal, settling, life } = this.#started
    return new RedisSession({
      ...{ key, entry, known, isNew, journal, settling, life },
      userVariable: settings.userVariable,
      reservation,
      isReserved: reservation !== undefined && reservation !== MINDS_NONE,
      released: () => {
        if (reservation === undefined || reservation === MINDS_NONE) return
        // Not answered, it ends by itself.
        journal.step('unreserve', key, reservation).catch(() => {})
      },
      newTxid: () => this.#newId(),
      created: () => cache.keep(key, entry),
      ended: () => cache.ended(key, entry),
      touched: () => {
        entry.touchedAt = settings.clock.now()
        cache.resized(key, entry)
      },
      touch: () => this.#touch(key, entry),
      hear: () => this.#hear(key, entry, true),
    })
  }

  #touch(key: string, entry: RememberedSession): boolean {
    const { cache, sweeper } = this.#started
    const at = cache.touch(entry)
    if (at !== undefined) sweeper.touch(key, at)
    return at !== undefined
  }

  /** Of a user's sessions some may have expired: those are forgotten on the way. */
  async sessionsOf(user: string): Promise<readonly string[]> {
    const { journal } = this.#started
    const shards = Array.from({ length: SHARDS }, (_, shard) => journal.inShard(shard, 'users', '', user))
    const members = (await Promise.all(shards)).flatMap(({ rest }) => texts(rest[0]))
    const keys = members.map(member => member.slice(user.length + 1))
    await Promise.all(keys.map(key => journal.step('tidy', key, user)))
    return keys
  }

  counts(): StoreCounts {
    return this.#state?.cache.counts() ?? { live: 0, sizeBytes: 0 }
  }

  /** Writes what is still to be written. The client must still be connected. */
  async close(): Promise<void> {
    await this.#state?.sweeper.close()
    await this.#state?.settling.close()
  }
}

function absorb(
  entry: RememberedSession,
  askedAt: number,
  names: readonly string[] | undefined,
  changed: ReadonlyMap<string, RememberedVariable | undefined>,
): boolean {
  const there = new Map<string, RememberedVariable>()
  for (const [name, variable] of changed)
    if (variable !== undefined && entry.stampOf(name) !== variable.stamp) there.set(name, variable)
  return entry.absorb(new Set(names ?? [...entry.variables.latest.names(), ...there.keys()]), there, askedAt)
}
