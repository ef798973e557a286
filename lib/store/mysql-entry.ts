/**
 * A session of the MySQL store as this process knows it: what it last heard of each variable. It may be old, and its
 * variables may be of different moments; whoever uses it has it checked (mysql-claim.ts). Knows nothing of SQL.
 */
import { randomInt } from 'node:crypto'
import type { Settled, StoredVariable, TextRows } from '../session/store.js'
import { decodeValue } from './codec.js'
import { variableOf } from './variable-name.js'
import { VersionedVariables } from './versioned-variables.js'

const STAMP_MAX = 2 ** 48 - 1

/** Told apart from every other commit's; as text, since the column is wider than what a number holds. */
export function newStamp(): string {
  return String(randomInt(1, STAMP_MAX))
}

/** One state of one variable. Decoded when it is first read: most of a session is not, in most requests. */
export class MysqlVariable implements StoredVariable {
  readonly version: number
  readonly stamp: string
  readonly by: string
  readonly sizeBytes: number
  #source: { readonly text: string; readonly format: number; readonly name: string } | undefined
  #value: unknown

  private constructor(version: number, stamp: string, by: string, sizeBytes: number) {
    this.version = version
    this.stamp = stamp
    this.by = by
    this.sizeBytes = sizeBytes
  }

  static stored(
    name: string,
    version: number,
    stamp: string,
    by: string,
    text: string,
    format: number,
  ): MysqlVariable {
    const variable = new MysqlVariable(version, stamp, by, Buffer.byteLength(text))
    variable.#source = { text, format, name }
    return variable
  }

  static written(settled: Settled, version: number, stamp: string, by: string): MysqlVariable {
    const variable = new MysqlVariable(version, stamp, by, settled.sizeBytes)
    variable.#value = settled.value
    return variable
  }

  /** @throws STORE_UNAVAILABLE if a newer session-tx wrote it, or something else did */
  get value(): unknown {
    if (this.#source !== undefined) {
      const { text, format, name } = this.#source
      this.#value = decodeValue(text, format, `session variable '${name}'`).value
      this.#source = undefined
    }
    return this.#value
  }
}

/** Columns of `SessionStatements.fetch` and `look`. */
export interface FetchedRow {
  readonly variable: string
  readonly version: number
  readonly stamp: string
  readonly by: string
}

export function fetchedRow([variable, version, stamp, by]: TextRows[number]): FetchedRow {
  return {
    variable: variable ?? '',
    version: Number(version),
    stamp: stamp ?? '0',
    by: by ?? '',
  }
}

export class MysqlEntry {
  readonly variables = new VersionedVariables()
  /** On the clock of this process. */
  createdAt: number
  touchedAt: number
  /** It does not exist (any more): nobody can commit to it. */
  dead = false
  /** How many times it is fetched again before it is trusted: it was old when it was used. */
  distrust = 0

  constructor(now: number) {
    this.createdAt = now
    this.touchedAt = now
  }

  stampOf(name: string): string | undefined {
    return (this.variables.latest.get(name) as MysqlVariable | undefined)?.stamp
  }

  /** Everything that is stored now, except values of variables that have not changed. */
  absorb(rows: readonly FetchedRow[], changed: ReadonlyMap<string, MysqlVariable>): void {
    const news = new Map<string, MysqlVariable | undefined>(changed)
    const names = new Set(rows.map(({ variable }) => variableOf(variable)))
    for (const name of this.variables.latest.names()) if (!names.has(name)) news.set(name, undefined)
    // A session without variables is stored all the same; version 0 is for one that is not.
    if (news.size > 0 || this.variables.latest.version === 0) this.variables.install(news, false)
  }

  die(): void {
    if (this.dead) return
    this.dead = true
    this.variables.end()
  }

  mistrust(): void {
    this.distrust = Math.min(DISTRUST_MAX, 2 * this.distrust + 1)
  }
}

/** A session that one process after the other changes is fetched anew by most of its requests. */
const DISTRUST_MAX = 15
