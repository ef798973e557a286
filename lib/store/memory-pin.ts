/**
 * A session in memory as one attempt has it open, and the claim with which the attempt commits to it (the contract is
 * session/store.ts). Knows nothing of the cache that the record came from.
 */
import { type HoldMode, sortParts } from '../session/hold.js'
import {
  type Claim,
  type Disturbance,
  type LostPart,
  NAMES,
  type OpenSession,
  type SessionPart,
  type SessionSnapshot,
  type SessionWrite,
  type Settled,
  WHOLE,
} from '../session/store.js'
import type { SessionRecord } from './memory-record.js'
import { disturbanceOf, UNDISTURBED, type Version } from './versioned-variables.js'

interface PinSetup {
  readonly key: string
  readonly record: SessionRecord
  readonly touch: () => boolean
  /** These variables have been written. */
  readonly installed: (writes: ReadonlyMap<string, Settled | undefined>) => void
  readonly released: () => void
  readonly ended: () => void
}

export class MemoryPin implements OpenSession {
  readonly #setup: PinSetup
  #released = false

  constructor(setup: PinSetup) {
    this.#setup = setup
  }

  get key(): string {
    return this.#setup.key
  }

  get ended(): boolean {
    return this.#setup.record.dead
  }

  snapshot(): SessionSnapshot {
    return this.#setup.record.latest
  }

  disturbance(since: SessionSnapshot): Disturbance {
    const { holds, latest } = this.#setup.record
    if (since === latest && holds.idle) return UNDISTURBED
    return disturbanceOf(since as Version, holds.changing())
  }

  pause(): (() => void) | Promise<() => void> {
    const { holds } = this.#setup.record
    const resume = (): void => holds.release(WHOLE)
    const place = holds.acquire(WHOLE, 'read')
    return place === undefined ? resume : place.held.then(() => resume)
  }

  touch(): boolean {
    return this.#setup.touch()
  }

  claim(write: SessionWrite): Claim {
    return new MemoryClaim(this.#setup, write)
  }

  release(): void {
    if (this.#released) return
    this.#released = true
    this.#setup.released()
  }
}

/** Claims: idle → holding (some parts, perhaps waiting for the next) → prepared → installed → over. */
class MemoryClaim implements Claim {
  readonly #setup: PinSetup
  readonly #write: SessionWrite
  readonly #modes: ReadonlyMap<SessionPart, HoldMode>
  readonly #held: SessionPart[] = []
  #cancelWaiting: (() => void) | undefined
  #over = false
  #inDoubt = false
  /** What is installed: the writes, or what resolvers made of them. */
  #merged: Map<string, Settled | undefined> | undefined

  constructor(setup: PinSetup, write: SessionWrite) {
    this.#setup = setup
    this.#write = write
    this.#modes = modesOf(write, setup.record)
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
    const { holds } = this.#setup.record
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
        this.#merged.set(
          name,
          write.resolve(name, this.#setup.record.latest.get(name), write.writes.get(name)),
        )
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
    const { record } = this.#setup
    // Ending a session never conflicts by itself, only with what the attempt still relies on.
    if (destroys && current.size === 0) return []
    const { latest } = record
    if (record.dead || (replaces && base !== latest)) return [{ ...this.#lostWhole(), mergeable: false }]
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
    return this.#write.base.get(name)?.version !== this.#setup.record.latest.get(name)?.version
  }

  #lostPart(name: string, onlyRead: boolean): LostPart {
    const found = this.#setup.record.latest.get(name)
    const baseVersion = this.#write.base.get(name)?.version ?? 0
    return { part: name, baseVersion, foundVersion: found?.version ?? 0, winner: found?.by, onlyRead }
  }

  #lostWhole(): LostPart {
    const { latest, lastWriter } = this.#setup.record
    const baseVersion = this.#write.base.version
    return { part: WHOLE, baseVersion, foundVersion: latest.version, winner: lastWriter, onlyRead: false }
  }

  commit(): void {
    const { writes, by, replaces, destroys } = this.#write
    const { record, touch, installed, ended } = this.#setup
    if (destroys) {
      if (record.dead) return
      record.die(by)
      ended()
    } else if (writes.size > 0 || replaces) {
      record.install(this.#merged ?? writes, by, replaces)
      installed(this.#merged ?? writes)
      touch()
    }
  }

  release(): void {
    const { holds } = this.#setup.record
    for (const part of this.#held.splice(0)) holds.release(part, this.#inDoubt)
  }

  doubt(): void {
    this.#inDoubt = true
    for (const part of this.#held) this.#setup.record.holds.doubt(part)
  }

  rollback(): void {
    this.#over = true
    this.#cancelWaiting?.()
    this.release()
  }
}

function modesOf(
  { writes, current, replaces, destroys }: SessionWrite,
  record: SessionRecord,
): Map<SessionPart, HoldMode> {
  const modes = new Map<SessionPart, HoldMode>()
  modes.set(WHOLE, replaces || destroys ? 'write' : 'change')
  for (const part of current) modes.set(part, 'read')
  for (const [name, settled] of writes) {
    modes.set(name, 'write')
    const changesNames = (settled === undefined) !== (record.latest.get(name) === undefined)
    if (changesNames) modes.set(NAMES, current.has(NAMES) ? 'write' : 'change')
  }
  return modes
}
