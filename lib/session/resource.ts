/**
 * A session as a participant of a transaction (the contract is transaction/resource.ts): turns a working copy into
 * claims on its store. Knows no back-end, no SQL, no HTTP.
 */
import { SessionTxError } from '../errors.js'
import { type Decider, isPending, type TwoPhaseResource } from '../transaction/resource.js'
import type { DraftScope } from './draft.js'
import { sessionKey } from './identity.js'
import { merge, sessionConflict } from './merge.js'
import type { Resolver } from './resolvers.js'
import {
  type LostPart,
  type AttemptTransaction,
  type Claim,
  type NAMES,
  type OpenSession,
  type SessionStore,
  type SessionWrite,
  type Settled,
  type StoredVariable,
} from './store.js'
import type { SessionPlan } from './session-plan.js'
import type { WorkingCopy } from './working-copy.js'

/** A variable is the turn of another request, which lost a race for it before. */
export interface Reservation {
  /** Its route, if it says so. */
  readonly by: string | undefined
}

export interface SessionResourceSetup {
  readonly store: SessionStore
  readonly copy: WorkingCopy
  readonly drafts: DraftScope
  readonly resolvers: ReadonlyMap<string, Resolver>
  readonly sizeBytesMax: number
  /** `serializable`: whatever was read must still be current. */
  readonly validatesReads: boolean
  readonly reservation: (name: string) => Reservation | undefined
  /** Route of the request, asked for when there is something to write. */
  readonly route: () => string
  /** Hears the key of a session that this attempt ended. */
  readonly ended: (key: string) => void
  /** The attempt's transaction in the database, for a store that commits with it. */
  readonly transaction?: AttemptTransaction | undefined
}

const NOTHING: ReadonlySet<string | typeof NAMES> = new Set()

export class SessionResource implements TwoPhaseResource {
  readonly phases = 2
  readonly name = 'session'
  readonly #setup: SessionResourceSetup
  #claims: Claim[] = []
  #created: OpenSession | undefined
  #plan: SessionPlan | undefined
  #resolved: string[] | undefined
  #touched = false
  #cameTooLate = false
  /** Its answer decides. */
  #deciding: Claim | undefined

  constructor(setup: SessionResourceSetup) {
    this.#setup = setup
  }

  /** What was committed, for the cookie; undefined before, and when nothing was. */
  get committedPlan(): SessionPlan | undefined {
    return this.#plan
  }
  /** The idle time was moved. */
  get touched(): boolean {
    return this.#touched
  }
  /** It was to end a session that somebody else had ended already. */
  get cameTooLate(): boolean {
    return this.#cameTooLate
  }
  /** Variables that a resolver merged. */
  get resolved(): readonly string[] {
    return this.#resolved ?? []
  }

  /** @throws CONFLICT SESSION_VALUE SESSION_TOO_LARGE */
  async #prepareClaims(
    plan: SessionPlan | undefined,
    current: ReadonlySet<string | typeof NAMES>,
  ): Promise<void> {
    for (const claim of await this.#makeClaims(plan, current)) {
      // Remembered before it is prepared: a rollback must also stop one that waits.
      this.#claims.push(claim)
      await claim.prepare()
    }
  }

  prepare(): void | Promise<void> {
    const { copy, validatesReads } = this.#setup
    const plan = copy.plan()
    const current = copy.partsToValidate(validatesReads)
    if (plan === undefined && current.size === 0 && this.#seen.size === 0) return
    if (plan !== undefined) {
      this.#assertSize(plan)
      this.#giveWay(plan)
    }
    this.#plan = plan
    const { opened } = copy
    // One existing session is by far the most common case; it needs no promise unless its keys are held.
    if (opened === undefined || plan?.newId !== undefined) return this.#prepareClaims(plan, current)
    const write = this.#write(opened.key, plan, current, plan?.endsOld ?? false)
    const claim = opened.claim(write, this.#setup.transaction)
    this.#claims.push(claim)
    return claim.prepare()
  }

  /** A staged store commits what there is to commit in one step, where the database has nothing to decide. */
  alone(): Decider | undefined {
    const { store, copy } = this.#setup
    if (store.capability !== 'staged' || copy.plan() === undefined) return undefined
    return {
      name: store.name,
      commit: () => this.#decide(),
      abandon: () => {
        for (const claim of this.#claims) claim.abandon?.()
      },
      findOut: () => this.#deciding?.findOut?.(),
    }
  }

  /**
   * Of two sessions the old one's end decides: it comes last, and until then nobody knows the id of the new one.
   * @throws CONFLICT SESSION_VALUE SESSION_TOO_LARGE COMMIT_UNKNOWN
   */
  async #decide(): Promise<void> {
    const { copy, validatesReads } = this.#setup
    const plan = copy.plan()
    if (plan === undefined) return
    this.#assertSize(plan)
    this.#giveWay(plan)
    this.#plan = plan
    for (const claim of (await this.#makeClaims(plan, copy.partsToValidate(validatesReads))).toReversed()) {
      this.#claims.push(claim)
      this.#deciding = claim
      await claim.decide?.()
    }
  }

  /**
   * For an attempt that is going to be rolled back: was what it read current? Its answer is built on that all the same.
   * @throws CONFLICT
   */
  verify(): void | Promise<void> {
    const { copy, transaction } = this.#setup
    if (copy.opened === undefined || this.#seen.size === 0) return
    const claim = copy.opened.claim(this.#write(copy.opened.key, undefined, NOTHING, false), transaction)
    this.#claims.push(claim)
    return claim.prepare()
  }

  /** What a store that may have handed out something old has to look after. */
  get #seen(): ReadonlySet<string | typeof NAMES> {
    const { copy, store } = this.#setup
    return store.capability === 'local' || copy.opened === undefined ? NOTHING : copy.partsRead
  }

  async #makeClaims(
    plan: SessionPlan | undefined,
    current: ReadonlySet<string | typeof NAMES>,
  ): Promise<readonly Claim[]> {
    const { copy, store, transaction } = this.#setup
    const { opened } = copy
    const claims: Claim[] = []
    const ends = plan?.endsOld ?? false
    if (opened !== undefined && plan?.newId === undefined) {
      claims.push(opened.claim(this.#write(opened.key, plan, current, ends), transaction))
    } else if (opened !== undefined && (ends || current.size > 0)) {
      claims.push(opened.claim(this.#write(opened.key, undefined, current, ends), transaction))
    }
    if (plan?.newId !== undefined) {
      const key = sessionKey(plan.newId)
      const created = store.create(key)
      this.#created = isPending(created) ? await created : created
      const write = { ...this.#write(key, plan, NOTHING, false), base: this.#created.snapshot() }
      claims.push(this.#created.claim({ ...write, seen: NOTHING }, transaction))
    }
    return claims
  }

  #write(
    key: string,
    plan: SessionPlan | undefined,
    current: ReadonlySet<string | typeof NAMES>,
    destroys: boolean,
  ): SessionWrite {
    const { copy, store, route } = this.#setup
    const { base } = copy
    return {
      base,
      by: route(),
      writes: plan?.writes ?? new Map(),
      current,
      seen: this.#seen,
      replaces: plan?.replaces ?? false,
      destroys,
      resolves: name => this.#setup.resolvers.has(name),
      resolve: (name, found, mine) => this.#resolve(name, base.get(name), found, mine),
      conflict: lost => sessionConflict(store.name, key, lost),
    }
  }

  #resolve(
    name: string,
    base: StoredVariable | undefined,
    found: StoredVariable | undefined,
    mine: Settled | undefined,
  ): Settled | undefined {
    const { resolvers, drafts } = this.#setup
    const resolver = resolvers.get(name)
    if (resolver === undefined) throw new TypeError(`'${name}' has no resolver`)
    const settle = (value: unknown, path: string): Settled => drafts.settle(value, path)
    const merged = merge({ name, base, found, mine, resolver, settle })
    this.#resolved ??= []
    this.#resolved.push(name)
    return merged
  }

  #giveWay(plan: SessionPlan): void {
    const { copy, store, resolvers, reservation } = this.#setup
    if (copy.opened === undefined || plan.endsOld) return
    const lost: LostPart[] = []
    for (const name of plan.writes.keys()) {
      const reserved = resolvers.has(name) ? undefined : reservation(name)
      if (reserved === undefined) continue
      const baseVersion = copy.base.get(name)?.version ?? 0
      const { by: winner } = reserved
      lost.push({ part: name, baseVersion, foundVersion: undefined, winner, onlyRead: false })
    }
    if (lost.length > 0) throw sessionConflict(store.name, copy.opened.key, lost)
  }

  #assertSize(plan: SessionPlan): void {
    const { copy, sizeBytesMax } = this.#setup
    const { base } = copy
    const fresh = plan.newId !== undefined
    let sizeBytes = fresh ? 0 : base.sizeBytes
    for (const [name, settled] of plan.writes) {
      sizeBytes += (settled?.sizeBytes ?? 0) - (fresh ? 0 : (base.get(name)?.sizeBytes ?? 0))
    }
    if (sizeBytes <= sizeBytesMax) return
    const message = `the session would take ${sizeBytes} bytes; session.sizeBytesMax is ${sizeBytesMax}`
    throw new SessionTxError('SESSION_TOO_LARGE', message)
  }

  commit(): void | Promise<void> {
    const { copy, ended } = this.#setup
    if (copy.touchedSession) this.#touched = copy.opened?.touch() ?? false
    if (this.#claims.length === 0) return
    if (this.#plan?.endsOld === true && copy.opened !== undefined) {
      this.#cameTooLate = copy.opened.ended
      if (!this.#cameTooLate) ended(copy.opened.key)
    }
    const pending: Promise<void>[] = []
    for (const claim of this.#claims) {
      const work = claim.commit()
      if (isPending(work)) pending.push(work)
    }
    if (pending.length > 0) return Promise.all(pending).then(() => {})
  }

  release(): void {
    for (const claim of this.#claims) claim.release()
    this.#letGo()
  }

  doubt(): void {
    for (const claim of this.#claims) claim.doubt()
  }

  rollback(): void {
    this.#plan = undefined
    for (const claim of this.#claims) claim.rollback()
    this.#letGo()
  }

  #letGo(): void {
    this.#claims = []
    this.#created?.release()
    this.#created = undefined
    this.#setup.copy.opened?.release()
  }

  savepoint(): () => void {
    return this.#setup.copy.savepoint()
  }
}
