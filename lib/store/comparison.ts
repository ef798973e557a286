/**
 * What a claim of a shared store started from, against what is stored: which parts differ, told as the losses that they
 * are. Knows nothing of where it is stored.
 */
import type { SessionTxError } from '../errors.js'
import { type LostPart, NAMES, type SessionWrite, WHOLE } from '../session/store.js'
import { type RememberedSession, stampIn } from './remembered-session.js'

export type Part = string | typeof NAMES

export interface FoundState {
  readonly version: number
  readonly stamp: string
  readonly by: string
}

/** What is stored of some variables of a session, and whether there is a session. */
export interface Found<S extends FoundState = FoundState> {
  readonly exists: boolean
  readonly states: ReadonlyMap<string, S>
}

export function namesAmong(parts: Iterable<Part>): string[] {
  return [...parts].filter(part => part !== NAMES)
}

export class Comparison {
  readonly #write: SessionWrite
  readonly #entry: RememberedSession
  /** The base was current when the attempt began: it can be lost, but not stale. */
  readonly #fresh: boolean

  constructor(write: SessionWrite, entry: RememberedSession, fresh: boolean) {
    this.#write = write
    this.#entry = entry
    this.#fresh = fresh
  }

  baseStamp(name: string): string | undefined {
    return stampIn(this.#write.base, name)
  }
  baseVersion(name: string): number {
    return this.#write.base.get(name)?.version ?? 0
  }

  /** Parts that were only read and are not what they were. @param neverChecked since they were read */
  differing(parts: Iterable<Part>, found: Found, neverChecked: boolean): LostPart[] {
    const lost: LostPart[] = []
    for (const part of parts) {
      if (part === NAMES) {
        if (!this.#sameNames(found)) lost.push(this.lostNames(neverChecked))
      } else if (found.states.get(part)?.stamp !== this.baseStamp(part)) {
        lost.push({ ...this.lostVariable(part, found), onlyRead: true, stale: neverChecked || !this.#fresh })
      }
    }
    return lost
  }

  lostNames(neverChecked: boolean): LostPart {
    return this.#ofSession(NAMES, true, neverChecked || !this.#fresh)
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
