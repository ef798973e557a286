/** Which transaction is running here: across awaits, timers and both builds of the package. */
import { EventEmitter } from 'node:events'
import { setTimeout as later } from 'node:timers/promises'
import { current, runAs } from '../../lib/transaction/current.js'

type Current = typeof import('../../lib/transaction/current.js')

const A = { name: 'a' }
const B = { name: 'b' }

test('outside: undefined', () => {
  expect(current()).toBeUndefined()
})

test('it follows awaits, timers and microtasks, and ends where it began', async () => {
  const seen: unknown[] = []
  await runAs(A, async () => {
    seen.push(current())
    await Promise.resolve()
    seen.push(current())
    await later(1)
    seen.push(current())
    await new Promise<void>(resolve => setImmediate(() => resolve(void seen.push(current()))))
    queueMicrotask(() => seen.push(current()))
    await Promise.all([later(1).then(() => seen.push(current()))])
  })
  expect(seen).toEqual([A, A, A, A, A, A])
  expect(current()).toBeUndefined()
})

test('two that run at once do not see each other', async () => {
  const follow = (own: object): Promise<void> =>
    runAs(own, async () => {
      for (let turn = 0; turn < 10; turn++) {
        await Promise.resolve()
        expect(current()).toBe(own)
      }
    })
  await Promise.all([follow(A), follow(B)])
})

test('the innermost counts, and undefined hides it: hooks after the outcome are outside', () => {
  runAs(A, () => {
    runAs(B, () => expect(current()).toBe(B))
    runAs(undefined, () => expect(current()).toBeUndefined())
    expect(current()).toBe(A)
  })
})

test('a listener runs where the event is emitted, not where it was added', () => {
  const emitter = new EventEmitter()
  const seen: unknown[] = []
  runAs(A, () => emitter.on('row', () => seen.push(current())))
  emitter.emit('row')
  runAs(B, () => emitter.emit('row'))
  expect(seen).toEqual([undefined, B])
})

test('what throws ends it, too', () => {
  expect(() =>
    runAs(A, () => {
      throw new Error('a bug')
    }),
  ).toThrow('a bug')
  expect(current()).toBeUndefined()
})

test('both builds of the package, loaded at once, share it', () => {
  const load = (): Current => {
    let loaded: Current | undefined
    jest.isolateModules(() => {
      loaded = jest.requireActual<Current>('../../lib/transaction/current.js')
    })
    if (loaded === undefined) throw new Error('not loaded')
    return loaded
  }
  const [one, other] = [load(), load()]
  expect(one.current).not.toBe(other.current)
  one.runAs(A, () => {
    expect(other.current()).toBe(A)
    other.runAs(B, () => expect(one.current()).toBe(B))
  })
})
