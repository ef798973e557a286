/**
 * Every phase of every resource fails in every way, one at a time, and the whole order of calls is compared with what
 * the contract says (lib/transaction/resource.ts). The cases are generated; the rules are written once, in `afterwards`.
 */
import { isSessionTxError, SessionTxError } from '../../lib/errors.js'
import type { Found, MaybePromise } from '../../lib/transaction/resource.js'
import type { Outcome } from '../../lib/transaction/two-phase-commit.js'
import { PATIENCE } from '../../lib/transaction/two-phase-commit.js'
import { deferred, flush, isSettled } from '../support/barrier.js'
import { DEADLINE_MS, type Fault, Recording, stage } from './recording.js'

/** In the order they are enlisted; the one that decides is neither first nor last. */
const RESOURCES = ['session', 'mysql', 'ledger'] as const
const DECIDER = 'mysql'

const FORWARD = [
  'settle session',
  'settle mysql',
  'settle ledger',
  'prepare session',
  'prepare ledger',
  'commit mysql',
  'commit session',
  'commit ledger',
  'release session',
  'release ledger',
]
const DECISION = FORWARD.indexOf(`commit ${DECIDER}`)
const BACKWARD = ['rollback ledger', 'rollback mysql', 'rollback session']
const FAULTS: readonly Fault[] = ['throws', 'rejects', 'hangs']

interface Expected {
  readonly outcome: Outcome['kind']
  readonly log: readonly string[]
}

/** The contract, as far as one failure goes. */
function afterwards(line: string, fault: Fault): Expected {
  const place = FORWARD.indexOf(line)
  if (place > DECISION) return { outcome: 'committed', log: FORWARD }
  const until = FORWARD.slice(0, place + 1)
  if (place < DECISION || fault !== 'hangs') return { outcome: 'rolledBack', log: [...until, ...BACKWARD] }
  const promisers = BACKWARD.filter(one => !one.endsWith(DECIDER))
  return { outcome: 'unknown', log: [...until, `abandon ${DECIDER}`, ...promisers] }
}

function enlisted(): ReturnType<typeof stage> & { readonly recording: Recording } {
  const staged = stage()
  const recording = new Recording()
  for (const name of RESOURCES) {
    staged.transaction.enlist(name === DECIDER ? recording.one(name) : recording.two(name))
  }
  return { ...staged, recording }
}

test('when nothing fails: settle all, prepare, decide, make visible, let go; nobody is called twice', async () => {
  const { transaction, recording } = enlisted()
  await expect(transaction.commit()).resolves.toEqual({ kind: 'committed', lateErrors: [] })
  expect(recording.log).toEqual(FORWARD)
  expect(transaction.state).toBe('committed')
})

test('a rollback calls nothing but rollback, the last enlisted first', async () => {
  const { transaction, recording } = enlisted()
  await transaction.rollback(new Error('the handler threw'))
  expect(recording.log).toEqual(BACKWARD)
  expect(transaction.state).toBe('rolledBack')
})

// `release` is synchronous: it can throw, but there is nothing to wait for.
const failures = FORWARD.flatMap(line =>
  FAULTS.filter(fault => fault === 'throws' || !line.startsWith('release')).map(
    fault => [line, fault] as const,
  ),
)

describe.each(failures)('%s %s', (line, fault) => {
  const { outcome: kind, log } = afterwards(line, fault)

  test(`${kind}: ${log.slice(FORWARD.indexOf(line) + 1).join(', ')}`, async () => {
    const { transaction, recording, clock, interrupt } = enlisted()
    recording.fail(line, fault)
    const committing = transaction.commit()
    if (fault === 'hangs') {
      await recording.hanging
      clock.advance(DEADLINE_MS - 1)
      expect(await isSettled(committing)).toBe(false)
      clock.advance(1)
    }
    const outcome = await committing
    await flush()

    expect(recording.log).toEqual(log)
    expect(outcome.kind).toBe(kind)
    expect(transaction.state).toBe(kind)
    if (outcome.kind === 'committed') {
      const [late, ...others] = outcome.lateErrors
      expect(others).toEqual([])
      if (fault === 'hangs') expect(late).toMatchObject({ code: 'COMMIT_UNKNOWN' })
      else expect(late).toEqual(new Error(line))
    } else if (kind === 'unknown') {
      expect(outcome.error).toMatchObject({ code: 'COMMIT_UNKNOWN', status: 503, transactionId: 'tx-1' })
    } else if (fault === 'hangs') {
      expect(outcome.error).toBe(interrupt.reason)
      expect(outcome.error).toMatchObject({ code: 'DEADLINE' })
    } else {
      expect(outcome.error).toEqual(new Error(line))
    }
    interrupt.end()
    expect(clock.pending).toEqual([])
  })
})

const rollbackFailures = BACKWARD.flatMap(line => FAULTS.map(fault => [line, fault] as const))

describe.each(rollbackFailures)('%s %s', (line, fault) => {
  test('the others are rolled back all the same, and the first error stays the error', async () => {
    const { transaction, recording, clock, interrupt } = enlisted()
    recording.fail('prepare ledger', 'throws')
    recording.fail(line, fault)
    const committing = transaction.commit()
    if (fault === 'hangs') {
      await recording.hanging
      clock.advance(PATIENCE.rollbackMsMax - 1)
      expect(await isSettled(committing)).toBe(false)
      clock.advance(1)
    }
    const outcome = await committing

    expect(recording.log).toEqual([...FORWARD.slice(0, 5), ...BACKWARD])
    expect(outcome).toMatchObject({ kind: 'rolledBack', error: { message: 'prepare ledger' } })
    const { errors } = (outcome as { error: { errors: readonly Error[] } }).error
    const name = line.replace('rollback ', '')
    const late = `rollback of '${name}' took longer than ${PATIENCE.rollbackMsMax} ms`
    expect(errors.map(({ message }) => message)).toEqual([fault === 'hangs' ? late : line])
    interrupt.end()
    expect(clock.pending).toEqual([])
  })
})

describe('a decision that is on its way', () => {
  test('has two seconds at least, however near the deadline it was sent', async () => {
    const { transaction, recording, clock, interrupt } = enlisted()
    recording.fail('commit mysql', 'hangs')
    clock.advance(DEADLINE_MS - 1)
    const committing = transaction.commit()
    await recording.hanging
    clock.advance(PATIENCE.commitMsMin - 1)
    expect(interrupt.reason).toMatchObject({ code: 'DEADLINE' })
    expect(await isSettled(committing)).toBe(false)
    clock.advance(1)
    await expect(committing).resolves.toMatchObject({ kind: 'unknown' })
    expect(recording.log.filter(line => line.endsWith('mysql'))).toEqual([
      'settle mysql',
      'commit mysql',
      'abandon mysql',
    ])
  })

  test('is not sent at all once the deadline has passed', async () => {
    const { transaction, recording, clock, interrupt } = enlisted()
    clock.advance(DEADLINE_MS)
    await expect(transaction.commit()).resolves.toEqual({ kind: 'rolledBack', error: interrupt.reason })
    expect(recording.log).not.toContain('commit mysql')
    expect(recording.log.slice(-3)).toEqual(BACKWARD)
  })

  test.each(['throws', 'rejects'] as const)(
    'COMMIT_UNKNOWN from commit (%s): it alone is not rolled back',
    async how => {
      const { transaction, recording } = { ...stage(), recording: new Recording() }
      const unknown = new SessionTxError('COMMIT_UNKNOWN', 'the answer was lost')
      const decider = recording.one('mysql')
      transaction.enlist(recording.two('session'))
      transaction.enlist({
        ...decider,
        commit: () => {
          void decider.commit()
          if (how === 'throws') throw unknown
          return Promise.reject(unknown)
        },
      })
      await expect(transaction.commit()).resolves.toEqual({ kind: 'unknown', error: unknown })
      expect(recording.log.slice(-3)).toEqual(['prepare session', 'commit mysql', 'rollback session'])
    },
  )

  test('what abandon throws ends nothing else', async () => {
    const { transaction, recording, clock } = enlisted()
    recording.fail('commit mysql', 'hangs')
    recording.fail('abandon mysql', 'throws')
    const committing = transaction.commit()
    await recording.hanging
    clock.advance(DEADLINE_MS)
    const outcome = await committing
    expect(outcome).toMatchObject({ kind: 'unknown', error: { errors: [{ message: 'abandon mysql' }] } })
    expect(recording.log.slice(-3)).toEqual(['abandon mysql', 'rollback ledger', 'rollback session'])
  })
})

describe('a decision in doubt that can be found out about', () => {
  const HELD = FORWARD.slice(0, DECISION)
  const KEPT = FORWARD.slice(DECISION + 1)
  const TAKEN_BACK = BACKWARD.filter(line => !line.endsWith(DECIDER))
  const WAYS = ['says so', 'hangs'] as const

  /** In doubt because commit says so, or because it is not answered before the deadline. */
  function inDoubt(way: (typeof WAYS)[number], found: () => MaybePromise<Found> | undefined) {
    const staged = stage()
    const recording = new Recording()
    for (const name of RESOURCES) {
      if (name !== DECIDER) staged.transaction.enlist(recording.two(name))
      else {
        const decider = recording.one(name, found)
        const says = (): Promise<never> => {
          void decider.commit()
          return Promise.reject(new SessionTxError('COMMIT_UNKNOWN', 'not answered'))
        }
        staged.transaction.enlist(way === 'hangs' ? decider : { ...decider, commit: says })
      }
    }
    if (way === 'hangs') recording.fail('commit mysql', 'hangs')
    const asked =
      way === 'hangs' ? ['commit mysql', 'abandon mysql', 'findOut mysql'] : ['commit mysql', 'findOut mysql']
    const committing = async (): Promise<Outcome> => {
      const outcome = staged.transaction.commit()
      if (way === 'hangs') {
        await recording.hanging
        staged.clock.advance(DEADLINE_MS)
      }
      return outcome
    }
    return { ...staged, recording, before: [...HELD, ...asked], committing }
  }

  const founds = (['committed', 'rolledBack'] as const).flatMap(found =>
    WAYS.flatMap(way => (['at once', 'in time'] as const).map(when => [found, when, way] as const)),
  )

  test.each(founds)('%s, %s (commit %s): the promises follow it', async (found, when, way) => {
    const finding = deferred<Found>()
    const { committing, transaction, recording, before, clock, interrupt } = inDoubt(way, () =>
      when === 'at once' ? found : finding.promise,
    )
    const end = committing()
    if (when === 'in time') {
      expect(await isSettled(end)).toBe(false)
      clock.advance(way === 'hangs' ? PATIENCE.commitMsMin - 1 : DEADLINE_MS - 1)
      expect(await isSettled(end)).toBe(false)
      finding.resolve(found)
    }
    const outcome = await end
    expect(outcome.kind).toBe(found)
    expect(transaction.state).toBe(found)
    expect(outcome.doubtMs).toBe(
      when === 'at once' ? 0 : way === 'hangs' ? PATIENCE.commitMsMin - 1 : DEADLINE_MS - 1,
    )
    expect(recording.log).toEqual([...before, ...(found === 'committed' ? KEPT : TAKEN_BACK)])
    if (outcome.kind === 'rolledBack') {
      expect(outcome.error).toMatchObject({
        code: 'CONFLICT',
        conflict: { kind: 'connection', store: 'mysql' },
        cause: { code: 'COMMIT_UNKNOWN' },
      })
    }
    interrupt.end()
    expect(clock.pending).toEqual([])
  })

  const late = (['committed', 'rolledBack', 'unknown'] as const).flatMap(found =>
    WAYS.map(way => [found, way] as const),
  )

  test.each(late)('%s, found out late (commit %s): held and in doubt until then', async (found, way) => {
    const finding = deferred<Found>()
    const { committing, transaction, recording, before, clock, interrupt } = inDoubt(
      way,
      () => finding.promise,
    )
    const end = committing()
    expect(await isSettled(end)).toBe(false)
    clock.advance(DEADLINE_MS)
    const outcome = await end
    interrupt.end()
    expect(outcome).toMatchObject({ kind: 'unknown', error: { code: 'COMMIT_UNKNOWN' } })
    expect(transaction.state).toBe('unknown')
    const held = [...before, 'doubt session', 'doubt ledger']
    expect(recording.log).toEqual(held)

    const settling = outcome.kind === 'unknown' ? outcome.settling : undefined
    clock.advance(3_600_000)
    expect(await isSettled(settling ?? Promise.resolve())).toBe(false)
    if (found === 'unknown') finding.reject(new Error('nobody can tell'))
    else finding.resolve(found)
    await expect(settling).resolves.toMatchObject({ kind: found, doubtMs: expect.any(Number) as number })
    expect(recording.log).toEqual([...held, ...(found === 'committed' ? KEPT : TAKEN_BACK)])
    expect(transaction.state).toBe(found)
    if (found === 'unknown')
      expect(outcome).toMatchObject({ error: { errors: [{ message: 'nobody can tell' }] } })
    expect(clock.pending).toEqual([])
  })

  test.each([
    [
      'throws',
      () => {
        throw new Error('nobody can tell')
      },
    ],
    ['rejects', () => Promise.reject(new Error('nobody can tell'))],
  ] as const)('whose finding out %s is unknown for ever', async (_, found) => {
    const { committing, recording, before } = inDoubt('says so', found)
    await expect(committing()).resolves.toMatchObject({
      kind: 'unknown',
      error: { errors: [{ message: 'nobody can tell' }] },
    })
    expect(recording.log).toEqual([...before, ...TAKEN_BACK])
  })

  test('with no way to find out after all it is unknown, and nothing was in doubt for a time', async () => {
    const { committing, recording, before } = inDoubt('says so', () => undefined)
    const outcome = await committing()
    expect(outcome).toEqual({
      kind: 'unknown',
      error: expect.objectContaining({ code: 'COMMIT_UNKNOWN' }) as Error,
    })
    expect(recording.log).toEqual([...before, ...TAKEN_BACK])
  })

  test('what fails while the promises are told of the doubt, kept or taken back later, ends nothing else', async () => {
    for (const found of ['committed', 'rolledBack'] as const) {
      const finding = deferred<Found>()
      const { committing, recording, clock, before } = inDoubt('says so', () => finding.promise)
      recording.fail('doubt session', 'throws')
      recording.fail(found === 'committed' ? 'commit session' : 'rollback ledger', 'rejects')
      const end = committing()
      await isSettled(end)
      clock.advance(DEADLINE_MS)
      const outcome = await end
      finding.resolve(found)
      const settled = outcome.kind === 'unknown' ? await outcome.settling : undefined
      const doubts = ['doubt session', 'doubt ledger']
      expect(recording.log).toEqual([...before, ...doubts, ...(found === 'committed' ? KEPT : TAKEN_BACK)])
      if (settled?.kind === 'committed') expect(settled.lateErrors).toEqual([new Error('commit session')])
      expect(settled?.kind).toBe(found)
    }
  })
})

test.each(['settle', 'prepare'])(
  '%s throws what another transaction did not know: nothing of this one is in doubt',
  async phase => {
    const { transaction, recording } = enlisted()
    const unknown = new SessionTxError('COMMIT_UNKNOWN', 'of an inner transaction')
    transaction.enlist({ ...recording.two('outer'), [phase]: () => Promise.reject(unknown) })
    await expect(transaction.commit()).resolves.toEqual({ kind: 'rolledBack', error: unknown })
    expect(recording.log.slice(-4)).toEqual(['rollback outer', ...BACKWARD])
  },
)

test('without a resource that decides, the promises are enough', async () => {
  const { transaction } = stage()
  const recording = new Recording()
  transaction.enlist(recording.two('a'))
  transaction.enlist(recording.two('b'))
  await expect(transaction.commit()).resolves.toEqual({ kind: 'committed', lateErrors: [] })
  expect(recording.log).toEqual(
    ['settle', 'prepare', 'commit', 'release'].flatMap(phase => [`${phase} a`, `${phase} b`]),
  )
})

test('nobody takes part: committed, and nothing was called', async () => {
  const { transaction } = stage()
  expect(transaction.isEmpty).toBe(true)
  await expect(transaction.commit()).resolves.toEqual({ kind: 'committed', lateErrors: [] })
})

test('an error that cannot carry others stays the error', async () => {
  const { transaction, recording } = enlisted()
  recording.fail('rollback mysql', 'rejects')
  await transaction.rollback('a thrown string')
  expect(recording.log).toEqual(BACKWARD)
  expect(transaction.failure).toBe('a thrown string')
  expect(isSessionTxError(transaction.failure)).toBe(false)
})
