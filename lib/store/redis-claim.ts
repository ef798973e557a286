/**
 * What an attempt wants to commit to a session in Redis (the contract is session/store.ts). With rows: staged as an intent
 * that names the decision of the database, published after it. Without: one call that compares and commits. Knows how
 * neither is carried out in Redis.
 *
 * Whoever is in the way is never waited for before it has been looked up: it may have been decided, by a process that has
 * gone since. What only was read is no reason to wait at all: an intent that is open now was not in a read view of before.
 */
import { SessionTxError } from '../errors.js'
import {
  type AttemptTransaction,
  type Claim,
  type LostPart,
  NAMES,
  type SessionWrite,
  type Settled,
} from '../session/store.js'
import { userKeyOf } from '../session/user-key.js'
import type { AnnouncedDecision } from '../transaction/announced-decision.js'
import { CODEC_FORMAT, encodeValue } from './codec.js'
import { Comparison, type Found, namesAmong, type Part } from './comparison.js'
import { Unanswered } from './redis-client.js'
import type { RedisJournal, Reply } from './redis-journal.js'
import { intentsIn, OWN_SLOT, refText, variablesIn } from './redis-replies.js'
import type { RedisSettling } from './redis-settling.js'
import { type RememberedSession, RememberedVariable, stampIn } from './remembered-session.js'
import { columnName } from './variable-name.js'

const ROUTE_CHARACTERS_MAX = 200
const PAUSE_MS = Object.freeze({ first: 1, max: 50 })

export interface RedisClaimSetup {
  readonly key: string
  readonly entry: RememberedSession
  readonly isNew: boolean
  /** The base was current when the attempt began. */
  readonly fresh: boolean
  /** It was, too, when the rows' read view had been opened. */
  readonly fits: boolean
  readonly journal: RedisJournal
  readonly settling: RedisSettling
  readonly life: readonly [number, number]
  /** Held by this attempt; undefined: none. `*`: it cannot run again, and minds nobody else's. */
  readonly reservation: string | undefined
  /** Names the user whose session it is. */
  readonly userVariable: string | undefined
  readonly transaction: AttemptTransaction | undefined
  /** Of this process, never used twice. */
  readonly newTxid: () => string
  /** Called when it has committed. */
  readonly created: () => void
  readonly ended: () => void
  readonly touched: () => void
}

type Writes = ReadonlyMap<string, Settled | undefined>

export class RedisClaim implements Claim {
  readonly #setup: RedisClaimSetup
  readonly #write: SessionWrite
  readonly #comparison: Comparison
  #txid = ''
  #decision: AnnouncedDecision | undefined
  /** What is stored: the writes, or what resolvers made of them. */
  #merged: Map<string, Settled | undefined> | undefined
  /** What a merged variable was compared with last. */
  readonly #expected = new Map<string, string | undefined>()
  #intentEnded: (() => void) | undefined
  #settled: (() => void) | undefined
  #staging: Promise<unknown> | undefined
  /** Number of the commit, once it is there. */
  #commits: number | undefined
  #over = false
  #abandoned = false

  constructor(setup: RedisClaimSetup, write: SessionWrite) {
    this.#setup = setup
    this.#write = write
    this.#comparison = new Comparison(write, setup.entry, setup.fresh)
  }

  get #writes(): Writes {
    return this.#merged ?? this.#write.writes
  }
  get #looks(): boolean {
    const { writes, replaces, destroys } = this.#write
    return writes.size === 0 && !replaces && !destroys && !this.#setup.isNew
  }

  async prepare(): Promise<void> {
    const { transaction, settling, entry, newTxid } = this.#setup
    const { current } = this.#write
    if (this.#looks && current.size === 0 && this.#unchecked.length === 0) return
    this.#decision = this.#looks && current.size === 0 ? undefined : transaction?.announce?.()
    if (this.#looks && this.#decision === undefined) {
      await this.#carryOut('look')
      return
    }
    this.#txid = this.#decision?.txid ?? newTxid()
    this.#intentEnded = settling.own(this.#txid)
    this.#settled = entry.settling()
    this.#staging = this.#carryOut('stage')
    await this.#staging
  }

  /** Sent again until it is answered: done twice it is done once. */
  async decide(): Promise<void> {
    this.#txid = this.#setup.newTxid()
    this.#settled = this.#setup.entry.settling()
    for (let pauseMs: number = PAUSE_MS.first; ; pauseMs = Math.min(2 * pauseMs, PAUSE_MS.max)) {
      try {
        this.#commits = await this.#carryOut('commit')
        return
      } catch (error) {
        if (!(error instanceof Unanswered)) throw error
        if (this.#abandoned) {
          const message = `whether the session was committed is unknown (transaction ${this.#txid})`
          const details = { cause: error, transactionId: this.#txid }
          throw new SessionTxError('COMMIT_UNKNOWN', message, details)
        }
        await this.#setup.settling.pause(pauseMs)
      }
    }
  }

  abandon(): void {
    this.#abandoned = true
    this.#over = true
  }

  async findOut(): Promise<'committed' | 'rolledBack'> {
    const { settling, journal, key } = this.#setup
    let outcome: Reply | undefined
    const isKnown = await settling.untilDone(async () => {
      outcome = await journal.step('forbid', key, this.#txid)
    })
    if (!isKnown || outcome === undefined) throw new Error('close() was called before Redis had answered')
    if (outcome.status !== 'committed') return 'rolledBack'
    this.#commits = Number(outcome.rest[0])
    return 'committed'
  }

  /**
   * What was only read and has to be looked after: everything, but nothing of what was current a moment ago, unless rows
   * were seen since, which it must fit.
   */
  get #unchecked(): readonly Part[] {
    const { fresh, fits, transaction } = this.#setup
    const { seen, current, writes } = this.#write
    if (fits || (fresh && transaction?.isJoint() !== true)) return []
    return [...seen].filter(part => !current.has(part) && (part === NAMES || !writes.has(part)))
  }

  /** @returns the number of commits; 0 if the session was gone before it was ended */
  async #carryOut(step: 'look' | 'stage' | 'commit'): Promise<number> {
    const { key, journal, settling } = this.#setup
    const assumed = new Set<string>()
    for (const name of this.#write.writes.keys()) columnName(name) // refused before anything is sent
    for (let pauseMs: number = PAUSE_MS.first; ; ) {
      if (this.#over) throw new SessionTxError('TRANSACTION_CLOSED', 'rolled back while it waited for others')
      const reply = await journal.step(step, key, ...this.#arguments(step, assumed))
      if (reply.status === 'done') return Number(reply.rest[0])
      if (reply.status === 'gone' && this.#write.destroys && this.#write.current.size === 0) return 0
      if (reply.status === 'reserved') throw this.#reserved()
      if (reply.status !== 'no') throw this.#comparison.lostWhole(true)
      const blocking = intentsIn(reply.rest[1])
      this.#mergeOrLose(variablesIn(reply.rest[2]), reply.rest[0] === 1, blocking.length > 0)
      const open = await settling.finish(key, blocking)
      if (open.length < blocking.length || blocking.length === 0) continue
      const isNews = open.some(({ txid }) => !assumed.has(txid))
      for (const { txid } of open) assumed.add(txid)
      if (isNews) continue
      await settling.wait(open, pauseMs)
      pauseMs = Math.min(2 * pauseMs, PAUSE_MS.max)
    }
  }

  /** Others lost before, and have their turn: to lose is to get in line with them. */
  #reserved(): SessionTxError {
    const unchanged: Found = { exists: true, states: new Map() }
    const lost = [...this.#write.writes.keys()].map(name => ({
      ...this.#comparison.lostVariable(name, unchanged),
      foundVersion: undefined,
      stale: false,
    }))
    return lost.length === 0 ? this.#comparison.lostWhole(false) : this.#comparison.conflict(lost)
  }

  #arguments(step: 'look' | 'stage' | 'commit', assumed: ReadonlySet<string>): (string | number)[] {
    const { life, isNew } = this.#setup
    const { base, current, writes, replaces, destroys, by } = this.#write
    const parts = new Map<string, string>()
    const unchecked = this.#unchecked
    for (const name of namesAmong(unchecked)) parts.set(name, 's')
    for (const name of namesAmong(current)) parts.set(name, step === 'look' ? 's' : 'r')
    if (!isNew && !destroys) for (const name of writes.keys()) parts.set(name, 'w')
    const expectations = [...parts].flatMap(([name, mode]) => [mode, columnName(name), this.#stampText(name)])
    const holdsNames = current.has(NAMES) && step !== 'look'
    const looksAtNames = replaces || current.has(NAMES) || unchecked.includes(NAMES)
    let flags = `${isNew ? 'c' : ''}${destroys ? 'd' : ''}${replaces ? 'p' : ''}${this.#looks ? 'l' : ''}`
    if (!isNew && looksAtNames) {
      const names = base.names()
      flags += `${holdsNames ? 'N' : 'S'}${names.length}`
      for (const name of names)
        expectations.push('n', columnName(name), replaces ? this.#stampText(name) : '?')
    }
    const ref = this.#decision === undefined ? `${OWN_SLOT} 0 - -` : refText(this.#decision)
    const route = by.slice(0, ROUTE_CHARACTERS_MAX)
    const head = [this.#txid, route, flags, this.#user, ...life, ref, [...assumed].join(' ')]
    const values = destroys
      ? []
      : [...this.#writes].flatMap(([name, settled]) => this.#valueText(name, settled))
    return [...head, expectations.length / 3, this.#setup.reservation ?? '', ...expectations, ...values]
  }

  #stampText(name: string): string {
    const stamp = this.#expected.has(name) ? this.#expected.get(name) : stampIn(this.#write.base, name)
    return stamp ?? '-'
  }

  #valueText(name: string, settled: Settled | undefined): readonly string[] {
    const column = columnName(name)
    return settled === undefined
      ? [column, '-', '']
      : [column, String(CODEC_FORMAT), encodeValue(settled.value)]
  }

  /** `=`: as before; `-`: nobody's. */
  get #user(): string {
    const { userVariable, isNew } = this.#setup
    if (userVariable === undefined || (!isNew && !this.#writes.has(userVariable))) return '='
    return userKeyOf(this.#writes.get(userVariable)) ?? '-'
  }

  /**
   * Something differs from what the attempt started from. It is merged if it can be, unless the handler may have read it
   * old; the rest is lost.
   */
  #mergeOrLose(
    changed: ReadonlyMap<string, RememberedVariable | undefined>,
    namesChanged: boolean,
    isBlocked: boolean,
  ): void {
    const { writes, current, replaces, seen } = this.#write
    const comparison = this.#comparison
    if (replaces && (changed.size > 0 || namesChanged)) throw comparison.lostWhole(false)
    const found = this.#found(changed)
    const lost: LostPart[] = []
    const mergeable: string[] = []
    for (const name of [...writes.keys()].filter(one => changed.has(one))) {
      // Merging keeps what others added, but the answer would tell what was so before the request came.
      const wasReadOld = seen.has(name) && !this.#setup.fresh
      if (this.#write.resolves(name) && !current.has(name) && !wasReadOld) mergeable.push(name)
      else lost.push(comparison.lostVariable(name, found))
    }
    const isRead = (part: Part): boolean => part !== NAMES && !writes.has(part) && changed.has(part)
    lost.push(...comparison.differing([...current].filter(isRead), found, false))
    lost.push(...comparison.differing(this.#unchecked.filter(isRead), found, true))
    if (namesChanged) lost.push(comparison.lostNames(!current.has(NAMES)))
    comparison.refuse(lost)
    if (isBlocked) return // they are merged with what comes of that
    for (const name of mergeable) this.#merge(name, changed.get(name), found, lost)
    comparison.refuse(lost)
  }

  #merge(name: string, now: RememberedVariable | undefined, found: Found, lost: LostPart[]): void {
    this.#merged ??= new Map(this.#write.writes)
    try {
      this.#merged.set(name, this.#write.resolve(name, now, this.#write.writes.get(name)))
      this.#expected.set(name, now?.stamp)
    } catch (cause) {
      lost.push({ ...this.#comparison.lostVariable(name, found), stale: false, cause })
    }
  }

  #found(changed: ReadonlyMap<string, RememberedVariable | undefined>): Found {
    const states = new Map<string, RememberedVariable>()
    for (const [name, variable] of changed) if (variable !== undefined) states.set(name, variable)
    return { exists: true, states }
  }

  /** Its failure is told and changes nothing: the intent says what is to be done, to us and to everybody. */
  async commit(): Promise<void> {
    const { settling, key } = this.#setup
    if (this.#commits === undefined && this.#staging !== undefined) {
      const work = async (): Promise<void> => this.#published(await settling.publish(key, this.#txid))
      try {
        await work()
      } catch (error) {
        settling.inBackground(work, () => this.#end())
        this.#staging = undefined
        throw error
      }
      this.#end()
    }
    this.#install()
  }

  #published(found: Awaited<ReturnType<RedisSettling['publish']>>): void {
    if (typeof found === 'object') this.#commits = found.commits
    else if (found === 'gone' && !this.#write.destroys) this.#setup.entry.die()
    else this.#setup.entry.mistrust()
  }

  /** Nothing names the decision any more. */
  #end(): void {
    this.#decision?.forget()
    this.#intentEnded?.()
    this.#settled?.()
  }

  #install(): void {
    const { entry, created, ended, touched, isNew } = this.#setup
    const { destroys, replaces, by } = this.#write
    const commits = this.#commits
    if (commits === undefined) return
    if (destroys) {
      entry.die()
      if (commits > 0) ended()
      return
    }
    const installs = new Map<string, RememberedVariable | undefined>()
    for (const [name, settled] of this.#writes)
      installs.set(name, settled && RememberedVariable.written(settled, commits, this.#txid, by))
    entry.commit(installs, replaces)
    if (entry.commits === commits - 1) entry.commits = commits
    if (isNew) created()
    touched()
  }

  release(): void {
    this.#settled?.()
  }

  doubt(): void {
    this.#settled?.()
    this.#setup.entry.mistrust()
  }

  rollback(): void {
    const { settling, journal, key, entry } = this.#setup
    this.#over = true
    const staging = this.#staging
    if (staging !== undefined) {
      this.#staging = undefined
      // Even one that was not answered may be carried out: before this, on the same connection.
      const work = (): Promise<unknown> =>
        staging.catch(() => {}).then(() => settling.takeBack(key, this.#txid))
      settling.inBackground(work, () => this.#end())
    } else if (this.#commits !== undefined && this.#setup.isNew) {
      settling.inBackground(
        () => journal.step('uncreate', key, this.#txid),
        () => {},
      )
    }
    this.#settled?.()
    if (this.#write.writes.size > 0 || this.#write.destroys) entry.mistrust()
  }
}
