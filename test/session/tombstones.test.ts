/** Who died while a request lived, and how long that is remembered. */
import { Tombstones } from '../../lib/joint/tombstones.js'
import { FakeClock } from '../support/clock.js'

const KEPT_MS = 10_000

test('a session is dead to those who began before it died, and unknown to those who began later', () => {
  const tombstones = new Tombstones(new FakeClock(), KEPT_MS)
  const before = tombstones.deaths
  tombstones.add('a')
  const between = tombstones.deaths
  tombstones.add('b')
  expect([tombstones.has('a', before), tombstones.has('b', before)]).toEqual([true, true])
  expect([tombstones.has('a', between), tombstones.has('b', between)]).toEqual([false, true])
  expect(tombstones.has('c', before)).toBe(false)
})

test('is remembered as long as a request can live, and forgotten by later deaths', () => {
  const clock = new FakeClock()
  const tombstones = new Tombstones(clock, KEPT_MS)
  tombstones.add('a')
  clock.advance(KEPT_MS)
  tombstones.add('b')
  expect(tombstones.has('a', 0)).toBe(true)
  clock.advance(1)
  tombstones.add('c')
  expect([tombstones.has('a', 0), tombstones.has('b', 0), tombstones.has('c', 0)]).toEqual([
    false,
    true,
    true,
  ])
})
