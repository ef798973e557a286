/** Deadlines of one length: each is told once, in its time, with one timer between them. */
import { Deadlines, type Due } from '../../lib/transaction/deadlines.js'
import { FakeClock } from '../support/clock.js'

const DELAY_MS = 1_000

function setUp() {
  const clock = new FakeClock()
  const deadlines = new Deadlines(clock, DELAY_MS)
  const passed: string[] = []
  const due = (name: string): Due => ({
    deadlineAt: clock.now() + DELAY_MS,
    passDeadline: () => passed.push(name),
  })
  return { clock, deadlines, passed, due }
}

test('each passes at its own moment, not with the first', () => {
  const { clock, deadlines, passed, due } = setUp()
  deadlines.add(due('first'))
  clock.advance(400)
  deadlines.add(due('second'))
  expect(clock.pending).toHaveLength(1)
  clock.advance(599)
  expect(passed).toEqual([])
  clock.advance(1)
  expect(passed).toEqual(['first'])
  clock.advance(399)
  expect(passed).toEqual(['first'])
  clock.advance(1)
  expect(passed).toEqual(['first', 'second'])
  expect(clock.pending).toEqual([])
})

test('what was removed does not pass, and what is added after a silence is timed again', () => {
  const { clock, deadlines, passed, due } = setUp()
  const done = due('done')
  deadlines.add(done)
  deadlines.remove(done)
  clock.advance(2 * DELAY_MS)
  deadlines.add(due('later'))
  clock.advance(DELAY_MS - 1)
  expect(passed).toEqual([])
  clock.advance(1)
  expect(passed).toEqual(['later'])
})
