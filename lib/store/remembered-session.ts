/**
 * A session that is kept elsewhere and shared by processes, as this process knows it: what it last heard of each variable.
 * It may be old, and its variables may be of different moments; whoever uses it has it checked (mysql-claim.ts,
 * redis-claim.ts). Knows nothing of where it is kept.
 */
import type { SessionSnapshot, Settled, StoredVariable } from '../session/store.js'
import { decodeValue } from './codec.js'
import { VersionedVariables } from './versioned-variables.js'

/** One state of one variable. Decoded when it is first read: most of a session is not, in most requests. */
export class RememberedVariable implements StoredVariable {
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
  ): RememberedVariable {
    const variable = new RememberedVariable(version, stamp, by, Buffer.byteLength(text))
    variable.#source = { text, format, name }
    return variable
  }

  static written(settled: Settled, version: number, stamp: string, by: string): RememberedVariable {
    const variable = new RememberedVariable(version, stamp, by, settled.sizeBytes)
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

/** What tells the state of a variable in a snapshot from every other one; undefined: it is not there. */
export function stampIn(snapshot: SessionSnapshot, name: string): string | undefined {
  return (snapshot.get(name) as RememberedVariable | undefined)?.stamp
}

export class RememberedSession {
  readonly variables = new VersionedVariables()
  /** On the clock of this process. */
  createdAt: number
  touchedAt: number
  /** It does not exist (any more): nobody can commit to it. */
  dead = false
  /** All commits up to this one are known; for a store that counts them. */
  commits = 0
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
    return stampIn(this.variables.latest, name)
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
  commit(given: ReadonlyMap<string, RememberedVariable | undefined>, whole: boolean): void {
    if (this.dead) return
    const moment = this.ask()
    const isNews = ([name, variable]: [string, RememberedVariable | undefined]): boolean =>
      variable === undefined || (this.variables.latest.get(name)?.version ?? 0) < variable.version
    const news = new Map([...given].filter(isNews))
    for (const name of news.keys()) this.#heard.set(name, moment)
    this.variables.install(news, whole)
  }

  /**
   * What was stored at some moment after `askedAt`: the names of all variables, and those that were not known as they are.
   * What was heard of since is newer, perhaps.
   * @returns false if there was such a variable: then what the entry has now is of several moments
   */
  absorb(
    names: ReadonlySet<string>,
    changed: ReadonlyMap<string, RememberedVariable>,
    askedAt: number,
  ): boolean {
    const news = new Map<string, RememberedVariable | undefined>(changed)
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
