/** What the recorder counts, and what it must never keep. */
import type { ConflictDetails } from '../../lib/errors.js'
import { NAME_LENGTH_MAX, NAMES_MAX, OTHER } from '../../lib/metrics/counts.js'
import { recording } from './events.js'

const variable: ConflictDetails = {
  kind: 'variable',
  store: 'memory',
  session: 'abcdefghijkl',
  variable: 'cart',
  baseVersion: 3,
  foundVersion: 5,
  winner: '/cart/:item',
}

test('before anything happened everything is zero, empty or null', () => {
  expect(recording().recorder.stats()).toEqual({
    requests: { committed: 0, rolledBack: 0, refused: 0, unknown: 0 },
    attempts: {},
    conflicts: { total: 0, byKind: {}, byVariable: {}, byTable: {}, byRoute: {} },
    resolved: {},
    retried: 0,
    exhausted: 0,
    refused: {},
    notRerunnable: {},
    stray: { total: 0, byRoute: {} },
    escaped: { total: 0, byReason: {}, byRoute: {} },
    hooksFailed: 0,
    inDoubt: null,
    settled: { committed: 0, rolledBack: 0, unknown: 0 },
    commitsLost: 0,
    wastedMs: 0,
    commitMs: { p50: 0, p90: 0, p95: 0, p99: 0, max: 0, count: 0 },
    budget: null,
    store: null,
    tickets: null,
    sessions: { live: null, evicted: 0, expired: 0, missed: 0, destroyed: 0 },
    recent: [],
  })
})

describe('one run of each outcome moves exactly its counters', () => {
  type Happens = ReturnType<typeof recording>['happens']
  const cases: [string, (happens: Happens) => void, Record<string, unknown>][] = [
    ['a begin moves nothing', happens => happens('begin'), {}],
    [
      'a commit',
      happens => happens('commit', { commitMs: undefined }),
      { 'requests.committed': 1, 'attempts.1': 1 },
    ],
    [
      'a commit in the third attempt',
      happens => happens('commit', { attempt: 3 }),
      { 'requests.committed': 1, 'attempts.3': 1 },
    ],
    [
      'a commit with merged variables',
      happens => happens('commit', { resolved: ['visits', 'seen'] }),
      { 'requests.committed': 1, 'attempts.1': 1, 'resolved.visits': 1, 'resolved.seen': 1 },
    ],
    ['a rollback', happens => happens('rollback'), { 'requests.rolledBack': 1, 'attempts.1': 1 }],
    ['an unknown outcome', happens => happens('unknown'), { 'requests.unknown': 1, 'attempts.1': 1 }],
    [
      'a refusal after all retries',
      happens => happens('refused', { attempt: 4 }),
      { 'requests.refused': 1, 'attempts.4': 1, exhausted: 1, 'refused.RETRIES_EXHAUSTED': 1 },
    ],
    [
      'a refusal for another reason',
      happens => happens('refused', { code: 'QUEUE_FULL' }),
      { 'requests.refused': 1, 'attempts.1': 1, 'refused.QUEUE_FULL': 1 },
    ],
    ['a re-run', happens => happens('rerun'), { retried: 1 }],
    [
      'a request that cannot run again',
      happens => happens('notRerunnable', { reason: 'position' }),
      { 'notRerunnable.position': 1 },
    ],
    ['a stray query', happens => happens('stray'), { 'stray.total': 1, 'stray.byRoute./cart/:item': 1 }],
    ['a COMMIT found to have committed', happens => happens('settled'), { 'settled.committed': 1 }],
    [
      'a COMMIT found out later not to have committed',
      happens => happens('settled', { outcome: 'rolledBack', late: true }),
      { 'settled.rolledBack': 1 },
    ],
    [
      'a COMMIT of which nobody will ever know',
      happens => happens('settled', { outcome: 'unknown' }),
      { 'settled.unknown': 1 },
    ],
    [
      'commits that the database has lost',
      happens => happens('commitsLost', { transactions: 3 }),
      { commitsLost: 3 },
    ],
    [
      'an effect that escaped',
      happens => happens('escaped', { reason: 'implicitCommit' }),
      { 'escaped.total': 1, 'escaped.byReason.implicitCommit': 1, 'escaped.byRoute./cart/:item': 1 },
    ],
    ['a failed hook', happens => happens('hookFailed'), { hooksFailed: 1 }],
    ['an evicted session', happens => happens('session:evicted'), { 'sessions.evicted': 1 }],
    ['an expired session', happens => happens('session:expired'), { 'sessions.expired': 1 }],
    ['a missed session', happens => happens('session:missed'), { 'sessions.missed': 1 }],
    ['a destroyed session', happens => happens('session:destroyed'), { 'sessions.destroyed': 1 }],
  ]

  test.each(cases)('%s', (_, run, moved) => {
    const { recorder, happens } = recording()
    const before = leaves(recorder.stats())
    run(happens)
    expect(changes(before, leaves(recorder.stats()))).toEqual(moved)
  })

  test('a conflict about a variable', () => {
    const { recorder, happens } = recording()
    const { recent: _, ...before } = recorder.stats()
    happens('conflict', { conflict: variable, attemptMs: 12.5 })
    const { recent, ...after } = recorder.stats()
    expect(recent).toHaveLength(1)
    expect(changes(leaves(before), leaves(after))).toEqual({
      'conflicts.total': 1,
      'conflicts.byKind.variable': 1,
      'conflicts.byVariable.cart': 1,
      'conflicts.byRoute./cart/:item': 1,
      wastedMs: 12.5,
    })
  })

  test('a conflict about a row names its table and no variable', () => {
    const { recorder, happens } = recording()
    happens('conflict', { conflict: { kind: 'row', store: 'mysql', table: 'stock' } })
    const { conflicts } = recorder.stats()
    expect(conflicts.byTable).toEqual({ stock: 1 })
    expect(conflicts.byVariable).toEqual({})
  })
})

test('the attempts histogram sums to the requests that ended', () => {
  const { recorder, happens } = recording()
  happens('commit', { attempt: 1 })
  happens('commit', { attempt: 2 })
  happens('rollback', { attempt: 2 })
  happens('refused', { attempt: 4 })
  happens('unknown', { attempt: 1 })
  happens('conflict')
  happens('rerun')
  const { attempts, requests } = recorder.stats()
  expect(attempts).toEqual({ 1: 2, 2: 2, 4: 1 })
  expect(sum(attempts)).toBe(sum(requests))
})

test('absurd numbers of attempts share the last entry, and the sum stays right', () => {
  const { recorder, happens } = recording()
  for (let attempt = 990; attempt <= 1010; attempt++) happens('commit', { attempt })
  const { attempts } = recorder.stats()
  expect(Math.max(...Object.keys(attempts).map(Number))).toBe(1000)
  expect(sum(attempts)).toBe(21)
})

describe('the time of commits', () => {
  test('is given in milliseconds, within a thousandth', () => {
    const { recorder, happens } = recording()
    for (let ms = 1; ms <= 100; ms++) happens('commit', { commitMs: ms })
    const { commitMs } = recorder.stats()
    expect(commitMs.count).toBe(100)
    expect(commitMs.p50).toBeCloseTo(50, 0)
    expect(commitMs.p90).toBeCloseTo(90, 0)
    expect(commitMs.p95).toBeCloseTo(95, 0)
    expect(commitMs.p99).toBeCloseTo(99, 0)
    expect(commitMs.max).toBeCloseTo(100, 0)
  })

  test('is not counted where there was nothing to commit', () => {
    const { recorder, happens } = recording()
    happens('commit', { commitMs: undefined })
    expect(recorder.stats().commitMs.count).toBe(0)
  })

  test('takes a commit of no time and one of a week', () => {
    const { recorder, happens } = recording()
    happens('commit', { commitMs: 0 })
    happens('commit', { commitMs: 7 * 86_400_000 })
    const { commitMs } = recorder.stats()
    expect(commitMs.count).toBe(2)
    expect(commitMs.max / 3_600_000).toBeCloseTo(1, 2)
  })

  test('falls into the bucket whose bound it does not exceed', () => {
    const { recorder, happens } = recording()
    for (const commitMs of [0.1, 1, 1.1, 60_000]) happens('commit', { commitMs })
    const { bounds, counts, sum: seconds } = recorder.commitSeconds()
    expect(counts).toHaveLength(bounds.length + 1)
    const filled = counts.flatMap((count, index) => (count === 0 ? [] : [[bounds[index] ?? Infinity, count]]))
    expect(filled).toEqual([
      [0.0005, 1],
      [0.001, 1],
      [0.0025, 1],
      [Infinity, 1],
    ])
    expect(seconds).toBeCloseTo(60.0022, 6)
  })
})

describe('the recent list', () => {
  test('names time, route, attempt, store, variable, versions, winner and decision', () => {
    const { recorder, happens } = recording()
    happens('conflict', { conflict: variable, attempt: 2, decision: 'RETRIES_EXHAUSTED' })
    expect(recorder.stats().recent).toEqual([
      {
        time: '2026-01-02T03:04:05.006Z',
        route: '/cart/:item',
        attempt: 2,
        kind: 'variable',
        store: 'memory',
        session: 'abcdefghijkl',
        variable: 'cart',
        baseVersion: 3,
        foundVersion: 5,
        winner: '/cart/:item',
        decision: 'RETRIES_EXHAUSTED',
      },
    ])
  })

  test('has no member for what is not known', () => {
    const { recorder, happens } = recording()
    happens('conflict', { conflict: { kind: 'deadlock', store: 'mysql' } })
    const [conflict] = recorder.stats().recent
    expect(Object.keys(conflict ?? {}).sort()).toEqual([
      'attempt',
      'decision',
      'kind',
      'route',
      'store',
      'time',
    ])
  })

  test('keeps the last 200, oldest first', () => {
    const { recorder, happens } = recording()
    for (let attempt = 1; attempt <= 450; attempt++) happens('conflict', { attempt })
    const attempts = recorder.stats().recent.map(conflict => conflict.attempt)
    expect(attempts).toEqual(Array.from({ length: 200 }, (_, index) => 251 + index))
    expect(recorder.stats().conflicts.total).toBe(450)
  })

  test('keeps neither values that a resource added nor more of a session than its prefix', () => {
    const { recorder, happens } = recording()
    const details = { ...variable, session: 'abcdefghijklSECRET', value: 'SECRET', base: { card: 'SECRET' } }
    happens('conflict', { conflict: details })
    happens('hookFailed', { error: new Error('SECRET') })
    happens('session:missed', { session: 'SECRET' })
    expect(JSON.stringify(recorder.stats())).not.toContain('SECRET')
  })
})

describe('names', () => {
  test(`are kept apart up to ${NAMES_MAX} and share ${OTHER} beyond`, () => {
    const { recorder, happens } = recording()
    const lose = (name: string): void =>
      happens('conflict', { route: name, conflict: { kind: 'row', store: 's', variable: name, table: name } })
    for (let index = 0; index < NAMES_MAX + 50; index++) lose(`name${index}`)
    lose('name0')
    const { byVariable, byTable, byRoute } = recorder.stats().conflicts
    for (const counts of [byVariable, byTable, byRoute]) {
      expect(Object.keys(counts)).toHaveLength(NAMES_MAX + 1)
      expect(counts).toMatchObject({ name0: 2, name1: 1, [OTHER]: 50 })
      expect(sum(counts)).toBe(NAMES_MAX + 51)
    }
  })

  test('of any length are cut', () => {
    const { recorder, happens } = recording()
    const name = 'x'.repeat(1_000_000)
    happens('conflict', {
      route: name,
      conflict: { kind: 'row', store: name, variable: name, table: name, winner: name },
    })
    happens('stray', { route: name })
    happens('commit', { resolved: [name] })
    expect(JSON.stringify(recorder.stats()).length).toBeLessThan(20 * NAME_LENGTH_MAX)
  })

  test.each(['__proto__', 'constructor', 'toString', 'hasOwnProperty'])('%s is only a name', name => {
    const { recorder, happens } = recording()
    happens('conflict', { route: name, conflict: { kind: 'variable', store: 'memory', variable: name } })
    happens('commit', { resolved: [name, name] })
    const { conflicts, resolved } = recorder.stats()
    expect(Object.entries(conflicts.byVariable)).toEqual([[name, 1]])
    expect(Object.entries(conflicts.byRoute)).toEqual([[name, 1]])
    expect(Object.entries(resolved)).toEqual([[name, 2]])
    expect(JSON.stringify(resolved)).toBe(`{"${name}":2}`)
    expect(Object.getOwnPropertyNames(Object.prototype)).not.toContain('cart')
    expect(({} as Record<string, unknown>)['1']).toBeUndefined()
  })
})

test('what is so now is asked when somebody looks', () => {
  let live = 1
  const { recorder } = recording({
    sessions: () => ({ live }),
    tickets: () => ({ waiting: 2, keys: 1 }),
    budget: () => ({ tokens: 99.5, capacity: 100 }),
  })
  live = 7
  expect(recorder.stats()).toMatchObject({
    sessions: { live: 7 },
    tickets: { waiting: 2, keys: 1 },
    budget: { tokens: 99.5, capacity: 100 },
  })
})

test('what was handed out does not change any more', () => {
  const { recorder, happens } = recording()
  happens('conflict', { conflict: variable })
  const stats = recorder.stats()
  const before = structuredClone(stats)
  happens('conflict', { conflict: variable })
  happens('commit', { commitMs: 3, resolved: ['cart'] })
  happens('session:missed')
  expect(stats).toEqual(before)
})

test('after close nothing is counted, and what was counted can be read', () => {
  const { recorder, happens } = recording()
  happens('commit')
  recorder.close()
  recorder.close()
  happens('commit')
  happens('conflict')
  expect(recorder.stats()).toMatchObject({ requests: { committed: 1 }, conflicts: { total: 0 } })
})

function sum(counts: Readonly<Partial<Record<string | number, number>>>): number {
  return Object.values(counts).reduce<number>((total, count) => total + (count ?? 0), 0)
}

/** Every number by its dotted path; the recent list as a whole. */
function leaves(stats: object, prefix = ''): Map<string, unknown> {
  const found = new Map<string, unknown>()
  for (const [name, value] of Object.entries(stats) as [string, unknown][]) {
    const path = prefix + name
    if (typeof value !== 'object' || value === null) found.set(path, value)
    else if (Array.isArray(value)) found.set(path, value.length)
    else for (const [inner, leaf] of leaves(value, `${path}.`)) found.set(inner, leaf)
  }
  return found
}

function changes(before: Map<string, unknown>, after: Map<string, unknown>): Record<string, unknown> {
  return Object.fromEntries([...after].filter(([path, value]) => before.get(path) !== value))
}
