/** Places in queues: first come, first served, one holder per key, nothing left behind. */
import fc from 'fast-check'
import { Interrupt } from '../../lib/transaction/interrupt.js'
import { type Ticket, TicketOffice } from '../../lib/transaction/ticket.js'
import { FakeClock } from '../support/clock.js'
import { flush, isSettled } from '../support/barrier.js'

const clock = new FakeClock()
const DEADLINE_MS = 100

function patience(on: FakeClock = clock): Interrupt {
  return new Interrupt({ clock: on, deadlineMs: DEADLINE_MS, transactionId: () => 'tx-1' })
}

test('first come, first served, one at a time', async () => {
  const office = new TicketOffice(64)
  const order: string[] = []
  const visit = async (name: string): Promise<void> => {
    const ticket = await office.take(['k'], patience())
    order.push(`${name} in`)
    await flush()
    order.push(`${name} out`)
    ticket.release()
  }
  await Promise.all([visit('a'), visit('b'), visit('c')])
  expect(order).toEqual(['a in', 'a out', 'b in', 'b out', 'c in', 'c out'])
  expect(office.counts).toEqual({ waiting: 0, keys: 0 })
})

test('different keys do not wait for each other', async () => {
  const office = new TicketOffice(64)
  const a = await office.take(['a'], patience())
  const b = await office.take(['b'], patience())
  expect(office.counts).toEqual({ waiting: 0, keys: 2 })
  a.release()
  b.release()
})

test('a key is taken while somebody holds it, also when it is handed on, and not afterwards', async () => {
  const office = new TicketOffice(64)
  expect(office.isTaken('k')).toBe(false)
  const first = await office.take(['k'], patience())
  const second = office.take(['k'], patience())
  expect(office.isTaken('k')).toBe(true)
  first.release()
  expect(office.isTaken('k')).toBe(true)
  ;(await second).release()
  expect(office.isTaken('k')).toBe(false)
})

test('says who holds a key, if that one says so', async () => {
  const office = new TicketOffice(8)
  const first = await office.take(['k'], patience(), { name: () => '/first' })
  const second = office.take(['k'], patience(), { name: () => '/second' })
  expect([office.holderOf('k'), office.holderOf('other')]).toEqual(['/first', undefined])
  first.release()
  expect(office.holderOf('k')).toBe('/second')
  const third = office.take(['k'], patience())
  ;(await second).release()
  await third
  expect(office.holderOf('k')).toBeUndefined()
})

test('keys are taken in sorted order, each once, whatever order they are asked for in', async () => {
  const office = new TicketOffice(64)
  const ticket = await office.take(['b', 'a', 'b'], patience())
  expect(ticket.keys).toEqual(['a', 'b'])
  ticket.release()
  expect(office.counts).toEqual({ waiting: 0, keys: 0 })
})

test('two that want the same keys in opposite order both get them', async () => {
  const office = new TicketOffice(64)
  const holder = await office.take(['b'], patience())
  const one = office.take(['a', 'b'], patience())
  const other = office.take(['b', 'a'], patience())
  await flush()
  holder.release()
  ;(await one).release()
  ;(await other).release()
  expect(office.counts).toEqual({ waiting: 0, keys: 0 })
})

test('releasing twice does not let two in', async () => {
  const office = new TicketOffice(64)
  const first = await office.take(['k'], patience())
  const second = office.take(['k'], patience())
  const third = office.take(['k'], patience())
  first.release()
  first.release()
  const held = await second
  expect(await isSettled(third)).toBe(false)
  held.release()
  ;(await third).release()
})

describe('waitingMax', () => {
  test('so many wait, the next is refused with QUEUE_FULL, and a place that came free is given again', async () => {
    const office = new TicketOffice(2)
    const first = await office.take(['k'], patience())
    const waiting = [office.take(['k'], patience()), office.take(['k'], patience())]
    await expect(office.take(['k'], patience())).rejects.toMatchObject({ code: 'QUEUE_FULL', status: 503 })
    expect(office.counts).toEqual({ waiting: 2, keys: 1 })
    first.release()
    const last = office.take(['k'], patience())
    for (const one of [...waiting, last]) (await one).release()
    expect(office.counts).toEqual({ waiting: 0, keys: 0 })
  })

  test('who is refused for its second key gives back the first', async () => {
    const office = new TicketOffice(0)
    const holder = await office.take(['b'], patience())
    await expect(office.take(['a', 'b'], patience())).rejects.toMatchObject({ code: 'QUEUE_FULL' })
    expect(office.isTaken('a')).toBe(false)
    holder.release()
  })

  test('it is counted per key', async () => {
    const office = new TicketOffice(1)
    const holder = await office.take(['a', 'b'], patience())
    const a = office.take(['a'], patience())
    const b = office.take(['b'], patience())
    holder.release()
    ;(await a).release()
    ;(await b).release()
  })
})

describe('giving up', () => {
  test('who waits no longer has left the queue, and the next behind it is served', async () => {
    const office = new TicketOffice(64)
    const impatient = new FakeClock()
    const holder = await office.take(['k'], patience())
    const leaver = office.take(['k'], patience(impatient))
    const last = office.take(['k'], patience())
    await flush()
    impatient.advance(DEADLINE_MS)
    await expect(leaver).rejects.toMatchObject({ code: 'DEADLINE' })
    expect(office.counts).toEqual({ waiting: 1, keys: 1 })
    holder.release()
    ;(await last).release()
    expect(office.counts).toEqual({ waiting: 0, keys: 0 })
  })

  test('who gives up while waiting for its second key gives back the first', async () => {
    const office = new TicketOffice(64)
    const impatient = new FakeClock()
    const holder = await office.take(['b'], patience())
    const leaver = office.take(['a', 'b'], patience(impatient))
    await flush()
    expect(office.isTaken('a')).toBe(true)
    impatient.advance(DEADLINE_MS)
    await expect(leaver).rejects.toMatchObject({ code: 'DEADLINE' })
    expect(office.isTaken('a')).toBe(false)
    holder.release()
  })

  test('whose deadline has passed does not begin to wait', async () => {
    const office = new TicketOffice(64)
    const holder = await office.take(['k'], patience())
    const late = new FakeClock()
    const interrupt = patience(late)
    late.advance(DEADLINE_MS)
    await expect(office.take(['k'], interrupt)).rejects.toBe(interrupt.reason)
    expect(office.counts).toEqual({ waiting: 0, keys: 1 })
    holder.release()
  })

  test('a deadline that passes after the turn has come takes nothing away', async () => {
    const office = new TicketOffice(64)
    const holder = await office.take(['k'], patience())
    const own = new FakeClock()
    const second = office.take(['k'], patience(own))
    holder.release()
    own.advance(DEADLINE_MS)
    ;(await second).release()
    expect(office.counts).toEqual({ waiting: 0, keys: 0 })
  })
})

/** What a crowd does, step by step; `who` is an index into whoever can do it at that moment. */
const step = fc.oneof(
  fc.record({
    kind: fc.constant('take' as const),
    keys: fc.subarray(['a', 'b', 'c', 'd'], { minLength: 1 }),
  }),
  fc.record({ kind: fc.constant('release' as const), who: fc.nat() }),
  fc.record({ kind: fc.constant('leave' as const), who: fc.nat() }),
)

test('whoever comes, holds and leaves: one holder per key, everybody served in the end, nothing left', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 40 }),
      fc.integer({ min: 0, max: 4 }),
      async (steps, waitingMax) => {
        const office = new TicketOffice(waitingMax)
        const holders: Ticket[] = []
        const visitors: { readonly own: FakeClock; settled: boolean }[] = []
        const visit = (keys: readonly string[]): void => {
          const visitor = { own: new FakeClock(), settled: false }
          visitors.push(visitor)
          void office
            .take(keys, patience(visitor.own))
            .then(
              ticket => void holders.push(ticket),
              (error: unknown) =>
                expect(['QUEUE_FULL', 'DEADLINE']).toContain((error as { code: string }).code),
            )
            .finally(() => {
              visitor.settled = true
            })
        }
        const release = (who: number): void =>
          holders.splice(who % Math.max(holders.length, 1), 1)[0]?.release()

        for (const one of steps) {
          if (one.kind === 'take') visit(one.keys)
          else if (one.kind === 'release') release(one.who)
          else visitors[one.who % Math.max(visitors.length, 1)]?.own.advance(DEADLINE_MS)
          await flush()
          const held = holders.flatMap(ticket => ticket.keys)
          expect(new Set(held).size).toBe(held.length)
          for (const key of held) expect(office.isTaken(key)).toBe(true)
        }
        // Everybody who holds lets go: then nobody may still be waiting.
        while (holders.length > 0) {
          release(0)
          await flush()
        }
        expect(visitors.every(({ settled }) => settled)).toBe(true)
        expect(office.counts).toEqual({ waiting: 0, keys: 0 })
      },
    ),
    { numRuns: 150 },
  )
})
