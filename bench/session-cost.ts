/**
 * What reading and committing a session costs, by the size of the session: nanoseconds and bytes allocated, without HTTP
 * and without SQL. A commit must cost what it changes, and reading one variable must copy nothing.
 *
 * Measured on the parts themselves: memoryStore, a working copy, the session as a participant, one attempt after the other.
 */
import { spawnSync } from 'node:child_process'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import type { WorkingCopy } from '../lib/session/working-copy.js'
import { Attempts, startedMemoryStore } from './support/attempts.js'
import { median, print, printHeading, printTable, verdict } from './support/report.js'

/** So much space for young objects that nothing is collected while bytes are counted. */
const FLAGS = ['--expose-gc', '--min-semi-space-size=64', '--max-semi-space-size=64']

const { gc } = globalThis
if (gc === undefined) {
  const { status } = spawnSync(process.execPath, [...FLAGS, fileURLToPath(import.meta.url)], {
    stdio: 'inherit',
  })
  process.exit(status ?? 1)
}
const collectGarbage = (): void => {
  gc()
}

const ROUNDS = 15
const ATTEMPTS = 2_000

interface Cost {
  readonly nanos: number
  readonly bytes: number
}

const store = startedMemoryStore()
const attempts = new Attempts(store)

function attemptsOn(key: string, work: (copy: WorkingCopy, count: number) => void): (count: number) => void {
  return count => {
    attempts.run(key, copy => work(copy, count))
  }
}

type Operations = Readonly<Record<string, (count: number) => void>>

/** In turn, so that whatever disturbs the machine disturbs all of them alike; medians. */
function measure(operations: Operations, repeated = ATTEMPTS): Record<string, Cost> {
  const nanos = (operation: (count: number) => void): number => {
    const startMs = performance.now()
    for (let count = 0; count < repeated; count++) operation(count)
    return ((performance.now() - startMs) * 1e6) / repeated
  }
  const bytes = (operation: (count: number) => void): number => {
    collectGarbage()
    const { heapUsed } = process.memoryUsage()
    for (let count = 0; count < repeated; count++) operation(count)
    return (process.memoryUsage().heapUsed - heapUsed) / repeated
  }
  alternate(operations, nanos, 2) // for the compiler
  const times = alternate(operations, nanos, ROUNDS)
  // Apart from the times, because a forced collection also throws compiled code away.
  const sizes = alternate(operations, bytes, 3)
  return Object.fromEntries(
    Object.keys(operations).map(name => [name, { nanos: times[name] ?? 0, bytes: sizes[name] ?? 0 }]),
  )
}

function alternate(
  operations: Operations,
  one: (operation: (count: number) => void) => number,
  rounds: number,
): Record<string, number> {
  const entries = Object.entries(operations).map(([name, operation]) => ({
    name,
    operation,
    samples: [] as number[],
  }))
  for (let round = 0; round < rounds; round++) {
    for (const { operation, samples } of round % 2 === 0 ? entries : entries.toReversed())
      samples.push(one(operation))
  }
  return Object.fromEntries(entries.map(({ name, samples }) => [name, median(samples)]))
}

function printCosts(costs: Readonly<Record<string, Cost>>): void {
  const rows = Object.entries(costs).map(([name, { nanos, bytes }]) => [
    name,
    `${nanos.toFixed(0)} ns`,
    `${bytes.toFixed(0)} bytes`,
  ])
  printTable([['per attempt', 'time', 'allocated'], ...rows])
}

const ratio = (costs: Readonly<Record<string, Cost>>, one: string, other: string, of: keyof Cost): number =>
  (costs[one]?.[of] ?? Number.NaN) / (costs[other]?.[of] ?? Number.NaN)

const variables = (count: number, value: (index: number) => unknown): Record<string, unknown> =>
  Object.fromEntries(Array.from({ length: count }, (_, index) => [`variable${index}`, value(index)]))

const cart = (): unknown => ({ items: [{ id: 1, pieces: 2 }], coupon: 'none' })

printHeading(`session-tx, cost of a session: ${ROUNDS} alternations of ${ATTEMPTS} attempts`)

// ── many variables ───────────────────────────────────────────────────────────────────────────────────────────────

attempts.keep('10 variables', variables(10, cart))
attempts.keep('1000 variables', variables(1_000, cart))
const many = measure({
  'commit one number, of 10 variables': attemptsOn('10 variables', (copy, count) =>
    copy.set('variable5', count),
  ),
  'commit one number, of 1000 variables': attemptsOn('1000 variables', (copy, count) =>
    copy.set('variable5', count),
  ),
  'commit one change inside an object, of 10': attemptsOn('10 variables', addPiece),
  'commit one change inside an object, of 1000': attemptsOn('1000 variables', addPiece),
  'read one object, of 10 variables': attemptsOn('10 variables', copy => void copy.get('variable7')),
  'read one object, of 1000 variables': attemptsOn('1000 variables', copy => void copy.get('variable7')),
})

function addPiece(copy: WorkingCopy): void {
  const { items } = copy.get('variable6') as { items: { pieces: number }[] }
  const first = items[0]
  if (first !== undefined) first.pieces += 1
}

print()
printCosts(many)
const numbers = ['commit one number, of 1000 variables', 'commit one number, of 10 variables'] as const
const insides = [
  'commit one change inside an object, of 1000',
  'commit one change inside an object, of 10',
] as const
const reads = ['read one object, of 1000 variables', 'read one object, of 10 variables'] as const
print(
  `  commit of one variable, 1000 to 10, time: ${verdict(ratio(many, ...numbers, 'nanos'), { atMost: 3 })}`,
)
print(
  `  commit inside an object, 1000 to 10, time: ${verdict(ratio(many, ...insides, 'nanos'), { atMost: 3 })}`,
)
print(`  commit of one variable, 1000 to 10, bytes: ${ratio(many, ...numbers, 'bytes').toFixed(2)}`)
print(
  `  read of one variable, 1000 to 10, bytes: ${verdict(ratio(many, ...reads, 'bytes'), { atMost: 1.1 })}`,
)

// ── one large variable ───────────────────────────────────────────────────────────────────────────────────────────

const LARGE = 10_000
const line = (index: number): unknown => ({ id: index, name: `article ${index}`, pieces: 1 })
const lines = (count: number): unknown[] => Array.from({ length: count }, (_, index) => line(index))
attempts.keep('small', { lines: lines(10) })
attempts.keep('large', { lines: lines(LARGE) })
const text = JSON.stringify(lines(LARGE))

const readLine = (copy: WorkingCopy): void => void (copy.get('lines') as { pieces: number }[])[5]?.pieces
const large = measure({
  'read one line of 10': attemptsOn('small', readLine),
  [`read one line of ${LARGE}`]: attemptsOn('large', readLine),
})
const changes = measure(
  {
    'change one line of 10': attemptsOn('small', changeLine),
    [`change one line of ${LARGE}`]: attemptsOn('large', changeLine),
    [`for comparison: JSON.parse and JSON.stringify of ${LARGE}`]: () =>
      void JSON.stringify(JSON.parse(text)),
  },
  20,
)

function changeLine(copy: WorkingCopy): void {
  const third = (copy.get('lines') as { pieces: number }[])[3]
  if (third !== undefined) third.pieces += 1
}

print()
print(`one variable, an array of ${LARGE} objects (${(text.length / 1024).toFixed(0)} KiB as JSON)`)
printCosts({ ...large, ...changes })
const readRatio = ratio(large, `read one line of ${LARGE}`, 'read one line of 10', 'bytes')
print(`  read of one line, ${LARGE} to 10, bytes: ${verdict(readRatio, { atMost: 1.1 })}`)
await store.close()
