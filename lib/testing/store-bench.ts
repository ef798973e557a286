/**
 * A started store with time that stands still, and short ways to write to and read from one session of it: what the
 * sentences of the store contract work with. Knows no back-end.
 */
import { type EventName, EventHub } from '../events.js'
import type { OpenSession, SessionStore, StoreDatabase, StoreSettings } from '../session/store.js'
import type { MaybePromise } from '../transaction/resource.js'
import { ManualClock } from './manual-clock.js'
import { type Wish, Writer } from './session-writer.js'

/**
 * Makes a store that is not started yet, empty or at least without sessions of other tests' keys; for a
 * `same-connection` store with the database that it is started with.
 */
export type StoreFactory = () => MaybePromise<SessionStore | StoreUnderTest>

export interface StoreUnderTest {
  readonly store: SessionStore
  readonly database?: StoreDatabase
}

/** Which sentences apply; each capability has a positive and a negative one. */
export interface StoreCapabilities {
  /** Sessions live in the store object: it answers at once, and another store knows nothing of them. */
  readonly local: boolean
  /** Expiry follows the clock of `start`; false for a back-end that has a clock of its own. */
  readonly injectedClock: boolean
  /** A variable's version is the number of the session's commit that wrote it; false: each counts its own. */
  readonly countsCommits: boolean
  /** Claims to different variables are prepared at the same time; false: one waits until the other is over. */
  readonly parallelClaims: boolean
  /** It has `sessionsOf`. */
  readonly findsUsers: boolean
}

export const GRANULARITY_MS = 1_000
export const IDLE_MS = 60_000

/** A started store, and what the suite needs around it. */
export interface Bench extends StoreUnderTest {
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
/** Tables outlive a run, and other runs may use them. */
const RUN = Math.random().toString(36).slice(2, 10)

export async function benchOf(
  made: SessionStore | StoreUnderTest,
  given: Partial<StoreSettings>,
): Promise<Bench> {
  const from: StoreUnderTest = 'store' in made ? made : { store: made }
  const { store, database } = from
  const clock = new ManualClock()
  const events = new EventHub()
  const seen: { name: EventName; payload: unknown }[] = []
  for (const name of WATCHED) events.on(name, payload => seen.push({ name, payload }))
  store.start({ ...settingsOf(clock, events), database, ...given })
  const key = `session-${RUN}-${++keys}`
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
    ...from,
    clock,
    seen,
    key,
    look,
    writer: () => Writer.of(from, key),
    write: async wish => {
      const writer = exists ? await Writer.of(from, key) : await Writer.creating(from, key)
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
