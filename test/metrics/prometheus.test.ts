/** The Prometheus text: well-formed, in base units, equal to stats(), and nobody else's business. */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { register } from 'prom-client'
import { createPrometheus } from '../../lib/metrics/prometheus.js'
import { recording } from './events.js'
import { type Family, readExposition } from './exposition.js'

const gauges = { sessions: () => ({ live: 12 }), tickets: () => ({ waiting: 3, keys: 2 }), inDoubt: () => 1 }

test('the text is well-formed before anything happened, and after', async () => {
  const { recorder, happens } = recording(gauges)
  const prometheus = createPrometheus(recorder)
  const before = readExposition(await prometheus.text())
  everything(happens)
  const after = readExposition(await prometheus.text())
  expect([...after.keys()]).toEqual([...before.keys()])
  expect(prometheus.contentType).toBe('text/plain; version=0.0.4; charset=utf-8')
})

test('alert rules name metrics that there are', async () => {
  const file = resolve(__dirname, '../../docs/observability/alerts.yml')
  const families = readExposition(await createPrometheus(recording(gauges).recorder).text())
  const expressions = readFileSync(file, 'utf8').replaceAll(/^ *description:.*$/gm, '')
  const used = expressions.match(/sessiontx_\w+/g) ?? []
  expect(used.length).toBeGreaterThan(8)
  expect(used.filter(name => !families.has(name.replace(/_bucket$/, '')))).toEqual([])
})

test('every metric is named sessiontx_*, has a sentence, and is in base units', async () => {
  const families = readExposition(await createPrometheus(recording(gauges).recorder).text())
  expect([...families.values()].map(({ name, type }) => `${name} ${type}`)).toEqual([
    'sessiontx_requests_total counter',
    'sessiontx_request_attempts histogram',
    'sessiontx_conflicts_total counter',
    'sessiontx_conflicts_by_route_total counter',
    'sessiontx_conflicts_by_variable_total counter',
    'sessiontx_conflicts_by_table_total counter',
    'sessiontx_resolved_total counter',
    'sessiontx_reruns_total counter',
    'sessiontx_refused_total counter',
    'sessiontx_not_rerunnable_total counter',
    'sessiontx_stray_queries_total counter',
    'sessiontx_escaped_effects_total counter',
    'sessiontx_hooks_failed_total counter',
    'sessiontx_in_doubt gauge',
    'sessiontx_settled_total counter',
    'sessiontx_commits_lost_total counter',
    'sessiontx_wasted_seconds_total counter',
    'sessiontx_commit_duration_seconds histogram',
    'sessiontx_sessions_live gauge',
    'sessiontx_sessions_evicted_total counter',
    'sessiontx_sessions_expired_total counter',
    'sessiontx_sessions_missed_total counter',
    'sessiontx_sessions_destroyed_total counter',
    'sessiontx_tickets_waiting gauge',
    'sessiontx_retry_budget_tokens gauge',
  ])
  for (const { name, help } of families.values()) {
    expect(name).not.toMatch(/_(ms|millis|milliseconds|micros|minutes|kb|mb)(_|$)/)
    expect(help).toMatch(/^[A-Z].*\.$/)
  }
})

test('the numbers are those of stats(), times in seconds', async () => {
  const { recorder, happens } = recording(gauges)
  everything(happens)
  const families = readExposition(await createPrometheus(recorder).text())
  expect(by(families, 'sessiontx_requests_total', 'outcome')).toEqual({
    committed: 2,
    rolledBack: 1,
    refused: 1,
    unknown: 1,
  })
  expect(by(families, 'sessiontx_conflicts_total', 'kind')).toMatchObject({
    variable: 1,
    row: 1,
    deadlock: 0,
  })
  expect(by(families, 'sessiontx_conflicts_by_route_total', 'route')).toEqual({ '/cart/:item': 2 })
  expect(by(families, 'sessiontx_conflicts_by_variable_total', 'variable')).toEqual({ cart: 1 })
  expect(by(families, 'sessiontx_conflicts_by_table_total', 'table')).toEqual({ stock: 1 })
  expect(by(families, 'sessiontx_resolved_total', 'variable')).toEqual({ visits: 1 })
  expect(by(families, 'sessiontx_refused_total', 'code')).toEqual({ RETRIES_EXHAUSTED: 1 })
  expect(by(families, 'sessiontx_not_rerunnable_total', 'reason')).toEqual({
    body: 1,
    position: 0,
    mountPath: 0,
    nextCalled: 0,
    responseStarted: 0,
    responseBytes: 0,
    eventStream: 0,
    upgrade: 0,
    nonTransactional: 0,
    implicitCommit: 0,
  })
  expect(by(families, 'sessiontx_escaped_effects_total', 'reason')).toEqual({
    nonTransactional: 1,
    implicitCommit: 0,
  })
  expect(only(families, 'sessiontx_reruns_total')).toBe(1)
  expect(only(families, 'sessiontx_stray_queries_total')).toBe(1)
  expect(only(families, 'sessiontx_hooks_failed_total')).toBe(1)
  expect(only(families, 'sessiontx_in_doubt')).toBe(1)
  expect(by(families, 'sessiontx_settled_total', 'outcome')).toEqual({
    committed: 1,
    rolledBack: 0,
    unknown: 0,
  })
  expect(only(families, 'sessiontx_commits_lost_total')).toBe(2)
  expect(only(families, 'sessiontx_wasted_seconds_total')).toBeCloseTo(0.25, 9)
  expect(only(families, 'sessiontx_sessions_live')).toBe(12)
  expect(only(families, 'sessiontx_sessions_evicted_total')).toBe(1)
  expect(only(families, 'sessiontx_sessions_expired_total')).toBe(1)
  expect(only(families, 'sessiontx_sessions_missed_total')).toBe(1)
  expect(only(families, 'sessiontx_sessions_destroyed_total')).toBe(1)
  expect(only(families, 'sessiontx_tickets_waiting')).toBe(3)
})

test('the histograms hold every request and every commit, cumulatively', async () => {
  const { recorder, happens } = recording()
  everything(happens)
  happens('commit', { attempt: 500, commitMs: 60_000 })
  const families = readExposition(await createPrometheus(recorder).text())
  const attempts = histogram(families, 'sessiontx_request_attempts')
  expect(attempts).toMatchObject({
    '1': 3,
    '2': 4,
    '4': 5,
    '100': 5,
    '+Inf': 6,
    sum: 1 + 2 + 1 + 4 + 1 + 500,
    count: 6,
  })
  const commits = histogram(families, 'sessiontx_commit_duration_seconds')
  expect(commits).toMatchObject({ '0.0025': 0, '0.005': 1, '10': 1, '+Inf': 2, count: 2 })
  expect(commits['sum']).toBeCloseTo(60.004, 6)
})

test('a second scrape counts nothing twice', async () => {
  const { recorder, happens } = recording(gauges)
  everything(happens)
  const prometheus = createPrometheus(recorder)
  const first = await prometheus.text()
  const [second, third] = await Promise.all([prometheus.text(), prometheus.text()])
  expect(second).toBe(first)
  expect(third).toBe(first)
  happens('rerun')
  expect(only(readExposition(await prometheus.text()), 'sessiontx_reruns_total')).toBe(2)
})

test('one scrape is one moment: the recorder is read once', async () => {
  let looked = 0
  const { recorder } = recording({ sessions: () => ({ live: ++looked }) })
  const prometheus = createPrometheus(recorder)
  await prometheus.text()
  expect(looked).toBe(1)
  await prometheus.registry.metrics()
  expect(looked).toBe(2)
})

test('what nobody knows has no sample', async () => {
  const families = readExposition(await createPrometheus(recording().recorder).text())
  expect(families.get('sessiontx_sessions_live')?.samples).toEqual([])
  expect(families.get('sessiontx_tickets_waiting')?.samples).toEqual([])
  expect(families.get('sessiontx_in_doubt')?.samples).toEqual([])
})

test('any name survives as a label', async () => {
  const { recorder, happens } = recording()
  const names = [
    '__proto__',
    'constructor',
    'a "quoted" one',
    'back\\slash',
    'two\nlines',
    'a,b="c"',
    '{}',
    'naïve ✓',
  ]
  for (const variable of names)
    happens('conflict', { conflict: { kind: 'variable', store: 'memory', variable } })
  const families = readExposition(await createPrometheus(recorder).text())
  const labels = families
    .get('sessiontx_conflicts_by_variable_total')
    ?.samples.map(sample => sample.labels['variable'])
  expect(labels).toEqual(names)
})

test('two recorders do not meet, and the global registry stays empty', async () => {
  const one = recording()
  const two = recording()
  const [first, second] = [createPrometheus(one.recorder), createPrometheus(two.recorder)]
  one.happens('rerun')
  expect(only(readExposition(await first.text()), 'sessiontx_reruns_total')).toBe(1)
  expect(only(readExposition(await second.text()), 'sessiontx_reruns_total')).toBe(0)
  expect(register.getMetricsAsArray()).toEqual([])
})

test('no session is named', async () => {
  const { recorder, happens } = recording()
  happens('conflict', { conflict: { kind: 'variable', store: 'memory', session: 'abcdefghijkl' } })
  happens('session:missed', { session: 'abcdefghijkl' })
  expect(await createPrometheus(recorder).text()).not.toContain('abcdef')
})

function everything(happens: ReturnType<typeof recording>['happens']): void {
  happens('commit', { commitMs: 4, resolved: ['visits'] })
  happens('conflict', { conflict: { kind: 'variable', store: 'memory', variable: 'cart' }, attemptMs: 50 })
  happens('conflict', { conflict: { kind: 'row', store: 'mysql', table: 'stock' }, attemptMs: 200 })
  happens('rerun')
  happens('commit', { attempt: 2 })
  happens('rollback')
  happens('refused', { attempt: 4 })
  happens('unknown')
  happens('notRerunnable')
  happens('stray')
  happens('settled')
  happens('commitsLost', { transactions: 2 })
  happens('escaped')
  happens('hookFailed')
  happens('session:evicted')
  happens('session:expired')
  happens('session:missed')
  happens('session:destroyed')
}

function by(families: Map<string, Family>, name: string, label: string): Record<string, number> {
  return Object.fromEntries(
    (families.get(name)?.samples ?? []).map(({ labels, value }) => [labels[label], value]),
  )
}

function only(families: Map<string, Family>, name: string): number {
  const samples = families.get(name)?.samples ?? []
  expect(samples).toHaveLength(1)
  expect(samples[0]?.labels).toEqual({})
  return samples[0]!.value
}

function histogram(families: Map<string, Family>, name: string): Record<string, number> {
  const samples = families.get(name)?.samples ?? []
  return Object.fromEntries(
    samples.map(sample => [sample.labels['le'] ?? sample.name.slice(name.length + 1), sample.value]),
  )
}
