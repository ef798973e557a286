/** A session as a participant of a transaction: it keeps the contract of resources, and what it adds to that. */
import { resourceContract } from 'session-tx/testing'
import { resolvers } from '../../lib/index.js'
import { DraftScope } from '../../lib/session/draft.js'
import { SessionResource, type SessionResourceSetup } from '../../lib/session/resource.js'
import type { OpenSession } from '../../lib/session/store.js'
import { WorkingCopy } from '../../lib/session/working-copy.js'
import { heldSession, startedStore } from '../support/held-session.js'

interface Attempt {
  readonly copy: WorkingCopy
  readonly resource: SessionResource
}

type Given = Partial<SessionResourceSetup> & { readonly opened?: OpenSession; readonly id?: string }

function attempt({ opened, id, ...given }: Given = {}): Attempt {
  const drafts = new DraftScope()
  const copy = new WorkingCopy({
    store: 'memory',
    opened,
    id,
    bereaved: false,
    drafts,
    assertUsable: () => {},
    assertWritable: () => {},
    merges: name => given.resolvers?.has(name) ?? false,
    lose: () => {},
  })
  const resource = new SessionResource({
    store: startedStore(),
    copy,
    drafts,
    resolvers: new Map(),
    sizeBytesMax: 10_000,
    validatesReads: false,
    reservation: () => undefined,
    ended: () => {},
    route: () => '/route',
    ...given,
  })
  return { copy, resource }
}

async function commit({ resource }: Attempt): Promise<void> {
  try {
    await resource.prepare()
  } catch (error) {
    resource.rollback()
    throw error
  }
  await resource.commit()
  resource.release()
}

resourceContract('a stored session', async () => {
  const held = await heldSession({ list: [] })
  const { copy, resource } = attempt(held)
  return {
    resource,
    work: piece => {
      // One way to write is as good as another.
      if (piece === 'b') copy.set('b', true)
      else (copy.get('list') as string[]).push(piece)
    },
    visible: async () => {
      const { list = [], ...others } = (await held.stored()) ?? {}
      return [...(list as string[]), ...Object.keys(others)].filter(name => name !== 'winner')
    },
    lose: () => held.write({ set: { list: [] } }),
  }
})

resourceContract('a new session', () => {
  const store = startedStore()
  const made = attempt({ store })
  return {
    resource: made.resource,
    work: piece => made.copy.set(piece, 1),
    visible: () => {
      const id = made.resource.committedPlan?.newId
      if (id === undefined || store.counts().live === 0) return []
      return [...(made.resource.committedPlan?.writes.keys() ?? [])]
    },
  }
})

describe('the session resource', () => {
  test('says what was committed, and only then', async () => {
    const held = await heldSession({ n: 1 })
    const one = attempt(held)
    one.copy.set('n', 2)
    expect(one.resource.committedPlan).toBeUndefined()
    await commit(one)
    expect([...(one.resource.committedPlan?.writes.keys() ?? [])]).toEqual(['n'])
    expect(await held.stored()).toEqual({ n: 2 })
  })

  test('forgets its plan when it is rolled back', async () => {
    const held = await heldSession({ n: 1 })
    const one = attempt(held)
    one.copy.set('n', 2)
    await one.resource.prepare()
    one.resource.rollback()
    expect(one.resource.committedPlan).toBeUndefined()
    expect(await held.stored()).toEqual({ n: 1 })
  })

  test('needs no promise to commit to a session that nobody holds', async () => {
    const held = await heldSession({ n: 1 })
    const { copy, resource } = attempt(held)
    copy.set('n', 2)
    expect([resource.prepare(), resource.commit()]).toEqual([undefined, undefined])
    resource.release()
  })

  test('holds nothing of a session that was only read', async () => {
    const held = await heldSession({ n: 1 })
    const { copy, resource } = attempt(held)
    copy.get('n')
    const claims = jest.spyOn(held.opened, 'claim')
    await resource.prepare()
    expect(claims).not.toHaveBeenCalled()
  })

  test('validates reads where it is told to, and what was kept current anyway', async () => {
    for (const [validatesReads, keep, loses] of [
      [false, false, false],
      [true, false, true],
      [false, true, true],
    ] as const) {
      const held = await heldSession({ read: 1, n: 1 })
      const one = attempt({ ...held, validatesReads })
      one.copy.get('read')
      if (keep) one.copy.keepCurrent('read')
      await held.write({ set: { read: 2 } })
      const end = commit(one).then(
        () => false,
        () => true,
      )
      expect(await end).toBe(loses)
    }
  })

  test('names the variables that a resolver merged', async () => {
    const held = await heldSession({ n: 1, m: 1 })
    const one = attempt({
      ...held,
      resolvers: new Map([
        ['n', resolvers.counter],
        ['m', resolvers.counter],
      ]),
    })
    for (const name of ['n', 'm']) one.copy.set(name, Number(one.copy.get(name)) + 1)
    await held.write({ set: { n: 5 } })
    await commit(one)
    expect(one.resource.resolved).toEqual(['n'])
    expect(await held.stored()).toEqual({ n: 6, m: 2 })
  })

  test.each([
    ['a promise', async () => 1, 'synchronous'],
    ['what cannot be stored', () => () => {}, 'cannot be stored'],
  ])('loses if a resolver returns %s', async (_, resolver, said) => {
    const held = await heldSession({ n: 1 })
    const one = attempt({ ...held, resolvers: new Map([['n', resolver]]) })
    one.copy.set('n', Number(one.copy.get('n')) + 1)
    await held.write({ set: { n: 5 } })
    const error = await commit(one).catch((reason: unknown) => reason)
    expect(error).toMatchObject({ code: 'CONFLICT', cause: { message: expect.stringContaining(said) } })
  })

  test('a resolver gets copies, and may return nothing to remove the variable', async () => {
    const held = await heldSession({ list: [1] })
    const spoil = (...sides: unknown[]): undefined => {
      for (const side of sides) (side as number[]).push(99)
    }
    const one = attempt({ ...held, resolvers: new Map([['list', spoil]]) })
    ;(one.copy.get('list') as number[]).push(2)
    await held.write({ set: { list: [1, 3] } })
    const before = held.opened.snapshot()
    await commit(one)
    expect(before.get('list')?.value).toEqual([1, 3])
    expect(await held.stored()).toEqual({})
  })

  test('gives way to a variable that is reserved, unless a resolver would merge it', async () => {
    for (const [named, loses] of [
      [resolvers.counter, false],
      [undefined, true],
    ] as const) {
      const held = await heldSession({ n: 1, m: 1 })
      const one = attempt({
        ...held,
        reservation: name => (name === 'n' ? { by: '/slow' } : undefined),
        resolvers: new Map(named === undefined ? [] : [['n', named]]),
      })
      one.copy.set('n', 2)
      one.copy.set('m', 2)
      const error: unknown = await commit(one).catch((reason: unknown) => reason)
      expect(error !== undefined).toBe(loses)
      if (!loses) continue
      expect(error).toMatchObject({
        code: 'CONFLICT',
        conflict: { kind: 'variable', lost: ['n'], winner: '/slow' },
      })
      expect((error as Error).message).toContain("'n' is another request's turn (/slow)")
      expect(error).not.toHaveProperty('conflict.foundVersion')
    }
  })

  test('counts the size that the session would have, new or old', async () => {
    const held = await heldSession({ t: 'x'.repeat(5_000) })
    const over = attempt(held)
    over.copy.set('u', 'x'.repeat(5_000))
    await expect(commit(over)).rejects.toMatchObject({ code: 'SESSION_TOO_LARGE' })
    expect(Object.keys((await held.stored()) ?? {})).toEqual(['t'])
    const fresh = attempt()
    fresh.copy.set('t', 'x'.repeat(10_001))
    await expect(commit(fresh)).rejects.toMatchObject({ code: 'SESSION_TOO_LARGE' })
  })

  test('a rollback stops the waiting of a prepare, and lets others go on', async () => {
    const held = await heldSession({ n: 1 })
    const first = attempt(held)
    first.copy.set('n', 2)
    await first.resource.prepare()
    const opened = await held.store.open(held.key)
    const second = attempt({ ...held, ...(opened === undefined ? {} : { opened }) })
    second.copy.set('n', 3)
    const waiting = Promise.resolve(second.resource.prepare()).catch(() => {})
    second.resource.rollback()
    await first.resource.commit()
    first.resource.release()
    await held.write({ set: { n: 4 } })
    expect(await held.stored()).toEqual({ n: 4 })
    void waiting
  })

  test('moves the idle time when the session was used, not when it was not', async () => {
    const held = await heldSession({ n: 1 })
    const touch = jest.spyOn(held.opened, 'touch').mockReturnValue(true)
    const unused = attempt(held)
    await commit(unused)
    expect([touch.mock.calls.length, unused.resource.touched]).toEqual([0, false])
    const used = attempt(held)
    used.copy.get('n')
    await commit(used)
    expect([touch.mock.calls.length, used.resource.touched]).toEqual([1, true])
  })
})
