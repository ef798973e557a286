/** The one loop: whether, when and how often an attempt runs again. Attempts are scripted; time stands still. */
import { type ConflictKind, conflictError, SessionTxError } from '../../lib/errors.js'
import type { NotRerunnableReason } from '../../lib/events.js'
import { RetryBudget } from '../../lib/transaction/budget.js'
import { Interrupt } from '../../lib/transaction/interrupt.js'
import {
  type AttemptEnd,
  type AttemptOrder,
  type RetryOptions,
  withRetries,
} from '../../lib/transaction/retry.js'
import { TicketOffice } from '../../lib/transaction/ticket.js'
import { FakeClock } from '../support/clock.js'
import { flush, isSettled } from '../support/barrier.js'

type End = AttemptEnd<string>

const done = (value: string): End => ({ kind: 'done', value })
const failed = (error: unknown): End => ({ kind: 'failed', error })

interface LossOptions {
  readonly kind?: ConflictKind
  readonly keys?: readonly string[]
  readonly rerunsMax?: number
  readonly free?: boolean
  readonly cause?: unknown
}

let losses = 0
function lost(options: LossOptions = {}): End & { error: SessionTxError } {
  const { kind = 'row', keys = [], rerunsMax, free = false, cause } = options
  const details = {
    kind,
    store: 'mysql',
    ...(rerunsMax === undefined ? {} : { rerunsMax }),
    ...(free ? { free: true as const } : {}),
  }
  const error = conflictError(`race ${++losses}`, details, cause)
  return { kind: 'conflict', error, ticketKeys: keys, attemptMs: 7 }
}

interface Setup extends Partial<RetryOptions> {
  readonly clock?: FakeClock
  readonly office?: TicketOffice | undefined
  readonly budget?: RetryBudget | undefined
  readonly deadlineMs?: number
  readonly watchClient?: (gone: () => void) => () => void
  readonly cannot?: () => NotRerunnableReason | undefined
  readonly random?: () => number
}

/** A request whose attempts end as the script says; what happens is written into one log. */
function request(script: readonly (End | (() => End | Promise<End>))[], setup: Setup = {}) {
  const { clock = new FakeClock(), office, deadlineMs = 10_000, watchClient, random = () => 0.5 } = setup
  const id = 'tx-9'
  const interrupt = new Interrupt({ clock, deadlineMs, transactionId: () => id, watchClient })
  const orders: AttemptOrder[] = []
  const log: string[] = []
  const run = withRetries<string>(
    {
      id,
      interrupt,
      name: () => '/route',
      attempt: async order => {
        orders.push(order)
        log.push(`attempt ${order.attempt}`)
        const end = script[order.attempt - 1]
        if (end === undefined) throw new Error(`the script has no attempt ${order.attempt}`)
        return typeof end === 'function' ? end() : end
      },
      notRerunnable: () => setup.cannot?.(),
      onConflict: (_error, order, attemptMs, refusal) => {
        log.push(`conflict in ${order.attempt} after ${attemptMs} ms: ${refusal?.code ?? 'rerun'}`)
      },
      onRerun: (attempt, waitMs, waitedFor) => {
        log.push(`rerun ${attempt} after ${waitMs} ms of ${waitedFor}`)
      },
    },
    {
      retries: setup.retries ?? 3,
      backoffBaseMs: setup.backoffBaseMs ?? 5,
      backoffMaxMs: setup.backoffMaxMs ?? 250,
    },
    { now: () => clock.now(), random, tickets: office, budget: setup.budget },
  )
  run.catch(() => {})
  return { run, clock, interrupt, orders, log }
}

/** Lets every back-off pass until the request has settled. */
async function play<T>({ run, clock }: { readonly run: Promise<T>; readonly clock: FakeClock }): Promise<T> {
  while (!(await isSettled(run))) clock.advance(2.5)
  return run
}

describe('how often', () => {
  test('an attempt that commits is the only one', async () => {
    const { run, log } = request([done('ok')])
    await expect(run).resolves.toBe('ok')
    expect(log).toEqual(['attempt 1'])
  })

  test('an error that is no lost race is the answer, at once', async () => {
    const error = new TypeError('a bug')
    const { run, log } = request([failed(error)])
    await expect(run).rejects.toBe(error)
    expect(log).toEqual(['attempt 1'])
  })

  test('conflict, conflict, success: three runs, and back-offs that double in between', async () => {
    const played = request([lost(), lost(), done('third')])
    await expect(play(played)).resolves.toBe('third')
    expect(played.log).toEqual([
      'attempt 1',
      'conflict in 1 after 7 ms: rerun',
      'rerun 2 after 2.5 ms of backoff',
      'attempt 2',
      'conflict in 2 after 7 ms: rerun',
      'rerun 3 after 5 ms of backoff',
      'attempt 3',
    ])
  })

  test.each([0, 1, 2, 3, 7])('%i retries: one more run than that, then RETRIES_EXHAUSTED', async retries => {
    const script = Array.from({ length: retries + 2 }, () => lost())
    const played = request(script, { retries })
    const last = script[retries]?.error
    await expect(play(played)).rejects.toMatchObject({
      code: 'RETRIES_EXHAUSTED',
      status: 503,
      cause: last,
      conflict: last?.conflict,
      transactionId: 'tx-9',
      headers: { 'Retry-After': '1' },
    })
    expect(played.orders).toHaveLength(retries + 1)
    expect(played.orders.map(order => order.isLast)).toEqual([...Array(retries).fill(false), true])
  })

  test('a kind that allows fewer re-runs than `retries` ends after those', async () => {
    const lockWait = (): End => lost({ kind: 'lockWait', rerunsMax: 2 })
    const played = request([lockWait(), lockWait(), lockWait(), done('never')], { retries: 10 })
    await expect(play(played)).rejects.toMatchObject({ code: 'RETRIES_EXHAUSTED' })
    expect(played.orders).toHaveLength(3)
  })

  test('other kinds in between are not counted against it', async () => {
    const lockWait = (): End => lost({ kind: 'lockWait', rerunsMax: 2 })
    const played = request([lockWait(), lost(), lockWait(), lost(), done('fifth')], { retries: 10 })
    await expect(play(played)).resolves.toBe('fifth')
  })
})

describe('a snapshot torn between session and rows', () => {
  const torn = (): End => lost({ kind: 'snapshot', free: true })

  test('re-runs at once and free of charge, and that attempt opens both together', async () => {
    const { run, log, orders } = request([torn(), done('ok')], { retries: 1 })
    await expect(run).resolves.toBe('ok')
    expect(log[2]).toBe('rerun 2 after 0 ms of nothing')
    expect(orders.map(({ opensTogether, isLast }) => ({ opensTogether, isLast }))).toEqual([
      { opensTogether: false, isLast: false },
      { opensTogether: true, isLast: false },
    ])
  })

  test('once, and only once: the next one is charged', async () => {
    const played = request([torn(), torn(), torn(), done('never')], { retries: 1 })
    await expect(play(played)).rejects.toMatchObject({ code: 'RETRIES_EXHAUSTED' })
    expect(played.orders).toHaveLength(3)
    expect(played.orders.map(order => order.opensTogether)).toEqual([false, true, true])
  })

  test('the free one comes on top of the charged ones, and only the attempt right after it opens both together', async () => {
    const played = request([lost(), torn(), lost(), done('fourth')], { retries: 2 })
    await expect(play(played)).resolves.toBe('fourth')
    expect(played.orders.map(order => order.opensTogether)).toEqual([false, false, true, false])
    expect(played.orders.map(order => order.isLast)).toEqual([false, false, false, true])
  })

  test('`retries: 0` means never, not even this', async () => {
    const { run, orders } = request([torn(), done('never')], { retries: 0 })
    await expect(run).rejects.toMatchObject({ code: 'RETRIES_EXHAUSTED' })
    expect(orders).toHaveLength(1)
  })
})

describe('a connection that was dead at its first use', () => {
  const dead = (): End => lost({ kind: 'connection', free: true })

  test('is free once, at once; the second one is charged and waited for', async () => {
    const played = request([dead(), dead(), done('third')], { retries: 1 })
    await expect(play(played)).resolves.toBe('third')
    expect(played.log.filter(line => line.startsWith('rerun'))).toEqual([
      'rerun 2 after 0 ms of nothing',
      'rerun 3 after 2.5 ms of backoff',
    ])
  })

  test('the free re-run of one kind does not use up that of another', async () => {
    const torn = lost({ kind: 'snapshot', free: true })
    const played = request([dead(), torn, lost(), done('fourth')], { retries: 1 })
    await expect(play(played)).resolves.toBe('fourth')
  })

  test('`retries: 0` means never, not even this', async () => {
    await expect(request([dead()], { retries: 0 }).run).rejects.toMatchObject({ code: 'RETRIES_EXHAUSTED' })
  })
})

describe('no connection to be had', () => {
  const refusal = new SessionTxError('STORE_UNAVAILABLE', 'no connection')
  const unavailable = (): End => lost({ kind: 'unavailable', cause: refusal })

  test('is waited for and tried again; in the end the client learns what is wrong', async () => {
    const played = request([unavailable(), unavailable(), unavailable()], { retries: 2 })
    await expect(play(played)).rejects.toBe(refusal)
    expect(played.log.filter(line => line.startsWith('rerun'))).toEqual([
      'rerun 2 after 2.5 ms of backoff',
      'rerun 3 after 5 ms of backoff',
    ])
  })

  test('also of a request that cannot run again', async () => {
    const played = request([unavailable()], { cannot: () => 'body' })
    await expect(played.run).rejects.toBe(refusal)
  })
})

describe('what the next attempt is told', () => {
  test('its number and why the one before was rolled back', async () => {
    const [first, second] = [lost(), lost()]
    const played = request([first, second, done('ok')])
    await play(played)
    expect(played.orders.map(({ attempt, lastError }) => ({ attempt, lastError }))).toEqual([
      { attempt: 1, lastError: undefined },
      { attempt: 2, lastError: first.error },
      { attempt: 3, lastError: second.error },
    ])
  })
})

describe('tickets', () => {
  test('what was lost is queued for instead of slept for, kept by the next attempts, given back at the end', async () => {
    const office = new TicketOffice(64)
    const played = request([lost({ keys: ['s/cart'] }), lost({ keys: ['s/cart'] }), done('ok')], { office })
    await expect(played.run).resolves.toBe('ok')
    expect(played.log.filter(line => line.startsWith('rerun'))).toEqual([
      'rerun 2 after 0 ms of ticket',
      'rerun 3 after 0 ms of ticket',
    ])
    expect(played.orders.map(order => order.ticketKeys)).toEqual([[], ['s/cart'], ['s/cart']])
    expect(office.counts).toEqual({ waiting: 0, keys: 0 })
  })

  test('a wider loss widens the ticket, and what was held is given back before waiting', async () => {
    const office = new TicketOffice(64)
    const interrupt = new Interrupt({ clock: new FakeClock(), deadlineMs: 1e6, transactionId: () => 'other' })
    const other = await office.take(['s/b'], interrupt)
    const played = request([lost({ keys: ['s/z'] }), lost({ keys: ['s/b'] }), done('ok')], { office })
    await flush()
    // It waits for b, which comes before z: meanwhile z is nobody's.
    expect(office.isTaken('s/z')).toBe(false)
    other.release()
    await played.run
    expect(played.orders.map(order => order.ticketKeys)).toEqual([[], ['s/z'], ['s/b', 's/z']])
    expect(office.counts).toEqual({ waiting: 0, keys: 0 })
  })

  test('a loss without a key keeps the ticket and sleeps', async () => {
    const office = new TicketOffice(64)
    const played = request([lost({ keys: ['s/a'] }), lost(), done('ok')], { office })
    await play(played)
    expect(played.orders.map(order => order.ticketKeys)).toEqual([[], ['s/a'], ['s/a']])
    expect(played.log.filter(line => line.startsWith('rerun'))).toEqual([
      'rerun 2 after 0 ms of ticket',
      'rerun 3 after 5 ms of backoff',
    ])
  })

  test.each([
    ['the work fails', [lost({ keys: ['k'] }), failed(new Error('a bug'))], 'a bug'],
    [
      'the retries are spent',
      Array.from({ length: 4 }, () => lost({ keys: ['k'] })),
      'gave up after 4 attempts',
    ],
    [
      'an attempt itself throws',
      [
        lost({ keys: ['k'] }),
        () => {
          throw new Error('the body is gone')
        },
      ],
      'the body is gone',
    ],
  ] as const)('the place is given back when %s', async (_, script, message) => {
    const office = new TicketOffice(64)
    await expect(request(script, { office }).run).rejects.toThrow(message)
    expect(office.counts).toEqual({ waiting: 0, keys: 0 })
  })

  test('a full queue refuses with the conflict as cause', async () => {
    const office = new TicketOffice(0)
    const interrupt = new Interrupt({ clock: new FakeClock(), deadlineMs: 1e6, transactionId: () => 'other' })
    const other = await office.take(['k'], interrupt)
    const conflict = lost({ keys: ['k'] })
    await expect(request([conflict], { office }).run).rejects.toMatchObject({
      code: 'QUEUE_FULL',
      status: 503,
      cause: conflict.error,
    })
    other.release()
    expect(office.counts).toEqual({ waiting: 0, keys: 0 })
  })
})

describe('refusals', () => {
  const cases: readonly [NotRerunnableReason, string][] = [
    ['body', 'NOT_RERUNNABLE'],
    ['position', 'NOT_RERUNNABLE'],
    ['nextCalled', 'NOT_RERUNNABLE'],
    ['responseStarted', 'RESPONSE_STARTED'],
  ]
  test.each(cases)('%s: %s with the conflict as cause, and no second run', async (reason, code) => {
    const conflict = lost()
    const { run, orders, log } = request([conflict], { cannot: () => reason })
    await expect(run).rejects.toMatchObject({
      code,
      status: 503,
      cause: conflict.error,
      conflict: conflict.error.conflict,
    })
    expect(orders).toHaveLength(1)
    expect(log.at(-1)).toBe(`conflict in 1 after 7 ms: ${code}`)
  })

  test('why it cannot run again says more than that its retries are spent', async () => {
    const { run } = request([lost()], { retries: 0, cannot: () => 'body' })
    await expect(run).rejects.toMatchObject({ code: 'NOT_RERUNNABLE' })
  })

  test('what turns out only when the next attempt is prepared has the conflict as cause, too', async () => {
    const conflict = lost()
    const cannot = (): never => {
      throw new SessionTxError('NOT_RERUNNABLE', 'the request body broke off')
    }
    const played = request([conflict, cannot])
    await expect(play(played)).rejects.toMatchObject({ code: 'NOT_RERUNNABLE', cause: conflict.error })
  })
})

describe('the deadline', () => {
  test('ends the wait for a back-off, with the conflict as cause', async () => {
    const conflict = lost()
    const { run, clock, orders } = request([conflict], {
      deadlineMs: 100,
      backoffBaseMs: 1_000,
      backoffMaxMs: 1_000,
    })
    await clock.armed(delayMs => delayMs === 500)
    clock.advance(100)
    await expect(run).rejects.toMatchObject({
      code: 'DEADLINE',
      status: 503,
      cause: conflict.error,
      transactionId: 'tx-9',
    })
    expect(orders).toHaveLength(1)
    expect(clock.pending).toEqual([])
  })

  test('ends the wait for a ticket, and the place in the queue is gone', async () => {
    const office = new TicketOffice(64)
    const other = request([lost({ keys: ['k'] }), () => new Promise<End>(() => {})], { office })
    await flush()
    const conflict = lost({ keys: ['k'] })
    const waiting = request([conflict], { office, deadlineMs: 100 })
    await flush()
    expect(office.counts).toEqual({ waiting: 1, keys: 1 })
    waiting.clock.advance(100)
    await expect(waiting.run).rejects.toMatchObject({ code: 'DEADLINE', cause: conflict.error })
    expect(office.counts).toEqual({ waiting: 0, keys: 1 })
    expect(other.orders).toHaveLength(2)
  })

  test('that passed during the attempt allows no further one', async () => {
    const clock = new FakeClock()
    const conflict = lost()
    const slow = (): End => {
      clock.advance(100)
      return conflict
    }
    const { run, log } = request([slow], { clock, deadlineMs: 100 })
    await expect(run).rejects.toMatchObject({ code: 'DEADLINE', cause: conflict.error })
    expect(log.at(-1)).toBe('conflict in 1 after 7 ms: DEADLINE')
  })
})

describe('the client goes away', () => {
  function watched() {
    let gone = (): void => {}
    let watching = 0
    const watchClient = (callback: () => void): (() => void) => {
      watching += 1
      gone = callback
      return () => {
        watching -= 1
      }
    }
    return { watchClient, leave: () => gone(), watching: () => watching }
  }

  test('while waiting: no further attempt, and the wait ends at once', async () => {
    const { watchClient, leave } = watched()
    const conflict = lost()
    const { run, clock, orders } = request([conflict], { watchClient })
    await clock.armed(delayMs => delayMs === 2.5)
    leave()
    await expect(run).rejects.toMatchObject({
      code: 'CONFLICT',
      cause: conflict.error,
      message: expect.stringContaining('the client went away') as string,
    })
    expect(orders).toHaveLength(1)
  })

  test('while queueing: its place is gone', async () => {
    const office = new TicketOffice(64)
    void request([lost({ keys: ['k'] }), () => new Promise<End>(() => {})], { office })
    await flush()
    const { watchClient, leave } = watched()
    const { run } = request([lost({ keys: ['k'] })], { office, watchClient })
    await flush()
    leave()
    await expect(run).rejects.toMatchObject({ code: 'CONFLICT' })
    expect(office.counts).toEqual({ waiting: 0, keys: 1 })
  })

  test('nobody watches a client whose request never had to wait', async () => {
    const { watchClient, watching } = watched()
    await request([done('ok')], { watchClient }).run
    expect(watching()).toBe(0)
  })
})

test('hundred requests that lost the same key commit one after the other, first come, first served', async () => {
  const office = new TicketOffice(100)
  let inside = 0
  const order: number[] = []
  const requests = Array.from({ length: 100 }, (_, number) => {
    const second = async (): Promise<End> => {
      inside += 1
      expect(inside).toBe(1)
      order.push(number)
      await flush()
      inside -= 1
      return done('ok')
    }
    return request([lost({ keys: ['k'] }), second], { office, retries: 1 }).run
  })
  await Promise.all(requests)
  expect(order).toEqual(Array.from({ length: 100 }, (_, number) => number))
})

describe('the budget', () => {
  const budgetOf = (capacity: number, ratio = 0): RetryBudget =>
    new RetryBudget({ capacity, ratio, perSecond: 0 }, () => 0)

  test('a re-run that sleeps takes a token; without one the request is refused, and says so', async () => {
    const budget = budgetOf(1)
    const scripted = request([lost(), lost(), done('never')], { budget })
    await expect(play(scripted)).rejects.toMatchObject({
      code: 'BUDGET_EXHAUSTED',
      status: 503,
      headers: { 'Retry-After': '1' },
      cause: { code: 'CONFLICT' },
    })
    expect(scripted.log.at(-1)).toBe('conflict in 2 after 7 ms: BUDGET_EXHAUSTED')
    expect(budget.counts.tokens).toBe(0)
  })

  test('every request brings its part, also one that never loses', async () => {
    const budget = budgetOf(1, 0.5)
    budget.take()
    await play(request([done('first')], { budget }))
    await play(request([done('second')], { budget }))
    expect(await play(request([lost(), done('third')], { budget }))).toBe('third')
  })

  test('who queues pays nothing, and who loses while it holds its ticket pays', async () => {
    const budget = budgetOf(1)
    const office = new TicketOffice(64)
    const queued = () => lost({ keys: ['a'] })
    expect(await play(request([queued(), done('queued')], { budget, office }))).toBe('queued')
    expect(budget.counts.tokens).toBe(1)
    expect(await play(request([queued(), queued(), done('again')], { budget, office }))).toBe('again')
    expect(budget.counts.tokens).toBe(0)
    const wider = () => lost({ keys: ['a', 'b'] })
    expect(await play(request([queued(), wider(), done('wider')], { budget, office }))).toBe('wider')
    const third = request([queued(), queued(), done('never')], { budget, office })
    await expect(play(third)).rejects.toMatchObject({ code: 'BUDGET_EXHAUSTED' })
  })

  test('what is free is free, and what is refused anyway takes nothing', async () => {
    const budget = budgetOf(1)
    const free = () => lost({ kind: 'snapshot', free: true })
    expect(await play(request([free(), done('free')], { budget }))).toBe('free')
    await expect(play(request([lost()], { budget, retries: 0 }))).rejects.toMatchObject({
      code: 'RETRIES_EXHAUSTED',
    })
    expect(budget.counts.tokens).toBe(1)
  })

  test('no database to be had and no budget left: the answer is the database', async () => {
    const unavailable = new SessionTxError('STORE_UNAVAILABLE', 'no connection')
    const end = lost({ kind: 'unavailable', cause: unavailable })
    await expect(play(request([end], { budget: budgetOf(0.5) }))).rejects.toBe(unavailable)
  })
})
