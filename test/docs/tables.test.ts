/** The manual's tables say what the source says: options, errors, metrics, events, database errors, ranks. */
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { Registry } from 'prom-client'
import { type ConflictKind, ERROR_CODES } from '../../lib/errors.js'
import { EventHub } from '../../lib/events.js'
import { Tx } from '../../lib/joint/tx.js'
import { createPrometheus } from '../../lib/metrics/prometheus.js'
import { Recorder } from '../../lib/metrics/recorder.js'
import { classify, FLAVOURS, isUnavailable } from '../../lib/mysql/errors.js'
import { checkRoute, OPTION_PATHS } from '../../lib/option-rules.js'
import { DEFAULTS } from '../../lib/options.js'
import { eventNames, sessionMembers } from './names.js'
import { memoryStore } from '../../lib/store/memory.js'
import { systemClock } from '../../lib/transaction/clock.js'
import { ranks } from '../support/architecture.js'
import { SEEN, SEEN_ON_GALERA } from '../support/seen-errors.js'
import { readSources } from '../support/source-file.js'
import { codesIn, readPage, root, rowsUnder } from './markdown.js'

const first = (rows: readonly (readonly string[])[]): string[] =>
  rows.map(([cell = '']) => codesIn(cell)[0] ?? cell)
const sorted = (names: Iterable<string>): string[] => [...names].sort()

describe('docs/options.md', () => {
  const page = readPage('docs/options.md')
  const rows = ['Everyday', 'The cookie', 'Advanced'].flatMap(heading => rowsUnder(page, heading))

  test('lists every option that can be given, once', () => {
    const groups = ['retry', 'session', 'session.cookie', 'hold']
    expect(sorted(first(rows))).toEqual(sorted(OPTION_PATHS.filter(path => !groups.includes(path))))
  })

  test.each(rows.map(([option = '', default_ = '']) => [codesIn(option)[0] ?? option, default_]))(
    'says the default of %s',
    (path, said) => expect(saidValue(said)).toEqual(defaultOf(path)),
  )

  test('lists the options of memoryStore with their defaults', () => {
    const options = rowsUnder(page, '`memoryStore(options?)`')
    const store = readFileSync(resolve(root, 'lib/store/memory.ts'), 'utf8')
    const [, defaults = ''] = /const DEFAULTS = Object\.freeze\(\{ (.*) \}\)/.exec(store) ?? []
    const inSource = defaults.split(', ').map(each => each.split(': ') as [string, string])
    expect(first(options)).toEqual(inSource.map(([name]) => name))
    const product = (text: string): number =>
      text
        .replaceAll('_', '')
        .split(' * ')
        .reduce((all, one) => all * Number(one), 1)
    expect(options.map(([, said = '']) => saidValue(said))).toEqual(
      inSource.map(([, value]) => product(value)),
    )
    for (const name of first(options)) expect(() => memoryStore({ unknown: 1 } as object)).toThrow(name)
  })

  test('lists the options of transactional()', () => {
    const [, known = ''] = /it knows (.*)$/.exec(sentenceOf(() => checkRoute(() => {}, { nothing: 1 }))) ?? []
    expect(first(rowsUnder(page, '`tx.transactional(handler, options?)`'))).toEqual(known.split(', '))
  })

  function sentenceOf(run: () => unknown): string {
    try {
      run()
    } catch (error) {
      return (error as Error).message
    }
    return 'accepted'
  }

  /** `none` is undefined; otherwise the code is a value, with spaces between the digits of long numbers. */
  function saidValue(said: string): unknown {
    if (said === 'none') return undefined
    const code = codesIn(said)[0] ?? ''
    if (/^[\d ]+$/.test(code)) return Number(code.replaceAll(' ', ''))
    return JSON.parse(code.replaceAll("'", '"').replace(/(\w+):/g, '"$1":'))
  }

  function defaultOf(path: string): unknown {
    return path
      .split('.')
      .reduce<unknown>((group, name) => (group as Record<string, unknown>)[name], DEFAULTS)
  }
})

describe('docs/errors.md', () => {
  const page = readPage('docs/errors.md')

  test('lists every code with its status and meaning, in the order of the source', () => {
    const rows = rowsUnder(page, 'Errors').map(([code = '', status, meaning]) => [
      codesIn(code)[0],
      Number(status),
      meaning,
    ])
    expect(rows).toEqual(
      Object.entries(ERROR_CODES).map(([code, { status, meaning }]) => [code, status, meaning]),
    )
  })

  test('says of exactly those codes that nothing raises them', () => {
    const [, section = ''] = page.text.split('## Not raised in this version\n')
    const [paragraph = ''] = section.trim().split('\n\n')
    const sources = [...readSources(resolve(root, 'lib'))]
      .filter(([file]) => file !== 'errors.ts')
      .map(([, text]) => text)
    const raised = (code: string): boolean =>
      sources.some(text => text.includes(`'${code}',`) || text.includes(`refusal('${code}'`))
    expect(codesIn(paragraph)).toEqual(
      Object.keys(ERROR_CODES).filter(code => code !== 'CONFLICT' && !raised(code)),
    )
  })
})

describe('docs/metrics.md', () => {
  const page = readPage('docs/metrics.md')
  const hub = new EventHub()
  const recorder = new Recorder(hub, systemClock)
  afterAll(() => recorder.close())

  test('lists every field of stats()', () => {
    const maps = ['attempts', 'recent', 'resolved', 'refused', 'notRerunnable', 'tickets', 'budget']
    const open = (value: unknown, path: string): string[] => {
      const isGroup =
        typeof value === 'object' && value !== null && !maps.includes(path) && !/\.by[A-Z]/.test(path)
      if (!isGroup) return [path]
      return Object.entries(value).flatMap(([name, inner]) =>
        open(inner, path === '' ? name : `${path}.${name}`),
      )
    }
    expect(first(rowsUnder(page, '`tx.stats()`'))).toEqual(open(recorder.stats(), ''))
  })

  test('lists every Prometheus metric with type, label and help, in the order of the source', async () => {
    const { registry } = createPrometheus(recorder)
    expect(registry).toBeInstanceOf(Registry)
    const metrics = await registry.getMetricsAsJSON()
    const label = (name: string): string => {
      const { labelNames = [] } = registry.getSingleMetric(name) as unknown as {
        labelNames?: readonly string[]
      }
      return labelNames.map(each => `\`${each}\``).join(' ')
    }
    const rows = rowsUnder(page, 'Prometheus').map(([name = '', ...rest]) => [codesIn(name)[0], ...rest])
    expect(rows).toEqual(metrics.map(({ name, type, help }) => [name, type, label(name), help]))
  })

  test('lists every kind of conflict', async () => {
    const text = await createPrometheus(recorder).text()
    const kinds = [...text.matchAll(/sessiontx_conflicts_total\{kind="(\w+)"\}/g)].map(
      ([, kind]) => kind as ConflictKind,
    )
    expect(kinds.length).toBeGreaterThan(10)
    expect(first(rowsUnder(page, 'Kinds of conflicts'))).toEqual(kinds)
  })

  test('lists every event', () => {
    expect(first(rowsUnder(page, 'Events'))).toEqual(eventNames)
  })
})

const CAUGHT = {
  always: 'counts',
  unlessNowait: 'counts, unless it said NOWAIT',
  ifUncaught: 'does not count',
} as const
const CONNECTION = { nothing: 'kept', connection: 'destroyed', server: 'all to that server' } as const

test('docs/mysql.md lists every number of a server that lets nobody in', () => {
  const inSource: string[] = []
  for (let errno = 1000; errno < 20_000; errno++)
    if (isUnavailable(Object.assign(new Error(), { errno }))) inSource.push(String(errno))
  const rows = rowsUnder(readPage('docs/mysql.md'), 'No connection to be had').map(([error]) => error)
  expect(rows.filter(error => /^\d+$/.test(error ?? ''))).toEqual(inSource)
})

test('docs/mysql.md lists every database error that is a lost race, for whom, what it means, and whether it was seen', () => {
  const inSource = new Map<number, readonly string[]>()
  for (let errno = 1000; errno < 20_000; errno++) {
    const error = Object.assign(new Error('the server is read-only'), { errno })
    const found = FLAVOURS.flatMap(flavour => {
      const classified = classify(error, flavour, true)
      return classified === undefined ? [] : [{ flavour, ...classified }]
    })
    const [one] = found
    if (one === undefined) continue
    const names = found.map(({ flavour }) => flavour).join(' ')
    inSource.set(errno, [
      ...[String(errno), names, `\`${one.kind}\``, String(one.rerunsMax ?? ''), one.atCommit],
      ...[
        CAUGHT[one.sticky],
        CONNECTION[one.unfit],
        errno in SEEN || SEEN_ON_GALERA.has(errno) ? '*run*' : '*documented*',
      ],
    ])
  }
  const rows = rowsUnder(readPage('docs/mysql.md'), 'Which errors are lost races')
  const byNumber = (a: readonly string[], b: readonly string[]): number => Number(a[0]) - Number(b[0])
  expect([...rows].sort(byNumber)).toEqual([...inSource.values()])
})

test('docs/sessions.md lists every member of a session', () => {
  const names = first(rowsUnder(readPage('docs/sessions.md'), 'Members')).map(name =>
    name.replace(/\(.*/, ''),
  )
  expect(names).toEqual(sessionMembers)
})

test('docs/transaction.md lists every member of ctx.tx, in the order of the source', () => {
  const names = first(rowsUnder(readPage('docs/transaction.md'), 'Members')).map(name =>
    name.replace(/\(.*/, ''),
  )
  expect(names).toEqual(Object.getOwnPropertyNames(Tx.prototype).filter(name => name !== 'constructor'))
})

test('ARCHITECTURE.md has the ranks that are enforced', () => {
  const rows = rowsUnder(readPage('ARCHITECTURE.md'), 'The map')
  const said = rows.flatMap(([rank, places = '']) =>
    codesIn(places).map(place => [place, Number(rank)] as const),
  )
  expect(Object.fromEntries(said)).toEqual(ranks)
})
