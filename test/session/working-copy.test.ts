/** What an attempt sees of a session and wants to change: reads, writes, fate, savepoints, and the moves of its snapshot. */
import type { SessionTxError } from '../../lib/errors.js'
import { DraftScope } from '../../lib/session/draft.js'
import { NAMES } from '../../lib/session/store.js'
import { WorkingCopy, type WorkingCopySetup } from '../../lib/session/working-copy.js'
import { type HeldSession, heldSession } from '../support/held-session.js'

interface Bench {
  readonly copy: WorkingCopy
  readonly held: HeldSession
  readonly lost: SessionTxError[]
}

async function bench(
  variables: Readonly<Record<string, unknown>>,
  given: Partial<WorkingCopySetup> = {},
): Promise<Bench> {
  const held = await heldSession(variables)
  const lost: SessionTxError[] = []
  return {
    held,
    lost,
    copy: copyOf({ opened: held.opened, id: held.id, lose: conflict => void lost.push(conflict), ...given }),
  }
}

function copyOf(given: Partial<WorkingCopySetup>): WorkingCopy {
  return new WorkingCopy({
    store: 'memory',
    opened: undefined,
    id: undefined,
    bereaved: false,
    drafts: new DraftScope(),
    assertUsable: () => {},
    assertWritable: () => {},
    merges: () => false,
    lose: () => {},
    ...given,
  })
}

/** The planned writes as plain data; undefined: nothing to commit. */
function writesOf(copy: WorkingCopy): unknown {
  const plan = copy.plan()
  return plan && Object.fromEntries([...plan.writes].map(([name, settled]) => [name, settled?.value]))
}

describe('a plan', () => {
  test.each<readonly [string, (copy: WorkingCopy) => unknown]>([
    ['nothing was touched', () => {}],
    ['something was read', copy => [copy.get('n'), copy.get('list'), copy.names(), copy.has('x')]],
    ['what is there was assigned again', copy => copy.set('n', 1)],
    ['an object was assigned to where it came from', copy => copy.set('list', copy.get('list'))],
    ['a variable that is not there was removed', copy => copy.set('absent', undefined)],
    [
      'a variable was changed and changed back',
      copy => {
        copy.set('n', 2)
        copy.set('n', 1)
      },
    ],
    [
      'what is there was written into an object',
      copy => {
        ;(copy.get('list') as number[])[0] = 1
      },
    ],
    ['it was touched', copy => copy.touch()],
    ['it was kept current', copy => copy.keepCurrent('n')],
  ])('is none if %s', async (_, use) => {
    const { copy } = await bench({ n: 1, list: [1] })
    use(copy)
    expect(copy.plan()).toBeUndefined()
  })

  test('has what was assigned, changed in place and removed, and nothing else', async () => {
    const { copy } = await bench({ n: 1, list: [1], other: { a: 1 }, gone: 1 })
    copy.set('n', 2)
    ;(copy.get('list') as number[]).push(2)
    copy.get('other')
    copy.set('gone', undefined)
    copy.set('made', null)
    expect(writesOf(copy)).toEqual({ n: 2, list: [1, 2], gone: undefined, made: null })
    expect(copy.plan()).toMatchObject({ replaces: false, endsOld: false, newId: undefined })
  })

  test('shares what did not change with what is committed', async () => {
    const { copy, held } = await bench({ tree: { left: { n: 1 }, right: { n: 1 } } })
    const committed = held.opened.snapshot().get('tree')?.value as { right: object }
    ;(copy.get('tree') as { left: { n: number } }).left.n = 2
    const planned = copy.plan()?.writes.get('tree')?.value as { right: object }
    expect(planned).toEqual({ left: { n: 2 }, right: { n: 1 } })
    expect(planned.right).toBe(committed.right)
  })

  test('of a replaced session removes every other name and conflicts with everything', async () => {
    const { copy } = await bench({ a: 1, b: 1 })
    copy.replace({ b: 2, c: 3 })
    expect(writesOf(copy)).toEqual({ a: undefined, b: 2, c: 3 })
    expect(copy.plan()?.replaces).toBe(true)
    expect(copy.names()).toEqual(['b', 'c'])
  })

  test('of a destroyed session ends it; of one that never was, is none', async () => {
    const { copy } = await bench({ a: 1 })
    copy.set('a', 2)
    copy.destroy()
    expect(copy.plan()).toEqual({ writes: new Map(), replaces: false, endsOld: true, newId: undefined })
    const fresh = copyOf({})
    fresh.set('a', 1)
    fresh.destroy()
    expect(fresh.plan()).toBeUndefined()
  })

  test('of a regenerated session ends the old and fills the new one', async () => {
    const { copy, held } = await bench({ a: { n: 1 }, b: 1 })
    copy.regenerate(['a', 'absent'])
    ;(copy.get('a') as { n: number }).n = 2
    expect(writesOf(copy)).toEqual({ a: { n: 2 } })
    expect(copy.plan()).toMatchObject({ endsOld: true, newId: copy.id })
    expect([copy.id === held.id, copy.isNew, copy.names()]).toEqual([false, true, ['a']])
  })

  test('of a session assigned after it was destroyed is that of another one', async () => {
    const { copy, held } = await bench({ a: 1 })
    copy.destroy()
    copy.replace({ b: 1 })
    expect(copy.plan()).toMatchObject({ endsOld: true, newId: copy.id })
    expect(copy.id).not.toBe(held.id)
    expect(writesOf(copy)).toEqual({ b: 1 })
  })

  test('of a new session is none while it is empty', () => {
    const copy = copyOf({})
    copy.get('a')
    copy.replace({})
    expect(copy.plan()).toBeUndefined()
    copy.set('a', 1)
    expect(copy.plan()?.newId).toBe(copy.id)
  })

  test('of a session that died under an earlier attempt is none, unless it is regenerated', async () => {
    const held = await heldSession({ a: 1 })
    const copy = copyOf({ id: held.id, bereaved: true })
    expect(copy.get('a')).toBeUndefined()
    copy.set('a', 1)
    expect(copy.plan()).toBeUndefined()
    copy.regenerate(['a'])
    expect(copy.plan()).toMatchObject({ endsOld: false, newId: copy.id })
  })

  test('refuses what cannot be stored, with its path', async () => {
    const { copy } = await bench({})
    copy.set('a', { f: [() => {}] })
    expect(() => copy.plan()).toThrow('a.f[0]')
  })
})

describe('reading', () => {
  test('a variable copies nothing of the others, whatever they are', async () => {
    const { copy, held } = await bench(
      Object.fromEntries(Array.from({ length: 100 }, (_, n) => [`v${n}`, { n }])),
    )
    const drafts = jest.spyOn(DraftScope.prototype, 'draft')
    expect(copy.get('v7')).toEqual({ n: 7 })
    expect(copy.get('v7')).toBe(copy.get('v7'))
    expect(drafts.mock.calls.map(([value]) => value)).toEqual([held.opened.snapshot().get('v7')?.value])
    drafts.mockRestore()
  })

  test('is validated by what was read: variables, absent ones too, and the names if they were listed', async () => {
    const { copy } = await bench({ a: 1, b: 1, c: 1 })
    copy.get('a')
    copy.has('b')
    copy.get('absent')
    copy.set('c', 2)
    expect([...copy.partsToValidate(true)]).toEqual(['a', 'b', 'absent'])
    copy.names()
    expect([...copy.partsToValidate(true)]).toEqual(['a', 'b', 'absent', NAMES])
    expect([...copy.partsToValidate(false)]).toEqual([])
    copy.keepCurrent('a')
    expect([...copy.partsToValidate(false)]).toEqual(['a'])
  })

  test('what was written first is no read', async () => {
    const { copy } = await bench({ a: 1 })
    copy.set('a', 2)
    copy.get('a')
    expect(copy.partsToValidate(true).size).toBe(0)
  })
})

describe('where writing is not allowed', () => {
  test.each<readonly [string, (copy: WorkingCopy) => unknown]>([
    ['set', copy => copy.set('a', 1)],
    ['replace', copy => copy.replace({})],
    ['destroy', copy => copy.destroy()],
    ['regenerate', copy => copy.regenerate([])],
    ['reload', copy => copy.reload()],
  ])('%s is refused and changes nothing', async (_, use) => {
    const no = new Error('no')
    const { copy, held } = await bench(
      { a: 0 },
      {
        assertWritable: () => {
          throw no
        },
      },
    )
    expect(() => use(copy)).toThrow(no)
    expect([copy.get('a'), copy.id, copy.plan()]).toEqual([0, held.id, undefined])
  })

  test('keepCurrent is a read: refused only once the attempt is over', async () => {
    const no = new Error('no')
    const refuse = (): never => {
      throw no
    }
    const readOnly = await bench({ a: 0 }, { assertWritable: refuse })
    readOnly.copy.keepCurrent('a')
    expect([...readOnly.copy.partsToValidate(false)]).toEqual(['a'])
    const over = await bench({ a: 0 }, { assertUsable: refuse })
    expect(() => over.copy.keepCurrent('a')).toThrow(no)
    expect(over.copy.partsToValidate(false).size).toBe(0)
  })
})

describe('going back to a savepoint', () => {
  test.each<[string, (copy: WorkingCopy) => void]>([
    ['and changed there', () => {}],
    ['and assigned over there', copy => copy.set('list', [9])],
    ['and the session replaced there', copy => copy.replace({ other: 1 })],
  ])('keeps a reference that was first taken in the part %s', async (_what, later) => {
    const { copy } = await bench({ list: [1, 2] })
    const goBack = copy.savepoint()
    const list = copy.get('list') as number[]
    list.push(3)
    later(copy)
    goBack()
    expect(list).toEqual([1, 2])
    list.push(4)
    expect(copy.get('list')).toBe(list)
    expect(writesOf(copy)).toEqual({ list: [1, 2, 4] })
  })

  test('restores assigned variables, contents, names and fate; references stay good', async () => {
    const { copy, held } = await bench({ n: 1, list: [{ q: 1 }], at: new Date(0) })
    const list = copy.get('list') as { q: number }[]
    list.push({ q: 2 })
    copy.set('mine', { deep: [1] })
    const mine = copy.get('mine') as { deep: number[] }
    const goBack = copy.savepoint()
    list[0]!.q = 9
    list.pop()
    mine.deep.push(2)
    copy.set('n', 2)
    copy.set('other', 1)
    ;(copy.get('at') as Date).setTime(5)
    copy.regenerate(['n'])
    goBack()
    expect(writesOf(copy)).toEqual({ list: [{ q: 1 }, { q: 2 }], mine: { deep: [1] } })
    expect([copy.get('list'), copy.get('mine')]).toEqual([list, mine])
    expect(copy.get('list')).toBe(list)
    expect([copy.id, copy.isNew, copy.names()]).toEqual([held.id, false, ['n', 'list', 'at', 'mine']])
  })

  test('brings a destroyed session back', async () => {
    const { copy } = await bench({ a: 1 })
    const goBack = copy.savepoint()
    copy.destroy()
    goBack()
    expect([copy.destroyed, copy.get('a'), copy.plan()]).toEqual([false, 1, undefined])
  })

  test('does not forget what was read', async () => {
    const { copy } = await bench({ a: 1 })
    const goBack = copy.savepoint()
    copy.get('a')
    goBack()
    expect([...copy.partsToValidate(true)]).toEqual(['a'])
  })
})

describe('the snapshot', () => {
  test('is taken at the first use, and stays', async () => {
    const { copy, held } = await bench({ a: 1, b: 1 })
    await held.write({ set: { a: 2 } })
    expect(copy.get('a')).toBe(2)
    await held.write({ set: { a: 3, b: 3 } })
    expect([copy.get('a'), copy.get('b')]).toEqual([2, 1])
  })

  test('advances to now while nothing that was read has changed', async () => {
    const { copy, held } = await bench({ a: 1, b: 1 })
    copy.get('a')
    await held.write({ set: { b: 2 } })
    expect(copy.advance()).toBe(true)
    expect(copy.get('b')).toBe(2)
  })

  test.each<readonly [string, (copy: WorkingCopy) => unknown, Record<string, unknown>]>([
    ['a variable that was read', copy => copy.get('a'), { a: 2 }],
    ['a variable that was read as absent', copy => copy.has('x'), { x: 1 }],
    ['the names, which were listed', copy => copy.names(), { x: 1 }],
  ])('does not advance over %s', async (_, read, set) => {
    const { copy, held } = await bench({ a: 1, b: 1 })
    read(copy)
    await held.write({ set: { ...set, b: 2 } })
    expect(copy.advance()).toBe(false)
    expect(copy.get('b')).toBe(1)
  })

  test('checked: what was read and has changed is a lost race, of kind `snapshot`', async () => {
    const { copy, held } = await bench({ a: 1, b: 1 })
    copy.get('a')
    expect(copy.checkSinceSnapshot()).toBeUndefined()
    await held.write({ set: { a: 2 }, by: 'the winner' })
    expect(copy.checkSinceSnapshot()?.conflict).toMatchObject({
      kind: 'snapshot',
      variable: 'a',
      baseVersion: 1,
      foundVersion: 2,
      winner: 'the winner',
    })
  })

  test('checked: what is also written here would be lost at commit, so it is an ordinary conflict', async () => {
    for (const change of [
      (copy: WorkingCopy) => copy.set('a', Number(copy.get('a')) + 1),
      (copy: WorkingCopy) => void (copy.get('list') as number[]).push(2),
    ]) {
      const { copy, held } = await bench({ a: 1, list: [1] })
      change(copy)
      await held.write({ set: { a: 2, list: [3] } })
      expect(copy.checkSinceSnapshot()?.conflict?.kind).toBe('variable')
    }
  })

  test('checked: what is written here and has a resolver is merged, not lost; what is only read is', async () => {
    const merges = (name: string): boolean => name === 'a'
    const writing = await bench({ a: 1 }, { merges })
    writing.copy.set('a', Number(writing.copy.get('a')) + 1)
    await writing.held.write({ set: { a: 2 } })
    expect(writing.copy.checkSinceSnapshot()).toBeUndefined()
    // It must be merged with what it started from, so the snapshot stays.
    expect(writing.copy.advance()).toBe(false)
    const reading = await bench({ a: 1 }, { merges })
    reading.copy.get('a')
    await reading.held.write({ set: { a: 2 } })
    expect(reading.copy.checkSinceSnapshot()?.conflict?.kind).toBe('snapshot')
  })

  test('checked: what was not read and has changed cannot be read any more, the rest can', async () => {
    const { copy, held, lost } = await bench({ a: 1, b: 1 })
    copy.get('a')
    await held.write({ set: { b: 2, made: 1 } })
    expect(copy.checkSinceSnapshot()).toBeUndefined()
    expect([copy.get('a'), copy.get('other')]).toEqual([1, undefined])
    for (const read of [() => copy.get('b'), () => copy.has('made'), () => copy.names()]) {
      expect(read).toThrow(expect.objectContaining({ code: 'CONFLICT' }))
    }
    expect(lost.map(({ conflict }) => conflict?.variable)).toEqual(['b', 'made', '(names)'])
    // Writing it without looking is no tear.
    copy.set('b', 5)
    expect(copy.get('b')).toBe(5)
  })

  test('checked: a session that ended meanwhile cannot be read at all', async () => {
    const { copy, held } = await bench({ a: 1, b: 1 })
    copy.touch()
    expect(copy.base.version).toBe(1)
    await held.write({ destroys: true })
    expect(copy.checkSinceSnapshot()).toBeUndefined()
    expect(() => copy.get('b')).toThrow(expect.objectContaining({ code: 'CONFLICT' }))
  })

  test('of a session that does not exist cannot be torn', () => {
    const copy = copyOf({})
    copy.get('a')
    expect([copy.advance(), copy.checkSinceSnapshot()]).toEqual([true, undefined])
  })
})
