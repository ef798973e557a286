/**
 * Attempts reduced to what a store sees of them: open, snapshot, claim. For the contract suite of stores. Knows no
 * store, no handler, no database.
 */
import { sessionConflict } from '../session/merge.js'
import { settleValue } from '../session/settling.js'
import type {
  Claim,
  LostPart,
  NAMES,
  OpenSession,
  SessionSnapshot,
  SessionStore,
  SessionWrite,
  Settled,
} from '../session/store.js'

type Merge = (found: unknown, mine: unknown) => unknown

export interface Wish {
  /** New values; undefined removes the variable. */
  readonly set?: Readonly<Record<string, unknown>>
  readonly current?: readonly (string | typeof NAMES)[]
  readonly replaces?: boolean
  readonly destroys?: boolean
  readonly by?: string
  readonly merge?: Readonly<Record<string, Merge>>
}

/** One attempt of the suite. */
export class Writer {
  readonly open: OpenSession
  readonly base: SessionSnapshot
  /** What the store said was lost, each time that it said so. */
  readonly lost: (readonly LostPart[])[] = []
  readonly #store: SessionStore
  #claim: Claim | undefined

  private constructor(store: SessionStore, open: OpenSession) {
    this.#store = store
    this.open = open
    this.base = open.snapshot()
  }

  static async of(store: SessionStore, key: string): Promise<Writer> {
    const open = await store.open(key)
    if (open === undefined) throw new Error(`the store does not know ${key}`)
    return new Writer(store, open)
  }

  static async creating(store: SessionStore, key: string): Promise<Writer> {
    return new Writer(store, await store.create(key))
  }

  /** Makes the claim; nothing is held yet. */
  wants(wish: Wish): this {
    this.#claim = this.open.claim(this.#write(wish))
    return this
  }

  get claim(): Claim {
    if (this.#claim === undefined) throw new TypeError('say first what the writer wants')
    return this.#claim
  }

  /** As a transaction does it: all of it, or the error and nothing. */
  async commit(): Promise<void> {
    try {
      await this.claim.prepare()
    } catch (error) {
      this.claim.rollback()
      this.open.release()
      throw error
    }
    await this.finish()
  }

  /** What follows once it is prepared. */
  async finish(): Promise<void> {
    await this.claim.commit()
    this.claim.release()
    this.open.release()
  }

  abort(): void {
    this.#claim?.rollback()
    this.open.release()
  }

  #write({
    set = {},
    current = [],
    replaces = false,
    destroys = false,
    by = 'a writer',
    merge = {},
  }: Wish): SessionWrite {
    const writes = new Map(Object.entries(set).map(([name, value]) => [name, settled(name, value)] as const))
    return {
      base: this.base,
      by,
      writes,
      current: new Set(current),
      replaces,
      destroys,
      resolves: name => Object.hasOwn(merge, name),
      resolve: (name, found, mine) => settled(name, merge[name]?.(found?.value, mine?.value)),
      conflict: lost => {
        this.lost.push(lost)
        return sessionConflict(this.#store.name, this.open.key, lost)
      },
    }
  }
}

function settled(name: string, value: unknown): Settled | undefined {
  return value === undefined ? undefined : settleValue(value, name)
}
