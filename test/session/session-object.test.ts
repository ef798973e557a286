/** `ctx.session` as an object: variables, members beside them, and everything that programs do with objects. */
import { inspect } from 'node:util'
import { DEFAULTS } from '../../lib/options.js'
import { DraftScope } from '../../lib/session/draft.js'
import { newSessionId, sessionKey } from '../../lib/session/identity.js'
import { type SessionObject, sessionObject } from '../../lib/session/session-object.js'
import { WorkingCopy } from '../../lib/session/working-copy.js'
import { sessionMembers } from '../docs/names.js'
import { heldSession } from '../support/held-session.js'

async function sessionWith(variables: Readonly<Record<string, unknown>>): Promise<SessionObject> {
  const { opened, id } = await heldSession(variables)
  return objectOver(opened === undefined ? {} : { opened, id })
}

function objectOver(parts: Partial<ConstructorParameters<typeof WorkingCopy>[0]>): SessionObject {
  const copy = new WorkingCopy({
    store: 'memory',
    opened: undefined,
    id: undefined,
    bereaved: false,
    drafts: new DraftScope(),
    assertUsable: () => {},
    assertWritable: () => {},
    merges: () => false,
    lose: () => {},
    ...parts,
  })
  return sessionObject(copy, {
    cookie: { ...DEFAULTS.session.cookie, name: 'sid' },
    wish: { assigned: false, expires: undefined },
    wallNow: () => Date.UTC(2030, 0, 1),
    renewed: () => {},
  })
}

const MEMBERS = sessionMembers

describe('variables', () => {
  test('are read, written, listed and deleted like properties', async () => {
    const session = await sessionWith({ a: 1, b: { c: [1] } })
    session['d'] = 2
    delete session['a']
    expect(session['a']).toBeUndefined()
    expect(session['b']).toEqual({ c: [1] })
    expect(Object.keys(session)).toEqual(['b', 'd'])
    expect(Object.entries(session)).toEqual([
      ['b', { c: [1] }],
      ['d', 2],
    ])
    const names: string[] = []
    for (const name in session) names.push(name)
    expect(names).toEqual(['b', 'd'])
  })

  test('are what spread, Object.assign and destructuring see', async () => {
    const session = await sessionWith({ a: 1, b: 2, c: 3 })
    const { a, ...rest } = session
    expect([a, rest]).toEqual([1, { b: 2, c: 3 }])
    expect({ ...session }).toEqual({ a: 1, b: 2, c: 3 })
    expect(Object.assign({}, session)).toEqual({ a: 1, b: 2, c: 3 })
    expect(Object.assign(session, { d: 4 })['d']).toBe(4)
  })

  test('are what `in` and hasOwn find, members and Object.prototype aside', async () => {
    const session = await sessionWith({ a: 1 })
    expect(['a' in session, 'b' in session, 'id' in session, 'toString' in session]).toEqual([
      true,
      false,
      true,
      true,
    ])
    expect([Object.hasOwn(session, 'a'), Object.hasOwn(session, 'b'), Object.hasOwn(session, 'id')]).toEqual([
      true,
      false,
      false,
    ])
    expect(Object.prototype.hasOwnProperty.call(session, 'a')).toBe(true)
    delete session['a']
    expect(['a' in session, Object.hasOwn(session, 'a')]).toEqual([false, false])
  })

  test('given undefined are removed: a session has no variable without a value', async () => {
    const session = await sessionWith({ a: 1 })
    session['a'] = undefined
    expect(['a' in session, Object.keys(session)]).toEqual([false, []])
  })

  test('may be null, false, 0 and the empty string', async () => {
    const session = await sessionWith({ a: null, b: false, c: 0, d: '' })
    expect({ ...session }).toEqual({ a: null, b: false, c: 0, d: '' })
    expect('a' in session).toBe(true)
  })

  test('are the same object at every read', async () => {
    const session = await sessionWith({ list: [{ n: 1 }] })
    expect(session['list']).toBe(session['list'])
    const list = session['list'] as object[]
    expect(list[0]).toBe(list[0])
    expect(Object.values(session)[0]).toBe(list)
  })

  test('can be defined with a value, not with an accessor', async () => {
    const session = await sessionWith({})
    Object.defineProperty(session, 'a', { value: 1, writable: true, enumerable: true, configurable: true })
    expect(session['a']).toBe(1)
    expect(() => Object.defineProperty(session, 'b', { get: () => 1, configurable: true })).toThrow(TypeError)
    expect(Object.getOwnPropertyDescriptor(session, 'a')).toEqual({
      value: 1,
      writable: true,
      enumerable: true,
      configurable: true,
    })
  })

  test('have strings as names, not symbols', async () => {
    const session = await sessionWith({})
    const bad = expect.objectContaining({ code: 'SESSION_VALUE' })
    expect(() => Reflect.set(session, Symbol('s'), 1)).toThrow(bad)
    expect(() => Reflect.deleteProperty(session, Symbol('s'))).toThrow(bad)
    expect(Reflect.get(session, Symbol('s'))).toBeUndefined()
  })

  test.each(['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'valueOf', 'then', 'length', '0'])(
    'may be called %s',
    async name => {
      const session = await sessionWith({})
      session[name] = { polluted: true }
      expect(session[name]).toEqual({ polluted: true })
      expect(Object.keys(session)).toEqual([name])
      expect(Object.getPrototypeOf(session)).toBe(Object.prototype)
      expect(({} as { polluted?: unknown }).polluted).toBeUndefined()
      expect(Object.keys(JSON.parse(JSON.stringify(session)) as object)).toEqual([name])
      expect(Object.keys({ ...session })).toEqual([name])
      delete session[name]
      expect(Object.hasOwn(session, name)).toBe(false)
    },
  )

  test('that are absent show what every object has', async () => {
    const session = await sessionWith({})
    expect(Reflect.get(session, 'toString')).toBe(Reflect.get(Object.prototype, 'toString'))
    expect(`${session as unknown as string}`).toBe('[object Object]')
    expect(session['constructor']).toBe(Object)
    expect(session['then']).toBeUndefined()
    await expect(Promise.resolve(session)).resolves.toBe(session)
  })
})

describe('members', () => {
  test('are there, and neither listed nor copied', async () => {
    const session = await sessionWith({ a: 1 })
    for (const member of MEMBERS) expect(member in session).toBe(true)
    expect(Object.keys(session)).toEqual(['a'])
    expect(Object.getOwnPropertyNames(session)).toEqual(['a'])
    expect(Reflect.ownKeys(session)).toEqual(['a'])
    expect(JSON.parse(JSON.stringify(session))).toEqual({ a: 1 })
  })

  test.each(MEMBERS.filter(member => member !== 'maxAge'))('cannot be written over: %s', async member => {
    const session = await sessionWith({})
    const bad = expect.objectContaining({ code: 'SESSION_VALUE', message: expect.stringContaining(member) })
    expect(() => Reflect.set(session, member, 1)).toThrow(bad)
    expect(() => Object.assign(session, { [member]: 1 })).toThrow(bad)
    expect(() => Reflect.deleteProperty(session, member)).toThrow(bad)
  })

  test('id and isNew tell a stored session from a new one', async () => {
    const { opened, id } = await heldSession({ a: 1 })
    const stored = objectOver({ opened, id })
    expect([stored.id, stored.isNew]).toEqual([id, false])
    const fresh = objectOver({})
    expect(fresh.isNew).toBe(true)
    expect(fresh.id).toMatch(/^[\w-]{43}$/)
    expect(fresh.id).toBe(fresh.id)
  })

  test('an id that came with the request and is not known is not taken over', () => {
    const id = newSessionId()
    expect(objectOver({ id }).id).not.toBe(id)
  })

  test('maxAge can be set', async () => {
    const session = await sessionWith({})
    session.maxAge = 5_000
    expect(session.maxAge).toBe(5_000)
    session.maxAge = undefined
    expect(session.maxAge).toBeUndefined()
  })

  test('methods work detached, and may be awaited', async () => {
    const session = await sessionWith({ a: 1, b: 2 })
    const { id } = session
    const detached = Object.fromEntries(
      (['regenerate', 'save', 'touch'] as const).map(name => [name, session[name]]),
    )
    void detached['touch']?.()
    await detached['save']?.()
    await detached['regenerate']?.({ keep: ['b'] })
    expect([{ ...session }, session.id === id, session.isNew]).toEqual([{ b: 2 }, false, true])
  })

  test('reload forgets what this attempt changed', async () => {
    const session = await sessionWith({ a: 1, list: [1] })
    session['a'] = 2
    session['b'] = 3
    ;(session['list'] as number[]).push(2)
    await session.reload()
    expect({ ...session }).toEqual({ a: 1, list: [1] })
  })
})

describe('shown', () => {
  test('by console.log: the variables, as plain data', async () => {
    const session = await sessionWith({ a: 1, nested: { list: [1] } })
    session['b'] = 2
    expect(inspect(session)).toBe(inspect({ a: 1, nested: { list: [1] }, b: 2 }))
    expect(inspect(session, { depth: 5 })).not.toContain('WorkingCopy')
    expect(inspect({ session })).toContain('list')
  })

  test('by console.log: the values, whatever they are made of', async () => {
    const values = {
      list: [{ n: 1 }, [2]],
      map: new Map<unknown, unknown>([['k', { deep: [1] }]]),
      set: new Set(['a']),
      at: new Date(0),
      bytes: new Uint8Array([1]),
      big: 1n,
    }
    const session = await sessionWith(values)
    const deep = { depth: 9 }
    for (const [name, value] of Object.entries(values)) {
      expect(inspect(session[name], deep)).toBe(inspect(value, deep))
    }
    ;(session['list'] as unknown[]).push('more')
    expect(inspect(session['list'], deep)).toBe(inspect([...values.list, 'more'], deep))
  })

  test('the id is not among it', async () => {
    const { opened, id } = await heldSession({ a: 1 })
    const session = objectOver({ opened, id })
    for (const shown of [
      inspect(session, { showHidden: true, depth: 9 }),
      JSON.stringify(session),
      `${session as unknown as string}`,
    ]) {
      expect(shown).not.toContain(id)
      expect(shown).not.toContain(sessionKey(id))
    }
  })

  test('destroyed: that it is', async () => {
    const session = await sessionWith({ a: 1 })
    await session.destroy()
    expect(inspect(session)).toContain('session destroyed')
  })
})

describe('destroyed', () => {
  test.each<readonly [string, (session: SessionObject) => unknown]>([
    ['reading', session => session['a']],
    ['writing', session => Reflect.set(session, 'a', 1)],
    ['deleting', session => Reflect.deleteProperty(session, 'a')],
    ['listing', session => Object.keys(session)],
    ['`in`', session => 'a' in session],
    ['JSON', session => JSON.stringify(session)],
    ['spreading', session => ({ ...session })],
    ['regenerate', session => session.regenerate()],
  ])('%s throws SESSION_DESTROYED', async (_, use) => {
    const session = await sessionWith({ a: 1 })
    await session.destroy()
    await expect((async () => use(session))()).rejects.toMatchObject({ code: 'SESSION_DESTROYED' })
  })

  test('destroying again is no mistake', async () => {
    const session = await sessionWith({ a: 1 })
    await session.destroy()
    await expect(session.destroy()).resolves.toBeUndefined()
  })
})

describe('what an object cannot be made to do', () => {
  test('change its prototype, be frozen', async () => {
    const session = await sessionWith({ a: 1 })
    expect(() => Object.setPrototypeOf(session, {})).toThrow(TypeError)
    expect(() => Object.freeze(session)).toThrow(TypeError)
    expect(() => Object.preventExtensions(session)).toThrow(TypeError)
    expect(Object.isFrozen(session)).toBe(false)
  })
})
