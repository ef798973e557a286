/**
 * Objects that hang on a request and are changed in place (a parsed body, `ctx.state`, `res.locals`): what was in them
 * before the first attempt, and the same again for each later one. Knows no framework.
 */

/** One property of `holder` that has an object as its value. */
export interface KeptContents {
  /** A fresh copy of what was there takes the place of what an attempt made of it. */
  restore(): void
}

/** Undefined if there is no object of its own to keep (Express 5 has a getter above it). @throws DataCloneError if `copy` cannot copy what it holds */
function keep(holder: object, name: string, copy: (value: object) => object): KeptContents | undefined {
  const value = (holder as Record<string, unknown>)[name]
  if (typeof value !== 'object' || value === null || !Object.hasOwn(holder, name)) return undefined
  const kept = copy(value)
  return { restore: () => void ((holder as Record<string, unknown>)[name] = copy(kept)) }
}

/** What something above us has parsed: data, which handlers change at any depth. */
export function keepParsed(holder: object, name: string): KeptContents | undefined {
  return keep(holder, name, copyOfData)
}

/** Where middleware and handlers put things for each other: those are the application's own, so only their places are kept. */
export function keepPlaces(holder: object, name: string): KeptContents | undefined {
  return keep(holder, name, shallowCopy)
}

/** `structuredClone` takes microseconds, and most of what is parsed is flat: parameters, cookies, a form. */
function copyOfData(value: object): object {
  if (Buffer.isBuffer(value)) return Buffer.from(value) // a clone would be a Uint8Array
  const isFlat = isPlain(value) && Object.values(value).every(isData)
  return isFlat ? shallowCopy(value) : withPrototypeOf(value, structuredClone(value))
}

function shallowCopy(value: object): object {
  if (Array.isArray(value)) return [...(value as readonly unknown[])]
  return Object.assign(Object.create(Object.getPrototypeOf(value) as object | null) as object, value)
}

/** `structuredClone` gives every object the ordinary prototype; parsers often leave it out. */
function withPrototypeOf(original: object, copy: object): object {
  if (Object.getPrototypeOf(original) === null) Object.setPrototypeOf(copy, null)
  return copy
}

function isData(value: unknown): boolean {
  return value === null || (typeof value !== 'object' && typeof value !== 'function')
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === null || prototype === Object.prototype
}
