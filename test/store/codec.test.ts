/** Session values as JSON text: all of them come back, and no text, however made, does anything but be refused. */
import fc from 'fast-check'
import { CODEC_FORMAT, decodeValue, encodeValue } from '../../lib/store/codec.js'
import { settleValue } from '../../lib/session/settling.js'

const RUNS = Number(process.env['FUZZ_RUNS'] ?? 300)

const primitive = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom('\ud800', '__proto__', '$date', '\0', '\'\\"'),
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.bigInt(),
  fc.boolean(),
  fc.constantFrom(null, -0),
)
const key = fc.oneof(
  fc.string(),
  fc.constantFrom('__proto__', 'constructor', 'toString', '$date', '$map', '$object', '$', 'a'),
)
const { value } = fc.letrec<{ value: unknown }>(tie => ({
  value: fc.oneof(
    { maxDepth: 4 },
    primitive,
    fc.date({ noInvalidDate: true }),
    fc.uint8Array({ maxLength: 20 }),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.array(fc.tuple(primitive, tie('value')), { maxLength: 4 }).map(pairs => new Map(pairs)),
    fc.array(tie('value'), { maxLength: 4 }).map(items => new Set(items)),
    fc.array(fc.tuple(key, tie('value')), { maxLength: 4 }).map(pairs => Object.fromEntries(pairs)),
  ),
}))

const read = (text: string): unknown => decodeValue(text, CODEC_FORMAT, "session variable 'x'").value

test('every value of a session comes back as it was, in the order it had', () => {
  fc.assert(
    fc.property(value, given => {
      const { value: committed } = settleValue(given, 'x')
      const text = encodeValue(committed)
      const back = read(text)
      expect(back).toEqual(committed)
      expect(encodeValue(back)).toBe(text)
    }),
    { numRuns: RUNS },
  )
})

test('ordinary values are ordinary JSON', () => {
  const cart = { items: [{ sku: 'tea', n: 2 }], note: null, gift: false }
  expect(encodeValue(settleValue(cart, 'x').value)).toBe(JSON.stringify(cart))
})

test.each<readonly [string, unknown, string]>([
  ['a bigint', 12n, '{"$bigint":"12"}'],
  ['a Date', new Date(0), '{"$date":"1970-01-01T00:00:00.000Z"}'],
  ['a Date far away', new Date(-8.64e15), '{"$date":"-271821-04-20T00:00:00.000Z"}'],
  ['bytes', new Uint8Array([1, 2]), '{"$bytes":"AQI="}'],
  ['minus nought', -0, '{"$number":"-0"}'],
  ['a Map', new Map([[1, 'a']]), '{"$map":[[1,"a"]]}'],
  ['a Set', new Set(['a']), '{"$set":["a"]}'],
  ["the application's own object that looks like one", { $date: 'x' }, '{"$object":[["$date","x"]]}'],
])('%s is an object with one key', (_, given, text) => {
  expect(encodeValue(settleValue(given, 'x').value)).toBe(text)
  expect(read(text)).toEqual(given)
})

test('no text does anything but be read or refused, and none of it shows', () => {
  const own = value.map(given => encodeValue(settleValue(given, 'x').value))
  const broken = fc.tuple(own, fc.nat(), fc.string({ maxLength: 3 })).map(([text, at, more]) => {
    const place = at % (text.length + 1)
    return text.slice(0, place) + more + text.slice(place + more.length)
  })
  const tagged = fc
    .tuple(
      fc.constantFrom('$date', '$map', '$set', '$bytes', '$bigint', '$number', '$object', '$x'),
      fc.json(),
    )
    .map(([tag, json]) => `{"${tag}":${json}}`)
  fc.assert(
    fc.property(fc.oneof(broken, tagged, fc.json(), fc.string()), text => {
      try {
        read(text)
      } catch (error) {
        expect(error).toMatchObject({ code: 'STORE_UNAVAILABLE' })
        expect((error as Error).message).toMatch(
          /^session variable 'x' cannot be read: (it|a \$\w+) is (not|nested)|kind of value/,
        )
      }
      expect(({} as Record<string, unknown>)['polluted']).toBeUndefined()
    }),
    { numRuns: RUNS },
  )
})

test.each<readonly [string, string]>([
  ['deeply nested lists', `${'['.repeat(100_000)}${']'.repeat(100_000)}`],
  ['deeply nested tags', `${'{"$set":['.repeat(20_000)}${']}'.repeat(20_000)}`],
  ['a list as the key of a Map', '{"$map":[[[1],2]]}'],
  ['half a pair', '{"$map":[[1]]}'],
  ['no date', '{"$date":"2026-99-99T00:00:00Z"}'],
  ['nothing', ''],
])('%s: refused', (_, text) => {
  expect(() => read(text)).toThrow(expect.objectContaining({ code: 'STORE_UNAVAILABLE' }))
})

test('`__proto__` in a text is a key like any other', () => {
  const back = read('{"a":{"__proto__":{"polluted":1}}}') as { a: object }
  expect(Object.getPrototypeOf(back.a)).toBe(Object.prototype)
  expect(Object.keys(back.a)).toEqual(['__proto__'])
})

test('another format is refused with both numbers', () => {
  expect(() => decodeValue('1', CODEC_FORMAT + 1, "session variable 'x'")).toThrow(
    /^session variable 'x' is in format 2, and this session-tx reads 1: a newer session-tx wrote it/,
  )
  expect(() => decodeValue('1', 0, "session variable 'x'")).toThrow(/in format 0.*nothing of ours/)
})
