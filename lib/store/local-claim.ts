/**
 * The claim with which an attempt commits to a session in memory: what it holds, what it loses, what it merges (the
 * contract is session/store.ts). Knows nothing of where the session came from.
 */
import { type HoldMode, type HoldTable, sortParts } from '../session/hold.js'
import {
  type Claim,
  type LostPart,
  NAMES,
  type SessionPart,
  type SessionWrite,
  type Settled,
  WHOLE,
} from '../session/store.js'
import type { Version } from './versioned-variables.js'

export interface LocalChange {
  /** New values; undefined removed the variable. Empty where the session ended. */
  readonly writes: ReadonlyMap<string, Settled | undefined>
  /** Route of the writer. */
  readonly by: string
}

/** What is claimed: local-session.ts. */
interface ClaimedSession {
  readonly holds: HoldTable
  readonly latest: Version
  readonly ended: boolean
  readonly lastWriter: string | undefined
  commit(change: LocalChange, whole: boolean): void
  end(by: string): void
}

/** Claims: idle → holding (some parts, perhaps waiting for the next) → prepared → installed → over. */
export class LocalClaim implements Claim {
  readonly #session: ClaimedSession
  readonly #write: SessionWrite
  readonly #modes: ReadonlyMap<SessionPart, HoldMode>
  readonly #held: SessionPart[] = []
  #cancelWaiting: (() => void) | undefined
  #over = false
  #inDoubt = false
  /** What is installed: the writes, or what resolvers made of them. */
  #merged: Map<string, Settled | undefined> | undefined

  constructor(session: ClaimedSession, write: SessionWrite) {
    this.#session = session
    this.#write = write
    this.#modes = modesOf(write, session)
  }

  prepare(): void | Promise<void> {
    // A loser need not wait for others' commits to learn that it lost.
    this.#refuse(this.#lostParts().filter(({ mergeable }) => !mergeable))
    // The whole is entered first, so two parts are in order, and more are rare.
    const parts = this.#modes.size <= 2 ? [...this.#modes.keys()] : sortParts(this.#modes.keys())
    for (const [place, part] of parts.entries()) {
      const waiting = this.#hold(part)
      if (waiting !== undefined) return this.#prepareLater(waiting, parts.slice(place + 1))
    }
    this.#mergeOrRefuse()
  }

  async #prepareLater(waiting: Promise<void>, rest: readonly SessionPart[]): Promise<void> {
    await waiting
    for (const part of rest) {
      // Rolled back meanwhile: what is taken now nobody would let go.
      if (this.#over) return
      await this.#hold(part)
    }
    if (!this.#over) this.#mergeOrRefuse()
  }

  #hold(part: SessionPart): Promise<void> | undefined {
    const { holds } = this.#session
    const place = holds.acquire(part, this.#modes.get(part) ?? 'write')
    if (place === undefined) {
      this.#held.push(part)
      return undefined
    }
    this.#cancelWaiting = () => place.cancel()
    return place.held.then(() => {
      this.#cancelWaiting = undefined
      this.#held.push(part)
      // Rolled back between being admitted and hearing of it.
      if (this.#over) this.release()
    })
  }

  /** With everything held: what changed meanwhile is merged or lost. */
  #mergeOrRefuse(): void {
    const write = this.#write
    const lost = this.#lostParts()
    const failed: LostPart[] = lost.filter(({ mergeable }) => !mergeable)
    for (const { part } of lost.filter(({ mergeable }) => mergeable)) {
      const name = String(part)
      this.#merged ??= new Map(write.writes)
      try {
        this.#merged.set(name, write.resolve(name, this.#session.latest.get(name), write.writes.get(name)))
      } catch (cause) {
        failed.push({ ...this.#lostPart(name, false), cause })
      }
    }
    this.#refuse(failed)
  }

  #refuse(lost: readonly LostPart[]): void {
    if (lost.length > 0) throw this.#write.conflict(lost)
  }

  #lostParts(): (LostPart & { readonly mergeable: boolean })[] {
    const { base, writes, current, replaces, destroys, resolves } = this.#write
    // Ending a session never conflicts by itself, only with what the attempt still relies on.
    if (destroys && current.size === 0) return []
    const { latest, ended } = this.#session
    if (ended || (replaces && base !== latest)) return [{ ...this.#lostWhole(), mergeable: false }]
    if (base === latest) return []
    const lost: (LostPart & { readonly mergeable: boolean })[] = []
    for (const name of writes.keys()) {
      if (!this.#changed(name)) continue
      const mergeable = resolves(name) && !current.has(name)
      lost.push({ ...this.#lostPart(name, false), mergeable })
    }
    for (const part of current) {
      if (part === NAMES) {
        if ((base as Version).changedSince().names)
          lost.push({ ...this.#lostWhole(), part, onlyRead: true, mergeable: false })
      } else if (!writes.has(part) && this.#changed(part)) {
        lost.push({ ...this.#lostPart(part, true), mergeable: false })
      }
    }
    return lost
  }

  #changed(name: string): boolean {
    return this.#write.base.get(name)?.version !== this.#session.latest.get(name)?.version
  }

  #lostPart(name: string, onlyRead: boolean): LostPart {
    const found = this.#session.latest.get(name)
    const baseVersion = this.#write.base.get(name)?.version ?? 0
    return { part: name, baseVersion, foundVersion: found?.version ?? 0, winner: found?.by, onlyRead }
  }

  #lostWhole(): LostPart {
    const { latest, lastWriter } = this.#session
    const baseVersion = this.#write.base.version
    return { part: WHOLE, baseVersion, foundVersion: latest.version, winner: lastWriter, onlyRead: false }
  }

  commit(): void {
    const { writes, by, replaces, destroys } = this.#write
    if (destroys) this.#session.end(by)
    else if (writes.size > 0 || replaces)
      this.#session.commit({ writes: this.#merged ?? writes, by }, replaces)
  }

  release(): void {
    const { holds } = this.#session
    for (const part of this.#held.splice(0)) holds.release(part, this.#inDoubt)
  }

  doubt(): void {
    this.#inDoubt = true
    for (const part of this.#held) this.#session.holds.doubt(part)
  }

  rollback(): void {
    this.#over = true
    this.#cancelWaiting?.()
    this.release()
  }
}

function modesOf(
  { writes, current, replaces, destroys }: SessionWrite,
  session: ClaimedSession,
): Map<SessionPart, HoldMode> {
  const modes = new Map<SessionPart, HoldMode>()
  modes.set(WHOLE, replaces || destroys ? 'write' : 'change')
  for (const part of current) modes.set(part, 'read')
  for (const [name, settled] of writes) {
    modes.set(name, 'write')
    const changesNames = (settled === undefined) !== (session.latest.get(name) === undefined)
    if (changesNames) modes.set(NAMES, current.has(NAMES) ? 'write' : 'change')
  }
  return modes
}
