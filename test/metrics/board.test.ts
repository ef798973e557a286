/** What the page shows beside `stats()`: windows of time, the hottest names in bounded memory, and who lost to whom. */
import { advice } from '../../lib/metrics/board/advice.js'
import { Board } from '../../lib/metrics/board/board.js'
import { TopNames } from '../../lib/metrics/board/top-names.js'
import { FakeClock } from '../support/clock.js'
import { recording } from './events.js'

const lost = { kind: 'variable', store: 'memory', variable: 'cart', winner: '/checkout' } as const

function watched() {
  const clock = new FakeClock()
  const { hub, happens, recorder } = recording()
  return { board: new Board(hub, clock), clock, happens, recorder }
}

describe('a window of time', () => {
  test('the minute forgets after a minute, the hour after an hour, the start never', () => {
    const { board, clock, happens } = watched()
    happens('commit')
    happens('conflict', { conflict: lost })
    const counts = (): number[][] =>
      (['minute', 'hour', 'start'] as const).map(name => {
        const { span } = board.window(name)
        return [span.requests.committed, span.conflicts, span.names('variables').list().length]
      })
    expect(counts()).toEqual([
      [1, 1, 1],
      [1, 1, 1],
      [1, 1, 1],
    ])
    clock.advance(60_000)
    expect(counts()[0]).toEqual([0, 0, 0])
    expect(counts()[1]).toEqual([1, 1, 1])
    clock.advance(3_600_000)
    expect(counts()[1]).toEqual([0, 0, 0])
    expect(counts()[2]).toEqual([1, 1, 1])
  })

  test('is as long as the process is old, and no longer than its name says', () => {
    const { board, clock } = watched()
    clock.advance(10_000)
    expect(board.window('minute').lengthMs).toBe(10_000)
    clock.advance(120_000)
    expect(board.window('minute').lengthMs).toBeGreaterThanOrEqual(59_000)
    expect(board.window('minute').lengthMs).toBeLessThanOrEqual(60_000)
    expect(board.window('start').lengthMs).toBe(130_000)
  })

  test('work that committed is what is left of a request without lost attempts and waiting', () => {
    const { board, happens } = watched()
    happens('conflict', { id: 'a', attemptMs: 30 })
    happens('rerun', { id: 'a', waitMs: 20 })
    happens('commit', { id: 'a', durationMs: 100 })
    const { span } = board.window('start')
    expect([span.wastedMs, span.usefulMs]).toEqual([30, 50])
  })

  test('commit times are known to a quarter', () => {
    const { board, happens } = watched()
    expect(board.window('start').span.commitMs(50)).toBeUndefined()
    for (let ms = 1; ms <= 100; ms++) happens('commit', { commitMs: ms })
    happens('commit', { commitMs: 0 })
    for (const percent of [50, 95, 99]) {
      const bound = board.window('start').span.commitMs(percent) ?? 0
      expect(bound).toBeGreaterThanOrEqual(percent - 1)
      expect(bound).toBeLessThanOrEqual(percent * 1.25)
    }
  })
})

describe('the hottest names', () => {
  test('are all there, however many rare ones come', () => {
    const top = new TopNames(10)
    for (let round = 0; round < 1000; round++) {
      top.add('cart')
      if (round % 2 === 0) top.add('basket')
      top.add(`rare ${round}`)
    }
    expect(top.list(2).map(({ name }) => name)).toEqual(['cart', 'basket'])
    expect(top.list()).toHaveLength(10)
  })
})

describe('COMMITs in doubt', () => {
  test('are listed until they are known, and with what was found out', () => {
    const { board, happens } = watched()
    happens('unknown', { id: 't1', route: '/pay' })
    expect(board.doubts()).toMatchObject([{ id: 't1', route: '/pay', outcome: undefined }])
    happens('settled', { id: 't1', outcome: 'committed', doubtMs: 1200, late: true })
    happens('settled', { id: 't2', outcome: 'rolledBack', doubtMs: 3, late: false })
    expect(board.doubts().map(({ id, outcome }) => [id, outcome])).toEqual([
      ['t2', 'rolledBack'],
      ['t1', 'committed'],
    ])
  })
})

describe('advice', () => {
  test('names the variable, both routes, the share of requests and the remedy', () => {
    const { board, happens, recorder } = watched()
    for (let request = 0; request < 25; request++) happens('commit')
    happens('conflict', { route: '/cart', conflict: lost })
    expect(advice(board.window('start').span, recorder.stats())).toEqual([
      {
        percent: 4,
        sentence:
          '`cart` conflicts between `/cart` and `/checkout` in 4.0 % of requests: split it into one variable for each, ' +
          'or use `resolve: { cart: resolvers.disjoint }`.',
      },
    ])
  })

  test('is another one for a route that competes with itself, and for a row', () => {
    const { board, happens, recorder } = watched()
    happens('conflict', { route: '/cart', conflict: { ...lost, winner: '/cart' } })
    happens('conflict', { route: '/buy', conflict: { kind: 'row', store: 'mysql', table: 'stock' } })
    const [first, second] = advice(board.window('start').span, recorder.stats())
    expect(first?.sentence).toContain('resolvers.counter')
    expect(second?.sentence).toMatch(/^`stock` conflicts in `\/buy` .*FOR UPDATE/)
  })

  test('is given for a budget that was spent', () => {
    const { board, happens, recorder } = watched()
    happens('refused', { code: 'BUDGET_EXHAUSTED' })
    expect(advice(board.window('start').span, recorder.stats())).toMatchObject([
      { percent: undefined, sentence: expect.stringContaining('retry.budget') as unknown },
    ])
  })
})
