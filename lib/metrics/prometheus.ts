/**
 * The recorder's numbers as Prometheus text: one table of metrics, filled when somebody scrapes. prom-client
 * only formats; no request ever calls it. Base units, names `sessiontx_*`, own registry: the application's
 * registry stays its own. Knows nothing of HTTP. Naming: https://prometheus.io/docs/practices/naming/
 */
import { Counter, Gauge, type Metric, Registry } from 'prom-client'
import type { ConflictKind } from '../errors.js'
import type { EscapeReason, NotRerunnableReason } from '../events.js'
import { type Buckets, CountedHistogram } from './counted-histogram.js'
import type { Counts } from './counts.js'
import type { Recorder } from './recorder.js'
import type { AttemptCounts, Stats } from './stats.js'

interface PrometheusMetrics {
  /** For `Registry.merge([yours, ours])`; it is filled whenever it is read. */
  readonly registry: Registry
  readonly contentType: string
  /** Everything, in the text exposition format 0.0.4. */
  text(): Promise<string>
}

/**
 * Label values that exist before they happen: a series that starts at 1 hides its first increment from
 * `rate()`.
 */
const KINDS: Readonly<Record<ConflictKind, 0>> = {
  variable: 0,
  read: 0,
  names: 0,
  session: 0,
  snapshot: 0,
  stale: 0,
  row: 0,
  deadlock: 0,
  lockWait: 0,
  certification: 0,
  write: 0,
  definition: 0,
  duplicate: 0,
  connection: 0,
  unavailable: 0,
  requested: 0,
  rehearsal: 0,
}
const REASONS: Readonly<Record<NotRerunnableReason, 0>> = {
  body: 0,
  position: 0,
  mountPath: 0,
  nextCalled: 0,
  responseStarted: 0,
  responseBytes: 0,
  eventStream: 0,
  upgrade: 0,
  nonTransactional: 0,
  implicitCommit: 0,
}
const ESCAPES: Readonly<Record<EscapeReason, 0>> = { nonTransactional: 0, implicitCommit: 0 }

const ATTEMPT_BOUNDS = Object.freeze([1, 2, 3, 4, 5, 10, 25, 50, 100])

/** Metrics of one recorder, in a registry of their own. */
export function createPrometheus(recorder: Recorder): PrometheusMetrics {
  const registry = new Registry()
  const read = oncePerTick(() => recorder.stats())
  const registers = [registry]

  const counter = (name: string, help: string, value: (stats: Stats) => number): void => {
    new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset()
        this.inc(value(read()))
      },
    })
  }
  const counterBy = (label: string, name: string, help: string, counts: (stats: Stats) => Counts): void => {
    new Counter({
      name,
      help,
      registers,
      labelNames: [label],
      collect() {
        this.reset()
        for (const [key, count] of Object.entries(counts(read()))) this.inc({ [label]: key }, count)
      },
    })
  }
  // What nobody knows has no sample at all: a 0 would be a statement.
  const gauge = (name: string, help: string, value: (stats: Stats) => number | undefined | null): void => {
    new Gauge({
      name,
      help,
      registers,
      labelNames: [],
      collect() {
        const now = value(read()) ?? undefined
        if (now === undefined) this.remove()
        else this.set(now)
      },
    })
  }
  const histogram = (name: string, help: string, buckets: () => Buckets): void =>
    registry.registerMetric(new CountedHistogram(name, help, buckets) as unknown as Metric)

  counterBy(
    'outcome',
    'sessiontx_requests_total',
    'Requests by how their transaction ended.',
    s => s.requests,
  )
  histogram('sessiontx_request_attempts', 'Runs of the handler that a request took until it ended.', () =>
    attemptBuckets(read().attempts),
  )
  counterBy('kind', 'sessiontx_conflicts_total', 'Attempts that lost a race, by kind.', s => ({
    ...KINDS,
    ...s.conflicts.byKind,
  }))
  counterBy(
    'route',
    'sessiontx_conflicts_by_route_total',
    'Attempts that lost a race, by router pattern.',
    s => s.conflicts.byRoute,
  )
  counterBy(
    'variable',
    'sessiontx_conflicts_by_variable_total',
    'Attempts that lost a session variable, by its name.',
    s => s.conflicts.byVariable,
  )
  counterBy(
    'table',
    'sessiontx_conflicts_by_table_total',
    'Attempts that lost a row, by its table.',
    s => s.conflicts.byTable,
  )
  counterBy(
    'variable',
    'sessiontx_resolved_total',
    'Concurrent changes that a resolver merged, by session variable.',
    s => s.resolved,
  )
  counter('sessiontx_reruns_total', 'Times that a handler ran again after a conflict.', s => s.retried)
  counterBy(
    'code',
    'sessiontx_refused_total',
    'Requests that a conflict ended, by the code of their error.',
    s => s.refused,
  )
  counterBy(
    'reason',
    'sessiontx_not_rerunnable_total',
    'Requests that could not have run again, by reason.',
    s => ({ ...REASONS, ...s.notRerunnable }),
  )
  counter(
    'sessiontx_stray_queries_total',
    'Uses of the configured pool inside a request, outside its transaction.',
    s => s.stray.total,
  )
  counterBy(
    'reason',
    'sessiontx_escaped_effects_total',
    'Attempts with an effect that could not be rolled back, by reason.',
    s => ({ ...ESCAPES, ...s.escaped.byReason }),
  )
  counter(
    'sessiontx_hooks_failed_total',
    'After-commit and after-rollback hooks that failed.',
    s => s.hooksFailed,
  )
  gauge(
    'sessiontx_in_doubt',
    'Transactions whose COMMIT was not answered and that are being settled.',
    s => s.inDoubt,
  )
  counterBy(
    'outcome',
    'sessiontx_settled_total',
    'COMMITs that were not answered, by what was found out about them.',
    s => s.settled,
  )
  counter(
    'sessiontx_commits_lost_total',
    'Committed transactions that the database does not know of any more.',
    s => s.commitsLost,
  )
  counter(
    'sessiontx_wasted_seconds_total',
    'Time spent in attempts that lost a race.',
    s => s.wastedMs / 1000,
  )
  histogram(
    'sessiontx_commit_duration_seconds',
    'Time from the verdict to the decision of every resource.',
    () => recorder.commitSeconds(),
  )
  gauge('sessiontx_sessions_live', 'Sessions kept by the store.', s => s.sessions.live)
  counter(
    'sessiontx_sessions_evicted_total',
    'Live sessions thrown out for lack of room.',
    s => s.sessions.evicted,
  )
  counter(
    'sessiontx_sessions_expired_total',
    'Sessions that reached their idle or absolute age.',
    s => s.sessions.expired,
  )
  counter(
    'sessiontx_sessions_missed_total',
    'Well-formed cookies that named no session of the store.',
    s => s.sessions.missed,
  )
  counter(
    'sessiontx_sessions_destroyed_total',
    'Sessions that the application destroyed.',
    s => s.sessions.destroyed,
  )
  gauge(
    'sessiontx_tickets_waiting',
    'Requests that wait for a session variable they lost.',
    s => s.tickets?.waiting,
  )
  gauge(
    'sessiontx_retry_budget_tokens',
    'What is left for re-runs that sleep; at less than 1 they are refused.',
    s => s.budget?.tokens,
  )

  return { registry, contentType: registry.contentType, text: () => registry.metrics() }
}

/**
 * A registry asks all its metrics in one tick, so that one snapshot serves them all and no two disagree; who
 * merges the registry into another gets the same.
 */
function oncePerTick<Value>(make: () => Value): () => Value {
  let held: { readonly value: Value } | undefined
  return () => {
    if (held === undefined) {
      held = { value: make() }
      queueMicrotask(() => {
        held = undefined
      })
    }
    return held.value
  }
}

/** Exact counts per number of attempts, folded into a fixed number of buckets. */
function attemptBuckets(attempts: AttemptCounts): Buckets {
  const counts = new Array<number>(ATTEMPT_BOUNDS.length + 1).fill(0)
  let sum = 0
  for (const [key, requests] of Object.entries(attempts)) {
    const attempt = Number(key)
    const bucket = ATTEMPT_BOUNDS.findIndex(bound => attempt <= bound)
    counts[bucket === -1 ? ATTEMPT_BOUNDS.length : bucket]! += requests
    sum += attempt * requests
  }
  return { bounds: ATTEMPT_BOUNDS, counts, sum }
}
