/**
 * What a session costs by how many others there are: bytes that memoryStore keeps of each, and nanoseconds of a commit,
 * with 10 000 sessions and with 200 000. A commit must not cost more the more there are: what is left is what processor caches
 * and the garbage collector make of a larger heap. Without HTTP and without SQL.
 *
 * Bytes are what the heap has grown by after everything was collected. Commits go through all the sessions of a store in
 * an order that no cache foresees, as visitors do; and through the same 1 000 sessions of either, so that the processor's
 * caches, which hold fewer of many, are told from what the store does.
 */
import { spawnSync } from 'node:child_process'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { sessionKey } from '../lib/session/identity.js'
import { Attempts, startedMemoryStore } from './support/attempts.js'
import { median, print, printHeading, printTable, verdict } from './support/report.js'

const { gc } = globalThis
if (gc === undefined) {
  const { status } = spawnSync(process.execPath, ['--expose-gc', fileURLToPath(import.meta.url)], {
    stdio: 'inherit',
  })
  process.exit(status ?? 1)
}

const [FEW, MANY] = [10_000, 200_000]
const SAME = 1_000
const ROUNDS = 30
const COMMITS = 20_000
/** Without a common factor with the number of sessions: each has its turn. */
const STRIDE = 7_919

/** As an application would have it. */
const variablesOf = (number: number): Readonly<Record<string, unknown>> => ({
  user: number,
  visits: 0,
  cart: { items: [{ id: number, name: `article ${number}`, pieces: 1 }], coupon: 'none' },
})
const keyOf = (number: number): string => sessionKey(`visitor ${number}`)

function heapBytes(): number {
  gc?.()
  return process.memoryUsage().heapUsed
}

/** The least that anybody needs to keep the same: the values in a Map. */
function bareBytes(count: number): number {
  const before = heapBytes()
  const kept = new Map<string, unknown>()
  for (let number = 0; number < count; number++) kept.set(keyOf(number), variablesOf(number))
  return (heapBytes() - before) / kept.size
}

class Crowd {
  readonly count: number
  readonly bytesEach: number
  readonly nanos = { all: [] as number[], same: [] as number[] }
  readonly #store = startedMemoryStore({ sessionsMax: MANY })
  readonly #attempts = new Attempts(this.#store)
  #next = 0

  constructor(count: number) {
    this.count = count
    const before = heapBytes()
    for (let number = 0; number < count; number++) this.#attempts.keep(keyOf(number), variablesOf(number))
    this.bytesEach = (heapBytes() - before) / count
  }

  measure(): void {
    this.nanos.all.push(this.#commits(this.count))
    this.nanos.same.push(this.#commits(SAME))
  }

  /** Nanoseconds of a commit, in turn to so many sessions. */
  #commits(sessions: number): number {
    const keys = Array.from({ length: COMMITS }, () => {
      this.#next = (this.#next + STRIDE) % sessions
      return keyOf(this.#next)
    })
    const startMs = performance.now()
    for (const key of keys)
      this.#attempts.run(key, copy => copy.set('visits', Number(copy.get('visits')) + 1))
    return ((performance.now() - startMs) * 1e6) / COMMITS
  }

  async close(): Promise<void> {
    const { live } = this.#store.counts()
    if (live !== this.count) throw new Error(`${live} sessions are left of ${this.count}`)
    await this.#store.close()
  }
}

printHeading(`session-tx, cost of many sessions: ${ROUNDS} alternations of ${COMMITS} commits`)
const bare = bareBytes(MANY)
const few = new Crowd(FEW)
const many = new Crowd(MANY)
// One for the compiler, which is not counted.
for (let round = 0; round <= ROUNDS; round++)
  for (const crowd of round % 2 === 0 ? [few, many] : [many, few]) crowd.measure()

print()
print(`three variables, ${JSON.stringify(variablesOf(MANY)).length} bytes as JSON`)
printTable([
  ['sessions', 'bytes of each', 'commit, all in turn', `commit, the same ${SAME}`],
  ...[few, many].map(({ count, bytesEach, nanos }) => [
    String(count),
    bytesEach.toFixed(0),
    `${median(nanos.all.slice(1)).toFixed(0)} ns`,
    `${median(nanos.same.slice(1)).toFixed(0)} ns`,
  ]),
  ['for comparison: the values in a Map', bare.toFixed(0), '', ''],
])
print(`  bytes of each, ${MANY} to ${FEW}: ${verdict(many.bytesEach / few.bytesEach, { atMost: 1.1 })}`)
print(`  commit, the same ${SAME}, ${MANY} to ${FEW}: ${ratio('same').toFixed(2)}`)
print(`  commit, all in turn, ${MANY} to ${FEW}: ${ratio('all').toFixed(2)}`)

function ratio(of: keyof Crowd['nanos']): number {
  const each = many.nanos[of].map((nanos, round) => nanos / (few.nanos[of][round] ?? Number.NaN))
  return median(each.slice(1))
}
await few.close()
await many.close()
