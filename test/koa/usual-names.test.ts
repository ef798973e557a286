/** Names are asked for once for objects that all come alike, and again for one that does not. */
import { EventEmitter } from 'node:events'
import { ownNames, usualEvents, usualNames } from '../../lib/http/usual-names.js'

const hidden = Symbol('hidden')

test('what is hidden on the first is expected on those that look alike, without being asked for', () => {
  let asked = 0
  const names = usualNames(object => {
    asked += 1
    return ownNames(object)
  })
  const alike = (): object => Object.defineProperty({ a: 1, [hidden]: 2 }, 'b', { value: 3 })
  expect(names(alike())).toEqual(['a', 'b', hidden])
  expect(names(alike())).toEqual(['a', 'b', hidden])
  expect(asked).toBe(1)
})

test.each([
  ['one more', { a: 1, c: 2 }, ['a', 'c']],
  ['another', { c: 1 }, ['c']],
  ['none', {}, []],
])('%s is seen, and so is the next one that is as the first', (_what, other, expected) => {
  const names = usualNames(ownNames)
  expect(names({ a: 1 })).toEqual(['a'])
  expect(names(other)).toEqual(expected)
  expect(names({ a: 1 })).toEqual(['a'])
})

test('of a few hundred alike one is asked all the same', () => {
  const names = usualNames(ownNames)
  names({ a: 1 })
  const later = Array.from({ length: 300 }, () => names({ a: 1, ...{ [hidden]: 2 } }))
  expect(later[0]).toEqual(['a'])
  expect(later.at(-1)).toEqual(['a', hidden])
})

test('an event that somebody listens to is seen', () => {
  const events = usualEvents()
  const listening = (...names: string[]): EventEmitter => {
    const emitter = new EventEmitter()
    for (const name of names) emitter.on(name, () => {})
    return emitter
  }
  expect(events(listening())).toEqual([])
  expect(events(listening('close'))).toEqual(['close'])
  expect(events(listening('close', 'end'))).toEqual(['close', 'end'])
})
