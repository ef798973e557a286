/**
 * One session of the memory store: its variables, who holds what of it, when it was last used. Knows nothing of attempts.
 */
import { HoldTable } from '../session/hold.js'
import type { Settled, StoredVariable } from '../session/store.js'
import { type Version, VersionedVariables } from './versioned-variables.js'

export class SessionRecord {
  readonly createdAt: number
  touchedAt: number
  pins = 0
  dead = false
  expiryReported = false
  /** The key of the user whose session it is. */
  user: string | undefined
  readonly holds = new HoldTable()
  readonly #variables = new VersionedVariables()
  /** Route of the last commit. */
  lastWriter: string | undefined

  constructor(now: number) {
    this.createdAt = now
    this.touchedAt = now
  }

  get latest(): Version {
    return this.#variables.latest
  }

  install(writes: ReadonlyMap<string, Settled | undefined>, by: string, whole: boolean): void {
    const version = this.latest.version + 1
    const stored = new Map<string, StoredVariable | undefined>()
    for (const [name, settled] of writes)
      stored.set(name, settled && { value: settled.value, sizeBytes: settled.sizeBytes, version, by })
    this.#variables.install(stored, whole)
    this.lastWriter = by
  }

  /** Nobody can commit to it any more. */
  die(by: string): void {
    this.dead = true
    this.lastWriter = by
    this.#variables.end()
  }
}
