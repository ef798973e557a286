/** One attempt after the other on the parts themselves: a store, a working copy, the session as a participant. No HTTP, no SQL. */
import { EventHub } from '../../lib/events.js'
import { DraftScope } from '../../lib/session/draft.js'
import { SessionResource } from '../../lib/session/resource.js'
import type { OpenSession, SessionStore } from '../../lib/session/store.js'
import { WorkingCopy } from '../../lib/session/working-copy.js'
import { memoryStore, type MemoryStoreOptions } from '../../lib/store/memory.js'
import { systemClock } from '../../lib/transaction/clock.js'

export function startedMemoryStore(options: MemoryStoreOptions = {}): SessionStore {
  const store = memoryStore(options)
  const day = 24 * 3_600_000
  const times = { idleMs: day, absoluteMs: false, touchGranularityMs: 30_000 } as const
  store.start({ clock: systemClock, events: new EventHub(), ...times })
  return store
}

export class Attempts {
  readonly #store: SessionStore

  constructor(store: SessionStore) {
    this.#store = store
  }

  /** Opens the session, works, commits. */
  run(key: string, work: (copy: WorkingCopy) => void): void {
    const opened = this.#store.open(key)
    if (opened === undefined || opened instanceof Promise) throw new Error(`there is no session ${key}`)
    this.#attempt(opened, work)
  }

  /** Stores a new session with these variables. */
  keep(key: string, variables: Readonly<Record<string, unknown>>): void {
    const opened = this.#store.create(key)
    if (opened instanceof Promise) throw new Error('memoryStore makes sessions at once')
    this.#attempt(opened, copy => {
      for (const [name, value] of Object.entries(variables)) copy.set(name, value)
    })
  }

  #attempt(opened: OpenSession, work: (copy: WorkingCopy) => void): void {
    const store = this.#store
    const drafts = new DraftScope()
    const copy = new WorkingCopy({
      store: store.name,
      opened,
      id: opened.key,
      bereaved: false,
      drafts,
      assertUsable: () => {},
      assertWritable: () => {},
      merges: () => false,
      lose: () => {},
    })
    const resource = new SessionResource({
      store,
      copy,
      drafts,
      resolvers: new Map(),
      sizeBytesMax: 64 * 1024 * 1024,
      validatesReads: false,
      route: () => 'bench',
      reservation: () => undefined,
      ended: () => {},
    })
    work(copy)
    if (resource.prepare() instanceof Promise) throw new Error('nobody else holds anything here')
    void resource.commit()
    resource.release()
  }
}
