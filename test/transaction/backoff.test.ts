/** Full jitter: its bounds, and that they are reached. */
import fc from 'fast-check'
import { backoffMs } from '../../lib/transaction/backoff.js'

const OPTIONS = { backoffBaseMs: 5, backoffMaxMs: 250 }

test('the ceiling doubles with every re-run, up to the maximum', () => {
  const ceilings = [1, 2, 3, 4, 5, 6, 7, 8, 1000].map(rerun => backoffMs(rerun, OPTIONS, () => 1))
  expect(ceilings).toEqual([5, 10, 20, 40, 80, 160, 250, 250, 250])
})

test('the whole range below the ceiling is used, zero included', () => {
  expect(backoffMs(4, OPTIONS, () => 0)).toBe(0)
  expect(backoffMs(4, OPTIONS, () => 0.5)).toBe(20)
})

test('always a number from 0 to below the ceiling and the maximum', () => {
  const numbers = {
    rerun: fc.integer({ min: 1, max: 1e3 }),
    base: fc.double({ min: 0, max: 1e6, noNaN: true }),
    max: fc.double({ min: 0, max: 1e9, noNaN: true }),
    chance: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
  }
  fc.assert(
    fc.property(fc.record(numbers), ({ rerun, base, max, chance }) => {
      const options = { backoffBaseMs: base, backoffMaxMs: Math.max(base, max) }
      const waitMs = backoffMs(rerun, options, () => chance)
      expect(waitMs).toBeGreaterThanOrEqual(0)
      expect(waitMs).toBeLessThanOrEqual(options.backoffMaxMs)
      expect(waitMs).toBeLessThanOrEqual(base * 2 ** (rerun - 1))
    }),
  )
})
