/** What a request has to do with what others keep losing on its route (transaction/heat.ts). Knows no HTTP. */
import type { ConflictDetails } from '../errors.js'
import { shownKey } from '../session/identity.js'
import type { Heat } from '../transaction/heat.js'
import type { AttemptOrder } from '../transaction/retry.js'
import { type JointRequest, keyOfSession } from './request.js'
import { ticketKeysOf } from './ticket-keys.js'

const NONE: readonly string[] = Object.freeze([])

/**
 * What to queue for before the first attempt.
 * @param careful the request cannot run again
 */
export function expectedTicketKeys(
  request: JointRequest<unknown>,
  heat: Heat,
  careful: boolean,
): readonly string[] {
  if (heat.isCold || request.readOnly) return NONE
  const address = request.address?.()
  if (address === undefined) return NONE
  const key = keyOfSession(request)
  const parts = heat.partsAt(address, careful)
  return ticketKeysOf(parts, key === undefined ? undefined : shownKey(key))
}

/** Only of what whoever does the same loses again: with what was just read, the next attempt may well fit. */
export function noteLost(
  request: JointRequest<unknown>,
  heat: Heat,
  order: AttemptOrder,
  conflict: ConflictDetails | undefined,
  parts: readonly string[],
): void {
  const kind = conflict?.kind
  const isHeating = kind === 'variable' || kind === 'row' || kind === 'deadlock'
  const address = isHeating && isFirst(order) ? request.address?.() : undefined
  if (address !== undefined) heat.lost(address, request.route(), parts)
}

export function noteWon(request: JointRequest<unknown>, heat: Heat, order: AttemptOrder): void {
  const address = !heat.isCold && isFirst(order) ? request.address?.() : undefined
  if (address !== undefined) heat.won(address, request.route())
}

/** Its outcome says whether others would lose there. */
function isFirst({ attempt, ticketKeys }: AttemptOrder): boolean {
  return attempt === 1 && ticketKeys.length === 0
}
