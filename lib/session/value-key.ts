/** Texts that are equal for equal session values, whatever the order of an object's keys. Knows nothing of sessions. */

/** Type-tagged, so 1, '1' and 1n differ, and Map, Set, Date and bytes have contents. */
export function keyOf(value: unknown): string {
  return JSON.stringify(tagged(value))
}

function tagged(value: unknown): unknown {
  if (typeof value === 'bigint') return ['n', value.toString()]
  if (typeof value !== 'object' || value === null) return [typeof value, value]
  if (Array.isArray(value)) return ['a', value.map(tagged)]
  if (value instanceof Date) return ['d', value.getTime()]
  if (value instanceof Uint8Array) return ['b', Buffer.from(value).toString('base64')]
  if (value instanceof Map) return ['m', [...value].map(([key, item]) => [tagged(key), tagged(item)])]
  if (value instanceof Set) return ['s', [...value].map(tagged)]
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return ['o', entries.map(([key, item]) => [key, tagged(item)])]
}
