/** The transaction of one attempt: states, participants, hooks, doom, lost races, savepoints. No HTTP, no database. */
import { conflictError, SessionTxError } from '../../lib/errors.js'
import { deferred, flush } from '../support/barrier.js'
import { DEADLINE_MS, Recording, stage } from './recording.js'

const lostRace = (message = 'somebody else committed first'): SessionTxError =>
  conflictError(message, { kind: 'variable', store: 'memory', variable: 'cart' })

describe('states', () => {
  test('active, ending while it commits, committed', async () => {
    const { transaction } = stage()
    const seen: string[] = [transaction.state]
    transaction.enlist({ ...new Recording().two('a'), prepare: () => void seen.push(transaction.state) })
    await transaction.commit()
    expect([...seen, transaction.state]).toEqual(['active', 'ending', 'committed'])
  })

  test.each(['commit', 'rollback'] as const)(
    'it ends once: %s a second time is a mistake of the caller',
    async again => {
      const { transaction } = stage()
      await transaction.commit()
      await expect(transaction[again](undefined)).rejects.toThrow(
        'a transaction that is committed cannot become ending',
      )
    },
  )

  test('neither can anybody else end it while it is ending', async () => {
    const { transaction } = stage()
    const hold = deferred()
    transaction.enlist({ ...new Recording().two('a'), prepare: () => hold.promise })
    const committing = transaction.commit()
    await expect(transaction.rollback(undefined)).rejects.toThrow(TypeError)
    hold.resolve()
    await expect(committing).resolves.toMatchObject({ kind: 'committed' })
  })

  const uses = {
    enlist: t => t.enlist(new Recording().two('late')),
    doom: t => t.doom('late'),
    beforeCommit: t => t.beforeCommit(() => {}),
    afterCommit: t => t.afterCommit(() => {}),
    afterRollback: t => t.afterRollback(() => {}),
  } satisfies Record<string, (transaction: ReturnType<typeof stage>['transaction']) => void>

  test.each(Object.entries(uses))(
    '%s after the end: TRANSACTION_CLOSED with the first error as cause',
    async (_, use) => {
      const { transaction } = stage()
      const first = new Error('the handler threw')
      await transaction.rollback(first)
      expect(() => use(transaction)).toThrow(
        expect.objectContaining({ code: 'TRANSACTION_CLOSED', cause: first, transactionId: 'tx-1' }),
      )
      await expect(transaction.savepoint(() => {})).rejects.toMatchObject({
        code: 'TRANSACTION_CLOSED',
        cause: first,
      })
    },
  )

  test('after a failed commit the error of the commit is the cause', async () => {
    const { transaction } = stage()
    const recording = new Recording()
    recording.fail('prepare a', 'rejects')
    transaction.enlist(recording.two('a'))
    const outcome = await transaction.commit()
    expect(outcome).toEqual({ kind: 'rolledBack', error: new Error('prepare a') })
    expect(transaction.closedError().cause).toBe((outcome as { error: unknown }).error)
  })
})

describe('participants', () => {
  test('who enlists twice takes part once', async () => {
    const { transaction } = stage()
    const recording = new Recording()
    const resource = recording.two('a')
    transaction.enlist(resource)
    transaction.enlist(resource)
    await transaction.commit()
    expect(recording.log).toEqual(['settle a', 'prepare a', 'commit a', 'release a'])
  })

  test('a second one-phase resource is refused, and the first still decides', async () => {
    const { transaction } = stage()
    const recording = new Recording()
    transaction.enlist(recording.one('mysql'))
    expect(() => transaction.enlist(recording.one('queue'))).toThrow(
      expect.objectContaining({
        code: 'MISCONFIGURED',
        message: expect.stringMatching(
          /'queue' cannot join: 'mysql' is already the one-phase resource/,
        ) as string,
      }),
    )
    await transaction.commit()
    expect(recording.log).toEqual(['settle mysql', 'commit mysql'])
  })

  test('the same one-phase resource twice is the same one', () => {
    const { transaction } = stage()
    const mysql = new Recording().one('mysql')
    transaction.enlist(mysql)
    expect(() => transaction.enlist(mysql)).toThrow('only one can decide')
  })
})

describe('hooks', () => {
  test('before-commit hooks run in order, one after the other, and those that hooks add run too', async () => {
    const { transaction } = stage()
    const log: string[] = []
    transaction.beforeCommit(async () => {
      log.push('first begins')
      transaction.beforeCommit(() => {
        log.push('added')
        transaction.beforeCommit(() => log.push('added by the added'))
      })
      await flush()
      log.push('first ends')
    })
    transaction.beforeCommit(() => log.push('second'))
    expect(transaction.hasBeforeCommit).toBe(true)
    await transaction.runBeforeCommit()
    expect(log).toEqual(['first begins', 'first ends', 'second', 'added', 'added by the added'])
  })

  test('a throwing one is heard, and those behind it do not run', async () => {
    const { transaction } = stage()
    const log: string[] = []
    transaction.beforeCommit(() => Promise.reject(new Error('no stock')))
    transaction.beforeCommit(() => log.push('second'))
    await expect(transaction.runBeforeCommit()).rejects.toThrow('no stock')
    expect(log).toEqual([])
  })

  test('the hooks that follow are those of the outcome', async () => {
    const after = async (end: 'commit' | 'rollback'): Promise<readonly unknown[]> => {
      const { transaction } = stage()
      transaction.afterCommit(mail)
      transaction.afterRollback(undo)
      expect(transaction.hooksAfter).toEqual([])
      await transaction[end](undefined)
      return transaction.hooksAfter
    }
    const mail = (): void => {}
    const undo = (): void => {}
    expect(await after('commit')).toEqual([mail])
    expect(await after('rollback')).toEqual([undo])
  })

  test('none follow when the outcome is unknown', async () => {
    const { transaction } = stage()
    const unknown = new SessionTxError('COMMIT_UNKNOWN', 'lost')
    transaction.enlist({ ...new Recording().one('mysql'), commit: () => Promise.reject(unknown) })
    transaction.afterCommit(() => {})
    transaction.afterRollback(() => {})
    await transaction.commit()
    expect(transaction.state).toBe('unknown')
    expect(transaction.hooksAfter).toEqual([])
  })

  test('a hook that is no function is a mistake, named', () => {
    const { transaction } = stage()
    // @ts-expect-error -- what JavaScript may pass
    expect(() => transaction.afterCommit('mail')).toThrow('tx.afterCommit(fn) needs a function, got string')
  })
})

describe('doom and lost races', () => {
  test('doom is remembered and changes nothing else', () => {
    const { transaction } = stage()
    expect(transaction.doomed).toBe(false)
    transaction.doom('a preview')
    transaction.doom('again')
    expect(transaction.doomed).toBe(true)
    expect(() => transaction.assertUsable()).not.toThrow()
  })

  test('the first lost race stays the conflict, later ones are attached, and the attempt cannot go on', () => {
    const { transaction } = stage()
    const first = lostRace('first')
    const later = lostRace('later')
    transaction.lose(first)
    transaction.lose(later)
    transaction.lose(first)
    expect(transaction.conflict).toBe(first)
    expect(first.errors).toEqual([later])
    expect(() => transaction.assertUsable()).toThrow(
      expect.objectContaining({ code: 'TRANSACTION_CLOSED', cause: first }),
    )
  })

  test('a failure is remembered, the first one only, and is no conflict', () => {
    const { transaction } = stage()
    const first = new Error('first')
    transaction.fail(first)
    transaction.fail(new Error('second'))
    expect(transaction.failure).toBe(first)
    expect(transaction.conflict).toBeUndefined()
  })
})

describe('savepoints', () => {
  test('a part that succeeds leaves the marks alone and gives its result', async () => {
    const { transaction } = stage()
    const recording = new Recording()
    transaction.enlist(recording.two('session'))
    transaction.enlist(recording.one('mysql'))
    await expect(transaction.savepoint(() => 'result')).resolves.toBe('result')
    expect(recording.log).toEqual(['savepoint session', 'savepoint mysql'])
  })

  test('a part that throws takes every resource back, the last one first, and its error goes on', async () => {
    const { transaction } = stage()
    const recording = new Recording()
    transaction.enlist(recording.two('session'))
    transaction.enlist(recording.one('mysql'))
    const error = new Error('the part failed')
    await expect(transaction.savepoint(() => Promise.reject(error))).rejects.toBe(error)
    expect(recording.log).toEqual(['savepoint session', 'savepoint mysql', 'back mysql', 'back session'])
    expect(transaction.failure).toBeUndefined()
    await expect(transaction.commit()).resolves.toMatchObject({ kind: 'committed' })
  })

  describe('going back that nobody awaits', () => {
    const floating = (back: () => Promise<void>) => {
      const { transaction, interrupt, clock } = stage()
      const recording = new Recording()
      transaction.enlist(recording.two('session'))
      transaction.enlist({ ...recording.one('mysql'), savepoint: () => back })
      const part = transaction.savepoint(() => Promise.reject(new Error('the part failed')))
      part.catch(() => {})
      return { transaction, interrupt, clock, recording }
    }

    test('has ended before anything is prepared', async () => {
      const hold = deferred()
      const { transaction, recording } = floating(() => hold.promise)
      await flush()
      const committing = transaction.commit()
      await flush()
      expect(recording.log).toEqual(['savepoint session'])
      hold.resolve()
      await expect(committing).resolves.toMatchObject({ kind: 'committed' })
      expect(recording.log.slice(0, 3)).toEqual(['savepoint session', 'back session', 'settle session'])
    })

    test('and fails: nothing is committed', async () => {
      const hold = deferred()
      const { transaction, recording } = floating(() => hold.promise)
      await flush()
      const committing = transaction.commit()
      hold.reject(new Error('the server has gone'))
      await expect(committing).resolves.toMatchObject({
        kind: 'rolledBack',
        error: { message: 'the part failed', errors: [{ message: 'the server has gone' }] },
      })
      expect(recording.log.slice(1)).toEqual(['rollback mysql', 'rollback session'])
    })

    test('and does not end: the deadline rolls back', async () => {
      const { transaction, clock } = floating(() => new Promise(() => {}))
      await flush()
      const committing = transaction.commit()
      clock.advance(DEADLINE_MS)
      await expect(committing).resolves.toMatchObject({ kind: 'rolledBack', error: { code: 'DEADLINE' } })
    })
  })

  test('they nest: the inner part goes back alone, the outer one takes everything', async () => {
    const { transaction } = stage()
    const recording = new Recording()
    transaction.enlist(recording.one('mysql'))
    await transaction.savepoint(async () => {
      await transaction
        .savepoint(() => Promise.reject(new Error('inner')))
        .catch(() => recording.log.push('caught'))
    })
    expect(recording.log).toEqual(['savepoint mysql', 'savepoint mysql', 'back mysql', 'caught'])

    recording.log.length = 0
    const outer = transaction.savepoint(() => transaction.savepoint(() => Promise.reject(new Error('all'))))
    await expect(outer).rejects.toThrow('all')
    expect(recording.log).toEqual(['savepoint mysql', 'savepoint mysql', 'back mysql', 'back mysql'])
  })

  test('a resource enlisted after the savepoint is rolled back and forgotten, and may enlist again', async () => {
    const { transaction } = stage()
    const recording = new Recording()
    const mysql = recording.one('mysql')
    transaction.enlist(recording.two('session'))
    await transaction
      .savepoint(() => {
        transaction.enlist(mysql)
        throw new Error('the part failed')
      })
      .catch(() => {})
    expect(recording.log).toEqual(['savepoint session', 'rollback mysql', 'back session'])

    recording.log.length = 0
    transaction.enlist(mysql)
    await transaction.commit()
    expect(recording.log).toEqual([
      'settle session',
      'settle mysql',
      'prepare session',
      'commit mysql',
      'commit session',
      'release session',
    ])
  })

  test('one that was forgotten is not called any more', async () => {
    const { transaction } = stage()
    const recording = new Recording()
    await transaction
      .savepoint(() => {
        transaction.enlist(recording.two('late'))
        throw new Error('the part failed')
      })
      .catch(() => {})
    await transaction.commit()
    expect(recording.log).toEqual(['rollback late'])
  })

  test('a resource without savepoint() is named, and the part does not run', async () => {
    const { transaction } = stage()
    const recording = new Recording()
    const ledger = recording.two('ledger')
    delete ledger.savepoint
    transaction.enlist(ledger)
    await expect(transaction.savepoint(() => recording.log.push('part'))).rejects.toMatchObject({
      code: 'MISCONFIGURED',
      message: expect.stringMatching(/'ledger' has no savepoint\(\)/) as string,
    })
    expect(recording.log).toEqual([])
  })

  test('after a lost race nothing is sent back: the whole attempt is gone', async () => {
    const { transaction } = stage()
    const recording = new Recording()
    transaction.enlist(recording.one('mysql'))
    const deadlock = lostRace()
    const part = transaction.savepoint(() => {
      transaction.lose(deadlock)
      throw deadlock
    })
    await expect(part).rejects.toBe(deadlock)
    expect(recording.log).toEqual(['savepoint mysql'])
    await expect(transaction.savepoint(() => {})).rejects.toMatchObject({
      code: 'TRANSACTION_CLOSED',
      cause: deadlock,
    })
    expect(recording.log).toEqual(['savepoint mysql'])
  })

  test('going back fails half-way: the attempt has failed with the first error, the later one attached', async () => {
    const { transaction } = stage()
    const recording = new Recording()
    recording.fail('back mysql', 'rejects')
    transaction.enlist(recording.two('session'))
    transaction.enlist(recording.one('mysql'))
    const error = new Error('the part failed')
    await expect(transaction.savepoint(() => Promise.reject(error))).rejects.toBe(error)
    expect(recording.log.at(-1)).toBe('back mysql')
    expect(transaction.failure).toBe(error)
    expect((error as { errors?: unknown }).errors).toEqual([new Error('back mysql')])
  })

  test('a mark that cannot be set: the part does not run', async () => {
    const { transaction } = stage()
    const recording = new Recording()
    recording.fail('savepoint mysql', 'rejects')
    transaction.enlist(recording.one('mysql'))
    await expect(transaction.savepoint(() => recording.log.push('part'))).rejects.toThrow('savepoint mysql')
    expect(recording.log).toEqual(['savepoint mysql'])
  })
})
