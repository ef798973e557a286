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

  /** When this process heard of each variable last, also of one that went; on a clock that only counts. */
  readonly #heard = new Map<string, number>()
  #moment = 0
  readonly #settling = new Set<Promise<void>>()

  constructor(now: number) {
    this.createdAt = now
    this.touchedAt = now
  }

  /** Nothing is known of it yet. */
  get isBlank(): boolean {
    return this.variables.latest.version === 0
  }

  stampOf(name: string): string | undefined {
    return (this.variables.latest.get(name) as MysqlVariable | undefined)?.stamp
  }

  /** A claim of this process is about to be committed; the function is called when it is known what became of it. */
  settling(): () => void {
    const settled = deferred()
    this.#settling.add(settled.promise)
    return () => {
      this.#settling.delete(settled.promise)
      settled.resolve()
    }
  }

  /** Resolves when all that are being committed by this process now are; undefined: none is. */
  get settled(): Promise<unknown> | undefined {
    return this.#settling.size === 0 ? undefined : Promise.all(this.#settling)
  }

  /** Taken before something is asked that will be absorbed. */
  ask(): number {
    return ++this.#moment
  }

  /**
   * A commit of this process. The server frees a commit's locks before it answers, so the answer to the next one may be
   * heard first: what has a higher version by now stays.
   */
  commit(given: ReadonlyMap<string, MysqlVariable | undefined>, whole: boolean): void {
    if (this.dead) return
    const moment = this.ask()
    const isNews = ([name, variable]: [string, MysqlVariable | undefined]): boolean =>
      variable === undefined || (this.variables.latest.get(name)?.version ?? 0) < variable.version
    const news = new Map([...given].filter(isNews))
    for (const name of news.keys()) this.#heard.set(name, moment)
    this.variables.install(news, whole)
  }

  /**
   * Everything that was stored at some moment after `askedAt`; values of variables whose stamp is known are left out.
   * What was heard of since is newer, perhaps.
   * @returns false if there was such a variable: then what the entry has now is of several moments
   */
  absorb(rows: readonly FetchedRow[], changed: ReadonlyMap<string, MysqlVariable>, askedAt: number): boolean {
    const news = new Map<string, MysqlVariable | undefined>(changed)
    const names = new Set(rows.map(({ variable }) => variableOf(variable)))
    for (const name of this.variables.latest.names()) if (!names.has(name)) news.set(name, undefined)
    let isComplete = true
    for (const [name, moment] of this.#heard) {
      if (moment < askedAt) continue
      isComplete = false
      news.delete(name)
    }
    for (const name of news.keys()) this.#heard.set(name, askedAt)
    // A session without variables is stored all the same; version 0 is for one that is not.
    if (news.size > 0 || this.isBlank) this.variables.install(news, false)
    return isComplete
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

function deferred(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  let resolve = (): void => {}
  const promise = new Promise<void>(done => {
    resolve = done
  })
  return { promise, resolve }
}
