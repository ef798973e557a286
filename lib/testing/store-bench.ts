/**
 * A started store with time that stands still, and short ways to write to and read from one session of it: what the
 * sentences of the store contract work with. Knows no back-end.
 */
import { type EventName, EventHub } from '../events.js'
import type { OpenSession, SessionStore, StoreSettings } from '../session/store.js'
import type { MaybePromise } from '../transaction/resource.js'
import { ManualClock } from './manual-clock.js'
import { type Wish, Writer } from './session-writer.js'

/** Makes a store that is not started yet, empty or at least without sessions of other tests' keys. */
export type StoreFactory = () => MaybePromise<SessionStore>

/** Which sentences apply; each capability has a positive and a negative one. */
export interface StoreCapabilities {
  /** Sessions live in the store object: it answers at once, and another store knows nothing of them. */
  readonly local: boolean
  /** Expiry follows the clock of `start`; false for a back-end that has a clock of its own. */
  readonly injectedClock: boolean
}

export const GRANULARITY_MS = 1_000
export const IDLE_MS = 60_000

/** A started store, and what the suite needs around it. */
export interface Bench {
  readonly store: SessionStore
  readonly clock: ManualClock
  readonly seen: { readonly name: EventName; readonly payload: unknown }[]
  readonly key: string
  /** Commits in one go. */
  readonly write: (wish: Wish) => Promise<void>
  readonly writer: () => Promise<Writer>
  readonly look: <T>(at: (session: OpenSession) => T) => Promise<T | undefined>
  readonly read: (name: string) => Promise<unknown>
}

/** Registers one sentence; `settings` replace those of {@link settingsOf}. */
export type Sentence = (
  text: string,
  body: (bench: Bench) => Promise<void>,
  settings?: Partial<StoreSettings>,
) => void

const WATCHED: readonly EventName[] = ['session:destroyed', 'session:expired', 'session:evicted']

let keys = 0

export async function benchOf(store: SessionStore, given: Partial<StoreSettings>): Promise<Bench> {
  const clock = new ManualClock()
  const events = new EventHub()
  const seen: { name: EventName; payload: unknown }[] = []
  for (const name of WATCHED) events.on(name, payload => seen.push({ name, payload }))
  store.start({ ...settingsOf(clock, events), ...given })
  const key = `session-${++keys}`
  let exists = false
  const look: Bench['look'] = async at => {
    const open = await store.open(key)
    if (open === undefined) return undefined
    try {
      return at(open)
    } finally {
      open.release()
    }
  }
  return {
    store,
    clock,
    seen,
    key,
    look,
    writer: () => Writer.of(store, key),
    write: async wish => {
      const writer = exists ? await Writer.of(store, key) : await Writer.creating(store, key)
      exists = true
      await writer.wants(wish).commit()
    },
    read: name => look(session => session.snapshot().get(name)?.value),
  }
}

export function settingsOf(clock: ManualClock, events: EventHub): StoreSettings {
  return { clock, events, idleMs: IDLE_MS, absoluteMs: false, touchGranularityMs: GRANULARITY_MS }
}

interface Watched<T> {
  readonly promise: Promise<T>
  state: 'pending' | 'settled'
}

/** A promise whose failure is no one's fault yet, and that can be asked whether it has settled. */
export function watched<T>(promise: Promise<T>): Watched<T> {
  const result: Watched<T> = { promise, state: 'pending' }
  const settle = (): void => {
    result.state = 'settled'
  }
  promise.then(settle, settle)
  return result
}

/** Everything that can happen without anybody else doing something has happened. */
export function turn(): Promise<void> {
  return new Promise(resolve => {
    setImmediate(resolve)
  })
}
