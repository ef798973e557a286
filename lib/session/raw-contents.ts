/**
 * Remembers the contents of objects that the handler made itself and put into its session, so that a savepoint can put
 * them back in place. Knows nothing of drafts but that it must not look into them.
 */
import { type Fields, kindOf } from './value.js'

/**
 * Copies everything reachable from `roots`, one level per object, and returns what puts it all back. Objects that a
 * session could not hold (class instances, functions) are left alone: a commit would refuse them anyway.
 */
export function saveRawContents(roots: Iterable<unknown>, isOurs: (value: object) => boolean): () => void {
  const found = new Set<object>()
  const restores: (() => void)[] = []
  const look = (value: unknown): void => {
    if (typeof value === 'object' && value !== null && !isOurs(value)) found.add(value)
  }
  for (const root of roots) look(root)
  // A Set shows its iteration what is added meanwhile: a queue that ends with cycles, and no recursion.
  for (const value of found) restores.push(saveOne(value, look))
  return () => {
    for (const restore of restores) restore()
  }
}

function saveOne(value: object, look: (part: unknown) => void): () => void {
  switch (kindOf(value)) {
    case 'object':
      return saveFields(value as Fields, look)
    case 'array':
      return saveItems(value as unknown[], look)
    case 'map':
      return saveMap(value as Map<unknown, unknown>, look)
    case 'set':
      return saveSet(value as Set<unknown>, look)
    case 'date': {
      const timeMs = (value as Date).getTime()
      return () => void (value as Date).setTime(timeMs)
    }
    case 'bytes': {
      const saved = (value as Uint8Array).slice()
      return () => (value as Uint8Array).length === saved.length && (value as Uint8Array).set(saved)
    }
    default:
      return () => {}
  }
}

/** By descriptors, so that no getter of the application runs. */
function saveFields(value: Fields, look: (part: unknown) => void): () => void {
  const saved = new Map<PropertyKey, PropertyDescriptor>()
  for (const key of Reflect.ownKeys(value)) {
    const property = Reflect.getOwnPropertyDescriptor(value, key)
    if (property === undefined) continue
    saved.set(key, property)
    look(property.value)
  }
  return () => {
    if (hasSame(value, saved)) return
    // All out and in again brings back the order of keys. What takes no new keys must not lose its old ones.
    if (Object.isExtensible(value))
      for (const key of Reflect.ownKeys(value)) Reflect.deleteProperty(value, key)
    for (const [key, property] of saved) Reflect.defineProperty(value, key, property)
  }
}

function hasSame(value: object, saved: ReadonlyMap<PropertyKey, PropertyDescriptor>): boolean {
  const keys = Reflect.ownKeys(value)
  const savedKeys = [...saved.keys()]
  if (keys.length !== savedKeys.length) return false
  return keys.every((key, index) => {
    const property = Reflect.getOwnPropertyDescriptor(value, key)
    return key === savedKeys[index] && Object.is(property?.value, saved.get(key)?.value)
  })
}

function saveItems(value: unknown[], look: (part: unknown) => void): () => void {
  const saved = value.slice() // keeps holes
  saved.forEach(look)
  return () => {
    if (Object.isFrozen(value)) return
    if (!Reflect.set(value, 'length', saved.length)) return
    for (let index = 0; index < saved.length; index++) {
      if (index in saved) Reflect.set(value, index, saved[index])
      else Reflect.deleteProperty(value, index)
    }
  }
}

function saveMap(value: Map<unknown, unknown>, look: (part: unknown) => void): () => void {
  const saved = [...value]
  for (const [, part] of saved) look(part)
  return () => {
    value.clear()
    for (const [key, part] of saved) value.set(key, part)
  }
}

function saveSet(value: Set<unknown>, look: (part: unknown) => void): () => void {
  const saved = [...value]
  saved.forEach(look)
  return () => {
    value.clear()
    for (const part of saved) value.add(part)
  }
}
