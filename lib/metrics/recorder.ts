/**
 * Counts what happens: listens to the hub, keeps plain numbers, hands them out as `stats()`. A commit costs a
 * handful of increments here; everything that must be built is built when somebody looks. Decides nothing,
 * opens no transaction, knows nothing of HTTP, SQL or Prometheus.
 */
import { createHistogram } from 'node:perf_hooks'
import type { ConflictKind, SessionTxErrorCode } from '../errors.js'
import type { EscapeReason, EventHub, EventPayloads, NotRerunnableReason } from '../events.js'
import type { Clock } from '../transaction/clock.js'
import type { Buckets } from './counted-histogram.js'
import { boundedName, CappedCounts, Recent } from './counts.js'
import type {
  BudgetStats,
  CommitTimes,
  RecentConflict,
  RequestOutcome,
  SettledOutcome,
  Stats,
  TicketStats,
  StoreStats,
} from './stats.js'

/**
 * What is so at the moment, asked of those who know when somebody looks. Must not throw. Absent means
 * unknown.
 */
export interface Gauges {
  readonly sessions?: () => { readonly live: number }
  readonly tickets?: () => TicketStats
  readonly budget?: () => BudgetStats
  readonly inDoubt?: () => number
  readonly store?: () => StoreStats
}

const RECENT_MAX = 200
const ATTEMPTS_MAX = 1000
/** A request that ends while it waits, by its deadline or its client, may leave its entry: bounded all the same. */
const WAITING_MAX = 10_000
/**
 * The same length as `ConflictDetails.session` promises; cut here, too, because a metric outlives a mistake.
 */
const SESSION_PREFIX_LENGTH = 12
/** One hour: a commit that takes longer is counted as one hour, since a histogram needs an end. */
const COMMIT_MICROS_MAX = 3_600_000_000

/** Seconds, from an idle local server to a commit that waited for locks. */
const COMMIT_SECONDS_BOUNDS = Object.freeze([
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
])

type KeptConflict = Omit<RecentConflict, 'time' | 'waitMs'> & { readonly at: number; waitMs?: number }

export class Recorder {
  readonly #clock: Clock
  readonly #gauges: Gauges
  #unsubscribe: (() => void)[] = []

  readonly #requests: Record<RequestOutcome, number> = { committed: 0, rolledBack: 0, refused: 0, unknown: 0 }
  readonly #attempts = new Map<number, number>()
  #conflicts = 0
  readonly #byKind = new CappedCounts<ConflictKind>()
  readonly #byVariable = new CappedCounts()
  readonly #byTable = new CappedCounts()
  readonly #byRoute = new CappedCounts()
  readonly #recent = new Recent<KeptConflict>(RECENT_MAX)
  /** Conflicts whose request has not run again yet, by transaction. */
  readonly #waiting = new Map<string, KeptConflict>()
  #wastedMs = 0
  readonly #resolved = new CappedCounts()
  #retried = 0
  #exhausted = 0
  readonly #refused = new CappedCounts<SessionTxErrorCode>()
  readonly #notRerunnable = new CappedCounts<NotRerunnableReason>()
  #stray = 0
  readonly #strayByRoute = new CappedCounts()
  #escaped = 0
  readonly #escapedByReason = new CappedCounts<EscapeReason>()
  readonly #escapedByRoute = new CappedCounts()
  #hooksFailed = 0
  readonly #settled: Record<SettledOutcome, number> = { committed: 0, rolledBack: 0, unknown: 0 }
  #commitsLost = 0
  readonly #sessions = { evicted: 0, expired: 0, missed: 0, destroyed: 0 }

  readonly #commitMicros = createHistogram({ lowest: 1, highest: COMMIT_MICROS_MAX, figures: 3 })
  readonly #commitBuckets = new Array<number>(COMMIT_SECONDS_BOUNDS.length + 1).fill(0)
  #commitSecondsSum = 0

  /**
   * Starts counting at once; nothing that happened before is known.
   * @param clock for the time of day in `recent`
   */
  constructor(hub: EventHub, clock: Clock, gauges: Gauges = {}) {
    this.#clock = clock
    this.#gauges = gauges
    this.#unsubscribe = [
      hub.on('commit', facts => this.#committed(facts)),
      hub.on('rollback', facts => this.#ended('rolledBack', facts.attempt)),
      hub.on('unknown', facts => this.#ended('unknown', facts.attempt)),
      hub.on('refused', facts => {
        this.#ended('refused', facts.attempt)
        this.#waiting.delete(facts.id)
        this.#refused.add(facts.code)
        if (facts.code === 'RETRIES_EXHAUSTED') this.#exhausted++
      }),
      hub.on('conflict', facts => this.#lost(facts)),
      hub.on('rerun', facts => {
        this.#retried++
        const conflict = this.#waiting.get(facts.id)
        if (conflict !== undefined) conflict.waitMs = facts.waitMs
        this.#waiting.delete(facts.id)
      }),
      hub.on('notRerunnable', facts => this.#notRerunnable.add(facts.reason)),
      hub.on('stray', facts => {
        this.#stray++
        this.#strayByRoute.add(facts.route)
      }),
      hub.on('escaped', facts => {
        this.#escaped++
        this.#escapedByReason.add(facts.reason)
        this.#escapedByRoute.add(facts.route)
      }),
      hub.on('hookFailed', () => {
        this.#hooksFailed++
      }),
      hub.on('settled', facts => {
        this.#settled[facts.outcome]++
      }),
      hub.on('commitsLost', facts => {
        this.#commitsLost += facts.transactions
      }),
      hub.on('session:evicted', () => {
        this.#sessions.evicted++
      }),
      hub.on('session:expired', () => {
        this.#sessions.expired++
      }),
      hub.on('session:missed', () => {
        this.#sessions.missed++
      }),
      hub.on('session:destroyed', () => {
        this.#sessions.destroyed++
      }),
    ]
  }

  /** Everything counted so far, as a copy that does not change any more. Shapes and units: {@link Stats}. */
  stats(): Stats {
    return {
      requests: { ...this.#requests },
      attempts: Object.fromEntries([...this.#attempts].sort(([a], [b]) => a - b)),
      conflicts: {
        total: this.#conflicts,
        byKind: this.#byKind.toObject(),
        byVariable: this.#byVariable.toObject(),
        byTable: this.#byTable.toObject(),
        byRoute: this.#byRoute.toObject(),
      },
      resolved: this.#resolved.toObject(),
      retried: this.#retried,
      exhausted: this.#exhausted,
      refused: this.#refused.toObject(),
      notRerunnable: this.#notRerunnable.toObject(),
      stray: { total: this.#stray, byRoute: this.#strayByRoute.toObject() },
      escaped: {
        total: this.#escaped,
        byReason: this.#escapedByReason.toObject(),
        byRoute: this.#escapedByRoute.toObject(),
      },
      hooksFailed: this.#hooksFailed,
      inDoubt: this.#gauges.inDoubt?.() ?? null,
      settled: { ...this.#settled },
      commitsLost: this.#commitsLost,
      wastedMs: this.#wastedMs,
      commitMs: this.#commitTimes(),
      budget: this.#gauges.budget?.() ?? null,
      tickets: this.#gauges.tickets?.() ?? null,
      sessions: { live: this.#gauges.sessions?.().live ?? null, ...this.#sessions },
      store: this.#gauges.store?.() ?? null,
      recent: this.#recent.list().map(({ at, ...kept }) => ({ time: new Date(at).toISOString(), ...kept })),
    }
  }

  /** How long commits took, in seconds. */
  commitSeconds(): Buckets {
    return { bounds: COMMIT_SECONDS_BOUNDS, counts: this.#commitBuckets.slice(), sum: this.#commitSecondsSum }
  }

  /** Stops counting; what was counted can still be read. May be called twice. */
  close(): void {
    for (const unsubscribe of this.#unsubscribe) unsubscribe()
    this.#unsubscribe = []
  }

  #ended(outcome: RequestOutcome, attempt: number): void {
    this.#requests[outcome]++
    const attempts = Math.min(attempt, ATTEMPTS_MAX)
    this.#attempts.set(attempts, (this.#attempts.get(attempts) ?? 0) + 1)
  }

  #committed(facts: EventPayloads['commit']): void {
    this.#ended('committed', facts.attempt)
    for (const variable of facts.resolved) this.#resolved.add(variable)
    if (facts.commitMs === undefined) return
    const micros = Math.min(Math.max(1, Math.round(facts.commitMs * 1000)), COMMIT_MICROS_MAX)
    this.#commitMicros.record(micros)
    const seconds = micros / 1e6
    this.#commitSecondsSum += seconds
    let bucket = 0
    while (seconds > (COMMIT_SECONDS_BOUNDS[bucket] ?? Infinity)) bucket++
    this.#commitBuckets[bucket]!++
  }

  #lost(facts: EventPayloads['conflict']): void {
    const { kind, store, session, variable, table, baseVersion, foundVersion, winner } = facts.conflict
    this.#conflicts++
    this.#wastedMs += facts.attemptMs
    this.#byKind.add(kind)
    this.#byRoute.add(facts.route)
    if (variable !== undefined) this.#byVariable.add(variable)
    if (table !== undefined) this.#byTable.add(table)
    // Copied by name: what an own resource adds to its details (a value, perhaps) must not be kept or shown.
    const kept: KeptConflict = {
      at: this.#clock.wallNow(),
      route: boundedName(facts.route),
      attempt: facts.attempt,
      kind,
      store: boundedName(store),
      ...(session !== undefined && { session: session.slice(0, SESSION_PREFIX_LENGTH) }),
      ...(variable !== undefined && { variable: boundedName(variable) }),
      ...(table !== undefined && { table: boundedName(table) }),
      ...(baseVersion !== undefined && { baseVersion }),
      ...(foundVersion !== undefined && { foundVersion }),
      ...(winner !== undefined && { winner: boundedName(winner) }),
      decision: facts.decision,
    }
    this.#recent.add(kept)
    if (facts.decision === 'rerun' && this.#waiting.size < WAITING_MAX) this.#waiting.set(facts.id, kept)
  }

  #commitTimes(): CommitTimes {
    const histogram = this.#commitMicros
    const count = histogram.count
    // An empty histogram answers with its bounds, which are no durations.
    const at = (percentile: number): number => (count === 0 ? 0 : histogram.percentile(percentile) / 1000)
    const max = count === 0 ? 0 : histogram.max / 1000
    return { p50: at(50), p90: at(90), p95: at(95), p99: at(99), max, count }
  }
}
