/**
 * What happens to a variable that two transactions wrote: its resolver merges the two values, or it is a conflict. Pure
 * but for calling the application's resolver. Knows nothing of stores, holds or transactions.
 */
import { conflictError, type SessionTxError } from '../errors.js'
import { shownKey } from './identity.js'
import type { Resolver } from './resolvers.js'
import { type LostPart, NAMES, type SessionPart, type Settled, type StoredVariable, WHOLE } from './store.js'
import { detach } from './value.js'

interface MergeInput {
  readonly name: string
  readonly base: StoredVariable | undefined
  readonly found: StoredVariable | undefined
  readonly mine: Settled | undefined
  readonly resolver: Resolver
  /** Validates and copies what the resolver returned, like any written value. */
  readonly settle: (value: unknown, path: string) => Settled
}

/**
 * The merged value; undefined removes the variable. The resolver gets copies: one that is not as pure as it should be
 * can spoil neither a committed value nor an attempt.
 * @throws whatever the resolver throws; SESSION_VALUE if it returned something that cannot be stored
 */
export function merge({ name, base, found, mine, resolver, settle }: MergeInput): Settled | undefined {
  const merged = resolver(copy(base), copy(found), copy(mine))
  if (
    merged !== null &&
    typeof merged === 'object' &&
    typeof (merged as { then?: unknown }).then === 'function'
  ) {
    throw new TypeError(`the resolver of '${name}' returned a promise; resolvers are synchronous`)
  }
  return merged === undefined ? undefined : settle(merged, name)
}

function copy(settled: Settled | undefined): unknown {
  return settled === undefined ? undefined : detach(settled.value)
}

/** Says of a lost session which variables, which versions and who won. */
export function sessionConflict(store: string, key: string, lost: readonly LostPart[]): SessionTxError {
  const [first] = lost
  const session = shownKey(key)
  if (first === undefined) throw new TypeError('a conflict needs at least one lost part')
  const stale = first.part !== WHOLE && lost.every(part => part.stale === true)
  const kind = stale ? 'stale' : kindOf(first)
  // Of a stale session only what would have been written is queued for.
  const names = lost.filter(({ onlyRead }) => !stale || !onlyRead).map(({ part }) => partName(part))
  return conflictError(
    `session ${session}${whatHappened(lost, first)}`,
    {
      kind,
      store,
      session,
      variable: partName(first.part),
      lost: names,
      baseVersion: first.baseVersion,
      ...(first.foundVersion === undefined ? {} : { foundVersion: first.foundVersion }),
      ...(first.winner === undefined ? {} : { winner: first.winner }),
      ...(stale ? { free: true as const } : {}),
    },
    first.cause,
  )
}

function whatHappened(lost: readonly LostPart[], first: LostPart): string {
  const { part, winner, baseVersion, foundVersion } = first
  const all = lost.map(one => `'${partName(one.part)}'`).join(', ')
  if (foundVersion === undefined)
    return `: ${all} is another request's turn${winner === undefined ? '' : ` (${winner})`} at version ${baseVersion}`
  const by = winner === undefined ? '' : ` by ${winner}`
  const what = part === WHOLE ? ' was replaced or ended' : `: ${all} committed`
  return `${what}${by} meanwhile (started from version ${baseVersion}, found ${foundVersion})`
}

/** What was seen of a session at another moment than the rows. */
interface TornPart {
  readonly part: SessionPart
  readonly baseVersion: number
  readonly found: StoredVariable | undefined
  /** The attempt also writes it. */
  readonly isWritten: boolean
  /** Of a store whose snapshots may be old: nobody need have committed it after it was read. */
  readonly isShared: boolean
}

/**
 * What the attempt writes would be lost at commit, so it is an ordinary lost race, told early; what it only read makes
 * it see the two sides at two moments.
 */
export function tornConflict(
  store: string,
  key: string,
  { part, baseVersion, found, isWritten, isShared }: TornPart,
): SessionTxError {
  const variable = typeof part === 'string' ? part : '(names)'
  const session = shownKey(key)
  const details = {
    store,
    session,
    variable,
    lost: [variable],
    baseVersion,
    foundVersion: found?.version ?? 0,
    ...(found === undefined ? {} : { winner: found.by }),
  }
  if (isWritten) {
    const message = `session ${session}: '${variable}' committed by another request meanwhile`
    return conflictError(message, { kind: 'variable', ...details })
  }
  const message = `session ${session}: '${variable}' was committed between the moments at which session and rows were seen`
  return conflictError(message, { kind: isShared ? 'stale' : 'snapshot', free: true, ...details })
}

function kindOf({ part, onlyRead }: LostPart): 'session' | 'names' | 'read' | 'variable' {
  if (part === WHOLE) return 'session'
  if (part === NAMES) return 'names'
  return onlyRead ? 'read' : 'variable'
}

function partName(part: SessionPart): string {
  if (part === WHOLE) return '(session)'
  return part === NAMES ? '(names)' : part
}
