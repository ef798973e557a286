/**
 * memoryStore beyond the contract that all stores keep (memory-contract.test.ts): its bounds, its sweeps, what it
 * keeps alive and what its operations cost.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { memoryStore, type MemoryStoreOptions, sessionTx } from 'session-tx'
import { EventHub, type EventName } from '../../lib/events.js'
import type { OpenSession, SessionSnapshot, SessionStore, StoreSettings } from '../../lib/session/store.js'
import { type Wish, Writer } from '../../lib/testing/session-writer.js'
import { FakeClock } from '../support/clock.js'

const IDLE_MS = 60_000
const GRANULARITY_MS = 1_000
/** What the store counts for a session beside its variables. */
const RECORD_BYTES = 200

interface Bench {
  readonly store: SessionStore
  readonly clock: FakeClock
  readonly events: string[]
  readonly write: (key: string, wish: Wish) => Promise<void>
  readonly open: (key: string) => Promise<OpenSession>
  readonly has: (key: string) => Promise<boolean>
}

const WATCHED: readonly EventName[] = ['session:evicted', 'session:expired', 'session:destroyed']

function bench(options: MemoryStoreOptions = {}, settings: Partial<StoreSettings> = {}): Bench {
  const store = memoryStore(options)
  const clock = new FakeClock()
  const hub = new EventHub()
  const events: string[] = []
  for (const name of WATCHED) {
    hub.on(name, payload =>
      events.push([name, ...Object.values(payload as Record<string, string>)].join(' ')),
    )
  }
  store.start({
    clock,
    events: hub,
    idleMs: IDLE_MS,
    absoluteMs: false,
    touchGranularityMs: GRANULARITY_MS,
    ...settings,
  })
  const open = async (key: string): Promise<OpenSession> => {
    const opened = await store.open(key)
    if (opened === undefined) throw new Error(`${key} is not there`)
    return opened
  }
  return {
    store,
    clock,
    events,
    open,
    has: async key => {
      const opened = await store.open(key)
      opened?.release()
      return opened !== undefined
    },
    write: async (key, wish) => {
      const there = await store.open(key)
      there?.release()
      const writer =
        there === undefined ? await Writer.creating({ store }, key) : await Writer.of({ store }, key)
      await writer.wants(wish).commit()
    },
  }
}

const text = (bytes: number): string => 'x'.repeat(bytes - 2)

describe('bounds', () => {
  test('by number: the least recently used session goes, and it is said which', async () => {
    const { write, has, store, events } = bench({ sessionsMax: 3 })
    for (const key of ['a', 'b', 'c']) await write(key, { set: { n: 1 } })
    expect(await has('a')).toBe(true)
    await write('d', { set: { n: 1 } })
    expect(events).toEqual(['session:evicted b'])
    expect([await has('b'), await has('a'), await has('c'), await has('d')]).toEqual([
      false,
      true,
      true,
      true,
    ])
    expect(store.counts().live).toBe(3)
  })

  test('by bytes: what a session grows by is made room for', async () => {
    const { write, has, store, events } = bench({ bytesMax: 3 * (1_000 + RECORD_BYTES) })
    for (const key of ['a', 'b', 'c']) await write(key, { set: { t: text(1_000) } })
    expect(store.counts()).toEqual({ live: 3, sizeBytes: 3 * (1_000 + RECORD_BYTES) })
    await write('c', { set: { more: text(1_000) } })
    expect(events).toEqual(['session:evicted a'])
    expect([await has('b'), await has('c')]).toEqual([true, true])
    expect(store.counts()).toEqual({ live: 2, sizeBytes: 3_000 + 2 * RECORD_BYTES })
  })

  test('by bytes: what a session shrinks by is room again', async () => {
    const { write, store, events } = bench({ bytesMax: 3 * (1_000 + RECORD_BYTES) })
    for (const key of ['a', 'b', 'c']) await write(key, { set: { t: text(1_000) } })
    await write('a', { set: { t: undefined } })
    await write('d', { set: { t: text(800) } })
    expect(events).toEqual([])
    expect(store.counts().live).toBe(4)
  })

  test('a session that is larger than all room there is goes, and it is said', async () => {
    const { write, has, store, events } = bench({ bytesMax: 1_000 })
    await write('small', { set: { t: text(100) } })
    await write('a', { set: { t: text(2_000) } })
    expect(await has('a')).toBe(false)
    expect(events).toContain('session:evicted a')
    expect(store.counts().live).toBe(1)
  })

  test('sessions that are open are beyond both, and come back with the size they have then', async () => {
    const { write, open, has, store, events } = bench({
      sessionsMax: 2,
      bytesMax: 2 * (1_000 + RECORD_BYTES),
    })
    await write('a', { set: { t: text(500) } })
    const held = await open('a')
    for (const key of ['b', 'c', 'd']) await write(key, { set: { t: text(500) } })
    expect(events).toEqual(['session:evicted b'])
    expect(store.counts().live).toBe(3)
    await write('a', { set: { more: text(1_000) } })
    expect(events).toEqual(['session:evicted b'])
    held.release()
    expect(await has('a')).toBe(true)
    expect(events.slice(1)).toEqual(['session:evicted c'])
    expect(store.counts()).toEqual({ live: 2, sizeBytes: 2_000 + 2 * RECORD_BYTES })
  })

  test('eviction is counted, and warned of once', async () => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const tx = sessionTx({ store: memoryStore({ sessionsMax: 2 }) })
    for (let n = 0; n < 5; n++) {
      await tx.run((_tx, session) => {
        session['n'] = n
      })
    }
    expect(tx.stats().sessions).toMatchObject({ live: 2, evicted: 3 })
    expect(warn.mock.calls.map(([message]) => String(message))).toEqual([
      expect.stringContaining('memoryStore is full'),
    ])
    await tx.close()
    warn.mockRestore()
  })

  test.each([
    [{ sessionsMax: 0 }, 'sessionsMax'],
    [{ bytesMax: 1.5 }, 'bytesMax'],
    [{ sessionMax: 5 } as MemoryStoreOptions, 'sessionsMax, bytesMax'],
  ])('a bad option fails at once and names what it should be: %j', (options, named) => {
    expect(() => memoryStore(options)).toThrow(named)
  })
})

describe('idle expiry', () => {
  test('is never early and late by at most the granularity', async () => {
    const { write, has, clock, events, store } = bench()
    await write('a', { set: { n: 1 } })
    await write('b', { set: { n: 1 } })
    clock.advance(GRANULARITY_MS - 1)
    const touched = await store.open('a')
    // Too early to be written down, and still it counts.
    expect(touched?.touch()).toBe(false)
    touched?.release()
    clock.advance(IDLE_MS)
    expect(await has('a')).toBe(true)
    clock.advance(1)
    expect(await has('a')).toBe(false)
    expect(await has('b')).toBe(false)
    expect(events).toEqual(['session:expired a idle', 'session:expired b idle'])
  })

  test('reading alone does not move it, a commit does', async () => {
    const { write, has, clock } = bench()
    await write('a', { set: { n: 1 } })
    await write('b', { set: { n: 1 } })
    clock.advance(IDLE_MS / 2)
    await has('a')
    await write('b', { set: { n: 2 } })
    clock.advance(IDLE_MS / 2 + GRANULARITY_MS)
    expect([await has('a'), await has('b')]).toEqual([false, true])
  })

  test('of an open session waits until it is released, and is told once', async () => {
    const { write, open, has, clock, events } = bench()
    await write('a', { set: { n: 1 } })
    const held = await open('a')
    clock.advance(10 * IDLE_MS)
    expect(events).toEqual([])
    expect(held.snapshot().get('n')?.value).toBe(1)
    held.release()
    expect(await has('a')).toBe(false)
    clock.advance(10 * IDLE_MS)
    expect(events).toEqual(['session:expired a idle'])
  })
})

test('a session that an attempt has open has not expired for another one', async () => {
  const { write, open, clock, events } = bench()
  await write('a', { set: { n: 1 } })
  const held = await open('a')
  clock.advance(10 * IDLE_MS)
  const other = await open('a')
  expect(other.snapshot().get('n')?.value).toBe(1)
  held.touch()
  other.release()
  held.release()
  ;(await open('a')).release()
  expect(events).toEqual([])
})

describe('sweeps', () => {
  test('free what has expired without anybody asking for it', async () => {
    const { write, clock, store, events } = bench()
    for (let n = 0; n < 20; n++) await write(`k${n}`, { set: { n } })
    clock.advance(IDLE_MS + GRANULARITY_MS - 1)
    expect(store.counts().live).toBe(20)
    clock.advance(60_000)
    expect(store.counts()).toEqual({ live: 0, sizeBytes: 0 })
    expect(events).toHaveLength(20)
  })

  test('stop at the first session that is still alive when only idleness ends sessions', async () => {
    const { write, clock, store } = bench()
    await write('old', { set: { n: 1 } })
    clock.advance(IDLE_MS)
    await write('young', { set: { n: 1 } })
    clock.advance(60_000)
    expect(store.counts().live).toBe(1)
  })

  test('find the aged ones anywhere in the order when there is an absolute age', async () => {
    const { write, has, clock, events } = bench({}, { absoluteMs: 2 * IDLE_MS, idleMs: false })
    await write('aged', { set: { n: 1 } })
    clock.advance(IDLE_MS + 1)
    await write('young', { set: { n: 1 } })
    await has('aged')
    clock.advance(2 * IDLE_MS - IDLE_MS)
    expect(events).toEqual(['session:expired aged absolute'])
    expect(await has('young')).toBe(true)
  })

  test('absolute expiry is exact, however busy the session is', async () => {
    const { write, has, clock } = bench({}, { absoluteMs: 5_000 })
    await write('a', { set: { n: 1 } })
    clock.advance(4_999)
    await write('a', { set: { n: 2 } })
    expect(await has('a')).toBe(true)
    clock.advance(1)
    expect(await has('a')).toBe(false)
  })

  test('end with the store', () => {
    const { clock, store } = bench()
    expect(clock.pending).toHaveLength(1)
    void store.close()
    expect(clock.pending).toHaveLength(0)
  })
})

describe('a destroyed session', () => {
  test('is gone at once, also for the counts, though an attempt has it open', async () => {
    const { write, open, has, store, events } = bench()
    await write('a', { set: { t: text(100) } })
    const held = await open('a')
    await write('a', { destroys: true })
    expect(await has('a')).toBe(false)
    expect(store.counts()).toEqual({ live: 0, sizeBytes: 0 })
    held.release()
    expect(store.counts()).toEqual({ live: 0, sizeBytes: 0 })
    expect(events).toEqual(['session:destroyed a'])
  })

  test('whose key comes again is another session', async () => {
    const { write, open, store } = bench()
    await write('a', { set: { t: 1 } })
    const held = await open('a')
    await write('a', { destroys: true })
    const again = (await Writer.creating({ store }, 'a')).wants({ set: { other: 1 } })
    // The dead one is still open, and stays dead.
    expect(held.snapshot().names()).toEqual(['t'])
    void again.abort()
    held.release()
  })
})

describe('a superseded version', () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void

  async function collected(ref: WeakRef<object>): Promise<boolean> {
    for (let round = 0; round < 10 && ref.deref() !== undefined; round++) {
      // A WeakRef keeps its target until the end of the turn in which it was looked at.
      await new Promise(resolve => setImmediate(resolve))
      collect()
    }
    return ref.deref() === undefined
  }

  function valueOf(snapshot: SessionSnapshot): WeakRef<object> {
    return new WeakRef(snapshot.get('v')?.value as object)
  }

  test('is garbage as soon as nobody refers to it', async () => {
    const { write, open } = bench()
    await write('a', { set: { v: { n: 1 } } })
    const held = await open('a')
    const refs = [valueOf(held.snapshot())]
    for (let n = 2; n < 5; n++) {
      await write('a', { set: { v: { n } } })
      refs.push(valueOf(held.snapshot()))
    }
    expect(await Promise.all(refs.map(collected))).toEqual([true, true, true, false])
    held.release()
  })

  test('lives as long as somebody does, and not longer', async () => {
    const { write, open } = bench()
    await write('a', { set: { v: { n: 1 } } })
    const held = await open('a')
    const readers = [held.snapshot()]
    const old = valueOf(held.snapshot())
    const seen = (): unknown => (readers[0]?.get('v')?.value as { n: number } | undefined)?.n
    await write('a', { set: { v: { n: 2 } } })
    const between = valueOf(held.snapshot())
    await write('a', { set: { v: { n: 3 } } })
    expect(await collected(old)).toBe(false)
    expect(seen()).toBe(1)
    readers.pop()
    expect(await collected(old)).toBe(true)
    expect(await collected(between)).toBe(true)
    held.release()
  })
})

describe('cost', () => {
  /** How often anything is looked up in, put into or taken from any Map. */
  function mapCalls(work: () => void): number {
    const spies = (['get', 'set', 'has', 'delete'] as const).map(method => jest.spyOn(Map.prototype, method))
    work()
    const calls = spies.reduce((sum, spy) => sum + spy.mock.calls.length, 0)
    for (const spy of spies) spy.mockRestore()
    return calls
  }

  async function sessionOf(
    variables: number,
  ): Promise<{ readonly bench: Bench; readonly held: OpenSession }> {
    const made = bench()
    await made.write('a', {
      set: Object.fromEntries(Array.from({ length: variables }, (_, n) => [`v${n}`, n])),
    })
    return { bench: made, held: await made.open('a') }
  }

  test('of a commit is that of what it changes, whatever the size of the session', async () => {
    const calls: number[] = []
    for (const size of [10, 1_000]) {
      const { bench: made, held } = await sessionOf(size)
      const { claim } = (await Writer.of(made, 'a')).wants({ set: { v1: 'new' } })
      calls.push(
        mapCalls(() => {
          void claim.prepare()
          void claim.commit()
          claim.release()
        }),
      )
      held.release()
    }
    expect(calls[1]).toBe(calls[0])
    expect(calls[0]).toBeLessThan(40)
  })

  test('of a read of the newest snapshot is one lookup, of an old one a step per commit since', async () => {
    const { bench: made, held } = await sessionOf(10)
    const old = held.snapshot()
    expect(mapCalls(() => old.get('v1'))).toBe(1)
    for (let n = 0; n < 50; n++) await made.write('a', { set: { v2: n } })
    expect(mapCalls(() => old.get('v1'))).toBeLessThanOrEqual(51)
    expect(mapCalls(() => held.snapshot().get('v1'))).toBe(1)
    // The first commit that changed it ends the walk.
    expect(mapCalls(() => old.get('v2'))).toBe(2)
    expect(old.get('v2')?.value).toBe(2)
    held.release()
  })
})
