/** The budget of re-runs: what fills it, what it pays for, and what happens when it is empty. */
import { RetryBudget } from '../../lib/transaction/budget.js'
import { FakeClock } from '../support/clock.js'

let clock: FakeClock
const budgetOf = (capacity: number, ratio = 0, perSecond = 0): RetryBudget =>
  new RetryBudget({ capacity, ratio, perSecond }, () => clock.now())
beforeEach(() => {
  clock = new FakeClock()
})

test('is full at the start, and pays for a re-run with one token', () => {
  const budget = budgetOf(2)
  expect(budget.counts).toEqual({ tokens: 2, capacity: 2 })
  expect([budget.take(), budget.take(), budget.take()]).toEqual([true, true, false])
  expect(budget.counts.tokens).toBe(0)
})

test('each request fills it a little, never over its capacity', () => {
  const budget = budgetOf(2, 0.25)
  budget.earn()
  expect(budget.counts.tokens).toBe(2)
  budget.take()
  budget.take()
  for (let request = 0; request < 3; request++) budget.earn()
  expect(budget.take()).toBe(false)
  budget.earn()
  expect(budget.take()).toBe(true)
})

test('so does time', () => {
  const budget = budgetOf(10, 0, 2)
  for (let rerun = 0; rerun < 10; rerun++) budget.take()
  clock.advance(499)
  expect(budget.take()).toBe(false)
  clock.advance(1)
  expect(budget.take()).toBe(true)
  clock.advance(60_000)
  expect(budget.counts.tokens).toBe(10)
})
