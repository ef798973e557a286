/** What sessionTx() accepts, what it makes of it, and the sentences that everything else fails with. */
import { isSessionTxError } from '../lib/errors.js'
import { checkRetries, OPTION_PATHS } from '../lib/option-rules.js'
import { DEFAULTS, resolveOptions, type SessionTxOptions } from '../lib/options.js'

const pool = { getConnection: () => {}, query: () => {} }
const nothing = (): undefined => undefined

/** The sentence an option fails with; `accepted` if it does not. */
function sentence(options: unknown): string {
  return sentenceOf(() => resolveOptions(options as SessionTxOptions))
}

function sentenceOf(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    if (isSessionTxError(error) && error.code === 'MISCONFIGURED') return error.message
    throw error
  }
  return 'accepted'
}

/** `at('retry.retries', 3)` is `{ retry: { retries: 3 } }`. */
function at(path: string, value: unknown): unknown {
  return path.split('.').reduceRight<unknown>((inner, name) => ({ [name]: inner }), value)
}

test("`commitRecord: 'always'` without a database is a mistake", () => {
  expect(sentence({ commitRecord: 'always' })).toMatch(/^`commitRecord: 'always'` needs `pool`/)
  expect(sentence({ commitRecord: 'always', pool })).toBe('accepted')
  expect(sentence({ commitRecord: 'auto' })).toBe('accepted')
})

describe('the defaults', () => {
  test('are those of the table, with nothing given, with {} and with undefined everywhere', () => {
    const { resolve: _, ...table } = DEFAULTS
    const expected = { ...table, session: { ...table.session, cookieName: 'sid' }, resolve: new Map() }
    expect(resolveOptions()).toEqual(expected)
    expect(resolveOptions({})).toEqual(expected)
    for (const path of OPTION_PATHS) expect(resolveOptions(at(path, undefined) as object)).toEqual(expected)
  })

  test('are the numbers of the manual', () => {
    expect(resolveOptions()).toMatchObject({
      retry: {
        retries: 3,
        deadlineMs: 10_000,
        backoffBaseMs: 5,
        backoffMaxMs: 250,
        budget: { capacity: 100, ratio: 0.2, perSecond: 10 },
        tickets: { waitingMax: 64 },
      },
      session: {
        name: 'sid',
        idleMs: 24 * 3_600_000,
        absoluteMs: false,
        touchGranularityMs: 30_000,
        sizeBytesMax: 2 ** 20,
      },
      isolation: 'snapshot',
      commitRecord: 'auto',
      nonTransactionalTables: 'refuse',
      strayQueries: 'warn',
      lockWaitMs: 2_000,
      acquireMs: 2_000,
      hold: { requestBytesMax: 2 ** 20 },
    })
    expect(resolveOptions().session.cookie).toMatchObject({
      path: '/',
      httpOnly: true,
      sameSite: 'lax',
      secure: 'auto',
    })
  })

  test('and what is made of them are frozen at every depth', () => {
    for (const table of [
      DEFAULTS,
      resolveOptions({ retry: { tickets: {} }, session: { cookie: {} }, hold: {} }),
    ]) {
      for (const part of [
        table,
        table.retry,
        table.retry.tickets,
        table.session,
        table.session.cookie,
        table.hold,
      ]) {
        expect(Object.isFrozen(part)).toBe(true)
      }
    }
  })

  test('fill only what is missing: one option of a group leaves the others', () => {
    const { retry, session } = resolveOptions({
      retry: { retries: 5 },
      session: { cookie: { secure: true } },
    })
    expect(retry).toEqual({ ...DEFAULTS.retry, retries: 5 })
    expect(session.cookie).toEqual({ ...DEFAULTS.session.cookie, secure: true })
  })

  test('do not replace 0 and false', () => {
    const options = resolveOptions({
      retry: { retries: 0, backoffBaseMs: 0, backoffMaxMs: 0, tickets: false },
      session: {
        idleMs: false,
        touchGranularityMs: 0,
        cookie: { httpOnly: false, sameSite: false, secure: false },
      },
      hold: { requestBytesMax: 0 },
    })
    expect(options).toMatchObject({
      retry: { retries: 0, backoffBaseMs: 0, backoffMaxMs: 0, tickets: false },
      session: {
        idleMs: false,
        touchGranularityMs: 0,
        cookie: { httpOnly: false, sameSite: false, secure: false },
      },
      hold: { requestBytesMax: 0 },
    })
  })
})

describe('what was given', () => {
  test('arrives as it is', () => {
    const keys = ['new', 'old']
    const store = { start: nothing, open: nothing, create: nothing, counts: nothing, close: nothing }
    const retries = (): number => 1
    const options = resolveOptions({
      pool,
      keys,
      skip: () => true,
      retry: { retries },
      store: store as never,
    })
    expect(options.pool).toBe(pool)
    expect(options.store).toBe(store)
    expect(options.keys).toBe(keys)
    expect(options.skip?.({})).toBe(true)
    expect(options.retry.retries).toBe(retries)
  })

  test('is not changed, and a later change of it changes nothing', () => {
    const given = { retry: { retries: 1, tickets: { waitingMax: 2 } }, resolve: { cart: () => 1 } }
    const copy = structuredClone({ retry: given.retry })
    const options = resolveOptions(given)
    expect(given).toMatchObject(copy)
    given.retry.retries = 9
    given.retry.tickets.waitingMax = 9
    given.resolve.cart = () => 2
    expect(options.retry).toMatchObject({ retries: 1, tickets: { waitingMax: 2 } })
    expect(options.resolve.get('cart')?.(0, 0, 0)).toBe(1)
  })

  test('may be resolvers of any name; no other name has one', () => {
    const resolver = (): number => 1
    const named = JSON.parse('{"__proto__":1,"constructor":1,"cart":1}') as object
    const resolve = Object.defineProperties(
      {},
      Object.fromEntries(Object.keys(named).map(name => [name, { value: resolver, enumerable: true }])),
    )
    expect([...resolveOptions({ resolve }).resolve.keys()].sort()).toEqual(
      ['__proto__', 'cart', 'constructor'].sort(),
    )
    const plain = resolveOptions({ resolve: { cart: resolver } }).resolve
    for (const name of ['__proto__', 'constructor', 'toString']) expect(plain.get(name)).toBeUndefined()
  })

  test('may come from JSON.parse, Object.create(null) and another realm', () => {
    expect(sentence(JSON.parse('{"retry":{"retries":1}}'))).toBe('accepted')
    expect(sentence(Object.assign(Object.create(null), { acquireMs: 1 }))).toBe('accepted')
  })
})

describe('an unknown option names the nearest', () => {
  test.each([
    [{ retry: { retires: 3 } }, 'unknown option `retry.retires`; did you mean `retry.retries`?'],
    [{ retries: 3 }, 'unknown option `retries`; did you mean `retry.retries`?'],
    [{ idleMs: 3 }, 'unknown option `idleMs`; did you mean `session.idleMs`?'],
    [{ Pool: pool }, 'unknown option `Pool`; did you mean `pool`?'],
    [
      { session: { cookie: { samesite: 'lax' } } },
      'unknown option `session.cookie.samesite`; did you mean `session.cookie.sameSite`?',
    ],
    [
      { retry: { tickets: { waiting: 1 } } },
      'unknown option `retry.tickets.waiting`; did you mean `retry.tickets.waitingMax`?',
    ],
    [{ lockWait: 1 }, 'unknown option `lockWait`; did you mean `lockWaitMs`?'],
    [{ retry: { retires: undefined } }, 'unknown option `retry.retires`; did you mean `retry.retries`?'],
    [
      JSON.parse('{"retry":{"__proto__":{"retries":9}}}'),
      expect.stringMatching(/^unknown option `retry.__proto__`; did you mean `/),
    ],
    [{ toString: 1 }, expect.stringMatching(/^unknown option `toString`; did you mean `/)],
  ])('%j', (options, expected) => expect(sentence(options)).toEqual(expected))
})

describe('a bad value says what it must be, and what it was', () => {
  const zeroOrMore = 'a whole number of 0 or more'
  const oneOrMore = 'a whole number of 1 or more'
  const yesOrNo = 'true or false'

  test.each([
    ['retry.retries', -1, zeroOrMore, '-1'],
    ['retry.retries', 1.5, zeroOrMore, '1.5'],
    ['retry.retries', NaN, zeroOrMore, 'NaN'],
    ['retry.retries', Infinity, zeroOrMore, 'Infinity'],
    ['retry.retries', '3', zeroOrMore, "'3'"],
    ['retry.retries', null, zeroOrMore, 'null'],
    ['retry.retries', true, zeroOrMore, 'true'],
    ['retry.retries', 3n, zeroOrMore, '3n'],
    ['retry.retries', [3], zeroOrMore, 'an array'],
    ['retry.retries', 10_001, 'a whole number of 10000 or less', '10001'],
    ['retry.deadlineMs', 0, oneOrMore, '0'],
    ['retry.deadlineMs', 2 ** 31, 'a whole number of 2147483647 or less', '2147483648'],
    ['retry.backoffBaseMs', -1, zeroOrMore, '-1'],
    ['retry.backoffMaxMs', '1', zeroOrMore, "'1'"],
    ['retry.budget', true, 'an object or false', 'true'],
    ['retry.budget.capacity', 0, 'a number from 1 to 1000000', '0'],
    ['retry.budget.ratio', -0.1, 'a number from 0 to 1000000', '-0.1'],
    ['retry.budget.ratio', '1', 'a number from 0 to 1000000', "'1'"],
    ['retry.budget.perSecond', NaN, 'a number from 0 to 1000000', 'NaN'],
    ['retry.tickets', true, 'an object or false', 'true'],
    ['retry.tickets', null, 'an object or false', 'null'],
    ['retry.tickets.waitingMax', 0, oneOrMore, '0'],
    ['retry.isRetryable', true, 'a function', 'true'],
    ['retry.duplicateIsConflict', 1, yesOrNo, '1'],
    ['retry.rehearse', 'yes', yesOrNo, "'yes'"],
    ['clientGone', 'ignore', "'finish' or 'rollback'", "'ignore'"],
    ['retry', 3, 'an object', '3'],
    ['retry', false, 'an object', 'false'],
    ['session', 'sid', 'an object', "'sid'"],
    ['session.cookie', [], 'an object', 'an array'],
    ['session.name', 'a b', 'a cookie name: letters, digits, - and _', "'a b'"],
    ['session.name', '', 'a cookie name: letters, digits, - and _', "''"],
    ['session.name', 'a=b', 'a cookie name: letters, digits, - and _', "'a=b'"],
    ['session.idleMs', 0, 'false or a whole number of 1 or more', '0'],
    ['session.idleMs', true, 'false or a whole number of 1 or more', 'true'],
    ['session.absoluteMs', Infinity, 'false or a whole number of 1 or more', 'Infinity'],
    ['session.cookie.path', 'shop', "a path that begins with a slash, like '/'", "'shop'"],
    ['session.cookie.path', '/;domain=x', "a path that begins with a slash, like '/'", "'/;domain=x'"],
    ['session.cookie.domain', 'a b', "a domain, like 'example.com'", "'a b'"],
    ['session.cookie.httpOnly', 'yes', yesOrNo, "'yes'"],
    ['session.cookie.sameSite', 'Lax', "'strict', 'lax', 'none', true or false", "'Lax'"],
    ['session.cookie.secure', 'always', "'auto', true or false", "'always'"],
    ['session.cookie.maxAge', 0, oneOrMore, '0'],
    ['session.cookie.partitioned', 1, yesOrNo, '1'],
    ['session.cookie.priority', 'urgent', "'low', 'medium' or 'high'", "'urgent'"],
    ['session.cookie.prefix', 'secure', "'host'", "'secure'"],
    ['session.touchGranularityMs', -1, zeroOrMore, '-1'],
    ['session.sizeBytesMax', 0, oneOrMore, '0'],
    ['resolve', [], 'an object { variable: resolver }', 'an array'],
    ['resolve.cart', 3, 'a function', '3'],
    ['skip', true, 'a function', 'true'],
    [
      'isolation',
      'SERIALIZABLE',
      "'read committed', 'repeatable read', 'snapshot' or 'serializable'",
      "'SERIALIZABLE'",
    ],
    ['veto', false, 'a function', 'false'],
    ['commitOnError', true, 'a function', 'true'],
    ['readOnly', true, 'a function', 'true'],
    ['commitRecord', true, "'auto', 'always' or 'off'", 'true'],
    ['nonTransactionalTables', 'ignore', "'refuse' or 'warn'", "'ignore'"],
    ['strayQueries', 'warning', "'warn', 'refuse' or 'ignore'", "'warning'"],
    ['lockWaitMs', 0, oneOrMore, '0'],
    ['acquireMs', 0.5, oneOrMore, '0.5'],
    ['hold', true, 'an object', 'true'],
    ['hold.requestBytesMax', -1, zeroOrMore, '-1'],
    [
      'store',
      'memory',
      'a session store, like memoryStore() (legacyStore(store) wraps one of express-session or koa-session)',
      'a string',
    ],
    [
      'store',
      { get: nothing, set: nothing, destroy: nothing },
      'a session store, like memoryStore() (legacyStore(store) wraps one of express-session or koa-session)',
      'an object',
    ],
    ['pool', { query: nothing }, 'a mysql2 pool (it has getConnection and query)', 'an object'],
    ['pool', Promise.resolve(pool), 'a mysql2 pool (it has getConnection and query)', 'a promise'],
  ])('%s %p', (path, value, mustBe, got) => {
    expect(sentence(at(path, value))).toBe(`\`${path}\` must be ${mustBe}, got ${got}`)
  })

  test('every option has a rule that refuses something', () => {
    for (const path of OPTION_PATHS)
      expect(sentence(at(path, Symbol('odd')))).toContain(`\`${path}\` must be `)
  })

  test('but what may be a secret is never repeated', () => {
    for (const path of ['pool', 'store', 'keys'])
      expect(sentence(at(path, 'hunter2'))).toMatch(/, got a string$/)
    expect(sentence('mysql://root:hunter2@db')).toBe(
      'the options must be a plain object, like { pool }, got a string',
    )
  })

  test('keys are strings, none empty, at least one, or signed by their own object', () => {
    for (const keys of [[], [''], [1], ['a', null], {}, { sign: nothing }]) {
      expect(sentence({ keys })).toMatch(/^`keys` must be an array of at least one key/)
    }
    expect(sentence({ keys: ['a'] })).toBe('accepted')
    expect(sentence({ keys: { sign: nothing, verify: nothing } })).toBe('accepted')
  })

  test('a pool of either flavour, or what carries one, is accepted; a pool in the place of the options is not', () => {
    class Pool {
      getConnection(): void {}
      query(): void {}
    }
    expect(sentence({ pool: new Pool() })).toBe('accepted')
    expect(sentence({ pool: { pool: new Pool() } })).toBe('accepted')
    expect(sentence(new Pool())).toBe('the options must be a plain object, like { pool }, got an object')
    expect(sentence(null)).toBe('the options must be a plain object, like { pool }, got null')
  })
})

describe('options that must fit each other', () => {
  test('the longest backoff is not shorter than the first', () => {
    const expected = '`retry.backoffMaxMs` must be at least `retry.backoffBaseMs` (300), got 250'
    expect(sentence({ retry: { backoffBaseMs: 300 } })).toBe(expected)
    expect(sentence({ retry: { backoffBaseMs: 300, backoffMaxMs: 300 } })).toBe('accepted')
  })

  test('`prefix: host` gives __Host- once', () => {
    const name = (session: SessionTxOptions['session']): string =>
      resolveOptions({ session }).session.cookieName
    expect(name({})).toBe('sid')
    expect(name({ cookie: { prefix: 'host' } })).toBe('__Host-sid')
    expect(name({ name: '__Host-id', cookie: { prefix: 'host' } })).toBe('__Host-id')
  })

  const host = { prefix: 'host' }
  test.each([
    [
      { cookie: { ...host, path: '/shop' } },
      "a `__Host-` cookie needs `session.cookie.path` '/', got '/shop'",
    ],
    [
      { cookie: { ...host, domain: 'a.example' } },
      "a `__Host-` cookie must not have `session.cookie.domain`, got 'a.example'",
    ],
    [
      { cookie: { ...host, secure: false } },
      "a `__Host-` cookie needs `session.cookie.secure` to be true or 'auto', got false",
    ],
    [
      { name: '__host-id', cookie: { secure: false } },
      "a `__Host-` cookie needs `session.cookie.secure` to be true or 'auto', got false",
    ],
    [
      { name: '__Secure-id', cookie: { secure: false } },
      "a `__Secure-` cookie needs `session.cookie.secure` to be true or 'auto', got false",
    ],
    [
      { cookie: { sameSite: 'none', secure: false } },
      "`session.cookie.sameSite: 'none'` needs `session.cookie.secure` to be true or 'auto', got false",
    ],
    [
      { cookie: { partitioned: true, secure: false } },
      "`session.cookie.partitioned` needs `session.cookie.secure` to be true or 'auto', got false",
    ],
    [{ cookie: { ...host, secure: true } }, 'accepted'],
    [{ cookie: { sameSite: 'none' } }, 'accepted'],
    [{ cookie: { partitioned: true, secure: true } }, 'accepted'],
  ])('cookies as browsers take them: %j', (session, expected) => expect(sentence({ session })).toBe(expected))
})

test('what a function of retries returns is checked when it is called', () => {
  expect(checkRetries(0)).toBe(0)
  expect(checkRetries(5)).toBe(5)
  for (const value of [-1, 1.5, NaN, '3', undefined, Infinity]) {
    expect(sentenceOf(() => checkRetries(value))).toMatch(
      /^`retry\.retries` must be a whole number of 0 or more, got /,
    )
  }
  expect(sentenceOf(() => checkRetries(Promise.resolve(3)))).toMatch(/got a promise$/)
  expect(sentenceOf(() => checkRetries(-1, 'transactional.retries'))).toMatch(
    /^`transactional\.retries` must be/,
  )
})
