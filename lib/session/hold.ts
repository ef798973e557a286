/**
 * Who holds which part of a session while its owner is in COMMIT. Two holds of one part are compatible when they have
 * the same mode and that mode is not `write`. Waiting is first come, first served, and cannot deadlock as long as
 * everybody asks for parts in the order of `sortParts`. Nobody waits for a holder that is in doubt, whose COMMIT was
 * not answered: that may last as long as the database is away. Knows nothing of versions or values.
 */
import { SessionTxError } from '../errors.js'
import { NAMES, type SessionPart, WHOLE } from './store.js'

/**
 * `write` excludes everybody; `read` is shared by readers; `change` is shared by those who change parts of the whole
 * (commits of different variables) or add names, and excludes those who need it to stand still.
 */
export type HoldMode = 'write' | 'read' | 'change'

interface Hold {
  mode: HoldMode
  holders: number
  /** How many of the holders are in doubt. */
  doubts: number
  readonly waiting: Waiter[]
}

interface Waiter {
  readonly mode: HoldMode
  readonly turn: () => void
  readonly refuse: (error: SessionTxError) => void
}

export class HoldTable {
  readonly #holds = new Map<SessionPart, Hold>()

  get idle(): boolean {
    return this.#holds.size === 0
  }

  /** Parts that somebody is about to change; the whole only by replacing or destroying it. */
  changing(): SessionPart[] {
    const parts: SessionPart[] = []
    for (const [part, { mode, holders }] of this.#holds) {
      if (holders > 0 && (part === WHOLE ? mode === 'write' : mode !== 'read')) parts.push(part)
    }
    return parts
  }

  /**
   * Held now (undefined returned), or later; `cancel` gives up a place that is still waiting.
   * @throws STORE_UNAVAILABLE at once, or by `held`, if that would be to wait for a holder in doubt
   */
  acquire(
    part: SessionPart,
    mode: HoldMode,
  ): { readonly held: Promise<void>; cancel(): boolean } | undefined {
    const hold = this.#holds.get(part)
    if (hold === undefined) {
      this.#holds.set(part, { mode, holders: 1, doubts: 0, waiting: [] })
      return undefined
    }
    if (hold.waiting.length === 0 && compatible(hold.mode, mode)) {
      hold.holders += 1
      return undefined
    }
    if (hold.doubts > 0 && !compatible(hold.mode, mode)) throw inDoubt(part)
    let entry: Waiter | undefined
    const held = new Promise<void>((resolve, reject) => {
      entry = { mode, turn: resolve, refuse: reject }
      hold.waiting.push(entry)
    })
    const cancel = (): boolean => {
      const place = hold.waiting.findIndex(waiter => waiter === entry)
      if (place < 0) return false
      hold.waiting.splice(place, 1)
      this.#admit(part, hold)
      return true
    }
    return { held, cancel }
  }

  /** Waits until nobody holds anything, and keeps everybody from it until the returned function is called. */
  pause(): (() => void) | Promise<() => void> {
    const resume = (): void => this.release(WHOLE)
    const place = this.acquire(WHOLE, 'read')
    return place === undefined ? resume : place.held.then(() => resume)
  }

  /** One holder of the part is in doubt until it releases: those who wait for it are refused, and so is who comes. */
  doubt(part: SessionPart): void {
    const hold = this.#holds.get(part)
    if (hold === undefined) return
    hold.doubts += 1
    for (const waiter of hold.waiting.filter(({ mode }) => !compatible(hold.mode, mode))) {
      hold.waiting.splice(hold.waiting.indexOf(waiter), 1)
      waiter.refuse(inDoubt(part))
    }
    this.#admit(part, hold)
  }

  /** @param wasInDoubt this holder called {@link doubt} */
  release(part: SessionPart, wasInDoubt = false): void {
    const hold = this.#holds.get(part)
    if (hold === undefined) return
    hold.holders -= 1
    if (wasInDoubt) hold.doubts -= 1
    this.#admit(part, hold)
  }

  #admit(part: SessionPart, hold: Hold): void {
    for (let next = hold.waiting[0]; next !== undefined; next = hold.waiting[0]) {
      if (hold.holders > 0 && !compatible(hold.mode, next.mode)) return
      hold.waiting.shift()
      hold.mode = next.mode
      hold.holders += 1
      next.turn()
    }
    if (hold.holders === 0) this.#holds.delete(part)
  }
}

function compatible(present: HoldMode, wanted: HoldMode): boolean {
  return present === wanted && present !== 'write'
}

function inDoubt(part: SessionPart): SessionTxError {
  const what =
    part === WHOLE
      ? 'the session'
      : part === NAMES
        ? "the set of the session's variables"
        : `session variable '${part}'`
  const message = `${what} is held by a transaction whose COMMIT was not answered, until it is known what became of it`
  return new SessionTxError('STORE_UNAVAILABLE', message)
}

/** The one order in which everybody takes holds: the whole, the names, then variables by name. */
export function sortParts(parts: Iterable<SessionPart>): SessionPart[] {
  return [...parts].sort((a, b) => rank(a) - rank(b) || (String(a) < String(b) ? -1 : 1))
}

function rank(part: SessionPart): number {
  if (part === WHOLE) return 0
  return part === NAMES ? 1 : 2
}
