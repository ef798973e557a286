/**
 * What a session may hold, what is refused and how that is said, what a committed value is.
 */
import { settleValue } from '../../lib/session/settling.js'
import { detach, isCommitted, LEVELS_MAX, sizeBytesOf } from '../../lib/session/value.js'

function settle<T>(value: T): T {
  return settleValue(value, 'v').value as T
}

function refusal(value: unknown): string {
  try {
    settleValue(value, 'v')
  } catch (error) {
    expect(error).toMatchObject({ name: 'SessionTxError', code: 'SESSION_VALUE', status: 500 })
    return (error as Error).message.replace(' cannot be stored in a session', '')
  }
  return 'accepted'
}

class Money {
  cents = 5
}

describe('a session may hold', () => {
  test('every kind of value, nested in every other, and gets a copy that is equal', () => {
    const given = {
      text: 'ü"\n',
      numbers: [0, -0, 1.5, -7e300],
      nothing: null,
      yes: true,
      big: 12345678901234567890n,
      when: new Date(1234),
      bytes: new Uint8Array([1, 2, 255]),
      map: new Map<unknown, unknown>([
        ['a', { when: new Date(5) }],
        [1, [new Set([1n])]],
        [null, new Uint8Array([9])],
      ]),
      set: new Set<unknown>([1, 'x', [2], { deep: new Map() }]),
    }
    const copy = settle(given)
    expect(copy).toEqual(given)
    expect(copy).not.toBe(given)
    expect(copy.when).not.toBe(given.when)
    expect(copy.bytes).not.toBe(given.bytes)
  })

  test('an object without prototype, which comes out as an ordinary one', () => {
    const bare = Object.assign(Object.create(null) as object, { a: 1 })
    expect(Object.getPrototypeOf(settle(bare))).toBe(Object.prototype)
    expect(settle(bare)).toEqual({ a: 1 })
  })

  test('a Buffer, which comes out as a plain Uint8Array that shares no pool', () => {
    const copy = settle(Buffer.from('abc'))
    expect(Object.getPrototypeOf(copy)).toBe(Uint8Array.prototype)
    expect([...copy]).toEqual([97, 98, 99])
    expect(copy.buffer.byteLength).toBe(3)
  })

  test('values of another realm', () => {
    const foreign = structuredClone({ list: [new Map([['a', new Set([new Date(1)])]])] }) // Jest: made outside
    expect(settle(foreign)).toEqual({ list: [new Map([['a', new Set([new Date(1)])]])] })
  })

  test('keys called __proto__, constructor and toString, as own data that poisons nothing', () => {
    const given = JSON.parse(
      '{"__proto__":{"admin":true},"constructor":{"prototype":1},"toString":"x"}',
    ) as object
    for (const copy of [settle(given), detach(settle(given)), settle([given])[0] as object]) {
      expect(Object.keys(copy)).toEqual(['__proto__', 'constructor', 'toString'])
      expect(Object.getPrototypeOf(copy)).toBe(Object.prototype)
      expect('admin' in copy).toBe(false)
      expect(JSON.stringify(copy)).toBe(JSON.stringify(given))
    }
    expect('admin' in {}).toBe(false)
  })

  test('undefined properties, symbol keys and hidden properties, which are left out as JSON does', () => {
    const given = Object.defineProperty({ a: 1, b: undefined, [Symbol('s')]: 2 }, 'hidden', { value: 3 })
    expect(Reflect.ownKeys(settle(given)).filter(key => typeof key === 'string')).toEqual(['a'])
  })

  test('the same object in two places, copied once', () => {
    const shared = { n: 1 }
    const copy = settle({ a: shared, b: [shared] })
    expect(copy.a).toBe(copy.b[0])
  })
})

describe('a session refuses, with the path and never the value,', () => {
  const cases: [unknown, string][] = [
    [undefined, 'v: undefined'],
    [{ f: () => 'secret' }, 'v.f: a function'],
    [{ a: [Symbol('secret')] }, 'v.a[0]: a symbol'],
    [{ price: Number.NaN }, 'v.price: NaN'],
    [[1, [Number.NEGATIVE_INFINITY]], 'v[1][0]: -Infinity'],
    [{ at: new Date(Number.NaN) }, 'v.at: an invalid Date'],
    [{ items: [{ cost: new Money() }] }, 'v.items[0].cost: an instance of Money'],
    [{ pattern: /secret/ }, 'v.pattern: an instance of RegExp'],
    [{ later: Promise.resolve('secret') }, 'v.later: an instance of Promise'],
    [{ error: new Error('secret') }, 'v.error: an instance of Error'],
    [{ weak: new WeakMap() }, 'v.weak: an instance of WeakMap'],
    [{ text: Object('secret') }, 'v.text: an instance of String'],
    [[new Float64Array(1)], 'v[0]: an instance of Float64Array'],
    [[new ArrayBuffer(1)], 'v[0]: an instance of ArrayBuffer'],
    [new (class Cart extends Map {})(), 'v: an instance of Cart'],
    [new (class List extends Array {})(), 'v: an instance of List'],
    [Object.create(Map.prototype), 'v: an instance of Map'],
    [Object.create({}), 'v: an instance of Object'],
    [Object.assign(new Array(3), { 0: 1, 2: 2 }), 'v[1]: a hole in a sparse array'],
    [[undefined], 'v[0]: undefined'],
    [new Map([['a b', undefined]]), 'v.get("a b"): undefined'],
    [new Map([[{}, 1]]), 'v.get(an instance of Object): a Map key that is not a primitive'],
    [new Map([[new Date(0), 1]]), 'v.get(an instance of Date): a Map key that is not a primitive'],
    [new Map([[undefined, 1]]), 'v.get(undefined): undefined'],
    [new Map([[7n, { x: Number.NaN }]]), 'v.get(7n).x: NaN'],
    [{ tags: new Set([undefined]) }, 'v.tags{}: undefined'],
    [{ tags: new Set([{ f: Money }]) }, 'v.tags{}.f: a function'],
    [{ 'not an identifier': Number.NaN }, 'v["not an identifier"]: NaN'],
    [{ ['k'.repeat(500)]: Number.NaN }, `v["${'k'.repeat(60)}…"]: NaN`],
  ]
  for (const [value, message] of cases) {
    test(message, () => {
      expect(refusal(value)).toBe(message)
    })
  }

  test('an accessor, without running it', () => {
    const getter = jest.fn()
    expect(refusal(Object.defineProperty({}, 'x', { get: getter, enumerable: true }))).toBe(
      'v.x: an accessor (getter or setter)',
    )
    expect(refusal(Object.defineProperty([1], 0, { get: getter }))).toBe(
      'v[0]: an accessor (getter or setter)',
    )
    expect(getter).not.toHaveBeenCalled()
  })

  test('a cycle, through every kind of container', () => {
    const object: Record<string, unknown> = {}
    object['a'] = [{ back: object }]
    const map = new Map<unknown, unknown>()
    map.set('m', new Set([map]))
    expect(refusal(object)).toBe('v.a[0].back: a cycle: it contains itself')
    expect(refusal(map)).toBe('v.get("m"){}: a cycle: it contains itself')
  })

  test('more levels than LEVELS_MAX, however they came together, without a stack overflow', () => {
    const nest = (levels: number, core: unknown = 0): unknown => {
      for (let level = 0; level < levels; level++) core = level % 2 === 0 ? [core] : { a: core }
      return core
    }
    expect(refusal(nest(LEVELS_MAX))).toBe('accepted')
    expect(refusal(nest(LEVELS_MAX + 1))).toContain(`nested deeper than ${LEVELS_MAX} levels`)
    expect(refusal(nest(200_000))).toContain('nested deeper')
    const committed = settle(nest(LEVELS_MAX - 10))
    expect(refusal(nest(10, committed))).toBe('accepted')
    expect(refusal(nest(11, committed))).toContain('nested deeper')
  })

  test('and an object that takes exponential time as a tree is done at once', () => {
    let value: unknown = []
    for (let level = 0; level < 60; level++) value = [value, value]
    expect(settleValue(value, 'v').sizeBytes).toBeGreaterThan(1e18)
  })
})

describe('a committed value', () => {
  test('is frozen, while what the application passed in is not', () => {
    const given = { a: [{ b: 1 }] }
    const copy = settle(given)
    expect([copy, copy.a, copy.a[0]].every(Object.isFrozen)).toBe(true)
    expect([given, given.a, given.a[0]].some(Object.isFrozen)).toBe(false)
  })

  test('is recognised and shared; a frozen object of the application is not mistaken for one', () => {
    const copy = settle({ a: 1 })
    expect(settle(copy)).toBe(copy)
    expect(settle({ x: copy }).x).toBe(copy)
    const constant = Object.freeze({ a: 1 })
    expect(isCommitted(constant)).toBe(false)
    expect(settle(constant)).not.toBe(constant)
  })

  test('carries a stamp that no listing of keys and no JSON shows', () => {
    const copy = settle({ a: 1 })
    expect(Object.keys(copy)).toEqual(['a'])
    expect({ ...copy }).toEqual({ a: 1 })
    expect(isCommitted({ ...copy })).toBe(false)
  })

  test.each([
    [null, 4],
    [true, 4],
    [-1.5, 4],
    ['aü€', 8],
    [123n, 3],
    [new Date(0), 24],
    [new Uint8Array(4), 8],
    [[], 2],
    [{}, 2],
    [[1, 'a', null], 12],
    [{ a: 1, bc: [2] }, 16],
    [new Map([['a', 1]]), 9],
    [new Set([1, 22]), 6],
  ])('%p counts %i bytes', (value, sizeBytes) => {
    expect(settleValue(value, 'v').sizeBytes).toBe(sizeBytes)
    expect(sizeBytesOf(settle(value))).toBe(sizeBytes)
  })

  test('counts exactly its JSON where it is JSON without escapes', () => {
    const given = { list: [1, { a: 'x', ü: [true, false, null] }], empty: {}, none: [] }
    expect(settleValue(given, 'v').sizeBytes).toBe(Buffer.byteLength(JSON.stringify(given)))
  })

  test('detached, can be changed at any depth without touching the committed one', () => {
    const copy = settle({ a: [{ at: new Date(1) }], m: new Map([['k', new Set([1])]]), b: new Uint8Array(2) })
    const mine = detach(copy)
    expect(mine).toEqual(copy)
    expect(isCommitted(mine) || isCommitted(mine.a) || isCommitted(mine.m)).toBe(false)
    mine.a[0]?.at.setTime(9)
    mine.a.push({ at: new Date(2) })
    mine.m.get('k')?.add(2)
    mine.b[0] = 1
    expect(copy).toEqual({
      a: [{ at: new Date(1) }],
      m: new Map([['k', new Set([1])]]),
      b: new Uint8Array(2),
    })
  })
})
