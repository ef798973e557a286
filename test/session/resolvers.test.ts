/** The ready-made resolvers: what each promises, as laws over any three values. */
import fc from 'fast-check'
import { resolvers } from 'session-tx'
import { settleValue } from '../../lib/session/settling.js'
import { detach } from '../../lib/session/value.js'

const { counter, max, min, union, append, lastWrite, firstWrite, disjoint } = resolvers

const small = fc.integer({ min: -1_000_000, max: 1_000_000 })
const absent = fc.constant(undefined)
/** Anything a session may hold, two levels deep. */
const leaf = fc.oneof(
  fc.integer(),
  fc.string(),
  fc.boolean(),
  fc.constant(null),
  fc.bigInt(),
  fc.date({ noInvalidDate: true }),
  fc.uint8Array({ maxLength: 3 }),
)
const item = fc.oneof(
  leaf,
  fc.array(leaf, { maxLength: 2 }),
  fc.dictionary(fc.string(), leaf, { maxKeys: 2 }),
  fc.array(leaf, { maxLength: 2 }).map(members => new Map(members.map((member, key) => [key, member]))),
)
const items = fc.array(item, { maxLength: 6 })

/** As a resolver gets its arguments. */
const copyOf = <T>(value: T): T => detach(settleValue(value, 'value').value) as T

describe('counter', () => {
  test('counts both increments, in either order', () => {
    fc.assert(
      fc.property(small, small, small, (base, a, b) => {
        expect(counter(base, base + a, base + b)).toBe(base + a + b)
        expect(counter(base, base + b, base + a)).toBe(counter(base, base + a, base + b))
      }),
    )
  })
  test('an absent variable counts as 0', () => {
    expect(counter(undefined, 1, 1)).toBe(2)
    expect(counter(5, undefined, 6)).toBe(1)
    expect(counter(5, 6, undefined)).toBe(1)
  })
  test.each(['1', {}, [], true, 1n, new Date(0)])('refuses what is no number: %p', value => {
    expect(() => counter(0, value, 1)).toThrow(TypeError)
    expect(() => counter(0, 1, value)).toThrow(TypeError)
  })
})

describe('max and min', () => {
  test('the larger or smaller one of the two sides', () => {
    fc.assert(
      fc.property(fc.oneof(small, absent), small, small, (base, a, b) => {
        expect(max(base, a, b)).toBe(a > b ? a : b)
        expect(min(base, a, b)).toBe(a < b ? a : b)
      }),
    )
  })
  test('of one that is absent, the other', () => {
    expect([max(1, undefined, -5), max(1, -5, undefined), max(1, undefined, undefined)]).toEqual([
      -5,
      -5,
      undefined,
    ])
    expect([min(1, undefined, 5), min(1, 5, undefined), min(1, undefined, undefined)]).toEqual([
      5,
      5,
      undefined,
    ])
  })
  test('refuse what is no number', () => {
    expect(() => max(0, 'a', 1)).toThrow(TypeError)
    expect(() => min(0, 1, 'a')).toThrow(TypeError)
  })
})

describe('union', () => {
  const numbers = fc.uniqueArray(fc.integer({ min: 0, max: 9 }))
  const sorted = (members: unknown): number[] => [...(members as Iterable<number>)].sort((a, b) => a - b)

  test('keeps what either side added and drops what either side removed', () => {
    fc.assert(
      fc.property(numbers, numbers, numbers, (base, theirs, ours) => {
        const expected = Array.from({ length: 10 }, (_, member) => member).filter(member => {
          const [was, there, here] = [base, theirs, ours].map(side => side.includes(member))
          return was === true ? there === true && here === true : there === true || here === true
        })
        expect(sorted(union(base, theirs, ours))).toEqual(expected)
      }),
    )
  })
  test('does not care who was first', () => {
    fc.assert(
      fc.property(numbers, numbers, numbers, (base, a, b) => {
        expect(sorted(union(base, a, b))).toEqual(sorted(union(base, b, a)))
      }),
    )
  })
  test('is what the other side has where one changed nothing', () => {
    fc.assert(
      fc.property(numbers, numbers, (base, a) => {
        expect(sorted(union(base, a, base))).toEqual(sorted(a))
        expect(sorted(union(base, base, a))).toEqual(sorted(a))
      }),
    )
  })
  test('compares members by value, whatever they are', () => {
    fc.assert(
      fc.property(items, list => {
        const copy = copyOf(list)
        const merged = union([], list, copy) as unknown[]
        expect(merged.length).toBe((union([], list, []) as unknown[]).length)
        expect(union(list, copy, copyOf(list))).toEqual(merged)
      }),
    )
  })
  test('tells 1, "1", 1n, true and a Date apart', () => {
    const different = [1, '1', 1n, true, 'true', null, new Date(1), [1], { 0: 1 }, new Set([1])]
    expect(union([], different, [])).toEqual(different)
  })
  test('gives a Set if either side is one', () => {
    expect(union(undefined, new Set([1]), new Set([2]))).toEqual(new Set([1, 2]))
    expect(union(undefined, [1], new Set([2]))).toEqual(new Set([1, 2]))
    expect(union(new Set([1]), undefined, [1, 2])).toEqual([2])
  })
  test('refuses what has no members', () => {
    expect(() => union([], 'ab', [])).toThrow(TypeError)
    expect(() => union([], {}, [])).toThrow(TypeError)
  })
})

describe('append', () => {
  test('keeps what both appended: first what was committed, then mine', () => {
    fc.assert(
      fc.property(items, items, items, (base, theirs, ours) => {
        const merged = append(base, [...copyOf(base), ...theirs], [...copyOf(base), ...ours])
        expect(merged).toEqual([...base, ...theirs, ...ours])
      }),
    )
  })
  test('is a conflict where either side changed or removed what was there', () => {
    fc.assert(
      fc.property(fc.array(small, { minLength: 1 }), items, fc.nat(), (base, added, at) => {
        const place = at % base.length
        const changed = base.with(place, (base[place] ?? 0) + 1)
        const removed = base.slice(0, -1)
        for (const spoilt of [changed, removed]) {
          expect(() => append(base, [...spoilt], [...base, ...added])).toThrow('earlier item')
          expect(() => append(base, [...base, ...added], [...spoilt])).toThrow('earlier item')
        }
      }),
    )
  })
  test('an absent list is an empty one', () => {
    expect(append(undefined, ['a'], ['b'])).toEqual(['a', 'b'])
  })
  test('refuses what is no array', () => {
    expect(() => append([], 'a', [])).toThrow(TypeError)
  })
})

describe('disjoint', () => {
  const fields = fc.dictionary(
    fc.constantFrom('a', 'b', 'c', '__proto__', 'toString'),
    fc.integer({ min: 0, max: 2 }),
  )
  const entries = (value: unknown): [string, unknown][] =>
    Object.entries(value as object).sort(([x], [y]) => (x < y ? -1 : 1))
  const at = (side: object, key: string): unknown =>
    Object.hasOwn(side, key) ? Reflect.get(side, key) : undefined

  test('takes each key from the side that changed it, and is a conflict where both did', () => {
    fc.assert(
      fc.property(fields, fields, fields, (base, theirs, ours) => {
        const keys = new Set([base, theirs, ours].flatMap(side => Object.keys(side)))
        const changedBy = (side: object): string[] => [...keys].filter(key => at(side, key) !== at(base, key))
        const both = changedBy(theirs).filter(key => changedBy(ours).includes(key))
        if (both.length > 0) {
          expect(() => disjoint(base, theirs, ours)).toThrow('same key')
          return
        }
        const expected = [...keys].flatMap(key => {
          const value = at(changedBy(ours).includes(key) ? ours : theirs, key)
          return value === undefined ? [] : [[key, value] as [string, unknown]]
        })
        expect(entries(disjoint(base, theirs, ours))).toEqual(expected.sort(([x], [y]) => (x < y ? -1 : 1)))
      }),
    )
  })
  test('does not care who was first', () => {
    expect(entries(disjoint({ a: 1 }, { a: 1, b: 2 }, { a: 3 }))).toEqual(
      entries(disjoint({ a: 1 }, { a: 3 }, { a: 1, b: 2 })),
    )
  })
  test('a key called __proto__ is a key', () => {
    const merged = disjoint({}, JSON.parse('{"__proto__":{"x":1}}'), { a: 1 }) as object
    expect(Object.keys(merged).sort()).toEqual(['__proto__', 'a'])
    expect(Object.getPrototypeOf(merged)).toBe(Object.prototype)
  })
  test('refuses what is no object', () => {
    expect(() => disjoint({}, [], {})).toThrow(TypeError)
    expect(() => disjoint({}, 1, {})).toThrow(TypeError)
  })
})

test('lastWrite and firstWrite take one side, absent or not', () => {
  fc.assert(
    fc.property(fc.option(item), fc.option(item), fc.option(item), (base, theirs, ours) => {
      expect(lastWrite(base, theirs, ours)).toBe(ours)
      expect(firstWrite(base, theirs, ours)).toBe(theirs)
    }),
  )
})

test('no resolver changes what it is given', () => {
  const frozen = <T>(value: T): T => {
    if (typeof value === 'object' && value !== null && !ArrayBuffer.isView(value)) {
      for (const part of Object.values(value)) frozen(part)
      Object.freeze(value)
    }
    return value
  }
  fc.assert(
    fc.property(items, items, (base, added) => {
      const sides = [base, [...base, ...added], [...base]].map(side => frozen(copyOf(side)))
      expect(() => union(...(sides as [unknown, unknown, unknown]))).not.toThrow()
      expect(() => append(...(sides as [unknown, unknown, unknown]))).not.toThrow()
      const fields = frozen({ a: base })
      expect(() => disjoint({}, fields, frozen({ b: added }))).not.toThrow()
    }),
  )
})

test('the table cannot be changed', () => {
  expect(Object.isFrozen(resolvers)).toBe(true)
})
