/**
 * The contract of drafts: they behave like the value, never touch the committed one, settle to a value that shares what
 * did not change, can be put back in place by a savepoint, and stay readable, but only that, once closed.
 */
import fc from 'fast-check'
import { DraftScope } from '../../lib/session/draft.js'
import { settleValue } from '../../lib/session/settling.js'
import { detach, isCommitted } from '../../lib/session/value.js'

function commit<T>(value: T): T {
  return settleValue(value, 'v').value as T
}

function start<T extends object>(value: T): { scope: DraftScope; base: T; draft: T; settle: () => T } {
  const scope = new DraftScope()
  const base = commit(value)
  const draft = scope.draft(base)
  return { scope, base, draft, settle: () => scope.settle(draft, 'v').value as T }
}

type Loose = Record<PropertyKey, unknown>

function cart() {
  return {
    items: [
      { id: 1, qty: 1 },
      { id: 2, qty: 2 },
    ],
    owner: { name: 'Ann', tags: ['a'] },
    note: 'n',
  } as {
    items: { id: number; qty: number; more?: unknown }[]
    owner: { name: string; tags: string[] }
    note?: string
  }
}

describe('a draft of an object', () => {
  test('reads like the value and gives each part the same draft each time', () => {
    const { draft, scope, base } = start(cart())
    expect(draft).toEqual(cart())
    expect(JSON.stringify(draft)).toBe(JSON.stringify(cart()))
    expect(draft.owner).toBe(draft.owner)
    expect(draft.owner.tags).not.toBe(base.owner.tags)
    expect([draft, draft.owner, draft.owner.tags].every(part => scope.isDraft(part))).toBe(true)
    expect(scope.isDraft(base) || scope.isDraft(null) || new DraftScope().isDraft(draft)).toBe(false)
    expect('note' in draft && !('nothing' in draft) && Object.hasOwn(draft, 'note')).toBe(true)
    expect({ ...draft }.note).toBe('n')
  })

  test('that was only read is unchanged and settles to the committed object itself', () => {
    const { draft, scope, base, settle } = start(cart())
    JSON.stringify(draft)
    for (const item of draft.items) expect(item.qty).toBeGreaterThan(0)
    expect(scope.isChanged(draft)).toBe(false)
    expect(settle()).toBe(base)
  })

  test('settles to a frozen value that shares every unchanged subtree; the committed one stays as it was', () => {
    const { draft, base, scope, settle } = start(cart())
    draft.items[0]!.qty = 5
    expect(scope.isChanged(draft) && scope.isChanged(draft.items) && scope.isChanged(draft.items[0]!)).toBe(
      true,
    )
    expect(scope.isChanged(draft.owner) || scope.isChanged(draft.items[1]!)).toBe(false)
    const next = settle()
    expect(next).toEqual({
      ...cart(),
      items: [
        { id: 1, qty: 5 },
        { id: 2, qty: 2 },
      ],
    })
    expect(next.owner).toBe(base.owner)
    expect(next.items[1]).toBe(base.items[1])
    expect(Object.isFrozen(next) && Object.isFrozen(next.items) && isCommitted(next.items)).toBe(true)
    expect(base).toEqual(cart())
    expect(scope.settle(draft, 'v').sizeBytes).toBe(JSON.stringify(next).length)
  })

  test('written with what is there already, is unchanged', () => {
    const { draft, scope, base, settle } = start(cart())
    draft.note = 'n'
    const { owner } = draft
    draft.owner = owner
    draft.items.length = 2
    draft.items.sort((a, b) => a.id - b.id)
    delete (draft as Loose)['missing']
    expect(scope.isChanged(draft)).toBe(false)
    expect(settle()).toBe(base)
  })

  test('changed and changed back settles to the committed object itself', () => {
    const { draft, base, settle } = start(cart())
    draft.note = 'x'
    draft.items.push({ id: 3, qty: 3 })
    draft.note = 'n'
    draft.items.pop()
    expect(settle()).toBe(base)
  })

  test('leaves out a property that was set to undefined', () => {
    const { draft, settle } = start<Loose>({ a: 1, b: 2 })
    draft['a'] = undefined
    expect('a' in draft).toBe(true)
    expect(Object.keys(settle())).toEqual(['b'])
  })

  test('hides the stamp', () => {
    const { draft, base } = start(cart())
    const [symbol] = Object.getOwnPropertySymbols(base) as [symbol]
    expect(Reflect.ownKeys(draft)).toEqual(['items', 'owner', 'note'])
    expect(symbol in draft || Object.hasOwn(draft, symbol)).toBe(false)
    expect((draft as unknown as Loose)[symbol]).toBeUndefined()
    expect(Reflect.ownKeys(draft.items)).toEqual(['0', '1', 'length'])
    draft.note = 'x'
    expect(Object.getOwnPropertySymbols(draft)).toEqual([])
  })

  test('takes a symbol key, and leaves it out of what is committed, as JSON does', () => {
    const { draft, base, settle } = start<Loose>({ a: 1 })
    const symbol = Symbol('mine')
    draft[symbol] = () => 1
    expect(symbol in draft).toBe(true)
    expect(settle()).toBe(base)
    draft['a'] = 2
    expect(symbol in settle()).toBe(false)
    expect(Object.keys(start(settle()).draft)).toEqual(['a'])
  })

  test('never changes a prototype: an assigned __proto__ is data', () => {
    const { draft, settle } = start<Loose>({ a: 1 })
    expect(draft['__proto__']).toBe(Object.prototype)
    draft['__proto__'] = { admin: true }
    expect(Object.getPrototypeOf(draft)).toBe(Object.prototype)
    expect('admin' in draft || 'admin' in {}).toBe(false)
    const next = settle()
    expect(Object.getPrototypeOf(next)).toBe(Object.prototype)
    expect(JSON.stringify(next)).toBe('{"a":1,"__proto__":{"admin":true}}')
    const again = start(next).draft
    ;(again['__proto__'] as Loose)['admin'] = false
    Reflect.set(again, 'toString', 1)
    expect(JSON.stringify(again)).toBe('{"a":1,"__proto__":{"admin":false},"toString":1}')
  })

  test('refuses to be frozen, sealed, given a prototype, an accessor or a hidden property', () => {
    const { draft, scope } = start<Loose>({ a: 1 })
    const refused = [
      () => Object.freeze(draft),
      () => Object.seal(draft),
      () => Object.preventExtensions(draft),
      () => Object.setPrototypeOf(draft, {}),
      () => Object.defineProperty(draft, 'x', { get: () => 1 }),
      () => Object.defineProperty(draft, 'x', { value: 1 }),
      () => Object.defineProperty(draft, 'a', { enumerable: false }),
    ]
    for (const attempt of refused) expect(attempt).toThrow(TypeError)
    expect(scope.isChanged(draft)).toBe(false)
    Object.defineProperty(draft, 'a', { value: 2 })
    Object.defineProperty(draft, 'b', { value: 3, writable: true, enumerable: true, configurable: true })
    expect(draft).toEqual({ a: 2, b: 3 })
  })

  test('as a prototype, is not written through its heir', () => {
    const { draft, scope } = start<Loose>({ a: 1 })
    const heir = Object.create(draft) as Loose
    heir['a'] = 2
    expect([heir['a'], draft['a'], scope.isChanged(draft)]).toEqual([2, 1, false])
    expect(scope.isDraft(heir)).toBe(false)
  })
})

describe('a draft of an array', () => {
  test('is an array to the language', () => {
    const { draft } = start([3, 1, 2])
    expect(Array.isArray(draft) && draft instanceof Array).toBe(true)
    expect([...draft]).toEqual([3, 1, 2])
    expect(draft.concat([9], draft)).toEqual([3, 1, 2, 9, 3, 1, 2])
    expect(([0] as number[]).concat(draft)).toEqual([0, 3, 1, 2])
    expect(JSON.stringify({ draft })).toBe('{"draft":[3,1,2]}')
    expect(draft.map(n => n * 2)).toEqual([6, 2, 4])
    expect(draft.at(-1)).toBe(2)
    expect(Object.keys(draft)).toEqual(['0', '1', '2'])
  })

  test('takes every mutating method', () => {
    const operate = (list: number[]): unknown[] => [
      list.push(7, 8),
      list.splice(1, 1, 20, 21),
      list.sort((a, b) => b - a).length,
      list.reverse()[0],
      list.shift(),
      list.unshift(5),
      list.pop(),
      list.fill(4, 1, 2).length,
      list.copyWithin(0, 2).length,
      (list.length = 3),
      (list[3] = 33),
    ]
    const model = [3, 1, 2]
    const { draft, base, settle } = start([3, 1, 2])
    expect(operate(draft)).toEqual(operate(model))
    expect(settle()).toEqual(model)
    expect(base).toEqual([3, 1, 2])
  })

  test('keeps the draft of an item wherever it is moved', () => {
    const { draft, base, settle } = start([{ n: 3 }, { n: 1 }, { n: 2 }])
    const three = draft[0]!
    draft.sort((a, b) => a.n - b.n)
    expect(draft[2]).toBe(three)
    expect(draft.indexOf(three)).toBe(2)
    three.n = 30
    expect(settle()).toEqual([{ n: 1 }, { n: 2 }, { n: 30 }])
    expect(settle()[0]).toBe(base[1])
  })

  test('with a hole or an invalid length is refused', () => {
    const { draft, scope } = start([1, 2])
    expect(() => {
      draft.length = -1
    }).toThrow(RangeError)
    expect(scope.isChanged(draft)).toBe(false)
    delete draft[0]
    expect(() => scope.settle(draft, 'list')).toThrow('list[0] cannot be stored in a session: a hole')
  })
})

describe('a draft of a Map', () => {
  const prices = () =>
    new Map<unknown, unknown>([
      ['a', { cents: 1 }],
      ['b', 2],
      [3, [4]],
    ])

  test('reads like one, in order, with drafts as values', () => {
    const { draft, scope, base, settle } = start(prices())
    expect(draft instanceof Map && Object.prototype.toString.call(draft) === '[object Map]').toBe(true)
    expect(draft).toEqual(prices())
    expect(new Map(draft)).toEqual(prices())
    expect([draft.size, draft.has('b'), draft.has('z'), draft.get('b'), draft.get('z')]).toEqual([
      3,
      true,
      false,
      2,
      undefined,
    ])
    expect([...draft.keys()]).toEqual(['a', 'b', 3])
    expect([...draft.values()]).toEqual([{ cents: 1 }, 2, [4]])
    expect([...draft.entries()]).toEqual([...prices()])
    expect(draft.get('a')).toBe([...draft.values()][0])
    expect(scope.isDraft(draft.get('a'))).toBe(true)
    const seen: unknown[] = []
    draft.forEach(function (this: unknown, value, key, map) {
      seen.push(this, key, value, map === draft)
    }, 'self')
    expect(seen.slice(4, 8)).toEqual(['self', 'b', 2, true])
    expect(scope.isChanged(draft)).toBe(false)
    expect(settle()).toBe(base)
  })

  test('writes like one', () => {
    const operate = (map: Map<unknown, unknown>): unknown[] => [
      map.set('b', 20) === map,
      map.delete('a'),
      map.delete('a'),
      map.set('a', { cents: 5 }).size,
      (map.get(3) as number[]).push(5),
      map.set(Number.NaN, 0).get(Number.NaN),
    ]
    const { draft, base, settle } = start(prices())
    const model = prices()
    expect(operate(draft)).toEqual(operate(model))
    expect([...draft]).toEqual([...model])
    draft.delete(Number.NaN)
    model.delete(Number.NaN)
    expect([...settle()]).toEqual([...model])
    expect(base).toEqual(prices())
    draft.clear()
    expect([draft.size, settle()]).toEqual([0, new Map()])
  })

  test('written with what is there already, or touched to no effect, is unchanged', () => {
    const { draft, scope } = start(prices())
    draft.set('b', 2).set('a', draft.get('a'))
    draft.delete('nothing')
    expect(scope.isChanged(draft)).toBe(false)
  })

  test('lets a loop delete and add as the real one does', () => {
    const loop = (map: Map<unknown, unknown>): unknown[] => {
      const seen: unknown[] = []
      for (const [key] of map) {
        seen.push(key)
        if (key === 'a') map.delete('b')
        if (key === 3) map.set('late', 1)
        map.delete(key)
      }
      return [seen, map.size]
    }
    expect(loop(start(prices()).draft)).toEqual(loop(prices()))
  })

  test('takes no properties of its own', () => {
    const { draft } = start(prices())
    expect(() => Object.assign(draft, { extra: 1 })).toThrow(TypeError)
  })
})

describe('a draft of a Set', () => {
  const tags = () => new Set<unknown>(['x', { n: 1 }, 'y'])

  test('reads and writes like one; an object read from it is a draft that it has and can delete', () => {
    const { draft, base, scope, settle } = start(tags())
    expect(draft instanceof Set).toBe(true)
    expect(draft).toEqual(tags())
    const member = [...draft][1] as { n: number }
    expect([...draft.values()][1]).toBe(member)
    expect([...draft.entries()][1]).toEqual([member, member])
    expect(draft.has(member) && draft.has('x') && !draft.has({ n: 1 })).toBe(true)
    draft.add('x').add(member)
    expect(scope.isChanged(draft)).toBe(false)
    member.n = 2
    expect(scope.isChanged(draft)).toBe(true)
    expect([...settle()]).toEqual(['x', { n: 2 }, 'y'])
    expect([draft.delete(member), draft.delete(member), draft.size]).toEqual([true, false, 2])
    draft.add('z')
    expect([...settle()]).toEqual(['x', 'y', 'z'])
    expect(base).toEqual(tags())
    draft.clear()
    expect(settle()).toEqual(new Set())
  })

  test('counts two drafts of one committed object once, for unchanged they are the same member', () => {
    const { draft, scope } = start(new Set<object>())
    const shared = commit({ n: 1 })
    draft.add(scope.draft(shared)).add(scope.draft(shared))
    expect(scope.settle(draft, 'v')).toEqual({ value: new Set([shared]), sizeBytes: 9 })
  })

  test('has the methods of ES2025 if the runtime has them', () => {
    const { draft } = start(new Set([1, 2]))
    const union: unknown = Reflect.get(draft, 'union')
    if (typeof union !== 'function') return
    expect(union.call(draft, new Set([3]))).toEqual(new Set([1, 2, 3]))
    expect((Reflect.get(Set.prototype, 'union') as typeof union).call(new Set([3]), draft)).toEqual(
      new Set([3, 1, 2]),
    )
  })
})

describe('Dates and bytes', () => {
  const build = () => ({
    at: new Date(1),
    bytes: new Uint8Array([1]),
    map: new Map([['k', new Date(2)]]),
    set: new Set([new Date(3)]),
    list: [new Date(4)],
  })

  test('anywhere are private copies, the same ones each time, and unchanged if only read', () => {
    const { draft, base, scope, settle } = start(build())
    expect(draft).toEqual(build())
    const handed = [draft.at, draft.bytes, draft.map.get('k'), [...draft.set][0], draft.list[0]]
    expect(handed).toEqual([draft.at, draft.bytes, draft.map.get('k'), [...draft.set][0], draft.list[0]])
    expect(draft.at).toBe(draft.at)
    expect(draft.at).not.toBe(base.at)
    expect(scope.isChanged(draft)).toBe(false)
    expect(settle()).toBe(base)
  })

  test('changed in place are noticed, at any depth, and never reach the committed value', () => {
    const changes: ((draft: ReturnType<typeof build>) => unknown)[] = [
      draft => draft.at.setTime(9),
      draft => draft.bytes.fill(9),
      draft => draft.map.get('k')?.setTime(9),
      draft => [...draft.set][0]?.setTime(9),
      draft => draft.list[0]?.setTime(9),
    ]
    for (const change of changes) {
      const { draft, base, scope, settle } = start(build())
      const model = build()
      change(draft)
      change(model)
      expect(scope.isChanged(draft)).toBe(true)
      expect(settle()).toEqual(model)
      expect(base).toEqual(build())
    }
  })

  test('can be the variable itself', () => {
    const { draft, scope, base, settle } = start(new Date(1))
    expect(scope.isDraft(draft)).toBe(true)
    expect(scope.isChanged(draft)).toBe(false)
    expect(settle()).toBe(base)
    draft.setTime(2)
    expect(scope.isChanged(draft)).toBe(true)
    expect(settle()).toEqual(new Date(2))
    const bytes = start(new Uint8Array([1, 2]))
    bytes.draft[1] = 3
    expect(bytes.settle()).toEqual(new Uint8Array([1, 3]))
    draft.setTime(Number.NaN)
    expect(settle).toThrow('v cannot be stored in a session: an invalid Date')
  })
})

describe('what the handler puts in', () => {
  test('is read back as itself, copied at settle and never frozen', () => {
    const { draft, settle } = start(cart())
    const item = { id: 9, qty: 9 }
    draft.items.push(item)
    expect(draft.items[2]).toBe(item)
    item.qty = 10
    const next = settle()
    expect(next.items[2]).toEqual({ id: 9, qty: 10 })
    expect(next.items[2]).not.toBe(item)
    expect(Object.isFrozen(item)).toBe(false)
  })

  test('may hold drafts, in two places as well, of other variables, and of another scope', () => {
    const { draft, scope, base, settle } = start(cart())
    const other = scope.draft(commit({ list: [{ k: 1 }] }))
    const foreign = start({ f: [1] }).draft
    foreign.f.push(2)
    const owner = draft.owner
    draft.items[0]!.more = { owner, also: [owner, other.list[0]], foreign }
    owner.name = 'Bob'
    other.list[0]!.k = 2
    const next = settle()
    expect(next.items[0]!.more).toEqual({
      owner: { name: 'Bob', tags: ['a'] },
      also: [{ name: 'Bob', tags: ['a'] }, { k: 2 }],
      foreign: { f: [1, 2] },
    })
    expect((next.items[0]!.more as Loose)['owner']).toBe(next.owner)
    expect(next.owner.tags).toBe(base.owner.tags)
    expect(scope.settle(other, 'other').value).toEqual({ list: [{ k: 2 }] })
  })

  test('is refused with its path in the variable', () => {
    const { draft, scope } = start(cart())
    draft.items[1]!.more = new Map([['x', { f: () => 1 }]])
    expect(() => scope.settle(draft, 'cart')).toThrow('cart.items[1].more.get("x").f cannot be stored')
  })

  test('is refused if it makes a cycle of drafts', () => {
    const { draft, scope } = start<Loose>({ a: { b: {} } })
    ;(draft['a'] as { b: Loose }).b['up'] = [draft]
    expect(() => scope.settle(draft, 'v')).toThrow('v.a.b.up[0] cannot be stored in a session: a cycle')
  })

  test('may be a part that was deleted or replaced before', () => {
    const { draft, base, settle } = start<Loose>({ a: { n: 1 }, b: 2 })
    const a = draft['a'] as Loose
    delete draft['a']
    a['n'] = 5
    draft['c'] = a
    expect(settle()).toEqual({ b: 2, c: { n: 5 } })
    expect(base).toEqual({ a: { n: 1 }, b: 2 })
  })

  test('shares the committed parts that it took along', () => {
    const { draft, base, settle } = start(cart())
    draft.items = [...draft.items, { id: 3, qty: 3 }]
    expect(settle().items[0]).toBe(base.items[0])
  })

  test('two variables of one committed object do not share a draft', () => {
    const scope = new DraftScope()
    const shared = commit({ n: 1 })
    const [a, b] = [scope.draft(shared), scope.draft(shared)]
    a.n = 2
    expect(b.n).toBe(1)
  })

  test('an object that is not committed cannot be drafted', () => {
    expect(() => new DraftScope().draft(Object.freeze({}))).toThrow(TypeError)
  })
})

describe('a savepoint', () => {
  test('rolled back restores what drafts held, in place, through references taken before and after', () => {
    const { draft, scope, base, settle } = start(cart())
    const first = draft.items[0]!
    draft.items.push({ id: 3, qty: 3 })
    first.qty = 7
    const rollback = scope.savepoint()
    first.qty = 8
    draft.owner.tags.push('b')
    draft.items.shift()
    const second = draft.items[0]!
    second.qty = 20
    delete draft.note
    rollback()
    expect(draft).toEqual({
      ...cart(),
      items: [
        { id: 1, qty: 7 },
        { id: 2, qty: 2 },
        { id: 3, qty: 3 },
      ],
    })
    expect(draft.items[0]).toBe(first)
    expect(draft.items[1]).toBe(second)
    expect(settle().owner).toBe(base.owner)
    second.qty = 21
    first.qty = 9
    expect(settle().items.map(item => item.qty)).toEqual([9, 21, 3])
  })

  test('taken before anything was changed, leads back to the committed object itself', () => {
    const { draft, scope, base, settle } = start(cart())
    const rollback = scope.savepoint()
    draft.items.splice(0, 1)
    draft.owner = { name: 'x', tags: [] }
    rollback()
    expect(scope.isChanged(draft)).toBe(false)
    expect(settle()).toBe(base)
  })

  test('restores Maps, Sets, Dates and bytes', () => {
    const build = () => ({
      map: new Map<string, unknown>([['a', 1]]),
      set: new Set([1]),
      at: new Date(1),
      later: new Date(2),
      bytes: new Uint8Array([1]),
    })
    const { draft, scope } = start(build())
    const held = { ...draft }
    draft.at.setTime(5)
    draft.map.set('b', [1])
    const rollback = scope.savepoint()
    draft.at.setTime(6)
    draft.later.setTime(7)
    draft.bytes[0] = 9
    ;(draft.map.get('b') as number[]).push(2)
    draft.map.delete('a')
    draft.set.add(2)
    rollback()
    const { map, set, at, later, bytes } = held
    expect({ map, set, at, later, bytes }).toEqual({
      ...build(),
      map: new Map<string, unknown>([
        ['a', 1],
        ['b', [1]],
      ]),
      at: new Date(5),
    })
    expect(draft.at).toBe(at)
  })

  test('restores objects of the handler in place, also those the caller names', () => {
    const { draft, scope } = start<Loose>({ a: 1 })
    const build = () => ({
      list: [1, { x: 1 }],
      map: new Map([['k', [1]]]),
      at: new Date(1),
      s: new Set([1]),
      b: new Uint8Array(1),
    })
    const [inside, variable] = [build(), build()]
    const frozen = Object.freeze({ inner: [1] })
    draft['raw'] = { inside, frozen }
    const rollback = scope.savepoint([variable, 'primitive', null])
    for (const raw of [inside, variable]) {
      raw.list.length = 0
      raw.map.get('k')?.push(2)
      raw.map.set('l', [])
      raw.at.setTime(2)
      raw.s.clear()
      raw.b[0] = 1
      Reflect.deleteProperty(raw, 'list')
    }
    frozen.inner.push(2)
    rollback()
    expect([inside, variable, frozen]).toEqual([build(), build(), { inner: [1] }])
    expect(Object.keys(inside)).toEqual(Object.keys(build()))
    expect((draft['raw'] as Loose)['inside']).toBe(inside)
  })

  test('copes with cycles among objects of the handler', () => {
    const { draft, scope } = start<Loose>({})
    const raw: Loose = { n: 1, draft }
    raw['self'] = raw
    draft['raw'] = raw
    const rollback = scope.savepoint()
    raw['n'] = 2
    rollback()
    expect(raw['n']).toBe(1)
  })

  test('can be nested, released by being forgotten, and rolled back only once', () => {
    const { draft, scope } = start([0])
    const outer = scope.savepoint()
    draft.push(1)
    const released = scope.savepoint()
    expect(released).toBeInstanceOf(Function)
    draft.push(2)
    const inner = scope.savepoint()
    draft.push(3)
    inner()
    expect(draft).toEqual([0, 1, 2])
    expect(inner).toThrow(TypeError)
    outer()
    expect(draft).toEqual([0])
  })
})

describe('a closed scope', () => {
  const refuse = () => new Error('refused')

  test('refuses every write through every draft, unread parts and objects of the handler included', () => {
    const { draft, scope, settle } = start<Loose>({
      o: { n: 1 },
      list: [2, 1],
      map: new Map([['k', { n: 1 }]]),
      set: new Set([{ n: 1 }]),
    })
    const held = draft['o'] as Loose
    const raw = { deep: [1] }
    draft['raw'] = raw
    settle()
    scope.close(refuse)
    scope.close(() => new Error('second'))
    raw.deep.push(2) // the handler's own object, but no longer what the session shows
    const list = draft['list'] as number[]
    const map = draft['map'] as Map<unknown, Loose>
    const set = draft['set'] as Set<unknown>
    const writes: (() => unknown)[] = [
      () => (held['n'] = 2),
      () => (held['n'] = 1),
      () => delete held['n'],
      () => delete held['missing'],
      () => Object.defineProperty(held, 'n', { value: 3 }),
      () => list.push(1),
      () => list.sort(),
      () => (list.length = 0),
      () => map.set('k', {}),
      () => map.delete('k'),
      () => map.clear(),
      () => set.add(1),
      () => set.delete(1),
      () => set.clear(),
      () => (map.get('k')!['n'] = 2),
      () => (([...set][0] as Loose)['n'] = 2),
      () => (draft['raw'] as typeof raw).deep.push(3),
    ]
    for (const write of writes) expect(write).toThrow('refused')
    expect(draft).toEqual({
      o: { n: 1 },
      list: [2, 1],
      map: new Map([['k', { n: 1 }]]),
      set: new Set([{ n: 1 }]),
      raw: { deep: [1] },
    })
    expect(draft['raw']).toBe(draft['raw'])
  })

  test('goes on rendering what was read', () => {
    const { draft, scope, settle } = start(cart())
    draft.items.push({ id: 3, qty: 3 })
    const body = { items: draft.items, name: draft.owner.name }
    const next = settle()
    scope.close(refuse)
    expect(JSON.stringify(body)).toBe(JSON.stringify({ items: next.items, name: 'Ann' }))
    expect(JSON.stringify(draft)).toBe(JSON.stringify(next))
  })
})

describe('any sequence of operations', () => {
  type Op = { readonly kind: number; readonly at: number; readonly n: number }
  const op: fc.Arbitrary<Op> = fc.record({ kind: fc.nat(19), at: fc.nat(40), n: fc.nat(5) })
  const leaf = fc.oneof(
    fc.integer({ min: 0, max: 9 }),
    fc.constantFrom('a', 'b', null, true, 7n),
    fc.nat(9).map(timeMs => new Date(timeMs)),
    fc.uint8Array({ maxLength: 3 }),
  )
  const key = fc.constantFrom('a', 'b', 'c', '__proto__', '0')
  const { tree } = fc.letrec(tie => ({
    tree: fc.oneof(
      { maxDepth: 4 },
      leaf,
      fc.array(tie('tree'), { maxLength: 4 }),
      fc.array(fc.tuple(key, tie('tree')), { maxLength: 4 }).map(objectOf),
      fc.array(fc.tuple(key, tie('tree')), { maxLength: 4 }).map(entries => new Map(entries)),
      fc.array(tie('tree'), { maxLength: 3 }).map(members => new Set(members)),
    ),
  }))

  function objectOf(entries: [string, unknown][]): Loose {
    const object: Loose = {}
    for (const [name, value] of entries) define(object, name, value)
    return object
  }

  function define(object: object, name: string, value: unknown): void {
    Object.defineProperty(object, name, { value, writable: true, enumerable: true, configurable: true })
  }

  function isObject(value: unknown): value is object {
    return typeof value === 'object' && value !== null
  }

  function childrenOf(value: object): unknown[] {
    if (value instanceof Map || value instanceof Set) return [...value.values()]
    return value instanceof Date || value instanceof Uint8Array ? [] : Object.values(value)
  }

  /** Every object in it, in the order of a walk: the same index means the same place in draft and model. */
  function placesOf(root: object): object[] {
    const places = new Set<object>([root])
    for (const place of places) for (const child of childrenOf(place)) if (isObject(child)) places.add(child)
    return [...places]
  }

  function containsOrIs(value: unknown, wanted: object): boolean {
    return isObject(value) && placesOf(value).includes(wanted)
  }

  /** Does one operation to a tree, be it a draft or a plain value. */
  function operate(root: object, { kind, at, n }: Op): void {
    const places = placesOf(root)
    const place = places[at % places.length]!
    const moved = places[(at * 7 + n) % places.length]!
    const movable = containsOrIs(moved, place) ? n : moved // a cycle has a test of its own
    const values = [n, 'new', { made: [n] }, new Map([['k', new Date(n)]]), movable]
    const value = values[kind % values.length]
    if (place instanceof Date) place.setTime(n)
    else if (place instanceof Uint8Array) place.fill(n)
    else if (place instanceof Map) operateMap(place, kind, n, value)
    else if (place instanceof Set) operateSet(place, kind, n, value)
    else if (Array.isArray(place)) operateArray(place, kind, n, value)
    else operateObject(place as Loose, kind, n, value)
  }

  function operateMap(map: Map<unknown, unknown>, kind: number, n: number, value: unknown): void {
    const name = [...map.keys()][n % 3] ?? 'fresh'
    if (kind % 4 === 0) map.delete(name)
    else if (kind === 19) map.clear()
    else map.set(name, value)
  }

  function operateSet(set: Set<unknown>, kind: number, n: number, value: unknown): void {
    const member = [...set][n % 3]
    if (kind % 3 === 0) set.delete(member)
    else if (kind === 19) set.clear()
    else set.add(value)
  }

  function operateArray(list: unknown[], kind: number, n: number, value: unknown): void {
    if (kind < 5) list.push(value)
    else if (kind < 9) list.splice(n, kind - 5, value)
    else if (kind < 11) list.sort((a, b) => String(a).localeCompare(String(b)))
    else if (kind < 13) list.reverse()
    else if (kind < 15) list.shift()
    else if (kind < 17) list.unshift(value, n)
    else if (kind < 18) list.length = Math.min(list.length, n)
    else if (list.length > 0) list[n % list.length] = value
  }

  function operateObject(object: Loose, kind: number, n: number, value: unknown): void {
    const name = Object.keys(object)[n % 3] ?? `fresh${n}`
    if (kind % 4 === 0) delete object[name]
    else if (name === '__proto__') define(object, name, value)
    else object[name] = value
  }

  /** A deep copy that keeps aliases and takes a plain value or a draft. */
  function clone<T>(value: T, done = new Map<unknown, unknown>()): T {
    if (!isObject(value)) return value
    const known = done.get(value)
    if (known !== undefined) return known as T
    const keep = <C>(copy: C): C => {
      done.set(value, copy)
      return copy
    }
    if (value instanceof Date) return keep(new Date(value.getTime())) as T
    if (value instanceof Uint8Array) return keep(new Uint8Array(value)) as unknown as T
    if (value instanceof Map) {
      const copy = keep(new Map())
      for (const [name, part] of value) copy.set(name, clone(part, done))
      return copy as T
    }
    if (value instanceof Set) {
      const copy = keep(new Set())
      for (const part of value) copy.add(clone(part, done))
      return copy as T
    }
    const copy = keep((Array.isArray(value) ? [] : {}) as Loose)
    for (const name of Object.keys(value)) define(copy, name, clone((value as Loose)[name], done))
    return copy as T
  }

  /** Deep equality with order, prototypes and own `__proto__`: by one text that shows all of it. */
  function shown(value: unknown): string {
    if (typeof value === 'bigint') return `${value}n`
    if (!isObject(value)) return JSON.stringify(value) ?? 'undefined'
    if (value instanceof Date) return `Date(${value.getTime()})`
    if (value instanceof Uint8Array) return `Bytes(${[...value].join()})`
    if (value instanceof Map)
      return `Map(${[...value].map(([name, part]) => `${shown(name)}=>${shown(part)}`).join()})`
    if (value instanceof Set) return `Set(${[...value].map(shown).join()})`
    if (Array.isArray(value)) return `[${value.map(shown).join()}]`
    return `{${Object.keys(value)
      .map(name => `${name}:${shown((value as Loose)[name])}`)
      .join()}}`
  }

  const root = tree.filter(value => isObject(value)) as fc.Arbitrary<object>

  test('leaves in the draft what it leaves in a plain copy, and the committed value alone', () => {
    fc.assert(
      fc.property(root, fc.array(op, { maxLength: 25 }), (value, ops) => {
        const { draft, base, scope, settle } = start(value)
        const before = shown(base)
        const model = detach(base)
        for (const each of ops) {
          operate(draft, each)
          operate(model, each)
        }
        expect(shown(draft)).toBe(shown(model))
        const next = settle()
        expect(shown(next)).toBe(shown(model))
        expect(shown(base)).toBe(before)
        if (!scope.isChanged(draft)) expect(next).toBe(base)
        expect(scope.settle(draft, 'v').sizeBytes).toBe(settleValue(detach(next), 'v').sizeBytes)
        expect(placesOf(next).every(place => isLeaf(place) || isCommitted(place))).toBe(true)
      }),
      { numRuns: 600 },
    )
  })

  function isLeaf(place: object): boolean {
    return place instanceof Date || place instanceof Uint8Array
  }

  test('shares with the committed value every part that the operations did not reach', () => {
    fc.assert(
      fc.property(root, root, fc.array(op, { maxLength: 10 }), (touched, untouched, ops) => {
        const { draft, base, settle } = start<Loose>({ touched, untouched, list: [untouched] })
        for (const each of ops) operate(draft['touched'] as object, each)
        shown(draft)
        const next = settle()
        expect(next['untouched']).toBe(base['untouched'])
        expect(next['list']).toBe(base['list'])
      }),
    )
  })

  test('with savepoints rolled back at random, leaves what the model with copies leaves', () => {
    const step = fc.oneof(
      { weight: 6, arbitrary: op },
      fc.constant('save' as const),
      fc.constant('back' as const),
    )
    fc.assert(
      fc.property(root, fc.array(step, { maxLength: 30 }), (value, steps) => {
        const { draft, base, scope, settle } = start(value)
        const before = shown(base)
        let model = { root: detach(base) }
        const saved: { rollback: () => void; model: typeof model; places: object[] }[] = []
        for (const each of steps) {
          if (each === 'save')
            saved.push({ rollback: scope.savepoint(), model: clone(model), places: placesOf(draft) })
          else if (each === 'back') {
            const last = saved.pop()
            if (last === undefined) continue
            last.rollback()
            model = last.model
            const places = placesOf(draft)
            expect(places.length).toBe(last.places.length)
            expect(places.every((place, index) => place === last.places[index])).toBe(true)
          } else {
            operate(draft, each)
            operate(model.root, each)
          }
        }
        expect(shown(settle())).toBe(shown(model.root))
        expect(shown(base)).toBe(before)
        scope.close(() => new Error('closed'))
        expect(shown(draft)).toBe(shown(model.root))
      }),
      { numRuns: 600 },
    )
  })
})
