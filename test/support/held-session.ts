/** A session in a memoryStore, stored and opened, for tests below HTTP. Time stands still. */
import { EventHub } from '../../lib/events.js'
import { newSessionId, sessionKey } from '../../lib/session/identity.js'
import type { OpenSession, SessionStore } from '../../lib/session/store.js'
import { memoryStore } from '../../lib/store/memory.js'
import { type Wish, Writer } from '../../lib/testing/session-writer.js'
import { FakeClock } from './clock.js'

export interface HeldSession {
  readonly store: SessionStore
  readonly id: string
  readonly key: string
  readonly opened: OpenSession
  /** Another attempt commits from start to end. */
  write(wish: Wish): Promise<void>
  /** Another look at what is stored. */
  stored(): Promise<Record<string, unknown> | undefined>
}

export function startedStore(): SessionStore {
  const store = memoryStore()
  const clock = new FakeClock()
  store.start({ clock, events: new EventHub(), idleMs: false, absoluteMs: false, touchGranularityMs: 1_000 })
  return store
}

export async function heldSession(variables: Readonly<Record<string, unknown>>): Promise<HeldSession> {
  const store = startedStore()
  const id = newSessionId()
  const key = sessionKey(id)
  // Replacing stores it even without a variable.
  await (await Writer.creating({ store }, key)).wants({ set: variables, replaces: true }).commit()
  const opened = await store.open(key)
  if (opened === undefined) throw new Error('the session was not stored')
  return {
    store,
    id,
    key,
    opened,
    write: async wish => (await Writer.of({ store }, key)).wants(wish).commit(),
    stored: async () => {
      const now = await store.open(key)
      const snapshot = now?.snapshot()
      now?.release()
      return snapshot && Object.fromEntries(snapshot.names().map(name => [name, snapshot.get(name)?.value]))
    },
  }
}
