/**
 * What a claim of the MySQL store started from, against what the database has: which parts differ, told as the losses
 * that they are. Knows nothing of statements or transactions.
 */
import type { SessionTxError } from '../errors.js'
import { type LostPart, NAMES, type SessionWrite, type TextRows, WHOLE } from '../session/store.js'
import type { MysqlEntry, MysqlVariable } from './mysql-entry.js'
import { EXISTENCE } from './mysql-tables.js'
import { columnName, variableOf } from './variable-name.js'

type Part = string | typeof NAMES

interface FoundState {
  readonly version: number
  readonly stamp: string
  readonly by: string
}

/** What the database has of some variables of a session, and whether there is a session. */
export interface Found<S extends FoundState = FoundState> {
  readonly exists: boolean
  readonly states: ReadonlyMap<string, S>
}

/** Rows of `SessionStatements.stamps`. */
export function foundIn(rows: TextRows): Found {
  const states = new Map<string, FoundState>()
  let exists = false
  for (const [column, version, stamp, by] of rows) {
    if (column === EXISTENCE) exists = true
    else states.set(variableOf(column ?? ''), { version: Number(version), stamp: stamp ?? '0', by: by ?? '' })
  }
  return { exists, states }
}

export function namesAmong(parts: Iterable<Part>): string[] {
  return [...parts].filter(part => part !== NAMES)
}

/** Columns whose rows say whether these parts hold, the session's own row among them. */
export function columnsOf(parts: Iterable<Part>): readonly string[] | 'all' {
  const all = [...parts]
  return all.includes(NAMES) ? 'all' : [EXISTENCE, ...namesAmong(all).map(columnName)]
}

export class Comparison {
  readonly #write: SessionWrite
  readonly #entry: MysqlEntry
  /** The base was current when the attempt began: it can be lost, but not stale. */
  readonly #fresh: boolean

  constructor(write: SessionWrite, entry: MysqlEntry, fresh: boolean) {
    this.#write = write
    this.#entry = entry
    this.#fresh = fresh
  }

  baseStamp(name: string): string | undefined {
    return (this.#write.base.get(name) as MysqlVariable | undefined)?.stamp
  }
  baseVersion(name: string): number {
    return this.#write.base.get(name)?.version ?? 0
  }

  /** Parts that were only read and are not what they were. @param neverChecked since they were read */
  differing(parts: Iterable<Part>, found: Found, neverChecked: boolean): LostPart[] {
    const lost: LostPart[] = []
    for (const part of parts) {
      if (part === NAMES) {
        if (!this.#sameNames(found)) lost.push(this.#ofSession(NAMES, true, neverChecked || !this.#fresh))
      } else if (found.states.get(part)?.stamp !== this.baseStamp(part)) {
        lost.push({ ...this.lostVariable(part, found), onlyRead: true, stale: neverChecked || !this.#fresh })
      }
    }
    return lost
  }

  #sameNames({ states }: Found): boolean {
    const before = this.#write.base.names()
    return before.length === states.size && before.every(name => states.has(name))
  }

  lostVariable(name: string, found: Found): LostPart {
    const state = found.states.get(name)
    return {
      part: name,
      baseVersion: this.baseVersion(name),
      foundVersion: state?.version ?? 0,
      winner: state?.by,
      onlyRead: false,
      stale: !this.#fresh,
    }
  }

  #ofSession(part: typeof WHOLE | typeof NAMES, onlyRead: boolean, stale: boolean): LostPart {
    const { version } = this.#write.base
    return { part, baseVersion: version, foundVersion: version + 1, winner: undefined, onlyRead, stale }
  }

  /** Replaced, or gone for ever. */
  lostWhole(isGone: boolean): SessionTxError {
    if (isGone) this.#entry.die()
    return this.conflict([this.#ofSession(WHOLE, false, false)])
  }

  /** @throws the conflict, if anything is lost */
  refuse(lost: readonly LostPart[]): void {
    if (lost.length > 0) throw this.conflict(lost)
  }

  conflict(lost: readonly LostPart[]): SessionTxError {
    this.#entry.mistrust()
    return this.#write.conflict(lost)
  }
}
