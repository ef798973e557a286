/** What ends a request's waiting early: the deadline ends everything, a client that went away only the waits. */
import { Interrupt, type InterruptSetup } from '../../lib/transaction/interrupt.js'
import { deferred, isSettled } from '../support/barrier.js'
import { FakeClock } from '../support/clock.js'

const DEADLINE_MS = 1_000

function setUp(setup: Partial<InterruptSetup> = {}) {
  const clock = new FakeClock()
  const interrupt = new Interrupt({ clock, deadlineMs: DEADLINE_MS, transactionId: () => 'tx-1', ...setup })
  return { clock, interrupt }
}

function withClient() {
  const client = { watched: 0, unwatched: 0, leave: () => {} }
  const watchClient = (gone: () => void): (() => void) => {
    client.watched += 1
    client.leave = gone
    return () => void (client.unwatched += 1)
  }
  return { client, ...setUp({ watchClient }) }
}

describe('the deadline', () => {
  test('is a reason from its moment on, and no moment earlier', () => {
    const { clock, interrupt } = setUp()
    clock.advance(DEADLINE_MS - 1)
    expect(interrupt.reason).toBeUndefined()
    clock.advance(1)
    expect(interrupt.reason).toMatchObject({ code: 'DEADLINE', status: 503, transactionId: 'tx-1' })
    expect(interrupt.reason?.message).toContain('1000 ms')
    expect(interrupt.waitingEnded).toBe(interrupt.reason)
  })

  test('rejects what is raced against it, and work that goes on is unheard', async () => {
    const { clock, interrupt } = setUp()
    const work = deferred<string>()
    const racing = interrupt.race(work.promise)
    expect(await isSettled(racing)).toBe(false)
    clock.advance(DEADLINE_MS)
    await expect(racing).rejects.toBe(interrupt.reason)
    work.reject(new Error('later, and no unhandled rejection'))
  })

  test('that has passed leaves no race to run', async () => {
    const { clock, interrupt } = setUp()
    clock.advance(DEADLINE_MS)
    await expect(interrupt.race(Promise.resolve('done'))).rejects.toBe(interrupt.reason)
  })

  test('changes nothing for work that has ended', async () => {
    const { clock, interrupt } = setUp()
    await expect(interrupt.race(Promise.resolve('done'))).resolves.toBe('done')
    await expect(interrupt.race(Promise.reject(new Error('own')))).rejects.toThrow('own')
    clock.advance(DEADLINE_MS)
  })

  test('never comes after the end of the request', () => {
    const { clock, interrupt } = setUp()
    interrupt.end()
    expect(clock.pending).toEqual([])
    clock.advance(DEADLINE_MS)
    expect(interrupt.reason).toBeUndefined()
  })
})

describe('sleeping', () => {
  test('ends when its time is over', async () => {
    const { clock, interrupt } = setUp()
    const asleep = interrupt.sleep(10)
    clock.advance(9)
    expect(await isSettled(asleep)).toBe(false)
    clock.advance(1)
    await asleep
  })

  test('ends early at the deadline, its timer with it', async () => {
    const { clock, interrupt } = setUp()
    const asleep = interrupt.sleep(5_000)
    clock.advance(DEADLINE_MS)
    await expect(asleep).rejects.toBe(interrupt.reason)
    expect(clock.pending).toEqual([])
  })

  test('ends early when the client goes', async () => {
    const { client, clock, interrupt } = withClient()
    const asleep = interrupt.sleep(10)
    client.leave()
    await expect(asleep).rejects.toMatchObject({ code: 'CONFLICT', transactionId: 'tx-1' })
    expect(clock.pending).toEqual([DEADLINE_MS])
  })

  test('does not begin when there is nothing left to wait for', async () => {
    const { clock, interrupt } = setUp()
    clock.advance(DEADLINE_MS)
    await expect(interrupt.sleep(10)).rejects.toBe(interrupt.reason)
    expect(clock.pending).toEqual([])
  })
})

describe('the client', () => {
  test('is watched from the first wait on, once', async () => {
    const { client, clock, interrupt } = withClient()
    expect(client.watched).toBe(0)
    for (let turn = 0; turn < 3; turn++) {
      const asleep = interrupt.sleep(1)
      clock.advance(1)
      await asleep
    }
    expect(client.watched).toBe(1)
    interrupt.end()
    expect(client.unwatched).toBe(1)
  })

  test('that goes away ends waits but no attempt', async () => {
    const { client, interrupt } = withClient()
    const work = deferred<string>()
    const racing = interrupt.race(work.promise)
    expect(interrupt.waitingEnded).toBeUndefined()
    client.leave()
    expect(interrupt.reason).toBeUndefined()
    expect(interrupt.waitingEnded).toMatchObject({ code: 'CONFLICT' })
    work.resolve('finished all the same')
    await expect(racing).resolves.toBe('finished all the same')
  })

  test('that was gone before anybody looked is noticed at the first look', () => {
    const { interrupt } = setUp({
      watchClient: gone => {
        gone()
        return () => {}
      },
    })
    expect(interrupt.waitingEnded).toMatchObject({ code: 'CONFLICT' })
  })

  test('the deadline passes after it went: the deadline is the reason', () => {
    const { client, clock, interrupt } = withClient()
    expect(interrupt.waitingEnded).toBeUndefined()
    client.leave()
    clock.advance(DEADLINE_MS)
    expect(interrupt.waitingEnded).toMatchObject({ code: 'DEADLINE' })
  })
})

describe('onWaitingEnd', () => {
  test('calls back once, whichever comes first', () => {
    const { client, clock, interrupt } = withClient()
    const heard: string[] = []
    interrupt.onWaitingEnd(({ code }) => heard.push(code))
    client.leave()
    clock.advance(DEADLINE_MS)
    expect(heard).toEqual(['CONFLICT'])
  })

  test('calls back at once when it has ended', () => {
    const { clock, interrupt } = setUp()
    clock.advance(DEADLINE_MS)
    const heard: string[] = []
    interrupt.onWaitingEnd(({ code }) => heard.push(code))
    expect(heard).toEqual(['DEADLINE'])
  })

  test('does not call whoever stopped listening', () => {
    const { clock, interrupt } = setUp()
    const heard: string[] = []
    interrupt.onWaitingEnd(({ code }) => heard.push(code))()
    clock.advance(DEADLINE_MS)
    expect(heard).toEqual([])
  })
})

describe('the signal for the application', () => {
  test('aborts at the deadline, with it as reason', () => {
    const { clock, interrupt } = setUp()
    const { signal } = interrupt
    expect(signal.aborted).toBe(false)
    clock.advance(DEADLINE_MS)
    expect(signal.reason).toBe(interrupt.reason)
  })

  test('aborts when the client goes', () => {
    const { client, interrupt } = withClient()
    const { signal } = interrupt
    client.leave()
    expect(signal.reason).toMatchObject({ code: 'CONFLICT' })
  })

  test('is one signal, aborted from the start where it is asked for too late', () => {
    const { clock, interrupt } = setUp()
    clock.advance(DEADLINE_MS)
    expect(interrupt.signal.aborted).toBe(true)
    expect(interrupt.signal).toBe(interrupt.signal)
  })
})
