/**
 * Attempts reduced to what a store sees of them: open, snapshot, claim. For the contract suite of stores. Knows no
 * store, no handler, no database.
 */
import { sessionConflict } from '../session/merge.js'
import { settleValue } from '../session/settling.js'
import type {
  AttemptTransaction,
  Claim,
  LostPart,
  NAMES,
  OpenSession,
  OwnTransaction,
  SessionSnapshot,
  SessionStore,
  SessionWrite,
  StoreDatabase,
  Settled,
} from '../session/store.js'

type Merge = (found: unknown, mine: unknown) => unknown

export interface Wish {
  /** New values; undefined removes the variable. */
  readonly set?: Readonly<Record<string, unknown>>
  readonly current?: readonly (string | typeof NAMES)[]
  /** What was read from the base. */
  readonly seen?: readonly (string | typeof NAMES)[]
  /** Rows were seen in the transaction, too. */
  readonly joint?: boolean
  readonly replaces?: boolean
  readonly destroys?: boolean
  readonly by?: string
  readonly merge?: Readonly<Record<string, Merge>>
}

interface WriterSource {
  readonly store: SessionStore
  /** Where its sessions are rows, and the transactions of attempts begin. */
  readonly database?: StoreDatabase | undefined
}

/** One attempt of the suite. */
export class Writer {
  readonly open: OpenSession
  readonly base: SessionSnapshot
  /** What the store said was lost, each time that it said so. */
  readonly lost: (readonly LostPart[])[] = []
  readonly #from: WriterSource
  readonly #transaction: AttemptTransaction
  #begun: OwnTransaction | undefined
  #isJoint = false
  #claim: Claim | undefined

  private constructor(from: WriterSource, open: OpenSession) {
    this.#from = from
    this.open = open
    this.base = open.snapshot()
    const { database } = from
    const begin = async (): Promise<OwnTransaction> => {
      if (database === undefined) throw new TypeError('the store under test has no database')
      this.#begun ??= await database.begin()
      return this.#begun
    }
    this.#transaction = { isJoint: () => this.#isJoint, begin }
  }

  static async of(from: WriterSource, key: string): Promise<Writer> {
    const open = await from.store.open(key)
    if (open === undefined) throw new Error(`the store does not know ${key}`)
    return new Writer(from, open)
  }

  static async creating(from: WriterSource, key: string): Promise<Writer> {
    return new Writer(from, await from.store.create(key))
  }

  /** Makes the claim; nothing is held yet. */
  wants(wish: Wish): this {
    this.#isJoint = wish.joint ?? false
    this.#claim = this.open.claim(this.#write(wish), this.#transaction)
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
      await this.abort()
      throw error
    }
    await this.finish()
  }

  /** What follows once it is prepared. */
  async finish(): Promise<void> {
    await this.#begun?.commit()
    await this.claim.commit()
    this.claim.release()
    this.open.release()
  }

  /** Without a database everything has happened when it returns. */
  async abort(): Promise<void> {
    this.#claim?.rollback()
    this.open.release()
    await this.#begun?.rollback()
  }

  #write({
    set = {},
    current = [],
    replaces = false,
    destroys = false,
    seen = [],
    by = 'a writer',
    merge = {},
  }: Wish): SessionWrite {
    const writes = new Map(Object.entries(set).map(([name, value]) => [name, settled(name, value)] as const))
    return {
      base: this.base,
      by,
      writes,
      current: new Set(current),
      seen: new Set(seen),
      replaces,
      destroys,
      resolves: name => Object.hasOwn(merge, name),
      resolve: (name, found, mine) => settled(name, merge[name]?.(found?.value, mine?.value)),
      conflict: lost => {
        this.lost.push(lost)
        return sessionConflict(this.#from.store.name, this.open.key, lost)
      },
    }
  }
}

function settled(name: string, value: unknown): Settled | undefined {
  return value === undefined ? undefined : settleValue(value, name)
}
