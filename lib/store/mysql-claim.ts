/**
 * What an attempt wants to commit to a session of the MySQL store, as statements of the attempt's own transaction: the
 * last ones before COMMIT, so that its locks are short. (The contract is session/store.ts.) One statement locks the
 * session's row, compares everything and writes what exists already; variables that come or go take one more each.
 *
 * The locks are taken in the order of the key, the session's own row first, by everybody who writes to the session. So two
 * writers of one session wait for each other's COMMIT, and never for more. Where locks are local to a node of several, what
 * would have been only locked is changed as well: the session's own row stands for the set of names and for variables that
 * must not be there.
 */
import { randomInt } from 'node:crypto'
import {
  type AttemptTransaction,
  type Claim,
  type LostPart,
  NAMES,
  type SessionWrite,
  type Settled,
  type StoreTransaction,
} from '../session/store.js'
import { userKeyOf } from '../session/user-key.js'
import { CODEC_FORMAT, encodeValue } from './codec.js'
import { Comparison, type Found, namesAmong, type Part } from './comparison.js'
import { columnsOf, foundIn } from './mysql-comparison.js'
import { lockFound } from './mysql-fetch.js'
import { EXISTENCE, type Row, type SessionStatements } from './mysql-tables.js'
import { type RememberedSession, RememberedVariable } from './remembered-session.js'
import { columnName } from './variable-name.js'

const ROUTE_CHARACTERS_MAX = 200
const STAMP_MAX = 2 ** 48 - 1

/** Told apart from every other commit's; as text, since the column is wider than what a number holds. */
function newStamp(): string {
  return String(randomInt(1, STAMP_MAX))
}

export interface ClaimSetup {
  readonly key: string
  readonly entry: RememberedSession
  readonly isNew: boolean
  /** The base was current when the attempt began. */
  readonly fresh: boolean
  /** It is what the attempt's transaction sees, too: read in its view, or held by it. */
  readonly fits: boolean
  readonly statements: SessionStatements
  /** Names the user whose session it is. */
  readonly userVariable: string | undefined
  readonly transaction: AttemptTransaction
  /** What the database says; as an error of ours if it is one of set-up. */
  readonly explained: (error: unknown) => unknown
  /** Called after COMMIT. */
  readonly created: () => void
  readonly ended: () => void
  readonly touched: () => void
}

type Writes = ReadonlyMap<string, Settled | undefined>

export class MysqlClaim implements Claim {
  readonly #setup: ClaimSetup
  readonly #write: SessionWrite
  readonly #comparison: Comparison
  readonly #stamp = newStamp()
  /** What this process will know after COMMIT. */
  readonly #installs = new Map<string, RememberedVariable | undefined>()
  /** The session was removed by this claim, not by somebody before. */
  #removed = false
  #settled: (() => void) | undefined

  constructor(setup: ClaimSetup, write: SessionWrite) {
    this.#setup = setup
    this.#write = write
    this.#comparison = new Comparison(write, setup.entry, setup.fresh)
  }

  async prepare(): Promise<void> {
    const { isNew, transaction, explained } = this.#setup
    const { writes, current, replaces, destroys } = this.#write
    const looks = writes.size === 0 && !replaces && !destroys
    if (looks && current.size === 0 && this.#unchecked.length === 0) return
    for (const name of writes.keys()) columnName(name) // refused before a connection is taken
    const unchecked = this.#unchecked
    const on = await transaction.begin()
    try {
      if (isNew) await this.#create(on)
      else if (destroys) await this.#destroy(on, unchecked)
      else if (looks && !(on.locksAreLocal && current.size > 0)) await this.#look(on, unchecked)
      else {
        await this.#compareAndSet(on, unchecked)
        await this.#nameUser(on)
      }
    } catch (error) {
      throw explained(error)
    }
    if (!looks) this.#settled = this.#setup.entry.settling()
  }

  /**
   * What was only read and has to be looked after: everything, but nothing of what was fetched a moment ago, unless rows
   * were seen since, which it must fit.
   */
  get #unchecked(): readonly Part[] {
    const { fresh, fits, transaction } = this.#setup
    const { seen, current, writes } = this.#write
    if (fits || (fresh && !transaction.isJoint())) return []
    return [...seen].filter(part => !current.has(part) && (part === NAMES || !writes.has(part)))
  }

  async #create(on: StoreTransaction): Promise<void> {
    const { key, statements } = this.#setup
    const own: Row = { variable: EXISTENCE, version: 1, format: CODEC_FORMAT, value: "''" }
    const rows = this.#rowsOf(on, this.#write.writes, () => 0)
    await on.change(statements.insert(key, [own, ...rows], this.#commitOf(on)))
    await on.change(statements.insertTimes(key, this.#user))
  }

  get #user(): string | undefined {
    const { userVariable } = this.#setup
    return userVariable === undefined ? undefined : userKeyOf(this.#installs.get(userVariable))
  }

  /** At a login or logout that keeps its session. */
  async #nameUser(on: StoreTransaction): Promise<void> {
    const { key, statements, userVariable } = this.#setup
    if (userVariable !== undefined && this.#installs.has(userVariable))
      await on.change(statements.setUser(key, this.#user))
  }

  async #destroy(on: StoreTransaction, unchecked: readonly Part[]): Promise<void> {
    const { key, statements } = this.#setup
    if (unchecked.length > 0 || this.#write.current.size > 0) await this.#look(on, unchecked)
    const { matched } = await on.change(statements.remove(key, 'all'))
    await on.change(statements.removeTimes(key))
    this.#removed = matched > 0
  }

  /** Does what was read still hold? */
  async #look(on: StoreTransaction, unchecked: readonly Part[]): Promise<void> {
    const { key, statements } = this.#setup
    const { current, destroys } = this.#write
    const check = (parts: Iterable<Part>, found: Found, neverChecked: boolean): void => {
      if (found.exists) this.#comparison.refuse(this.#comparison.differing(parts, found, neverChecked))
      else if (!destroys) throw this.#comparison.lostWhole(true)
    }
    if (current.size > 0) {
      const lock = destroys ? ' FOR UPDATE' : ' LOCK IN SHARE MODE'
      check(current, foundIn(await on.selectLocked(statements.stamps(key, columnsOf(current), lock))), false)
    }
    if (unchecked.length > 0)
      check(unchecked, foundIn(await on.select(statements.stamps(key, columnsOf(unchecked), ''))), true)
  }

  async #compareAndSet(on: StoreTransaction, unchecked: readonly Part[]): Promise<void> {
    const { key, statements } = this.#setup
    const { base, writes, current, replaces } = this.#write
    const parts: Part[] = [...writes.keys(), ...current, ...unchecked]
    if (replaces) parts.push(NAMES)
    const columns = columnsOf(parts)
    const stamps = new Map<string, string | undefined>([[EXISTENCE, undefined]])
    for (const name of columns === 'all' ? base.names() : namesAmong(parts)) {
      const stamp = this.#comparison.baseStamp(name)
      if (stamp !== undefined) stamps.set(columnName(name), stamp)
    }
    const wasThere = (name: string): boolean => this.#comparison.baseStamp(name) !== undefined
    const sets = this.#rowsOf(on, only(writes, wasThere), name => this.#comparison.baseVersion(name))
    const marks = on.locksAreLocal ? this.#marks(wasThere) : []
    const sql = statements.compareAndSet(key, columns, stamps, sets, this.#commitOf(on), marks)
    const { matched, insertId } = await on.change(sql)
    if (matched === stamps.size && insertId === 0) await this.#comeAndGo(on, writes, wasThere)
    else await this.#reconcile(on, parts, unchecked)
  }

  /** Columns of rows that are not written and must stay as they are until COMMIT. */
  #marks(isThere: (name: string) => boolean): readonly string[] {
    const { base, writes, current, replaces } = this.#write
    const kept = [...(replaces ? base.names() : namesAmong(current))]
    const names = kept.filter(name => isThere(name) && !writes.has(name))
    const changesNames = [...writes].some(([name, settled]) => isThere(name) !== (settled !== undefined))
    const ownToo = replaces || changesNames || current.has(NAMES) || !namesAmong(current).every(isThere)
    return [...(ownToo ? [EXISTENCE] : []), ...names.map(columnName)]
  }

  /**
   * Something differs from what the attempt started from. With everything locked: what can be merged is, unless the
   * handler may have read it old, and what was only read may differ as long as the transaction's own view shows it as it
   * was. The rest is lost.
   */
  async #reconcile(on: StoreTransaction, parts: readonly Part[], unchecked: readonly Part[]): Promise<void> {
    const { key, statements } = this.#setup
    const { base, writes, current, replaces } = this.#write
    const comparison = this.#comparison
    const found = await lockFound(key, columnsOf(parts), statements, on)
    if (!found.exists) throw comparison.lostWhole(true)
    const stampNow = (name: string): string | undefined => found.states.get(name)?.stamp
    const differs = (name: string): boolean =>
      stampNow(name) !== this.#stamp && stampNow(name) !== comparison.baseStamp(name)
    if (replaces && [...base.names(), ...found.states.keys()].some(differs)) throw comparison.lostWhole(false)

    const lost: LostPart[] = []
    const merged = new Map<string, Settled | undefined>()
    for (const name of [...writes.keys()].filter(differs)) this.#mergeOrLose(name, found, merged, lost)
    const onlyCurrent = [...current].filter(part => part === NAMES || !writes.has(part))
    lost.push(...comparison.differing(onlyCurrent, found, false))
    comparison.refuse(lost)
    await this.#lookInView(on, unchecked, found)

    const isThere = (name: string): boolean => found.states.has(name)
    const rows = this.#rowsOf(on, only(merged, isThere), name => found.states.get(name)?.version ?? 0)
    if (rows.length > 0) await on.change(statements.set(key, rows, this.#commitOf(on)))
    if (on.locksAreLocal) await on.change(statements.mark(key))
    await this.#comeAndGo(on, new Map([...writes, ...merged]), isThere)
  }

  #mergeOrLose(
    name: string,
    found: Found<RememberedVariable>,
    merged: Map<string, Settled | undefined>,
    lost: LostPart[],
  ): void {
    const { writes, current, seen } = this.#write
    // Merging keeps what others added, but the answer would tell what was so before the request came.
    const wasReadOld = seen.has(name) && !this.#setup.fresh
    if (!this.#write.resolves(name) || current.has(name) || wasReadOld) {
      lost.push(this.#comparison.lostVariable(name, found))
      return
    }
    try {
      merged.set(name, this.#write.resolve(name, found.states.get(name), writes.get(name)))
    } catch (cause) {
      lost.push({ ...this.#comparison.lostVariable(name, found), stale: false, cause })
    }
  }

  /** What was only read, and has changed: fine if it changed after the transaction's view, else it does not fit the rows. */
  async #lookInView(on: StoreTransaction, unchecked: readonly Part[], now: Found): Promise<void> {
    const { key, statements, transaction } = this.#setup
    const differing = this.#comparison.differing(unchecked, now, true)
    if (differing.length === 0) return
    if (!transaction.isJoint()) throw this.#comparison.conflict(differing)
    const view = foundIn(await on.select(statements.stamps(key, columnsOf(unchecked), '')))
    this.#comparison.refuse(this.#comparison.differing(unchecked, view, true))
  }

  /** Variables that were not there, and those that are to go. */
  async #comeAndGo(on: StoreTransaction, writes: Writes, isThere: (name: string) => boolean): Promise<void> {
    const { key, statements } = this.#setup
    const coming = this.#rowsOf(
      on,
      only(writes, name => !isThere(name)),
      () => 0,
    )
    const going = [...writes].filter(([name, settled]) => settled === undefined && isThere(name))
    if (coming.length > 0) await on.change(statements.insert(key, coming, this.#commitOf(on)))
    if (going.length === 0) return
    await on.change(
      statements.remove(
        key,
        going.map(([name]) => columnName(name)),
      ),
    )
    for (const [name] of going) this.#installs.set(name, undefined)
  }

  /** Rows to be written, remembered for this process; variables that are to go have none. */
  #rowsOf(on: StoreTransaction, writes: Writes, versionBefore: (name: string) => number): Row[] {
    const rows: Row[] = []
    for (const [name, settled] of writes) {
      if (settled === undefined) continue
      const version = versionBefore(name) + 1
      this.#installs.set(name, RememberedVariable.written(settled, version, this.#stamp, this.#write.by))
      const value = on.literal(encodeValue(settled.value))
      rows.push({ variable: columnName(name), version, format: CODEC_FORMAT, value })
    }
    return rows
  }

  #commitOf(on: StoreTransaction): { readonly stamp: string; readonly by: string } {
    return { stamp: this.#stamp, by: on.literal(this.#write.by.slice(0, ROUTE_CHARACTERS_MAX)) }
  }

  commit(): void {
    const { entry, created, ended, touched, isNew } = this.#setup
    const { destroys, replaces, writes } = this.#write
    if (destroys) {
      entry.die()
      if (this.#removed) ended()
    } else if (isNew || replaces || writes.size > 0) {
      entry.commit(this.#installs, replaces)
      if (isNew) created()
      touched()
    }
  }

  /** The locks are the transaction's. */
  release(): void {
    this.#settled?.()
  }

  doubt(): void {
    this.#settled?.()
    this.#setup.entry.mistrust()
  }

  /** It may have been a COMMIT of unknown outcome. */
  rollback(): void {
    this.#settled?.()
    if (this.#installs.size > 0 || this.#write.destroys) this.#setup.entry.mistrust()
  }
}

function only(writes: Writes, takes: (name: string) => boolean): Map<string, Settled | undefined> {
  return new Map([...writes].filter(([name]) => takes(name)))
}
