/**
 * What one attempt sees of a session and wants to change: a snapshot, drafts of what was touched, a read set and a
 * write set. Dropping it is the whole rollback. Knows nothing of stores beyond their contract, nor of HTTP.
 *
 * Access is synchronous. A variable is drafted on its first read as an object; nothing else of the session is copied,
 * whatever its size. What a handler assigns stays its own object until the commit copies it.
 */
import { SessionTxError } from '../errors.js'
import { COOKIE_PART } from './cookie-settings.js'
import type { DraftScope } from './draft.js'
import { newSessionId } from './identity.js'
import { tornConflict } from './merge.js'
import type { SessionPlan } from './session-plan.js'
import {
  type Disturbance,
  NAMES,
  type OpenSession,
  type SessionPart,
  type SessionSnapshot,
  type Settled,
  type StoredVariable,
} from './store.js'

/** A touched variable. `written`: assigned; otherwise `value` is a draft, which knows itself whether it changed. */
interface Slot {
  readonly value: unknown
  readonly written: boolean
}

export type Variables = Pick<WorkingCopy, 'get' | 'has' | 'names'>

/** What becomes of the session itself. */
type Fate =
  | { readonly kind: 'kept' }
  | { readonly kind: 'destroyed' }
  /** The old id dies; the variables go on under a new one. */
  | { readonly kind: 'regenerated'; readonly id: string }

/** Everything that rolling back a savepoint restores, drafts' contents aside. */
interface Bookkeeping {
  slots: Map<string, Slot>
  /** True once names of the snapshot no longer show through: replaced or regenerated. */
  cleared: boolean
  replaced: boolean
  fate: Fate
}

export interface WorkingCopySetup {
  readonly store: string
  /** Undefined: there is no session yet. */
  readonly opened: OpenSession | undefined
  /** The id in the cookie that led to `opened`. */
  readonly id: string | undefined
  /** The session died under an earlier attempt of this request: show an empty one and never store it. */
  readonly bereaved: boolean
  readonly drafts: DraftScope
  /** Throws if the attempt has ended or lost. */
  assertUsable(): void
  /** Throws if the attempt may not write any more, or not at all. */
  assertWritable(): void
  /** The variable has a resolver: what others commit to it meanwhile is merged with what is written here. */
  merges(name: string): boolean
  /** Makes the attempt lose: what it has read does not fit together. */
  lose(conflict: SessionTxError): void
}

const EMPTY: SessionSnapshot = Object.freeze({
  version: 0,
  sizeBytes: 0,
  get: () => undefined,
  names: () => [],
})

export class WorkingCopy {
  readonly #setup: WorkingCopySetup
  #snapshot: SessionSnapshot | undefined
  readonly #reads = new Set<string | typeof NAMES>()
  readonly #current = new Set<string | typeof NAMES>()
  #now: Bookkeeping = { slots: new Map(), cleared: false, replaced: false, fate: { kind: 'kept' } }
  /** Parts that changed, or were being committed, while the rows' read view may have opened. */
  #unreadable: Disturbance | undefined
  #newId: string | undefined
  #touched = false
  /** Drafts made since the first savepoint: going back to it leaves them what they are, the handler may hold them. */
  #draftedSince: Map<string, Slot> | undefined

  constructor(setup: WorkingCopySetup) {
    this.#setup = setup
  }

  // ── reading and writing, for the session object ────────────────────────────────────────────────────────────────

  get(name: string): unknown {
    this.#assertAlive()
    return this.#read(this.#now, name)
  }

  #read({ slots, cleared }: Bookkeeping, name: string): unknown {
    const slot = slots.get(name)
    if (slot !== undefined) return slot.value
    const value = this.#stored(name, cleared)?.value
    if (typeof value !== 'object' || value === null) return value
    const draft = this.#setup.drafts.draft(value)
    const drafted = { value: draft, written: false }
    slots.set(name, drafted)
    this.#draftedSince?.set(name, drafted)
    return draft
  }

  has(name: string): boolean {
    this.#assertAlive()
    const slot = this.#now.slots.get(name)
    return slot === undefined ? this.#stored(name) !== undefined : slot.value !== undefined
  }

  /** Assigning undefined removes the variable: a session has no variables without a value. */
  set(name: string, value: unknown): void {
    this.#setup.assertWritable()
    this.#assertAlive()
    this.takeSnapshot()
    this.#now.slots.set(name, { value, written: true })
  }

  names(): string[] {
    this.#assertAlive()
    return this.#listed(this.#now)
  }

  #listed({ slots, cleared }: Bookkeeping): string[] {
    const names = new Set<string>()
    if (!cleared) {
      this.#reads.add(NAMES)
      this.#assertReadable(NAMES)
      for (const name of this.base.names()) names.add(name)
    }
    for (const [name, slot] of slots) {
      if (slot.value === undefined) names.delete(name)
      else names.add(name)
    }
    return [...names]
  }

  /** The variables of now, to be read after `regenerate()`. What is read then may be taken over: it must still be current. */
  past(): Variables {
    const then = { ...this.#now, slots: new Map(this.#now.slots) }
    const get = (name: string): unknown => {
      this.#current.add(name)
      return this.#read(then, name)
    }
    return { get, has: name => get(name) !== undefined, names: () => this.#listed(then) }
  }

  /** `ctx.session = { … }`. After a destroy it starts a session of its own. */
  replace(variables: Readonly<Record<string, unknown>>): void {
    this.#setup.assertWritable()
    this.takeSnapshot()
    if (this.#now.fate.kind === 'destroyed') this.#now.fate = { kind: 'regenerated', id: newSessionId() }
    else this.#now.replaced = true
    this.#now.cleared = true
    const entries = Object.entries(variables).map(
      ([name, value]) => [name, { value, written: true }] as const,
    )
    this.#now.slots = new Map(entries)
  }

  destroy(): void {
    this.#setup.assertWritable()
    this.#now.fate = { kind: 'destroyed' }
  }

  /** A new id; the variables named in `keep` go along, the others stay behind and die with the old id. */
  regenerate(keep: readonly string[]): void {
    this.#setup.assertWritable()
    this.#assertAlive()
    const kept = keep
      .filter(name => this.has(name))
      .map(name => [name, { value: this.get(name), written: true }] as const)
    // What goes along must still be what is stored: the session that ends is not written.
    for (const [name] of kept) this.#current.add(name)
    this.#now.slots = new Map(kept)
    this.#now.cleared = true
    this.#now.replaced = false
    this.#now.fate = { kind: 'regenerated', id: newSessionId() }
  }

  /** Must still be as read at commit. */
  keepCurrent(name: string): void {
    this.#setup.assertUsable()
    this.#stored(name)
    this.#current.add(name)
  }

  touch(): void {
    this.#touched = true
  }

  /** Present id: of the cookie, of `regenerate`, or a new one that is used if the session comes to be stored. */
  get id(): string {
    const { fate } = this.#now
    if (fate.kind === 'regenerated') return fate.id
    if (this.#setup.opened !== undefined && this.#setup.id !== undefined) return this.#setup.id
    this.#newId ??= newSessionId()
    return this.#newId
  }
  get isNew(): boolean {
    return this.#setup.opened === undefined || this.#now.fate.kind === 'regenerated'
  }
  get destroyed(): boolean {
    return this.#now.fate.kind === 'destroyed'
  }

  /** Forgets what this attempt changed; reads go on seeing the same snapshot. */
  reload(): void {
    this.#setup.assertWritable()
    this.#now = { slots: new Map(), cleared: false, replaced: false, fate: { kind: 'kept' } }
  }

  savepoint(): () => void {
    const mark: Bookkeeping = { ...this.#now, slots: new Map(this.#now.slots) }
    const assigned = [...this.#now.slots.values()].filter(({ written }) => written).map(({ value }) => value)
    const restoreContents = this.#setup.drafts.savepoint(assigned)
    this.#draftedSince ??= new Map()
    const drafted = this.#draftedSince
    return () => {
      restoreContents()
      this.#now = mark
      if (mark.cleared) return
      for (const [name, slot] of drafted) if (!mark.slots.has(name)) mark.slots.set(name, slot)
    }
  }

  // ── the joint snapshot (the rules are in joint/snapshot.ts) ────────────────────────────────────────────────────

  get opened(): OpenSession | undefined {
    return this.#setup.bereaved ? undefined : this.#setup.opened
  }

  /** The snapshot, taken at its first use. */
  get base(): SessionSnapshot {
    return this.takeSnapshot()
  }

  /** Also by a write that reads nothing: whoever commits the variable from now on was first. */
  takeSnapshot(): SessionSnapshot {
    this.#snapshot ??= this.opened?.snapshot() ?? EMPTY
    return this.#snapshot
  }

  get touchedSession(): boolean {
    return (
      this.#snapshot !== undefined ||
      this.#touched ||
      this.#now.slots.size > 0 ||
      this.#now.fate.kind !== 'kept'
    )
  }

  /** Moves the snapshot to now, if nothing that was read has changed or is held. */
  advance(): boolean {
    const { opened } = this
    if (opened === undefined) return true
    const disturbance = opened.disturbance(this.base)
    if (this.#lostRead(disturbance) !== undefined) return false
    this.#snapshot = opened.snapshot()
    this.#unreadable = undefined
    return true
  }

  /**
   * After an answer that may have opened the rows' view: what was read must not have changed since the snapshot, what
   * was not read and has changed can no longer be read. Returns the lost race, if it is one.
   */
  checkSinceSnapshot(): SessionTxError | undefined {
    const { opened } = this
    if (opened === undefined) return undefined
    const disturbance = opened.disturbance(this.base)
    this.#unreadable = disturbance.none ? undefined : disturbance
    const lost = this.#lostRead(disturbance, name => this.#setup.merges(name) && this.#changes(name))
    return lost === undefined ? undefined : this.#tornConflict(lost)
  }

  /** Others are committing to the session, or have since the snapshot. */
  get isDisturbed(): boolean {
    return this.#unreadable !== undefined
  }

  /** What the attempt read only to change it, and what is merged at commit, is not lost. */
  #lostRead(disturbance: Disturbance, isMerged?: (name: string) => boolean): SessionPart | undefined {
    if (disturbance.none) return undefined
    for (const part of this.#reads) {
      if (disturbance.has(part) && !(typeof part === 'string' && isMerged?.(part) === true)) return part
    }
    return undefined
  }

  #tornConflict(part: SessionPart): SessionTxError {
    const { opened, base } = this
    const isVariable = typeof part === 'string'
    const seen = isVariable ? (base.get(part)?.version ?? 0) : base.version
    const found = isVariable ? opened?.snapshot().get(part) : undefined
    const isWritten = isVariable && this.#changes(part)
    const isShared = opened?.catchUp !== undefined
    const key = opened?.key ?? ''
    return tornConflict(this.#setup.store, key, { part, baseVersion: seen, found, isWritten, isShared })
  }

  /** The attempt has changed this variable so far. */
  #changes(name: string): boolean {
    const slot = this.#now.slots.get(name)
    return slot !== undefined && (slot.written || this.#setup.drafts.isChanged(slot.value as object))
  }

  #assertReadable(part: string | typeof NAMES): void {
    if (this.#unreadable?.has(part) !== true) return
    const conflict = this.#tornConflict(part)
    this.#setup.lose(conflict)
    throw conflict
  }

  #stored(name: string, cleared = this.#now.cleared): StoredVariable | undefined {
    if (cleared) return undefined
    this.#assertReadable(name)
    this.#reads.add(name)
    return this.base.get(name)
  }

  #assertAlive(): void {
    if (this.#now.fate.kind !== 'destroyed') return
    throw new SessionTxError(
      'SESSION_DESTROYED',
      'the session was destroyed by this request; assign a new one to go on',
    )
  }

  // ── the commit ─────────────────────────────────────────────────────────────────────────────────────────────────

  /** Everything that was read from the snapshot. */
  get partsRead(): ReadonlySet<string | typeof NAMES> {
    return this.#reads
  }

  /** Parts that were read, for `serializable`, and those that `readCurrent` named. */
  partsToValidate(everythingRead: boolean): ReadonlySet<string | typeof NAMES> {
    return everythingRead ? this.#reads : this.#current
  }

  /**
   * What changed, validated and copied; undefined if nothing did.
   * @throws SESSION_VALUE
   */
  plan(): SessionPlan | undefined {
    const { slots, fate, replaced, cleared } = this.#now
    if (this.#snapshot === undefined && slots.size === 0 && fate.kind === 'kept' && !replaced)
      return undefined
    const opened = this.opened
    if (fate.kind === 'destroyed') {
      return opened === undefined
        ? undefined
        : { writes: new Map(), replaces: false, endsOld: true, newId: undefined }
    }
    const writes = new Map<string, Settled | undefined>()
    if (cleared && fate.kind === 'kept') for (const name of this.base.names()) writes.set(name, undefined)
    for (const [name, slot] of slots)
      this.#planSlot(name, slot, cleared ? undefined : this.base.get(name), writes)
    // Stored even if it is empty: the cookie must not name a session that nobody knows.
    if (fate.kind === 'regenerated')
      return { writes, replaces: true, endsOld: opened !== undefined, newId: fate.id }
    if (opened !== undefined) {
      return writes.size > 0 || replaced
        ? { writes, replaces: replaced, endsOld: false, newId: undefined }
        : undefined
    }
    // A new session without a variable is not stored, and neither is one whose id died under an earlier attempt.
    const isEmpty = writes.size === 0 || (writes.size === 1 && writes.has(COOKIE_PART))
    if (isEmpty || this.#setup.bereaved) return undefined
    return { writes, replaces: false, endsOld: false, newId: this.id }
  }

  #planSlot(
    name: string,
    slot: Slot,
    base: StoredVariable | undefined,
    writes: Map<string, Settled | undefined>,
  ): void {
    const { drafts } = this.#setup
    if (slot.value === undefined) {
      if (base !== undefined) writes.set(name, undefined)
      return
    }
    if (!slot.written && !drafts.isChanged(slot.value as object)) return
    const settled = drafts.settle(slot.value, name)
    // Assigned what was there already: not a write, so it cannot lose a race.
    if (base !== undefined && Object.is(settled.value, base.value)) return
    writes.set(name, settled)
  }
}
